"""Settings as part of keys: weights by content, plug-ins with their code."""

import hashlib
import re
import sys
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from fsasd.data.content import content_hash
from fsasd.detectors.knn import KNN
from fsasd.settings.code import code_of, package_code
from fsasd.settings.spec import spec_of


@dataclass
class Encoder:
    checkpoint: str


def spec(settings):
    return spec_of(settings, content_hash)


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Write modules of a plug-in, as if each time for another process."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, source):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        package_code.cache_clear()

    yield write
    package_code.cache_clear()


def test_plain_settings_stay_as_they_are():
    settings = {"k": 1, "r": [0.5, None], "mode": "mean", "on": True, "_target_": "fsasd.a.B"}
    assert spec(settings) == settings


def test_objects_are_described():
    assert spec(KNN(k=2))["params"]["k"] == 2
    assert spec({"r": np.float32(0.5)}) == {"r": 0.5}
    with pytest.raises(TypeError, match="cannot be saved"):
        spec({"x": object()})


@pytest.mark.parametrize("name", ["checkpoint", "whatever", "0"])
def test_a_file_is_its_content_whatever_the_setting_is_called(tmp_path, monkeypatch, name):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"1")
    first = spec({name: [str(weights)]})
    assert first == {name: [f"sha256:{content_hash(weights)}"]}
    assert spec(Encoder(str(weights)))["params"] == {"checkpoint": first[name][0]}
    monkeypatch.chdir(tmp_path)
    assert spec({name: ["weights.pt"]}) == spec({name: ["./weights.pt"]}) == first
    weights = weights.rename("other.pt")
    assert spec({name: [str(weights)]}) == first
    weights.write_bytes(b"2")
    assert spec({name: [str(weights)]}) != first


@pytest.mark.parametrize("name", ["model.safetensors", "unet/model.safetensors"])
def test_a_folder_with_weights_is_its_content(tmp_path, monkeypatch, name):
    folder, weights = tmp_path / "model", tmp_path / "model" / name
    weights.parent.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert spec(str(folder)) == str(folder)
    weights.write_bytes(b"1")
    hashes = content_hash(folder / "config.json"), content_hash(weights)
    # The form is that of the keys in the stores of users.
    lines = f"config.json {hashes[0]}\n{name} {hashes[1]}\n"
    first = spec(str(folder))
    assert first == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
    monkeypatch.chdir(tmp_path)
    (folder / ".git").mkdir()
    (folder / ".git/HEAD").write_text("1")
    assert spec("model") == spec("model/") == first
    (folder / "config.json").write_text("{1}")
    assert spec("model") != first


@pytest.mark.parametrize("text", ["", ".", "..", "mean", "cvssp/audioldm", "a" * 5000, "a\0b"])
def test_a_word_stays_a_word(tmp_path, monkeypatch, text):
    (tmp_path / "weights.pt").write_bytes(b"1")
    (tmp_path / "mean").mkdir()
    monkeypatch.chdir(tmp_path)
    assert spec(text) == text


@pytest.mark.parametrize(
    "settings",
    [
        {"_target_": "my_package.front.Front"},
        {"x": [{"_target_": "my_package.front.Front.louder"}]},
        {"class": "my_package.front.Front", "params": {}},
    ],
)
def test_code_of_a_plug_in_is_that_of_its_whole_package(plugins, settings):
    plugins("my_package/__init__.py", "")
    plugins("my_package/front.py", "from my_package.inner import helper\nclass Front: pass")
    before = spec(settings)
    assert spec(settings) == before
    plugins("my_package/.checkpoints/helper.py", "x = 1")
    plugins("my_package/venv/lib/site-packages/other.py", "x = 1")
    assert spec(settings) == before
    plugins("my_package/inner/helper.py", "x = 1")
    helped = spec(settings)
    assert helped != before
    plugins("my_package/inner/helper.py", "x = 2")
    assert spec(settings) != helped
    plugins("my_other/__init__.py", "")
    plugins("my_package/inner/helper.py", "x = 1")
    assert spec(settings) == helped


def test_code_of_a_module_is_that_of_its_neighbours_that_it_imports(plugins):
    plugins("my_detector.py", "def f():\n    import my_layers, numpy\n    import my_losses")
    plugins("my_layers.py", "from my_parts.heads import Head")
    plugins("my_losses.py", "from numpy import log")
    plugins("my_parts/heads.py", "import numpy")
    settings = {"_target_": "my_detector.Detector"}
    before = spec(settings)
    assert re.fullmatch(r"[0-9a-f]{16}", before["_code_"])
    plugins("my_unrelated.py", "x = 1")
    plugins("my_parts/tails.py", "import numpy")
    assert spec(settings) == before
    plugins("my_parts/__init__.py", "")
    assert spec(settings) != before
    altered = ["my_layers", "my_losses", "my_parts/heads", "my_parts/tails"]
    for name in altered:
        package = spec(settings)
        plugins(f"{name}.py", "import my_parts.heads, numpy")
        assert spec(settings) != package, name
    plugins("my_detector.py", "this is no Python")
    assert "_code_" in spec(settings)


def test_code_of_an_installed_module_is_its_own(plugins, tmp_path, monkeypatch):
    # Beside it is all else that is installed.
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    plugins("site-packages/my_detector.py", "import my_layers")
    plugins("site-packages/my_layers.py", "")
    settings = {"_target_": "my_detector.Detector"}
    before = spec(settings)
    plugins("site-packages/my_layers.py", "x = 1")
    assert spec(settings) == before
    plugins("site-packages/my_detector.py", "x = 1")
    assert spec(settings) != before


def test_code_of_a_program_that_is_run_as_a_file_is_that_of_the_file(
    plugins, tmp_path, monkeypatch
):
    program = ModuleType("my_program")
    program.__file__ = str(tmp_path / "program.py")
    monkeypatch.setitem(sys.modules, "my_program", program)
    plugins("program.py", "class Front: pass")
    settings = {"_target_": "my_program.Front"}
    before = spec(settings)
    plugins("program.py", "class Front: x = 1")
    assert before["_code_"] != spec(settings)["_code_"]


def test_code_of_fsasd_and_of_what_it_runs_on_is_in_no_key():
    assert code_of(KNN()) == code_of(np.zeros(3)) == code_of({"a": [1, "x"]}) == {}
    assert list(code_of([KNN, {"a": LedoitWolf()}])) == ["sklearn"]
    assert list(code_of(LedoitWolf)) == ["sklearn"]
    assert "_code_" not in spec({"_target_": "torch.optim.AdamW"})
    assert "_code_" not in spec({"_target_": "no_such_package.Detector"})
