"""Trainings and costs on the report page."""

import numpy as np
import pandas as pd
import pytest
from run_folders import write_finetuned

from fsasd.generation.training import Training
from fsasd.report.page import write_report
from fsasd.report.training import loss_curves, read_log, trainings


@pytest.fixture
def log(tmp_path):
    """The log of a training that was interrupted after step 5, and logged steps 4 and 5 again."""
    for version, (first, last, loss) in enumerate([(1, 5, 9.0), (4, 12, 1.0)]):
        rows = [{"step": step - 1, "train/loss": loss} for step in range(first, last + 1)]
        rows += [{"step": step - 1, "val/loss": loss / 2} for step in range(first, last + 1, 4)]
        folder = tmp_path / "log" / f"version_{version}"
        folder.mkdir(parents=True)
        pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
    return tmp_path / "log"


def test_of_a_step_that_was_logged_twice_the_last_values_count(log):
    table = read_log(log)
    assert table["step"].tolist() == list(range(1, 13))
    assert table["train/loss"].tolist() == [9.0] * 3 + [1.0] * 9
    assert table.dropna(subset="val/loss")["step"].tolist() == [1, 4, 5, 8, 12]


def test_losses_are_drawn_with_the_weights_that_were_kept(log):
    (axis,) = loss_curves(read_log(log), Training(8, 0.5)).axes
    lines = {line.get_label(): line for line in axis.lines}
    np.testing.assert_array_equal(lines["validation"].get_xdata(), [1, 4, 5, 8, 12])
    assert list(lines["weights that were kept"].get_xdata()) == [8, 8]
    assert axis.get_yscale() == "log"
    negative = read_log(log).assign(**{"train/loss": -1.0})
    assert loss_curves(negative).axes[0].get_yscale() == "linear"


@pytest.mark.slow
def test_the_page_shows_trainings(tmp_path, log):
    run = tmp_path / "run"
    write_finetuned(run, tmp_path / "store", [], {2: 0.5, 4: 0.25})
    Training(4, 0.25).write(run)
    (run / "log" / "train").mkdir(parents=True)
    (run / "log" / "finetune").symlink_to(tmp_path / "store" / "0123456789abcdef" / "log")
    (run / "log" / "train" / "abc").symlink_to(log)
    of_generator, of_network = trainings(run)
    assert of_generator.facts == {
        "Steps": "4", "Kept weights": "of step 4", "Their validation loss": "0.25"
    }  # fmt: skip
    assert of_network.facts == {"Steps": "12"}
    page = write_report(run, None).read_text("utf-8")
    assert '<a href="#training">' in page
    assert "Fine-tuning of the generator" in page
    assert "Network that the detectors of all machines share" in page
    assert page.count("kept back for validation") == 2
    for part in log.rglob("metrics.csv"):
        pd.read_csv(part).drop(columns="val/loss").to_csv(part, index=False)
    assert write_report(run, None).read_text("utf-8").count("kept back for validation") == 1


def test_the_page_shows_what_each_stage_took_and_where_it_was_built(tmp_path):
    assert 'id="cost"' not in write_report(tmp_path, None).read_text("utf-8")
    built = {"started": "2026-01-02T03:04:05+00:00", "host": "hall-1", "commit": "0123abc",
             "fsasd": "0.1.0", "machine": "pump", "section": "00", "bytes": 2_000_000}  # fmt: skip
    stages = [("curve", "1", 4000.0), ("detect", "2", 30.0), ("detect", "3", 40.0)]
    rows = [{"stage": stage, "key": key, "seconds": s, **built} for stage, key, s in stages]
    pd.DataFrame(rows).to_csv(tmp_path / "artifacts.csv", index=False)
    page = " ".join(write_report(tmp_path, None).read_text("utf-8").split())
    assert "took 1 h 7 min to compute and takes 6.0 MB in the store" in page
    assert '<td class="num" data-value="70.0">1 min 10 s</td>' in page
    for fact in ("2026-01-02 03:04 UTC", "hall-1", "0123abc"):
        assert f"<dd>{fact}</dd>" in page
