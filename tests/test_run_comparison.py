"""Runs and sweeps compared, from the folders that they leave."""

import math
import shutil

import numpy as np
import pandas as pd
import pytest
from run_folders import failed_section, write_finetuned, write_run, write_status, write_sweep
from sklearn.metrics import roc_auc_score

from fsasd.generation.training import Training
from fsasd.report.runs.comparison import compare_runs
from fsasd.report.runs.console import formatted
from fsasd.report.runs.differences import differences, machine_scores
from fsasd.report.runs.jobs import jobs, settings_of
from fsasd.report.runs.settings import distinct, settings

DATA = "data=factory"


@pytest.fixture
def swept(tmp_path):
    """Two detectors with two seeds each, and a third without its weights."""
    names = {"0": ("knn", 0), "1": ("knn", 1), "2": ("lof", 0), "10": ("lof", 1)}
    official = {}
    for folder, (detector, seed) in names.items():
        overrides = [DATA, f"detector={detector}", f"{'+' * (detector == 'lof')}seed={seed}"]
        shift = 1.0 if detector == "knn" else 3.0
        official[detector, seed] = write_run(tmp_path / folder, overrides, shift, seed)
    write_run(tmp_path / "3", [DATA, "detector=anopatch", "seed=0"])
    write_status(tmp_path / "3", 3, "failed", reason="weights are missing")
    return tmp_path, official


def test_a_row_for_each_job_in_their_order(swept):
    folder, official = swept
    table = jobs(folder)
    assert table["job"].tolist() == ["0", "1", "2", "3", "10"]
    assert settings_of(table) == ["data", "detector", "seed"]
    assert table["detector"].tolist() == ["knn", "knn", "lof", "anopatch", "lof"]
    assert table["seed"].tolist() == ["0", "1", "0", "0", "1"]
    assert table["state"].tolist() == ["done", "done", "done", "failed", "done"]
    assert table["reason"].tolist() == ["", "", "", "weights are missing", ""]
    done = table[table["reason"] == ""].set_index(["detector", "seed"])
    for (detector, seed), score in official.items():
        assert done.loc[(detector, str(seed)), "official"] == pytest.approx(score)
    assert done["low"].unique().tolist() == [0.4]


def test_costs_are_of_the_largest_detector_all_training_and_the_mean_clip(tmp_path):
    write_run(tmp_path, ["detector=knn"])
    costs = [("pump", "00", 100, 0.25, 4.0), ("fan", "00", 99, 0.25, 6.0),
             ("all machines", "", None, 9.5, None)]  # fmt: skip
    columns = ["machine", "section", "parameters", "fit_seconds", "score_ms"]
    pd.DataFrame(costs, columns=columns).to_csv(tmp_path / "costs.csv", index=False)
    row = jobs(tmp_path).iloc[0]
    assert row[["parameters", "training_seconds", "scoring_ms"]].tolist() == [100, 10.0, 5.0]


def test_a_value_that_no_override_names_is_that_of_the_configuration(tmp_path):
    write_run(tmp_path / "0", ["detector.k=2", "+x=1e-3", "seed=1"])
    write_run(tmp_path / "1", ["detector=lof"])
    config = "detector: {k: 3, levels: ['a']}\nx: 0.001\nseed: 0\n"
    hydra = "hydra: {runtime: {choices: {detector: knn}}}\n"
    for run in ("0", "1"):
        (tmp_path / run / ".hydra" / "config.yaml").write_text(config)
        (tmp_path / run / ".hydra" / "hydra.yaml").write_text(hydra)
    table = jobs(tmp_path)
    assert table["detector"].tolist() == ["knn", "lof"]
    assert table["detector.k"].tolist() == ["2", "3"]
    assert table["x"].tolist() == ["0.001", "0.001"]
    assert table["seed"].tolist() == ["1", "0"]


def test_jobs_that_never_started_and_stale_ones(tmp_path):
    write_sweep(tmp_path, [["k=0"], ["k=1"], ["k=2"], ["k=3"]])
    for number, state in enumerate(("done", "interrupted")):
        write_run(tmp_path / str(number), [f"k={number}"])
        write_status(tmp_path / str(number), number, state)
    # Of an earlier sweep in this folder: of one that has this place now, and of one that has not.
    for number in (3, 9):
        write_run(tmp_path / str(number), ["k=x"])
        write_status(tmp_path / str(number), number, sweep="2025-01-01T00:00:00+00:00")
    table = jobs(tmp_path).set_index("job")
    assert table["state"].to_dict() == {
        "0": "done", "1": "interrupted", "2": "not started", "3": "not started",
    }  # fmt: skip
    assert table["k"].tolist() == ["0", "1", "2", "3"]
    assert table["reason"].tolist()[2:] == ["it never started"] * 2
    assert table.loc["1", "reason"].startswith("it was interrupted or killed, see ")
    comparison = compare_runs(tmp_path)
    assert comparison.states == "4 jobs: 1 done, 1 interrupted, 2 not started"
    assert comparison.exit_code == 1


