import json
import re
import shutil

import numpy as np
import pytest

from fsasd.cli.store import main
from fsasd.detectors.base import load
from fsasd.detectors.confidence import Confidence
from fsasd.detectors.knn import KNN
from fsasd.detectors.networks.classifier import Training
from fsasd.detectors.systems.stgram_mfn import STgramMFN
from fsasd.store.key import Description
from fsasd.store.store import Store
from fsasd.store.verifying import forget

FINETUNE = Description("finetune", 1, {"trainer": {"max_steps": 400}})
LONGER = Description("finetune", 2, {"trainer": {"max_steps": 800}})
DETECT = Description("detect", 1, {"r": 0.5}, {"finetune": FINETUNE.key}, "fan section 00")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    for description in (FINETUNE, LONGER, DETECT):
        store.build(description, lambda folder: (folder / "model").write_text("1" * 1500))
    return store


@pytest.fixture
def command(store, capsys):
    """Run the command on the store; return its exit code, standard output and error."""

    def run(*arguments):
        code = main(["--store", str(store.root), *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_ls_lists_artifacts(command, store, tmp_path):
    store.use(tmp_path, DETECT)
    with pytest.raises(RuntimeError):
        store.build(Description("train", 1, {}), fail)
    code, out, _ = command("ls")
    assert code == 0
    heading, *lines = out.splitlines()
    assert heading.split() == [
        "key", "stage", "section", "state", "built", "seconds", "bytes", "runs"
    ]  # fmt: skip
    assert sorted(line.split()[1] for line in lines) == ["detect", "finetune", "finetune", "train"]
    (detect,) = [line for line in lines if DETECT.key in line]
    assert "fan section 00  whole" in detect
    assert detect.endswith("1.5 kB  1")
    assert "unfinished" in lines[-1]


def fail(folder):
    raise RuntimeError("out of memory")


def test_ls_lists_those_of_a_stage_or_a_section_as_json(command):
    rows = json.loads(command("ls", "finetune", "--json")[1])
    assert {row["key"] for row in rows} == {FINETUNE.key, LONGER.key}
    rows = json.loads(command("ls", "--section", "fan section 00", "--json")[1])
    assert [row["key"] for row in rows] == [DETECT.key]
    assert rows[0] == rows[0] | {"stage": "detect", "state": "whole", "bytes": 1500, "runs": 0}
    assert command("ls", "check") == (0, "", "")


def test_show_says_what_an_artifact_is(command, store):
    code, out, _ = command("show", DETECT.key[:6])
    assert code == 0
    assert f"  finetune: {FINETUNE.key} (finetune)" in out
    assert "bytes: 1.5 kB in 1 files" in out
    assert "  r: 0.5" in out
    fields = json.loads(command("show", store.path(DETECT), "--json")[1])
    assert fields["files"]["model"]["size"] == 1500


def test_why_says_what_two_artifacts_differ_in(command):
    code, out, _ = command("why", FINETUNE.key, LONGER.key)
    assert (code, out) == (0, "version 1 -> 2\ntrainer.max_steps 400 -> 800\n")
    assert json.loads(command("why", FINETUNE.key, FINETUNE.key, "--json")[1]) == []
    assert command("why", DETECT.key, DETECT.key)[1] == "they are the same artifact\n"


def test_gc_collects_what_no_run_uses_and_says_so(command, store, tmp_path):
    store.use(tmp_path, DETECT)
    code, out, _ = command("gc", "--unused", "--dry-run")
    assert code == 0
    assert LONGER.key in out
    assert FINETUNE.key not in out
    assert out.endswith("1.5 kB would be collected\n")
    assert command("gc", "--older", "1")[:2] == (0, "0 B collected\n")
    assert store.find(LONGER)
    assert [row["key"] for row in json.loads(command("gc", "--unused", "--json")[1])] == [
        LONGER.key
    ]
    assert not store.find(LONGER)
    code, out, _ = command("show", LONGER.key)
    assert code == 0
    assert "state: collected" in out
    assert command("why", LONGER.key, FINETUNE.key)[0] == 0
    assert store.find(FINETUNE)


def test_gc_that_cannot_delete_goes_on_and_says_so(command, store, monkeypatch):
    def refuse(artifact):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fsasd.cli.store.collect", refuse)
    code, out, err = command("gc", "--unused")
    assert (code, out) == (1, "0 B collected\n")
    assert err.count("not collected: [Errno 13] Permission denied") == 3


def test_gc_asks_which(command):
    code, _, err = command("gc")
    assert code == 2
    assert "--unused for all that no run uses, or --older DAYS" in err


def test_verify_names_what_is_damaged(command, store):
    assert command("verify") == (0, "3 artifacts, 0 damaged\n", "")
    (store.path(FINETUNE) / "model").unlink()
    (store.path(LONGER) / "provenance.json").unlink()
    code, out, _ = command("verify")
    assert code == 1
    assert f"{store.path(FINETUNE)}: model: expected 1500 bytes, found no file" in out
    assert f"{store.path(LONGER)}: provenance.json: expected one that is whole" in out
    assert out.endswith("3 artifacts, 2 damaged\n")
    assert command("verify", DETECT.key)[0] == 0
    assert len(json.loads(command("verify", FINETUNE.key, "--json")[1])) == 1


def test_du_counts_stages_and_features(command, store):
    (store.root / "features").mkdir()
    (store.root / "features" / "a.npy").write_bytes(b"1" * 3000)
    rows = json.loads(command("du", "--json")[1])
    assert [(row["folder"], row["artifacts"]) for row in rows] == [
        ("detect", 1), ("features", 0), ("finetune", 2), ("total", 3)
    ]  # fmt: skip
    assert rows[1]["bytes"] == 3000
    assert rows[-1]["bytes"] >= sum(row["bytes"] for row in rows[:-1])
    assert "3.0 kB" in command("du")[1]


def test_export_copies_an_artifact(command, store, tmp_path):
    target = tmp_path / "copy"
    assert command("export", DETECT.key, target) == (0, "", "")
    assert (target / "model").stat().st_mode & 0o200
    assert (target / "provenance.json").is_file()
    code, _, err = command("export", DETECT.key, target)
    assert code == 2
    assert "expected an empty folder or none, found files in it" in err


def test_a_damaged_artifact_is_not_exported(command, store, tmp_path):
    (store.path(DETECT) / "model").unlink()
    forget()
    code, _, err = command("export", DETECT.key, tmp_path / "copy")
    assert code == 2
    assert "is damaged: model: expected 1500 bytes, found no file" in err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ffffffffffffffff", "ffffffffffffffff: expected an artifact of .*, found none"),
        ("fan", "fan: expected a key, the beginning of one, or an artifact's path"),
    ],
)
def test_what_is_not_there_is_an_error(command, name, message):
    code, out, err = command("show", name)
    assert (code, out) == (2, "")
    assert re.match(message, err)


