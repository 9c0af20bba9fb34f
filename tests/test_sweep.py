"""What a sweep shows of its jobs, and how it ends."""

import io
import logging
import os
import pickle
import sys
from pathlib import Path

import hydra
import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from hydra._internal.callbacks import Callbacks
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import open_dict
from run_folders import failed_section, write_finetuned, write_run, write_status, write_sweep

from fsasd.cli import job_console, sweep
from fsasd.cli.sweep import Comparison, _result, compare, note_interruption
from fsasd.cli.sweep_progress import SweepProgress
from fsasd.report.runs.status import Status, Sweep, job_folders

SWEPT = ["detector=knn,lof", "seed=0,1"]
FAILED = "weights are missing"


@pytest.fixture
def swept(tmp_path):
    """Two detectors with two seeds each, of which one failed; returns the official scores."""
    jobs = [[f"detector={d}", f"seed={s}"] for d in ("knn", "lof") for s in (0, 1)]
    write_sweep(tmp_path, jobs, SWEPT)
    official = []
    for number, overrides in enumerate(jobs):
        shift = 1.0 if number < 2 else 3.0
        score = write_run(tmp_path / str(number), overrides, shift, number % 2)
        official.append(score)
        how = {"state": "done", "result": f"official {100 * score:.1f} %"}
        how = {"state": "failed", "reason": FAILED} if number == 3 else how
        write_status(tmp_path / str(number), number, overrides=overrides, **how)
    return tmp_path, official


def lines_of(text):
    return [line.rstrip() for line in text.strip().splitlines()]


def test_jobs_are_printed_with_the_best_first_and_seeds_together(swept, capsys):
    folder, official = swept
    assert compare(folder) == 1
    out, err = capsys.readouterr()
    _, head, first, second, verdict, where = lines_of(out.split("The sweep, the best first")[1])
    assert head.split()[:2] == ["detector", "Parameters"]
    assert first.split()[0] == "lof"
    assert first.split()[-2:] == ["baseline", "1"]
    mean = 50 * (official[0] + official[1])
    deviation = 100 * abs(official[0] - official[1]) / 2**0.5
    assert f" {mean:.1f} ± {deviation:.1f}  40.0 to 80.0  " in second
    assert second.split()[0] == "knn"
    assert second.split()[-1] == "2"
    assert verdict == "Worse than detector=lof: detector=knn."
    assert where == f"sweep:           {folder / 'sweep.csv'}"
    assert lines_of(err) == [
        "1 of 4 jobs have no result:",
        f"  detector=lof seed=1: {FAILED}",
    ]
    table = pd.read_csv(folder / "sweep.csv", dtype={"job": str})
    assert table["official"].tolist()[:3] == pytest.approx(official[:3])
    assert table["state"].tolist() == ["done"] * 3 + ["failed"]


def test_sections_that_failed_are_named(swept, capsys):
    folder, _ = swept
    failed_section(folder / "0")
    assert compare(folder) == 1
    assert lines_of(capsys.readouterr().err)[-2:] == [
        "In 1 of 3 jobs sections failed; their scores are undefined:",
        "  detector=knn seed=0: fan section 00 in stage detect: no training clips",
    ]


def test_a_sweep_that_lacks_only_sections_ends_with_another_code(tmp_path):
    write_sweep(tmp_path, [["k=1"]])
    write_run(tmp_path / "0", ["k=1"])
    write_status(tmp_path / "0", state="incomplete", reason="see unreadable.csv")
    assert compare(tmp_path) == 3
    write_status(tmp_path / "0")
    assert compare(tmp_path) == 0


def test_jobs_that_never_started_are_counted(swept, capsys):
    folder, _ = swept
    for job in ("1", "2"):
        (folder / job / "status.json").unlink()
    assert compare(folder) == 1
    assert lines_of(capsys.readouterr().err) == [
        "3 of 4 jobs have no result:",
        f"  detector=lof seed=1: {FAILED}",
        "  2 never started",
        "The same command goes on from what the store holds.",
    ]


def test_only_seeds_differ_is_one_row(tmp_path, capsys):
    for seed in range(3):
        write_run(tmp_path / str(seed), ["detector=knn", f"seed={seed}"], seed=seed)
    compare(tmp_path)
    _, head, only, _ = lines_of(capsys.readouterr().out.split("The sweep, the best first")[1])
    assert head.split()[0] == "Setting"
    assert [only.split()[0], only.split()[-1]] == ["all", "3"]