def test_a_search_has_as_many_jobs_as_trials(tmp_path):
    write_sweep(tmp_path, None, ["detector.k=range(1,9)"], n_jobs=5)
    write_run(tmp_path / "0", ["detector.k=3"])
    write_status(tmp_path / "0")
    table = jobs(tmp_path)
    assert table["state"].tolist() == ["done"] + ["not started"] * 4
    assert table["overrides"].tolist()[1:] == ["detector.k=range(1,9)"] * 4


def test_a_search_that_goes_on_has_repeated_the_jobs_in_which_it_was_killed(tmp_path):
    write_sweep(tmp_path, None, n_jobs=1)
    earlier = {"sweep": "2025-01-01T00:00:00+00:00", "overrides": ["k=1"]}
    for number, state in enumerate(("done", "failed", "interrupted", "running")):
        job = tmp_path / "earlier" / str(number)
        write_run(job, [f"k={number}"])
        write_status(job, number, state, **earlier)
    # It was killed before the job had a state.
    (tmp_path / "earlier" / "4" / ".hydra").mkdir(parents=True)
    write_run(tmp_path / "now" / "0", ["k=2"])
    write_status(tmp_path / "now" / "0")
    table = jobs(tmp_path)
    assert table.set_index("job")["state"].to_dict() == {
        "earlier/0": "done", "earlier/1": "failed", "now/0": "done",
    }  # fmt: skip
    write_status(tmp_path / "earlier" / "1", 1, **earlier)
    assert compare_runs(tmp_path).exit_code == 0
    write_status(tmp_path / "now" / "0", 0, "interrupted")
    assert compare_runs(tmp_path).exit_code == 1


def test_runs_that_were_repeated_in_their_folder_are_read_again(tmp_path):
    write_run(tmp_path / "a", ["k=1"], 3.0)
    write_run(tmp_path / "b", ["k=2"], 1.0)
    before = compare_runs(tmp_path, baseline="k=1")
    assert before.differences["k=2"].value < 0
    shutil.rmtree(tmp_path / "b")
    write_run(tmp_path / "b", ["k=2"], 5.0)
    after = compare_runs(tmp_path, baseline="k=1")
    assert after.differences["k=2"].value > 0
    scores = after.machines.set_index("setting")["official"]
    table = after.table.set_index("k")["official"]
    assert scores["k=2"] == pytest.approx(table["2"])
    assert before.differences["k=2"].value < 0


def test_a_failed_section_leaves_the_scores_of_its_job_and_setting_undefined(swept):
    folder, official = swept
    failed_section(folder / "10")
    table = jobs(folder).set_index("job")
    assert table.loc["10", "failed"] == "fan section 00 in stage detect: no training clips"
    assert table.loc["10", ["auc_source", "pauc", "official", "low"]].isna().all()
    assert table.loc["10", "training_seconds"] == 0.25
    assert table.loc["10", "state"] == "incomplete"
    # Nor is a mean taken over the seeds that went well.
    knn, lof = compare_runs(folder).settings
    assert lof.choices == {"detector": "lof"}
    assert math.isnan(lof.mean("official"))
    assert knn.mean("official") == pytest.approx(np.mean([official["knn", s] for s in (0, 1)]))


def test_means_and_deviations_are_over_seeds(swept):
    folder, official = swept
    table = compare_runs(folder).table
    assert table["detector"].tolist() == ["lof", "knn"], "the best first"
    assert table["jobs"].tolist() == [2, 2]
    for row in table.to_dict("records"):
        first, second = (official[row["detector"], seed] for seed in (0, 1))
        assert row["official"] == pytest.approx((first + second) / 2)
        assert row["official_std"] == pytest.approx(abs(first - second) / math.sqrt(2))


