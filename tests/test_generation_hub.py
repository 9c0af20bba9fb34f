"""Pipelines of the hub, downloaded from a stand-in for it on this machine."""

import json
import shutil
from pathlib import Path

import hub_server
import psutil
import pytest
import small_pipelines
import torch
from diffusers import AudioLDM2Pipeline
from waveform_diffusion import WaveformDiffusion

from fsasd.generation import hub
from fsasd.generation.audioldm import checkpoint
from fsasd.generation.diffusion.weight_mismatches import CheckpointError
from fsasd.generation.pipelines.folder import count_parameters, load_pipeline
from fsasd.generation.pipelines.zero_shot import load

pytestmark = pytest.mark.slow

CLIENT = """
from fsasd.generation.diffusion.weight_mismatches import CheckpointError
from fsasd.generation.hub import local
from fsasd.runtime.commits import loaded

answers = []
for arguments in json.loads(sys.argv[2]):
    try:
        answers.append(local(**arguments))
    except CheckpointError as error:
        answers.append(f"error: {error}")
print(json.dumps({"answers": answers, "loaded": loaded()}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small AudioLDM 2 with the plain weights and those in half precision."""
    path = tmp_path_factory.mktemp("audioldm2")
    small_pipelines.audioldm2(path)
    pipeline = AudioLDM2Pipeline.from_pretrained(path).to(dtype=torch.float16)
    pipeline.save_pretrained(path, variant="fp16")
    return path


@pytest.fixture(scope="module")
def server(folder):
    with hub_server.serve({"a/model": folder, "a/gated": folder}, gated=["a/gated"]) as server:
        yield server


def ask(server, cache, *arguments, **environment):
    """Ask for checkpoints."""
    done = hub_server.client(CLIENT, server, cache, json.dumps(arguments), **environment)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_a_revision_is_downloaded_once_noted_and_found_without_a_network(server, folder, tmp_path):
    model = {"checkpoint": "a/model"}
    (first, said) = ask(server, tmp_path, model, {**model, "revision": "v1"})
    path = first["answers"][0]
    assert first == {"answers": [path, path], "loaded": {"a/model": hub_server.COMMIT}}
    assert path.endswith(hub_server.COMMIT)
    # How much there is to be downloaded is seen.
    assert "100%" in said
    weights = [weights.name for weights in Path(path, "unet").glob("*.safetensors")]
    assert weights == ["diffusion_pytorch_model.safetensors"]
    assert load_pipeline(path, AudioLDM2Pipeline).unet.dtype == torch.float32

    def written():
        return {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}

    before = written()
    server.asked.clear()
    pinned = {**model, "revision": hub_server.COMMIT}
    again, _ = ask(server, tmp_path, model, pinned, HF_HUB_OFFLINE="1")
    assert again["answers"] == [path, path]
    assert not server.asked
    online, _ = ask(server, tmp_path, model)
    assert online["answers"] == [path]
    assert not [asked for asked in server.asked if ".safetensors" in asked]
    # A cache that is read-only serves as well.
    assert written() == before


CLAP_CLIENT = """
from fsasd.generation.audioldm.checkpoint.folder import _load_tokenizer
from fsasd.generation.audioldm.clap import ClapAudio, ClapScorer
from fsasd.runtime.commits import loaded

for revision in ("v1", "v9"):
    try:
        print(len(_load_tokenizer("a/nano", revision)))
    except ValueError as error:
        print(error)
print(ClapScorer("a/clap", "v1").audio.model.config.projection_dim, loaded())
try:
    ClapAudio("a/clap", "v9").model
except ValueError as error:
    print(error)
"""


def test_a_revision_of_clap_and_of_a_tokenizer_is_noted_and_one_that_is_not_there_refused(
    whole_clap, tmp_path
):
    with hub_server.serve({"a/clap": whole_clap, "a/nano": checkpoint.NANO}) as server:
        done = hub_server.client(CLAP_CLIENT, server, tmp_path)
        asked = [path for path in server.asked if "/resolve/" in path]
    words, unknown, first, second = done.stdout.splitlines()
    assert int(words) == len(checkpoint.load("nano").tokenizer)
    assert "tokenizer a/nano: could not be loaded (the hub has no such revision" in unknown
    commits = dict.fromkeys(("a/clap", "a/nano"), hub_server.COMMIT)
    assert first == f"64 {commits}"
    assert "CLAP a/clap@v9: the hub has no such revision" in second
    # The tokenizer alone.
    assert not [path for path in asked if "a/nano" in path and ".safetensors" in path]
    assert not [path for path in asked if "/resolve/main/" in path]


