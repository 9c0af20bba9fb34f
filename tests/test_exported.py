"""Exported encoders: what torch would unpickle or evaluate is refused before torch sees it."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fsasd.detectors.encoders import ExportedEncoder
from fsasd.detectors.encoders.programs import load_program


class Planted:
    """Fails the test when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("code of an exported program was run",)


class Frames(torch.nn.Module):
    """Overlapping frames of any number of samples: sizes that are calculated, and guarded."""

    def __init__(self):
        super().__init__()
        self.dense = torch.nn.Linear(100, 4)
        self.shift = torch.ones(4)

    def forward(self, waveform):
        frames = waveform.unfold(1, 100, 50)
        return self.dense(frames) + self.shift + frames.shape[1] // 2


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("program") / "any.pt2"
    shapes = ({1: torch.export.Dim.AUTO},)
    exported = torch.export.export(Frames().eval(), (torch.zeros(1, 8000),), dynamic_shapes=shapes)
    torch.export.save(exported, path)
    return path


def test_a_program_of_any_length_is_loaded(program):
    waveform = torch.randn(1, 4000)
    expected = torch.export.load(program).module()(waveform)
    torch.testing.assert_close(load_program(program).module()(waveform), expected)


def altered(program, folder, change):
    """Return a copy whose entries, by their names without the first folder, were changed."""
    with zipfile.ZipFile(program) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    inner = {name.partition("/")[2]: content for name, content in entries.items()}
    change(inner)
    path = Path(folder) / "mine.pt2"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in inner.items():
            file.writestr(f"any/{name}", content)
    return path


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def in_json(name, change):
    def changed(entries):
        about = json.loads(entries[name])
        change(about)
        entries[name] = json.dumps(about).encode()

    return changed


def in_program(change):
    return in_json("models/model.json", change)


def payload(kind, **fields):
    return in_json(
        f"data/{kind}/model_{kind}_config.json",
        lambda about: next(iter(about["config"].values())).update(fields),
    )


def node(about, **fields):
    about["graph_module"]["graph"]["nodes"][0].update(fields)


HOSTILE = {
    "pickled inputs": (
        lambda entries: entries.update({"data/sample_inputs/model.pt": saved(Planted())}),
        "Weights only load failed",
    ),
    "inputs that are a pickle": (
        lambda entries: entries.update({"data/sample_inputs/model.pt": pickle.dumps(Planted())}),
        "without pickles",
    ),
    "pickled weights": (payload("weights", use_pickle=True), r"dense\.weight is a pickle"),
    "pickled constants": (payload("constants", use_pickle=True), "shift is a pickle"),
    "an object": (payload("constants", path_name="opaque_obj_0"), "shift is a pickle"),
    "weights of the old format": (
        lambda entries: entries.update({"data/weights/model.pt": saved(Planted())}),
        r"it holds data/weights/model\.pt, which could be a pickle",
    ),
    "all of the old format": (
        lambda entries: entries.update({"serialized_state_dict.pt": saved(Planted())}),
        r"it holds serialized_state_dict\.pt",
    ),
    "compiled code": (
        lambda entries: entries.update({"data/aotinductor/model/code.so": b""}),
        r"it holds data/aotinductor/model/code\.so",
    ),
    "another case": (
        lambda entries: entries.update({"MODELS/model.json": b"{}"}),
        "two entries of one name",
    ),
    "a guard": (
        in_program(lambda about: about.update(guards_code=["__import__('os').system('true')"])),
        "its guards_code .* could be code",
    ),
    "a guard that ends its message": (
        in_program(lambda about: about.update(guards_code=["L['x\"); print(1); (\"'] == 1"])),
        "its guards_code .* could be code",
    ),
    "a size": (
        in_program(lambda about: about.update(expr_str="sympify('print(1)')")),
        "its expr_str .* could be code",
    ),
    "an operator": (
        in_program(lambda about: node(about, target="torch.serialization.os.system")),
        r"its target 'torch\.serialization\.os\.system' could be code",
    ),
    "a library": (
        in_program(lambda about: node(about, target="torch.ops.load_library")),
        "its target .* could be code",
    ),
    "an operator of others": (
        in_program(lambda about: node(about, target="#mine.run")), "its target .* could be code"
    ),
    "a name": (
        in_program(lambda about: node(about, name="x; print(1)")), "its name .* could be code"
    ),
    "a container": (
        in_program(
            lambda about: about.update(
                in_spec='[1, {"type": "collections.defaultdict", "context": '
                '"{\\"default_factory_module\\": \\"hostile\\"}", "children_spec": []}]'
            )
        ),
        "its in_spec .* could be code",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_could_run_code_is_refused(program, tmp_path, kind):
    change, message = HOSTILE[kind]
    path = altered(program, tmp_path, change)
    with pytest.raises(ValueError, match=rf"mine\.pt2: not loaded: .*{message}"):
        ExportedEncoder(str(path))(np.zeros(8000, np.float32))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pickle.dumps(Planted())])
def test_what_is_no_program_is_named(tmp_path, content):
    path = tmp_path / "mine.pt2"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.pt2: not loaded: expected what torch\.export"):
        load_program(path)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_plain_pickle_is_no_scripted_encoder(tmp_path):
    path = tmp_path / "mine.pt"
    torch.save(Planted(), path)
    with pytest.raises(ValueError, match=r"mine\.pt: expected what torch\.jit\.save wrote"):
        ExportedEncoder(str(path))(np.zeros(8000, np.float32))