def write_trial(folder, k, official_shift, objective, name="synthetic/objective"):
    write_run(folder, [f"detector.k={k}"], official_shift)
    (folder / ".hydra" / "config.yaml").write_text(f"objective: {name}\n")
    table = pd.DataFrame({"machine": "pump", "section": "00", "param.k": [k, 9],
                          "objective": [objective, 0.99], "chosen": [True, False]})  # fmt: skip
    table.to_csv(folder / "selection.csv", index=False)


def test_the_trials_of_a_search_are_ranked_by_what_it_optimised(tmp_path):
    # The official score, of test labels, would say otherwise.
    write_trial(tmp_path / "0", 1, 5.0, 0.6)
    write_trial(tmp_path / "1", 2, 1.0, 0.8)
    write_trial(tmp_path / "2", 3, 3.0, 0.7)
    comparison = compare_runs(tmp_path)
    assert comparison.objective == "synthetic/objective"
    assert comparison.order == "the best by synthetic/objective first"
    table = comparison.table
    assert table["objective_value"].tolist() == [0.8, 0.7, 0.6]
    assert table["detector.k"].tolist() == ["2", "3", "1"]
    assert not table["official"].is_monotonic_decreasing
    assert formatted(comparison)["Objective"].tolist() == ["80.0", "70.0", "60.0"]
    assert comparison.baseline is comparison.settings[0]
    # Runs with different objectives are not comparable by them.
    write_trial(tmp_path / "3", 4, 2.0, 0.5, "official")
    mixed = compare_runs(tmp_path)
    assert (mixed.objective, mixed.order) == (None, "the best first")
    assert mixed.table["detector.k"].tolist() == ["1", "3", "4", "2"]
    assert "Objective" not in formatted(mixed)


def test_a_loss_that_is_optimised_is_lowest_first(tmp_path):
    for k, loss in ((1, 0.3), (2, 0.2)):
        write_finetuned(tmp_path / str(k), tmp_path / f"store{k}", [f"k={k}"], {10: loss})
        (tmp_path / str(k) / ".hydra" / "config.yaml").write_text("objective: val/loss\n")
        Training(10, loss).write(tmp_path / str(k))
    comparison = compare_runs(tmp_path / "1", tmp_path / "2")
    assert comparison.order == "the best by val/loss first"
    assert comparison.table["k"].tolist() == ["2", "1"]


def test_a_run_that_repeats_another_counts_once(tmp_path):
    for name, seed in (("0", 0), ("1", 1), ("again", 1)):
        write_run(tmp_path / name, ["detector=knn", f"seed={seed}", f"store={name}"], seed=seed)
        write_status(tmp_path / name)
    write_run(tmp_path / "x" / "other", ["detector=knn", "seed=0"], shift=2, seed=0)
    table = jobs(tmp_path)
    table["ended"] = table["job"].map({"0": "01", "1": "02", "again": "03", "x/other": "04"})
    kept, notes = distinct(table)
    assert sorted(kept["job"]) == ["again", "x/other"]
    assert notes == [
        "0 is not counted: x/other has its settings and seed; it is older, and its results differ",
        "1 is not counted: again has its settings and seed; it is the same",
    ]


def test_settings_are_those_that_differ(tmp_path):
    for number, k in enumerate((1, 1, 2)):
        overrides = [DATA, f"detector.k={k}", f"seed={number}", f"logger=x{number}"]
        write_run(tmp_path / str(number), [*overrides, f"hydra.job.chdir={number}"])
    groups = settings(jobs(tmp_path))
    assert [(group.name, list(group.jobs["seed"])) for group in groups] == [
        ("detector.k=1", ["0", "1"]),
        ("detector.k=2", ["2"]),
    ]


def test_how_it_was_computed_is_no_setting(tmp_path):
    for number, how in enumerate(["runner=serial", "runner.workers=8 shard=1/2", "~logger"]):
        write_run(tmp_path / str(number), [DATA, *how.split(), f"seed={number}"])
    (only,) = settings(jobs(tmp_path))
    assert list(only.jobs["seed"]) == ["0", "1", "2"]


def difference(first, second):
    """Of two settings."""
    (gain,) = differences([first], second).values()
    return gain


def harmonic(values):
    return len(values) / sum(1 / v for v in values)


def read_machines(folder):
    """Labels, domains and scores of each machine, in the order of the files."""
    clips = pd.read_csv(folder / "clips.csv").sort_values("file")
    return {
        machine: ((rows["label"] == "anomaly").to_numpy(int), rows["domain"].to_numpy(str),
                  rows["score"].to_numpy())
        for machine, rows in clips.groupby("machine")
    }  # fmt: skip


