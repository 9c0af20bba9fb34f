"""The comparison of a sweep's jobs, from the folders that they leave."""

import pickle
from pathlib import Path

import hydra
import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_module

from fsasd.cli import sweep
from fsasd.cli.sweep import Comparison, compare, jobs, mark_failed
from fsasd.evaluation.metrics import metrics_table, section_metrics


def job(root, name, overrides, shift=1.0, seed=0, labels=True):
    """What a run leaves whose anomalies score higher by ``shift``; returns its official score."""
    folder = root / name
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {o}\n" for o in overrides))
    label = np.tile([0, 1], 40)
    domain = np.repeat(["source", "target"], 40)
    score = np.random.default_rng(seed).normal(size=80) + shift * label
    clips = pd.DataFrame({"label": label, "domain": domain, "score": score})
    clips.insert(0, "machine", "pump")
    clips.insert(1, "section", "00")
    clips.to_csv(folder / "clips.csv", index=False)
    costs = [("pump", "00", 100 + seed, 0.25, 4.0), ("fan", "00", 99, 0.25, 6.0),
             ("all machines", "", None, 9.5, None)]  # fmt: skip
    columns = ["machine", "section", "parameters", "fit_seconds", "score_ms"]
    pd.DataFrame(costs, columns=columns).to_csv(folder / "costs.csv", index=False)
    if not labels:
        return None
    table = metrics_table({("pump", "00"): section_metrics(label, domain, score)}, (0.4, 0.8))
    table.to_csv(folder / "metrics.csv", index=False)
    return table["official_score"].iloc[-1]


@pytest.fixture
def swept(tmp_path):
    """Two detectors with two seeds each, and a third without its weights."""
    data = "data=factory"
    official = {
        ("knn", 0): job(tmp_path, "0", [data, "detector=knn", "seed=0"], 1.0, 0),
        ("knn", 1): job(tmp_path, "1", [data, "detector=knn", "seed=1"], 1.0, 1),
        ("lof", 0): job(tmp_path, "2", [data, "detector=lof", "+seed=0"], 3.0, 0),
        ("lof", 1): job(tmp_path, "10", [data, "detector=lof", "+seed=1"], 3.0, 1),
    }
    job(tmp_path, "3", [data, "detector=anopatch", "seed=0"])
    mark_failed(tmp_path / "3", "weights are missing")
    return tmp_path, official


def test_a_row_for_each_job_in_their_order(swept):
    folder, official = swept
    table = jobs(folder)
    assert table["job"].tolist() == ["0", "1", "2", "3", "10"]
    assert table["detector"].tolist() == ["knn", "knn", "lof", "anopatch", "lof"]
    assert table["seed"].tolist() == ["0", "1", "0", "0", "1"]
    done = table[table["reason"] == ""].set_index(["detector", "seed"])
    for (detector, seed), score in official.items():
        assert done.loc[(detector, str(seed)), "official"] == pytest.approx(score)
    assert done["low"].unique().tolist() == [0.4]
    # The largest detector, all training, the mean clip.
    assert done.loc[("lof", "1"), ["parameters", "training_seconds", "scoring_ms"]].tolist() == [
        101, 10.0, 5.0,
    ]  # fmt: skip


def test_jobs_are_printed_with_the_best_first_and_seeds_together(swept, capsys):
    folder, official = swept
    compare(folder)
    out, err = capsys.readouterr()
    head, first, second = out.split("The sweep, the best first")[1].strip().splitlines()[:3]
    assert head.split()[0] == "detector"
    assert "data" not in head, "all jobs have the same"
    assert [first.split()[0], second.split()[0]] == ["lof", "knn"]
    mean = 50 * (official["knn", 0] + official["knn", 1])
    spread = 50 * abs(official["knn", 0] - official["knn", 1])
    assert f"{mean:.1f} ± {spread:.1f} [40.0 to 80.0]     2" in second
    assert err.strip().splitlines() == [
        "1 of 5 jobs have no result:",
        "  data=factory detector=anopatch seed=0: weights are missing",
    ]
    table = pd.read_csv(folder / "sweep.csv", dtype={"job": str})
    assert table["official"].tolist() == pytest.approx(
        jobs(folder)["official"].tolist(), nan_ok=True
    )
    assert table["reason"].dropna().tolist() == ["weights are missing"]