def test_without_labels_there_is_no_score_but_what_it_costs(tmp_path, capsys):
    write_run(tmp_path / "0", ["detector=knn"], labels=False)
    write_run(tmp_path / "1", ["detector=lof"], labels=False)
    compare(tmp_path)
    rows = lines_of(capsys.readouterr().out.split("first")[1])[2:4]
    assert [row.split()[0] for row in rows] == ["knn", "lof"]
    assert rows[0].split()[1:6] == ["100", "0.2", "s", "4.0", "ms"]


def test_a_sweep_of_fine_tunings_is_compared_by_loss(tmp_path, capsys):
    for run, losses in (("0", {2: 0.5}), ("1", {2: 0.4, 4: 0.25})):
        overrides = [f"trainer.max_steps={run}", "stages=[finetune]"]
        write_finetuned(tmp_path / run, tmp_path / ".store", overrides, losses, key=run * 16)
    assert compare(tmp_path) == 0
    head, first, second, _ = lines_of(capsys.readouterr().out.split("Fine-tuning")[1])[-4:]
    assert head.split()[:2] == ["trainer.max_steps", "val/loss"]
    assert first.split() == ["1", "0.25", "4", "0.25", "4", "12", "s", "1" * 16, "1"]
    assert second.split()[:2] == ["0", "0.5"]
    assert (tmp_path / "sweep.csv").is_file()


def test_a_sweep_without_any_result_prints_no_table(tmp_path, capsys):
    write_sweep(tmp_path, [["stages=[check]"]])
    write_status(tmp_path / "0")
    (tmp_path / "0" / ".hydra").mkdir()
    assert compare(tmp_path) == 0
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "sweep.csv").exists()


# While it runs.


def test_where_there_is_no_terminal_each_job_that_ended_is_a_line(swept):
    folder, official = swept
    write_status(folder / "1", 1, "running", overrides=["detector=knn", "seed=1"])
    shown = io.StringIO()
    progress = SweepProgress(folder, Sweep.read(folder), shown, interval=0.01)
    progress.start()
    write_status(folder / "1", 1, "interrupted", overrides=["detector=knn", "seed=1"])
    progress.stop()
    progress.stop()
    first, *others = lines_of(shown.getvalue())
    assert first == f"4 jobs; what each prints is in {folder}/<job>/run.log"
    ended = [line.split("] ")[1] for line in others]
    assert [line.split("] ")[0] for line in others] == ["[1/4", "[2/4", "[3/4", "[4/4"]
    assert sorted(ended) == [
        f"detector=knn seed=0: done in 0 s, official {100 * official[0]:.1f} %",
        "detector=knn seed=1: interrupted or killed",
        f"detector=lof seed=0: done in 0 s, official {100 * official[2]:.1f} %",
        f"detector=lof seed=1: failed: {FAILED}",
    ]


def test_the_jobs_of_a_search_show_what_it_optimises_and_where_they_are(tmp_path):
    write_sweep(tmp_path, None, n_jobs=2)
    job = tmp_path / "2026-01-01_00-00-00" / "0"
    official = write_run(job, ["detector.k=1"])
    table = pd.DataFrame({"machine": ["pump"], "section": "00", "param.k": 1,
                          "objective": 0.625, "chosen": True})  # fmt: skip
    table.to_csv(job / "selection.csv", index=False)
    result = _result(job, "synthetic/objective")
    write_status(job, overrides=["detector.k=1"], result=result)
    shown = io.StringIO()
    progress = SweepProgress(tmp_path, Sweep.read(tmp_path), shown, interval=0.01)
    progress.start()
    progress.stop()
    where, job_line = lines_of(shown.getvalue())
    assert where == f"2 jobs; what each prints is in run.log of its folder below {tmp_path}"
    assert job_line == "[1/2] detector.k=1: done in 0 s, synthetic/objective 62.5 %"
    assert _result(job, None) == f"official {100 * official:.1f} %"


class Terminal(io.StringIO):
    """A terminal of which the text is kept."""

    def isatty(self):
        return True