def official_of(machines, rows):
    """DCASE's score by scikit-learn, of some rows of each machine."""
    cells = []
    for machine, columns in machines.items():
        label, domain, score = (column[rows[machine]] for column in columns)
        for name in ("source", "target"):
            inside = (label == 1) | (domain == name)
            cells.append(roc_auc_score(label[inside], score[inside]))
        cells.append(roc_auc_score(label, score, max_fpr=0.1))
    return harmonic(cells)


@pytest.mark.nightly
@pytest.mark.slow
def test_a_difference_is_that_of_an_independent_bootstrap(tmp_path):
    """By scikit-learn, with clips that NumPy draws within label and domain of each machine."""
    machines = ("pump", "gearbox")
    for name, shift, seed in (("0", 1.0, 0), ("1", 1.0, 1), ("2", 1.6, 0), ("3", 1.6, 1)):
        overrides = [f"detector={'lof' if shift > 1 else 'knn'}", f"seed={seed}"]
        write_run(tmp_path / name, overrides, shift, seed, machines)
    lof, knn = compare_runs(tmp_path).settings
    gain = difference(lof, knn)
    runs = [read_machines(tmp_path / name) for name in "2301"]

    def gained(rows):
        scores = [official_of(run, rows) for run in runs]
        return np.mean(scores[:2]) - np.mean(scores[2:])

    assert gain.value == pytest.approx(gained(dict.fromkeys(machines, slice(None))))
    rng, resampled = np.random.default_rng(7), []
    for _ in range(150):
        rows = {}
        for machine, (label, domain, _) in runs[0].items():
            strata = [np.flatnonzero((label == a) & (domain == d))
                      for a in (0, 1) for d in ("source", "target")]  # fmt: skip
            rows[machine] = np.concatenate([rng.choice(s, len(s)) for s in strata])
        resampled.append(gained(rows))
    low, high = np.quantile(resampled, [0.025, 0.975])
    # The quantiles of 150 resamples are as uncertain as that.
    assert [gain.low, gain.high] == pytest.approx([low, high], abs=0.15 * (high - low))
    assert gain.verdict == "better"
    assert difference(knn, lof).verdict == "worse"
    assert difference(knn, lof).value == pytest.approx(-gain.value)
    assert [str(s) for s in gain.sections] == ["pump section 00", "gearbox section 00"]


def test_pairing_makes_intervals_narrower_than_those_of_the_scores(tmp_path):
    """What makes clips easy for both cancels."""
    write_run(tmp_path / "0", ["detector=a"], shift=1.0)
    write_run(tmp_path / "1", ["detector=b"], shift=1.05, seed=1)
    first, second = compare_runs(tmp_path).settings
    gain = difference(first, second)
    assert gain.verdict == "not significant"
    assert gain.high - gain.low < 0.15


def test_only_machines_with_the_same_clips_are_compared(tmp_path):
    write_run(tmp_path / "0", ["detector=a"], 2.0, machines=("pump", "fan", "valve"))
    write_run(tmp_path / "1", ["detector=b"], 1.0, machines=("pump", "slider", "valve"))
    other = pd.read_csv(tmp_path / "1" / "clips.csv", dtype={"section": str})
    other.loc[other["machine"] == "valve", "file"] += "x"
    other.to_csv(tmp_path / "1" / "clips.csv", index=False)
    comparison = compare_runs(tmp_path)
    gain = comparison.differences["detector=b"]
    assert [section.machine for section in gain.sections] == ["pump"]
    assert sorted(section.machine for section in gain.left_out) == ["fan", "slider", "valve"]
    (note,) = comparison.notes
    assert note.startswith("The difference of detector=b to detector=a is over 1 section")


@pytest.mark.parametrize("other", [{"machines": ("fan",)}, {"labels": False}])
def test_settings_without_common_labelled_clips_are_not_compared(tmp_path, other):
    write_run(tmp_path / "0", ["detector=a"])
    write_run(tmp_path / "1", ["detector=b"], **other)
    comparison = compare_runs(tmp_path, baseline="detector=a")
    gain = comparison.differences["detector=b"]
    assert math.isnan(gain.value)
    assert gain.verdict == "not comparable: no machine with the same labelled test clips"