def test_a_beginning_of_several_keys_is_an_error(tmp_path, capsys):
    store = Store(tmp_path)
    keys = []
    for n in range(20):
        description = Description("stage", 1, {"n": n})
        keys.append(description.key)
        store.build(description, lambda folder: None)
    digit = next(key[0] for key in keys if sum(other[0] == key[0] for other in keys) > 1)
    assert main(["--store", str(tmp_path), "show", digit]) == 2
    assert ", found " in capsys.readouterr().err


def test_a_saved_detector_is_exported(factory_clips, tmp_path, capsys):
    section = tmp_path / "models" / "bearing" / "section_00"
    train = factory_clips.where(machine="bearing", split="train")
    KNN().fit(train).save(section)
    store = tmp_path / "store"
    store.mkdir()
    assert main(["export", str(section), str(tmp_path / "alone"), "--store", str(store)]) == 0
    assert (load(tmp_path / "alone").score(train) == load(section).score(train)).all()


def test_a_detector_is_exported_with_networks_of_the_store(factory_clips, tmp_path):
    train = factory_clips.where(machine="bearing", split="train")
    store = tmp_path / "store"
    training = Training(classes="machine+attributes+domain", seconds=0.5, epochs=1)
    small = Confidence(STgramMFN(width=0.125, training=training))
    quiet = {"accelerator": "cpu", "enable_progress_bar": False}
    detector = small.prepare(train, store / "train" / "0123", quiet).fit(train)
    section = store / "detect" / "4567" / "model"
    detector.save(section, shared=store / "train" / "0123" / "shared")
    assert main(["export", str(section), str(tmp_path / "alone"), "--store", str(store)]) == 0
    shutil.rmtree(store)
    np.testing.assert_allclose(load(tmp_path / "alone").score(train), detector.score(train))


def test_the_store_is_that_of_the_environment(store, monkeypatch, capsys):
    monkeypatch.setenv("FSASD_STORE", str(store.root))
    assert main(["ls", "detect"]) == 0
    assert DETECT.key in capsys.readouterr().out
    monkeypatch.setenv("FSASD_STORE", "")
    monkeypatch.chdir(store.root)
    assert main(["ls"]) == 2
    assert capsys.readouterr().err.startswith("outputs/store: expected the folder of a store")


def test_a_store_that_is_not_there_is_an_error(tmp_path, capsys):
    assert main(["--store", str(tmp_path / "store"), "ls"]) == 2
    assert "expected the folder of a store" in capsys.readouterr().err


def test_a_store_of_before_is_listed_as_damaged(command, store):
    path = store.root / "finetune" / ("0" * 16)
    path.mkdir()
    (path / "recipe.json").write_text("{}\n")
    (line,) = [line for line in command("ls")[1].splitlines() if line.startswith("0" * 16)]
    assert line.split() == ["0" * 16, "finetune", "damaged", "3", "B", "0"]
    assert command("show", "0000000")[0] == 2
    shutil.rmtree(path)
