"""Loggers: several at once, one run of Weights & Biases for each run of fsasd, results in all."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from runs import Run
from wandb_server import wandb_server

from fsasd.cli import resolvers
from fsasd.data.names import SectionId
from fsasd.evaluation.metrics import SectionMetrics, metrics_table
from fsasd.generation.training import Training
from fsasd.pipeline.experiment import Factory
from fsasd.pipeline.loggers import _identity, check_loggers, result_metrics, training_loggers

pytestmark = pytest.mark.slow

TINY = ["experiment=tiny", "trainer.enable_progress_bar=false", "runner=serial"]


def configure(*overrides):
    resolvers.register()
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        return compose("config", [*TINY, *overrides])


def wandb_content(folder):
    """The records of an offline run of Weights & Biases that has ended."""
    (path,) = folder.glob("*.wandb")
    end = time.monotonic() + 30
    # Its service still writes them when ``wandb.finish`` returns.
    while "exit" not in [one.WhichOneof("record_type") for one in _records(path)]:
        assert time.monotonic() < end, f"{path} has no end after 30 s"
        time.sleep(0.05)
    return _records(path)


def _records(path):
    """What a log in LevelDB's format holds so far."""
    from wandb.proto import wandb_internal_pb2

    content, place, parts, records = path.read_bytes(), 7, b"", []
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        size = int.from_bytes(content[place + 4 : place + 6], "little")
        kind, start = content[place + 6], place + 7
        place = start + size
        if place > len(content):
            break
        parts = (parts if kind in (3, 4) else b"") + content[start:place]
        if kind in (1, 4):
            records.append(wandb_internal_pb2.Record.FromString(parts))
    return records


@pytest.mark.parametrize("names", ["csv", "tensorboard", "[csv,tensorboard]"])
def test_logs_go_where_they_are_asked_to(tmp_path, names):
    some = names.strip("[]").split(",")
    asked = [f"logger.{name}.save_dir={tmp_path}" for name in some]
    run = Run(configure(f"store={tmp_path}", f"logger={names}", *asked), tmp_path).experiment
    assert [one.save_dir for one in training_loggers(run, tmp_path / "x")] == [str(tmp_path)] * len(
        some
    )
    # Without a folder of its own, a logger writes beside what is trained.
    run = Run(configure(f"store={tmp_path}", f"logger={names}"), tmp_path).experiment
    assert training_loggers(run, tmp_path / "x")[0].save_dir == str(tmp_path / "x")


def test_none_is_no_logger(tmp_path):
    run = Run(configure(f"store={tmp_path}", "logger=none"), tmp_path).experiment
    assert training_loggers(run, tmp_path) is False


def test_a_logger_without_its_package_is_refused_with_what_to_install(tmp_path, monkeypatch):
    run = Run(configure(f"store={tmp_path}", "logger=tensorboard"), tmp_path).experiment
    check_loggers(run)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^logger=tensorboard .*install 'fsasd\[tensorboard\]'$"):
        check_loggers(run)
    run.loggers = {"own": Factory({"_target_": "my_package.Logger"})}
    check_loggers(run)


def test_the_run_of_an_interrupted_command_is_gone_on_with(tmp_path):
    config = {"seed": 1, "force": []}

    def interrupted():
        with _identity(tmp_path, config) as identity:
            known.append(identity)
            raise KeyboardInterrupt

    known = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    assert known[0] == known[1]
    with _identity(tmp_path, {**config, "force": ["detect"]}) as identity:
        assert identity == known[0]
        # An equal command beside it has a run of its own, and so has another one.
        with _identity(tmp_path, config) as beside, _identity(tmp_path, {"seed": 2}) as other:
            assert len({identity, beside, other}) == 3
    # That one has come to its end.
    with _identity(tmp_path, config) as identity:
        assert identity != known[0]


def test_results_are_numbers_with_names(tmp_path):
    assert result_metrics(tmp_path) == {}
    Training(4, 0.25).write(tmp_path)
    metrics = SectionMetrics(0.5, float("nan"), 0.75)
    table = metrics_table({SectionId("fan", "00"): metrics}, (0.25, 0.75))
    table.to_csv(tmp_path / "metrics.csv", index=False)
    found = result_metrics(tmp_path, "val/loss")
    assert (found["fan/00/auc_source"], found["fan/00/pauc"]) == (0.5, 0.75)
    assert "fan/00/auc_target" not in found
    assert (found["official/low"], found["official/high"]) == (0.25, 0.75)
    assert (found["kept/step"], found["kept/val/loss"], found["objective"]) == (4, 0.25, 0.25)