def test_clips_without_domains_are_compared_by_auc_and_pauc(tmp_path):
    write_run(tmp_path / "0", ["detector=a"], 3.0, domains=False)
    write_run(tmp_path / "1", ["detector=b"], 1.0, domains=False)
    comparison = compare_runs(tmp_path)
    gain = comparison.differences["detector=b"]
    cells = []
    for run in ("1", "0"):
        clips = pd.read_csv(tmp_path / run / "clips.csv")
        label = clips["label"] == "anomaly"
        areas = [roc_auc_score(label, clips["score"], max_fpr=fpr) for fpr in (None, 0.1)]
        cells.append(harmonic(areas))
    assert gain.value == pytest.approx(cells[0] - cells[1])
    assert gain.verdict == "worse"


def test_the_best_setting_of_each_machine(tmp_path):
    write_run(tmp_path / "0", ["detector=a"], 3.0, machines=("pump",))
    write_run(tmp_path / "1", ["detector=b"], 1.0, machines=("pump",))
    for run, shift in (("0", 1.0), ("1", 3.0)):
        write_run(tmp_path / "more" / run, [], shift, machines=("fan",))
        for name in ("clips.csv", "metrics.csv"):
            tables = [pd.read_csv(f / name, dtype={"section": str}) for f in
                      (tmp_path / run, tmp_path / "more" / run)]  # fmt: skip
            pd.concat(tables).to_csv(tmp_path / run / name, index=False)
    comparison = compare_runs(tmp_path / "0", tmp_path / "1")
    best = comparison.best.set_index("machine")
    assert best["setting"].to_dict() == {"pump": "detector=a", "fan": "detector=b"}
    assert (best["difference"] > 0).all()
    assert (best["verdict"] == "better").all()
    scores = machine_scores(comparison.settings).set_index(["machine", "setting"])["official"]
    gain = scores["pump", "detector=a"] - scores["pump", "detector=b"]
    assert best.loc["pump", "difference"] == pytest.approx(gain)


def test_fine_tunings_are_compared_by_their_losses(tmp_path):
    losses = {"0": {2: 0.5, 4: 0.3, 6: 0.4}, "1": {2: 0.5, 4: 0.45, 6: 0.2}, "2": {2: 0.6}}
    for run, of_run in losses.items():
        overrides = [f"generator.learning_rate={1 if run == '2' else 2}e-4", f"seed={run}"]
        write_finetuned(tmp_path / "sweep" / run, tmp_path / "store", overrides, of_run,
                        seconds=10 * int(run) + 10, key=run * 16)  # fmt: skip
    comparison = compare_runs(tmp_path / "sweep")
    assert comparison.is_finetuned
    assert not comparison.is_scored
    first, second = comparison.table.to_dict("records")
    assert first["generator.learning_rate"] == "0.0002"
    assert first["val_loss"] == pytest.approx(0.25)
    assert first["val_loss_std"] == pytest.approx(0.1 / math.sqrt(2))
    assert first["val_loss_last"] == pytest.approx(0.3)
    assert (first["best_step"], first["steps"], first["finetuning_seconds"]) == (5, 6, 15)
    assert first["model"] == "1" * 16, "that of the lowest loss"
    assert (second["val_loss"], second["best_step"], second["jobs"]) == (0.6, 2, 1)


def test_a_fine_tuning_without_a_log_has_the_loss_of_its_weights(tmp_path):
    write_finetuned(tmp_path / "0", tmp_path / "store", ["logger=none"], {2: 0.5})
    shutil.rmtree(next((tmp_path / "store").glob("*/log")))
    Training(40, 0.25).write(tmp_path / "0")
    (row,) = compare_runs(tmp_path / "0").table.to_dict("records")
    assert (row["val_loss"], row["best_step"]) == (0.25, 40)
    assert math.isnan(row["val_loss_last"])
    assert math.isnan(row["steps"])


def test_of_many_settings_a_sentence_has_the_number(swept, monkeypatch):
    monkeypatch.setattr("fsasd.report.runs.comparison._NAMED", 0)
    found = compare_runs(swept[0], baseline="detector=knn").verdicts()
    assert found == ["Better than detector=knn: 1 setting."]


def test_a_baseline_is_one_of_the_settings(swept):
    folder, _ = swept
    comparison = compare_runs(folder, baseline="detector=knn")
    assert comparison.baseline.name == "detector=knn"
    assert comparison.differences["detector=lof"].value > 0
    assert comparison.verdicts() == ["Better than detector=knn: detector=lof."]
    match = r"setting 'detector=x': expected one of 'detector=lof', 'detector=knn'"
    with pytest.raises(ValueError, match=match):
        compare_runs(folder, baseline="detector=x")


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"expected the folder of a run or of a sweep, found no"):
        jobs(tmp_path)