def test_a_failed_section_leaves_the_scores_of_its_job_undefined(swept, capsys):
    folder, _ = swept
    row = {"machine": "fan", "section": "00", "stage": "detect", "reason": "no training clips"}
    pd.DataFrame([row]).to_csv(folder / "10" / "failed.csv", index=False)
    table = jobs(folder).set_index("job")
    assert table["failed"].tolist() == [
        "",
        "",
        "",
        "",
        "fan section 00 in stage detect: no training clips",
    ]
    assert table.loc["10", ["auc_source", "pauc", "official", "low"]].isna().all()
    assert table.loc["10", "training_seconds"] == 10
    compare(folder)
    out, err = capsys.readouterr()
    rows = out.split("The sweep, the best first")[1].strip().splitlines()
    # Nor is a mean taken over the seeds that went well.
    assert [row.split()[0] for row in rows[1:3]] == ["knn", "lof"]
    assert rows[2].split()[-2:] == ["—", "2"]
    assert err.strip().splitlines()[-2:] == [
        "In 1 of 4 jobs sections failed; their scores are undefined:",
        "  data=factory detector=lof +seed=1: fan section 00 in stage detect: no training clips",
    ]


def test_a_job_of_which_all_sections_failed_is_a_row(swept):
    folder, _ = swept
    row = {"machine": "fan", "section": "00", "stage": "detect", "reason": "no training clips"}
    for path in (folder / "0").glob("*.csv"):
        path.unlink()
    pd.DataFrame([row]).to_csv(folder / "0" / "failed.csv", index=False)
    table = jobs(folder).set_index("job")
    assert table.loc["0", "failed"].startswith("fan section 00")
    assert table.loc["0", "reason"] == ""
    compare(folder)


def test_only_seeds_differ_is_one_row(tmp_path, capsys):
    for seed in range(3):
        job(tmp_path, str(seed), ["detector=knn", f"seed={seed}"], seed=seed)
    compare(tmp_path)
    lines = capsys.readouterr().out.split("The sweep, the best first")[1].strip().splitlines()
    assert lines[0].split()[0] == "Job"
    assert lines[1].split()[0] == "all"
    assert lines[1].split()[-1] == "3"


def test_a_setting_that_only_one_job_was_given(tmp_path, capsys):
    job(tmp_path, "0", ["detector=knn"], 1.0)
    job(tmp_path, "1", ["detector=knn", "+detector.k=2"], 3.0)
    compare(tmp_path)
    head, first, second = capsys.readouterr().out.split("first")[1].strip().splitlines()[:3]
    assert head.split()[0] == "detector.k"
    assert first.split()[:2] == ["2", "100"]
    assert second.split()[:2] == ["100", "10.0"]


def test_without_labels_there_is_no_score_but_what_it_costs(tmp_path, capsys):
    job(tmp_path, "0", ["detector=knn"], labels=False)
    job(tmp_path, "1", ["detector=lof"])
    compare(tmp_path)
    best, unknown = capsys.readouterr().out.split("Jobs\n")[1].splitlines()[:2]
    assert best.split()[0] == "lof"
    assert unknown.split() == ["knn", "100", "10.0", "s", "5.0", "ms", "—", "—", "—", "—", "1"]


def test_a_job_that_was_killed_is_listed(tmp_path, capsys):
    job(tmp_path, "0", ["detector=knn"])
    job(tmp_path, "1", ["detector=fkie"])
    (tmp_path / "1" / "clips.csv").unlink()
    compare(tmp_path)
    message = capsys.readouterr().err
    assert f"detector=fkie: it ended without a result, see {tmp_path / '1' / 'run.log'}" in message


def test_a_sweep_that_detects_nothing_has_nothing_to_compare(tmp_path, capsys):
    for name in ("0", "1"):
        job(tmp_path, name, [f"seed={name}", "stages=[finetune]"])
        (tmp_path / name / "clips.csv").unlink()
    compare(tmp_path)
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "sweep.csv").exists()


def test_jobs_are_compared_when_the_process_ends_wherever_they_ran(tmp_path, monkeypatch, swept):
    """Launchers pickle Hydra's callbacks; a job that failed lets Hydra call none at the end."""
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", [f"hydra.sweep.dir={tmp_path}"], return_hydra_config=True)
    callback = hydra.utils.instantiate(cfg.hydra.callbacks.comparison)
    assert isinstance(callback, Comparison)
    assert isinstance(pickle.loads(pickle.dumps(callback)), Comparison)
    registered = []
    monkeypatch.setattr(sweep.atexit, "register", lambda *call: registered.append(call))
    callback.on_multirun_start(cfg)
    assert registered == [(compare, Path(tmp_path))]