def logged_by_wandb(folder, url, *asked, **settings):
    """Run the command in a process: W&B keeps its settings for a process's life."""
    settings |= {"BASE_URL": url, "API_KEY": "a" * 40, "MODE": "online", "DIR": str(folder)}
    environment = os.environ | {f"WANDB_{name}": value for name, value in settings.items()}
    asked = ["experiment=tiny", "logger=wandb", f"store={folder / 'store'}", *asked]
    return subprocess.run(
        [sys.executable, "-m", "fsasd.cli.main", *asked],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.nightly
def test_without_a_network_wandb_is_refused_before_anything_is_built(tmp_path):
    # Nothing listens at that port.
    found = logged_by_wandb(tmp_path, "http://127.0.0.1:9", INIT_TIMEOUT="2", SILENT="true")
    assert found.returncode == 1
    assert re.search(r"logger=wandb: .*\. WANDB_MODE=offline needs neither", found.stderr)
    built = (tmp_path / "store").glob("*/**/provenance.json")
    # The recordings are there when stages are planned.
    assert {path.relative_to(tmp_path).parts[1] for path in built} == {"factory"}


@pytest.mark.nightly
@pytest.mark.parametrize("lost", [False, True])
def test_a_network_that_is_lost_costs_a_run_a_few_minutes(tmp_path, lost):
    seconds = "logger.wandb.settings.finish_timeout=2"
    asked = ["generator=none", "detector=knn", seconds, f"hydra.run.dir={tmp_path}/run"]
    with wandb_server(lost=lost) as server:
        found = logged_by_wandb(tmp_path, server.url, *asked)
    assert found.returncode == 0
    assert "/graphql" in server.asked
    assert (tmp_path / "run" / "metrics.csv").is_file()
    kept = re.search(r"did not take all of this run in time: it lies in (\S+), and", found.stderr)
    assert bool(kept) == lost
    if kept:
        assert list(Path(kept[1]).glob("*.wandb"))


@pytest.mark.nightly
def test_a_run_has_one_run_in_wandb_and_its_results_in_every_log(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    asked = [f"store={tmp_path / 'store'}", "logger=[csv,tensorboard,wandb]", "seed=3",
             f"logger.wandb.save_dir={tmp_path}", "objective=official"]  # fmt: skip
    training = ("seconds=0.5", "epochs=1", "batch_size=8")
    network = ["detector=stgram_mfn", "representation.width=0.125",
               *(f"representation.training.{setting}" for setting in training)]  # fmt: skip
    Run(configure(*asked, *network), tmp_path / "run")()
    # Two trainings, fine-tuning and the detector's network, are in one run.
    (first,) = (tmp_path / "wandb").glob("offline-run-*")
    records = wandb_content(first)
    config = {
        u.key: u.value_json for r in records for u in [*r.run.config.update, *r.config.update]
    }
    assert json.loads(config["seed"]) == 3
    history = {i.key or i.nested_key[0] for r in records for i in r.history.item}
    assert {"val/loss", "table/metrics", "table/selection", "report"} <= history
    summary = {i.key or i.nested_key[0]: i.value_json for r in records for i in r.summary.update}
    assert float(summary["official"]) == float(summary["objective"])
    assert any((first / "files" / "media" / "html").rglob("*.html"))
    assert list((tmp_path / "run" / "log" / "version_0").glob("events.out.tfevents*"))
    # Two loggers of one folder number their versions together.
    assert list((tmp_path / "run" / "log" / "finetune").glob("version_*/events.out.tfevents*"))
    assert list((tmp_path / "run" / "log" / "finetune").glob("version_*/metrics.csv"))
    # What is served from the store is logged, too, in a run of its own.
    Run(configure(*asked, *network), tmp_path / "again")()
    (second,) = {*(tmp_path / "wandb").glob("offline-run-*")} - {first}
    summary = {i.key or i.nested_key[0] for r in wandb_content(second) for i in r.summary.update}
    assert {"official", "objective"} <= summary
