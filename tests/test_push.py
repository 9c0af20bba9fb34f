"""Saved models are uploaded to a stand-in for the hub, and loaded from it again."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import hub_server
import numpy as np
import pytest
import soundfile
import yaml
from huggingface_hub import constants
from small_systems import brief

from fsasd import load
from fsasd.cli.push import main
from fsasd.deployment.about import About, TrainingData
from fsasd.deployment.downloading import HubError
from fsasd.detectors.knn import KNN
from fsasd.detectors.saved import SHARED
from fsasd.detectors.systems.mdam import MDAM
from fsasd.generation.audioldm import AudioLDM
from fsasd.runtime import hub

pytestmark = [
    pytest.mark.slow,
    # Of huggingface_hub, about how it calls its own library for requests.
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"),
]

LOADS = """
import json, sys
from fsasd import load
from fsasd.cli.score import main
from fsasd.generation.audioldm import AudioLDM

assert main(["--model", "hub:owner/bearing", *sys.argv[1:]]) == 0
model = load("hub:owner/bearing@main")
weights = AudioLDM("owner/sounds").model.network.state_dict()
scores = list(model.score(sys.argv[1:]))
print(json.dumps([model.name, scores, sum(weight.sum().item() for weight in weights.values())]))
"""


def push(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture
def section(bearing_model, tmp_path):
    """A detector with its card, as a run leaves it."""
    folder = tmp_path / "models" / "bearing" / "section_00"
    shutil.copytree(bearing_model / "section_00", folder)
    About(
        "bearing", "00", "TWFRGMM", {"r": 0.9}, "It was chosen.", 9, TrainingData(50), {"auc": 0.8}
    ).write(folder)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A generator as a fine-tuning leaves it."""
    folder = tmp_path_factory.mktemp("run") / "model"
    AudioLDM("nano", learning_rate=2e-5).save(folder)
    return folder


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The hub, for an owner who is logged in."""
    hub._check_once.cache_clear()
    with hub_server.serve(place=tmp_path / "hub", owners=["owner"]) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        yield server
    hub._check_once.cache_clear()


def files(folder):
    return {p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file()}


def front(card):
    return yaml.safe_load(card.split("---")[1])


def test_without_yes_it_is_only_said_what_would_be_uploaded(server, section, capsys):
    assert push(section.parent, "owner/bearing", "--private", "--revision", "try") == 0
    out = capsys.readouterr().out
    assert out.startswith("detector of bearing/section_00 as owner/bearing (private, branch try)\n")
    for name in files(section):
        assert f"  {name}\n" in out
    assert f"in {len(files(section))} files" in out
    assert "missing in the card: a licence (--licence)\n" in out
    assert "dry run: nothing was uploaded" in out
    assert not server.asked


@pytest.mark.nightly
def test_a_detector_and_a_generator_are_loaded_from_where_they_were_uploaded(
    server, section, sounds, tmp_path, capsys
):
    assert push(section, "owner/bearing", "--licence", "cc-by-4.0", "--yes") == 0
    assert f"uploaded: {server.address}/owner/bearing/commit/" in capsys.readouterr().out
    message = ("--message", "First", "--private", "--yes")
    assert push(sounds, "owner/sounds", *message) == 0
    assert server.private == {"owner/sounds"}
    assert server.commits == [
        ("owner/bearing", "main", "Upload the detector of bearing/section_00 with fsasd"),
        ("owner/sounds", "main", "First"),
    ]
    there = server.folders["owner/sounds"]
    assert files(there) == files(sounds)
    card = (there / "README.md").read_text()
    assert "generator.checkpoint=owner/sounds" in card
    assert front(card)["tags"] == ["fsasd", "audioldm"]
    assert files(server.folders["owner/bearing"]) == files(section)
    card = (server.folders["owner/bearing"] / "README.md").read_text()
    assert front(card)["license"] == "cc-by-4.0"
    assert "fsasd-score --model hub:owner/bearing recording.wav" in card

    # What is not of a detector stays where it is.
    (server.folders["owner/bearing"] / "code.py").write_text("raise SystemExit")
    wav = tmp_path / "clip.wav"
    soundfile.write(wav, np.random.default_rng(0).normal(scale=0.1, size=32_000), 16_000)
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(wav)],
        env={**os.environ, "HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not [asked for asked in server.asked if "code.py" in asked]
    _, row, answer = done.stdout.splitlines()
    assert row.startswith(str(wav))
    assert row.endswith(",owner/bearing")
    name, scores, weights = json.loads(answer)
    assert name == "owner/bearing"
    assert scores == list(load(section).score([wav]))
    saved = AudioLDM(str(sounds)).model.network.state_dict()
    assert weights == sum(weight.sum().item() for weight in saved.values())


def test_a_detector_that_shares_networks_holds_them_where_it_is_uploaded(
    server, factory_clips, bearing_result, tmp_path
):
    train = factory_clips.where(machine="bearing", split="train")
    detector = KNN(brief(MDAM, {"epochs": 1}, channels=4, dim=8)).prepare(train, tmp_path / "fit")
    detector.fit(train)
    section = tmp_path / "models" / "bearing" / "section_00"
    saved = replace(bearing_result.detection, detector=detector)
    saved.save_model(section, [section.parents[1] / SHARED])
    About("bearing", "00", "KNN", {}, "", 9, TrainingData(50)).write(section)
    assert push(section, "owner/bearing", "--private", "--yes") == 0
    there = server.folders["owner/bearing"]
    (network,) = (section.parents[1] / SHARED).iterdir()
    assert files(there) == files(section) | {f"{SHARED}/{network.name}"}
    shutil.rmtree(section.parents[1])
    clips = [clip.path for clip in train][:3]
    np.testing.assert_array_equal(load(there).score(clips), detector.score(train[:3]))


def test_a_second_model_replaces_the_first(server, section):
    assert push(section, "owner/bearing", "--licence", "mit", "--yes") == 0
    there = server.folders["owner/bearing"]
    for name in ("old.safetensors", "picture.png", ".gitattributes"):
        (there / name).write_text("of before")
    assert push(section, "owner/bearing", "--licence", "mit", "--yes") == 0
    assert files(there) == files(section) | {"picture.png", ".gitattributes"}


def test_a_branch_is_created(server, section):
    arguments = ("--licence", "mit", "--revision", "trial", "--yes")
    assert push(section, "owner/bearing", *arguments) == 0
    assert server.branches == ["trial"]
    assert server.commits[0][1] == "trial"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["owner/bearing", "--yes"], "expected a licence, without which nobody may use"),
        (["owner/bearing", "--licence", "mit", "--no-create", "--yes"], "has none of this name"),
        (["other/bearing", "--licence", "mit", "--yes"], "not uploaded: "),
        (["bearing"], "expected owner/name as the id of a repository of the hub, found 'bearing'"),
    ],
)
def test_what_cannot_be_uploaded_is_refused(server, section, capsys, arguments, says):
    assert push(section, *arguments) == 2
    assert says in capsys.readouterr().err
    assert not server.commits
    assert not server.folders


def test_what_is_public_does_not_become_private_by_an_upload(server, section, capsys):
    assert push(section, "owner/bearing", "--licence", "mit", "--yes") == 0
    assert push(section, "owner/bearing", "--private", "--yes") == 2
    assert "expected a private repository, found a public one" in capsys.readouterr().err
    assert len(server.commits) == 1


def test_without_a_token_it_is_said_how_to_log_in(server, section, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert push(section, "owner/bearing", "--private", "--yes") == 2
    assert "expected a token that may write: log in on this machine (hf auth login" in (
        capsys.readouterr().err
    )


def test_a_hub_that_does_not_answer_is_said(server, section, capsys, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert push(section, "owner/bearing", "--private", "--yes") == 2
    assert "http://127.0.0.1:9 does not answer: nothing was uploaded" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["clip.wav", "run.log", ".hydra/config.yaml", "weights.ckpt", "more/detector.json"]
)
def test_files_that_do_not_belong_there_are_named(section, sounds, tmp_path, capsys, name):
    generator = tmp_path / "model"
    shutil.copytree(sounds, generator)
    models = [section] if name.endswith(".json") else [section, generator]
    for model in models:
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("{}")
        assert push(model, "owner/model") == 2
        assert f"found also {name}: move them elsewhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("unet/config.json", "_name_or_path", "/home/me/models/audioldm"),
        ("unet/config.json", "file:///data", 1),
        ("model_index.json", "from", ["~/models"]),
        ("model_index.json", "from", {"x": r"C:\Users\me"}),
    ],
)
def test_paths_of_this_machine_are_named(sounds, tmp_path, capsys, name, key, value):
    generator = tmp_path / "model"
    shutil.copytree(sounds, generator)
    content = json.loads((generator / name).read_text())
    (generator / name).write_text(json.dumps(content | {key: value}))
    assert push(generator, "owner/model") == 2
    assert f"expected no paths of this machine, found some in {name} (" in capsys.readouterr().err


def test_a_path_in_the_card_is_named_and_an_address_is_none(section, capsys):
    card = section / "README.md"
    text = card.read_text() + "See https://example.org/a/b and AUC/pAUC 50/60/70.\n"
    card.write_text(text)
    assert push(section, "owner/model") == 0
    card.write_text(f"{text}Of /data/plant/fan.\n")
    assert push(section, "owner/model") == 2
    assert "README.md (/data/plant/fan)" in capsys.readouterr().err


def test_what_is_no_model_is_refused(tmp_path, section, capsys):
    assert push(tmp_path, "owner/model") == 2
    assert "expected a model of fsasd with its card, found no README.md" in capsys.readouterr().err
    (tmp_path / "README.md").write_text("---\ntags: [other]\n---\n")
    assert push(tmp_path, "owner/model") == 2
    assert "found neither detector.json nor the tag 'fsasd'" in capsys.readouterr().err
    (tmp_path / "README.md").write_text("---\ntags: [\n---\n")
    assert push(tmp_path, "owner/model") == 2
    assert "expected YAML between --- lines" in capsys.readouterr().err
    (section / "detector.json").write_text("{}")
    assert push(section, "owner/model") == 2
    assert "not a model of fsasd" in capsys.readouterr().err


def test_a_licence_does_not_replace_that_of_the_weights(section, capsys):
    card = section / "README.md"
    card.write_text(card.read_text().replace("---\n", "---\nlicense: cc-by-nc-sa-4.0\n", 1))
    assert push(section, "owner/model", "--licence", "mit") == 2
    assert "README.md has cc-by-nc-sa-4.0" in capsys.readouterr().err
    assert push(section, "owner/model") == 0
    assert "licence: cc-by-nc-sa-4.0" in capsys.readouterr().out


def test_what_a_card_does_not_know_is_said(sounds, capsys):
    assert push(sounds, "owner/model", "--licence", "mit") == 0
    assert "missing in the card: the training data, metrics\n" in capsys.readouterr().out


def test_what_is_not_on_the_hub_is_not_loaded(server):
    with pytest.raises(HubError, match=r"hub:owner/none: not downloaded: .*none of this name"):
        load("hub:owner/none")
    with pytest.raises(ValueError, match="expected hub:owner/name or hub:owner/name@revision"):
        load("hub:none")