def test_on_a_terminal_the_states_are_shown_live(swept, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    folder, _ = swept
    write_status(folder / "1", 1, "running", overrides=["detector=knn", "seed=1"])
    (folder / "0" / "status.json").unlink()
    shown = Terminal()
    progress = SweepProgress(folder, Sweep.read(folder), shown)
    progress.start()
    progress.stop()
    last = shown.getvalue().rpartition("4 jobs: ")[2]
    assert last.startswith("1 done, 1 failed, 1 running, 1 waiting; 0 s")
    assert "detector=knn seed=1  running for 0 s" in last
    assert f"failed: {FAILED}" in last


def test_a_state_that_is_half_written_or_closed_does_not_end_the_sweep(swept):
    folder, _ = swept
    (folder / "0" / "status.json").write_text("{")
    shown = io.StringIO()
    progress = SweepProgress(folder, Sweep.read(folder), shown)
    progress.start()
    progress.stop()
    assert len(lines_of(shown.getvalue())) == 4


# Hydra's side.


def configured(folder, *overrides, mode=RunMode.MULTIRUN, number=0, job=()):
    """The configuration of a sweep, and as one of its jobs has it."""
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", [f"hydra.sweep.dir={folder}"], return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.mode = mode
        cfg.hydra.runtime.output_dir = str(folder / str(number))
        cfg.hydra.job.num = number
        cfg.hydra.overrides.task = list(job or overrides)
    return cfg


@pytest.fixture
def ends(monkeypatch):
    """What a sweep has registered for the end of this process."""
    registered = []
    monkeypatch.setattr(sweep.atexit, "register", registered.append)
    yield registered
    sweep._running.clear()
    job_console.restore()


def test_launchers_can_pickle_the_callback(tmp_path):
    cfg = configured(tmp_path)
    callback = hydra.utils.instantiate(cfg.hydra.callbacks.comparison)
    assert isinstance(pickle.loads(pickle.dumps(callback)), Comparison)


def run_job(folder, number, result):
    """One job of the sweep, as Hydra's launchers run it; returns what they get."""
    cfg = configured(folder, number=number, job=["detector=knn", f"seed={number}"])
    (folder / str(number)).mkdir(exist_ok=True)
    callback, returned = Comparison(), JobReturn()
    callback.on_job_start(cfg, task_function=None)
    print("printed by the job")
    os.write(2, b"printed below Python\n")
    failed = isinstance(result, Exception)
    returned.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
    returned.return_value = result
    callback.on_job_end(cfg, job_return=returned)
    return returned


def test_a_job_that_inherits_no_variables_knows_its_sweep(tmp_path, monkeypatch, ends, capfd):
    cfg = configured(tmp_path, *SWEPT)
    Comparison().on_multirun_start(cfg)
    monkeypatch.setenv("FSASD_STARTED", "2020-01-01T00:00:00+00:00")
    (tmp_path / "0").mkdir()
    Comparison().on_job_start(cfg, task_function=None)
    assert Status.read(tmp_path / "0").sweep == Sweep.read(tmp_path).started
    job_console.restore()


def test_a_job_that_fails_is_noted_and_the_sweep_goes_on(tmp_path, ends, capfd):
    Comparison().on_multirun_start(configured(tmp_path, *SWEPT))
    assert Sweep.read(tmp_path).jobs == [
        [f"detector={d}", f"seed={s}"] for d in ("knn", "lof") for s in (0, 1)
    ]
    assert run_job(tmp_path, 0, 0.5).return_value == 0.5
    failed = run_job(tmp_path, 1, ValueError(f"{FAILED}\nfor good"))
    assert failed.return_value != failed.return_value, "NaN"
    assert failed.status == JobStatus.COMPLETED
    first, second = (Status.read(tmp_path / job) for job in "01")
    assert (first.state, second.state) == ("done", "failed")
    assert second.reason == f"{FAILED} for good"
    with pytest.raises(SystemExit) as ended:
        Comparison().on_multirun_end(configured(tmp_path, *SWEPT))
    assert ended.value.code == 1
    out, err = capfd.readouterr()
    assert "printed" not in out + err
    assert "printed by the job\nprinted below Python\n" in (tmp_path / "1" / "run.log").read_text()
    assert "3 of 4 jobs have no result:" in err
    assert "[2/4] detector=knn seed=1: failed: weights are missing for good" in err
    # At the end of the process nothing is printed again.
    (end,) = ends
    end()
    assert capfd.readouterr() == ("", "")


def notified(begins_or_ends, cfg):
    """The callbacks of a sweep, called as Hydra does: it makes a warning of their errors."""
    getattr(Callbacks(cfg), begins_or_ends)(config=cfg, config_name="config")


def test_jobs_that_cannot_be_compared_are_an_error(tmp_path, ends, capfd):
    cfg = configured(tmp_path, *SWEPT)
    notified("on_multirun_start", cfg)
    run_job(tmp_path, 0, ValueError(FAILED))
    (tmp_path / "0" / "status.json").write_text("[]")
    with pytest.raises(SystemExit) as ended:
        notified("on_multirun_end", cfg)
    assert ended.value.code == 1
    said = capfd.readouterr().err.splitlines()[-1]
    assert f"{tmp_path / '0' / 'status.json'}: expected the state that fsasd wrote" in said


def test_a_sweep_that_cannot_list_its_jobs_does_not_begin(tmp_path, ends, capfd):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        notified("on_multirun_start", configured(tmp_path / "file", *SWEPT))
    assert ended.value.code == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert str(tmp_path / "file") in line


def test_an_unexpected_error_is_whole_in_the_log_of_its_job(tmp_path, ends, capfd):
    Comparison().on_multirun_start(configured(tmp_path, *SWEPT))
    (tmp_path / "0").mkdir()
    handler = logging.FileHandler(tmp_path / "0" / "job.log")
    logging.getLogger().addHandler(handler)
    try:
        try:
            raise ZeroDivisionError("a mistake")
        except ZeroDivisionError as error:
            run_job(tmp_path, 0, error)
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    text = (tmp_path / "0" / "job.log").read_text()
    assert "the job failed: a mistake" in text
    assert "Traceback" in text
    assert "printed below Python" in text
    sweep._end()
    assert "failed: a mistake" in capfd.readouterr().err


def test_a_search_is_told_of_failures_and_has_as_many_jobs_as_trials(tmp_path, ends, capfd):
    cfg = configured(tmp_path, *SWEPT)
    with open_dict(cfg):
        cfg.hydra.sweeper = {"_target_": "hydra_plugins.optuna.OptunaSweeper", "n_trials": 7}
    Comparison().on_multirun_start(cfg)
    listed = Sweep.read(tmp_path)
    assert (listed.n_jobs, listed.jobs) == (7, None)
    (tmp_path / "0").mkdir()
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir, cfg.hydra.job.num = str(tmp_path / "0"), 0
    returned = JobReturn()
    Comparison().on_job_start(cfg, task_function=None)
    returned.status, returned.return_value = JobStatus.FAILED, ValueError(FAILED)
    Comparison().on_job_end(cfg, job_return=returned)
    assert returned.status == JobStatus.FAILED
    sweep._end()
    assert "7 of 7 jobs have no result:" in capfd.readouterr().err


def test_a_single_run_has_no_state_and_keeps_its_console(tmp_path):
    cfg = configured(tmp_path, mode=RunMode.RUN)
    stdout = sys.stdout
    Comparison().on_job_start(cfg, task_function=None)
    assert sys.stdout is stdout
    Comparison().on_job_end(cfg, job_return=JobReturn())
    assert not list(Path(tmp_path).rglob("status.json"))


def test_a_job_that_is_interrupted_does_not_run_any_more(tmp_path):
    write_status(tmp_path / "0", state="running")
    write_status(tmp_path / "1", state="done")
    (tmp_path / "2").mkdir()
    for job in "012":
        note_interruption(tmp_path / job)
    first, second, single = (Status.read(tmp_path / job) for job in "012")
    assert (first.state, second.state, single) == ("interrupted", "done", None)
    assert first.ended


def test_a_process_that_ends_within_a_job_gives_the_console_back(tmp_path, ends, capfd):
    Comparison().on_multirun_start(configured(tmp_path, *SWEPT))
    cfg = configured(tmp_path, number=2, job=["detector=lof", "seed=0"])
    (tmp_path / "2").mkdir()
    Comparison().on_job_start(cfg, task_function=None)
    (end,) = ends
    end()
    assert "4 of 4 jobs have no result:" in capfd.readouterr().err
    assert [run.name for run in job_folders(tmp_path)] == ["2"]


def test_a_search_that_has_no_trial_left_has_nothing_to_compare(tmp_path, capsys):
    write_sweep(tmp_path, None, ["detector.k=range(1,9)"], n_jobs=0)
    assert compare(tmp_path) == 0
    assert capsys.readouterr() == ("", "")