def test_a_family_that_diffusers_does_not_know_is_downloaded_whole(tmp_path):
    WaveformDiffusion("random", crop_seconds=0.32).save(tmp_path / "model")
    (tmp_path / "model" / "code.py").write_text("raise SystemExit")
    asked = {"checkpoint": "a/waveforms"}
    with hub_server.serve({"a/waveforms": tmp_path / "model"}) as server:
        answers, _ = ask(server, tmp_path / "home", asked, {**asked, "variant": "fp16"})
    path, variant = answers["answers"]
    assert "it has no weights of the variant fp16" in variant
    kept = {file.name for file in (tmp_path / "model").rglob("*") if file.is_file()} - {"code.py"}
    assert {file.name for file in Path(path).rglob("*") if file.is_file()} == kept
    weights = WaveformDiffusion(path, crop_seconds=0.32).network.state_dict()
    saved = WaveformDiffusion(str(tmp_path / "model"), crop_seconds=0.32).network.state_dict()
    assert all(torch.equal(weights[name], saved[name]) for name in saved)
    answers, _ = ask(server, tmp_path / "home", asked, HF_HUB_OFFLINE="1")
    assert answers["answers"] == [path]


def test_what_the_hub_refuses_is_said_with_what_to_do(server, tmp_path):
    answers, _ = ask(
        server, tmp_path, {"checkpoint": "a/gated"}, {"checkpoint": "a/none"},
        {"checkpoint": "a/model", "revision": "v2"}, {"checkpoint": "a/model", "variant": "int4"},
    )  # fmt: skip
    gated, none, revision, variant = answers["answers"]
    address = f"http://127.0.0.1:{server.server_address[1]}"
    assert gated == (
        f"error: a/gated: its licence has to be accepted first, on {address}/a/gated; "
        "then log in on this machine (hf auth login, or HF_TOKEN)"
    )
    assert "a/none: expected the id of a repository of the hub, which has none of this name" in none
    assert "a/model@v2: the hub has no such revision" in revision
    assert "a/model: it has no weights of the variant int4" in variant
    assert answers["loaded"] == {}


def test_half_as_much_is_downloaded_of_a_variant(server, folder, tmp_path):
    answers, _ = ask(server, tmp_path, {"checkpoint": "a/model", "variant": "fp16"})
    (path,) = answers["answers"]
    weights = [weights.name for weights in Path(path, "unet").glob("*.safetensors")]
    assert weights == ["diffusion_pytorch_model.fp16.safetensors"]
    pipeline = load_pipeline(path, AudioLDM2Pipeline)
    assert pipeline.unet.dtype == torch.float32
    for name, weight in load(path).unet.state_dict().items():
        assert torch.equal(weight, pipeline.unet.state_dict()[name])
    assert count_parameters(path) == count_parameters(folder)


@pytest.mark.parametrize("name", ["revision", "variant"])
def test_a_folder_has_no_revision(name, tmp_path):
    with pytest.raises(CheckpointError, match=rf"generator\.{name}=x: expected a hub id"):
        hub.local(str(tmp_path), **{name: "x"})
    assert hub.local("nano") == "nano"


def test_weights_that_exceed_the_memory_are_not_loaded(folder, monkeypatch, tmp_path):
    memory = psutil.virtual_memory()._replace(available=1e6)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    message = r"its weights take 0\.\d+ GB of memory in single precision, and 0\.001 GB are free"
    with pytest.raises(CheckpointError, match=message):
        load_pipeline(str(folder), AudioLDM2Pipeline)
    with pytest.raises(CheckpointError, match=message):
        load(str(folder))
    nano = shutil.copytree(str(checkpoint.NANO), tmp_path / "nano")
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(nano)
