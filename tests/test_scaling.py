"""Nothing grows faster than the number of machines: calls are counted, which no load disturbs."""

import cProfile
import csv
import pstats

import numpy as np
import pytest
import soundfile
from hydra import compose, initialize_config_module

import fsasd.cli.run as app
from fsasd.cli import configure
from fsasd.data.table import ClipTable
from fsasd.pipeline.plan import plan

FEW, MANY = 4, 16

OFTEN = 1.3
"""Times as often as in proportion that a function may be called: sorting takes n log n."""

CLIPS = [("train", "normal")] * 6 + [("test", "normal"), ("test", "anomaly")] * 2


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    """Tables of a few and of many machines, every fourth a reference machine."""
    folder = tmp_path_factory.mktemp("machines")
    rng = np.random.default_rng(0)
    rows = []
    for machine in range(MANY):
        for clip, (split, label) in enumerate(CLIPS):
            name = f"m{machine}-{clip}.wav"
            soundfile.write(folder / name, 0.1 * rng.standard_normal(9600), 16_000)
            role = "reference" if machine % 4 == 3 else "target"
            rows.append([name, f"m{machine}", split, label, role, clip % 2])
    for count in (FEW, MANY):
        with (folder / f"{count}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "machine", "split", "label", "role", "load"])
            writer.writerows(rows[: count * len(CLIPS)])
    return folder


@pytest.fixture
def configured(manifests, tmp_path):
    def configured(machines, *overrides):
        with initialize_config_module("fsasd.conf", version_base="1.3"):
            return compose(
                "config",
                [
                    "data=manifest", f"data.manifest={manifests}/{machines}.csv", "detector=knn",
                    "generator=transforms", "synthesis.clips_per_label=2", "runner=serial",
                    "trainer.enable_progress_bar=false", f"store={tmp_path}/store-{machines}",
                    *overrides,
                ],
            )  # fmt: skip

    return configured


def calls(function, *args):
    """Count the calls of each Python function and built-in while a function is called."""
    profile = cProfile.Profile()
    profile.runcall(function, *args)
    return {where: row[1] for where, row in pstats.Stats(profile).stats.items()}


def too_often(few, many):
    """Return what is called more often than in proportion to the machines, with both counts.

    Libraries change their ways with the size of a table: what fsasd, Python and its built-ins do is
    counted.
    """
    return {
        f"{path}:{line} {name}": (few.get((path, line, name), 0), count)
        for (path, line, name), count in many.items()
        if "site-packages" not in path
        # What jinja makes of a template is the library's, too.
        and path != "<template>"
        # When what is not needed any more is collected, nobody decides.
        and not path.endswith("weakref.py")
        and count > OFTEN * MANY / FEW * few.get((path, line, name), 0) + 8 * MANY
    }


def test_what_is_quadratic_is_found():
    def quadratic(count):
        return sum(abs(j) for i in range(count) for j in range(count))

    found = too_often(calls(quadratic, FEW), calls(quadratic, MANY))
    assert any("abs" in name for name in found)


def test_planning_visits_a_clip_as_often_however_many_machines_there_are(configured, monkeypatch):
    visited = {FEW: 0, MANY: 0}
    of_kinds, machines = ClipTable._groups, FEW

    def counted(self, group_of, rows):
        visited[machines] += len(rows)
        return of_kinds(self, group_of, rows)

    monkeypatch.setattr(ClipTable, "_groups", counted)
    for machines in (FEW, MANY):
        cfg = configured(machines)
        groups = plan(configure.planners(cfg), configure.experiment(cfg))
        for stages in groups.values():
            for stage in stages:
                stage.check()
                stage.spec()
    assert visited[MANY] <= OFTEN * MANY / FEW * visited[FEW]


@pytest.mark.nightly
def test_no_function_of_a_run_is_called_more_often_per_machine(configured, tmp_path):
    stages = "stages=[check,synthesise,detect,report]"
    # What is done once in a process is done in a run that is not counted.
    app.run(configured(FEW, stages, f"store={tmp_path}/first"), tmp_path / "first-run")
    built, reused = {}, {}
    for machines in (FEW, MANY):
        cfg = configured(machines, stages)
        built[machines] = calls(app.run, cfg, tmp_path / f"run-{machines}")
        reused[machines] = calls(app.run, cfg, tmp_path / f"again-{machines}")
    assert not too_often(built[FEW], built[MANY])
    assert not too_often(reused[FEW], reused[MANY])
