"""The paper's tables beside a run's numbers: what is compared, and what must not be."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import yaml

from fsasd.detectors.knn import KNN
from fsasd.evaluation.metrics import harmonic_mean, section_metrics
from fsasd.report.console import console
from fsasd.report.page import write_report
from fsasd.report.results import Results
from fsasd.report.tables import METHOD, cells, paper_table, readable, write_tables

PAPERS = ("ToyDrone", "ToyNscale", "ToyTank", "Vacuum", "bandsaw", "grinder", "shaker")
SHIFTS = {"r=0": 0.2, "r=1": 0.8, "synthetic": 1.0, "oracle": 1.2}


def setting_scores(machines, shifts=SHIFTS, clips=20):
    rng = np.random.default_rng(0)
    labels = np.repeat(["normal", "anomaly"], 2 * clips)
    domains = np.tile(["source", "target"], 2 * clips)
    parts = []
    for machine in machines:
        noise = rng.standard_normal(len(labels))
        for name, shift in shifts.items():
            score = noise + 0.3 * rng.standard_normal(len(labels)) + shift * (labels == "anomaly")
            parts.append(
                pd.DataFrame(
                    {"machine": machine, "section": "00", "setting": name, "default": name == "r=1",
                     "label": labels, "domain": domains, "score": score}
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def curve(machines, mark, peak):
    r = np.linspace(0, 1.1, 111).round(2)
    picked = np.where(np.abs(r - peak) < 0.025, 0.2, 0.0)
    parts = [
        pd.DataFrame({"machine": machine, "section": "00", "param.r": r, "auc": 0.6, "pauc": 0.5,
                      "objective": 0.55, "picked": picked, mark: r == peak, "chosen": r == peak})
        for machine in machines
    ]  # fmt: skip
    return pd.concat(parts)


def leave(folder, machines, config=None, **tables):
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config or {}))
    tables = {"setting_scores": setting_scores(machines)} | tables
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def table(folder, number):
    return pd.read_csv(folder / f"table{number}.csv", dtype=str if number == 3 else None)


def value(table, row, column):
    (line,) = table[(table["row"] == row) & (table["column"] == column)].to_dict("records")
    return line


# What the paper printed


@pytest.mark.parametrize("metric", ["auc", "pauc"])
def test_the_papers_averages_are_harmonic_means_over_machines(metric):
    printed = paper_table(2)
    for row in printed.to_dict("records"):
        machines = [row[f"{machine}_{metric}"] for machine in PAPERS]
        assert harmonic_mean(machines) == pytest.approx(row[f"average_{metric}"], abs=0.011)


def test_the_papers_tables_agree_with_one_another():
    main = paper_table(2).set_index("method").loc[METHOD]
    for number in (4, 5):
        row = paper_table(number).query("method == @METHOD").iloc[-1]
        assert (row["auc"], row["pauc"]) == (main["average_auc"], main["average_pauc"])
    assert set(paper_table(6).columns[1:]) == set(PAPERS)


def test_there_is_no_other_table(tmp_path):
    with pytest.raises(ValueError, match="table 1: expected one of 2, 3, 4, 5, 6"):
        write_tables(leave(tmp_path / "run", PAPERS), [1])


# Numbers of a run


def test_cells_are_the_metrics_of_their_scores():
    scores = setting_scores(["fan", "pump"])
    values = cells(scores, "synthetic", resamples=200)
    aucs = []
    for machine in ("fan", "pump"):
        clips = scores.query("machine == @machine and setting == 'synthetic'")
        metrics = section_metrics(clips["label"] == "anomaly", clips["domain"], clips["score"])
        assert values[f"{machine}_auc"][0] == pytest.approx(metrics.auc)
        assert values[f"{machine}_pauc"][0] == pytest.approx(metrics.pauc)
        aucs.append(metrics.auc)
    assert values["average_auc"][0] == pytest.approx(harmonic_mean(aucs))
    assert np.std(values["average_auc"]) < np.std(values["fan_auc"])


def test_a_machine_without_a_target_domain_has_no_auc():
    scores = setting_scores(["fan", "pump"])
    lacking = scores["machine"].eq("fan") & scores["domain"].eq("target")
    values = cells(scores[~(lacking & scores["label"].eq("normal"))], "synthetic", resamples=20)
    assert np.isnan(values["fan_auc"]).all()
    assert values["average_auc"][0] == pytest.approx(values["pump_auc"][0])
    assert not np.isnan(values["fan_pauc"]).any()


def test_table_2_compares_machine_by_machine(tmp_path):
    folder = leave(tmp_path / "run", PAPERS)
    write_tables(folder, [2])
    lines = table(folder, 2)
    line = value(lines, METHOD, "shaker_auc")
    assert line["paper"] == pytest.approx(0.8339)
    assert line["low"] < line["run"] < line["high"]
    assert line["difference"] == pytest.approx(line["run"] - 0.8339)
    average = value(lines, METHOD, "average_pauc")
    assert average["difference"] == pytest.approx(average["run"] - 0.5976)
    other = value(lines, "Guan_HEU", "shaker_auc")
    assert (other["paper"], other["run"]) == (
        pytest.approx(0.7846),
        pytest.approx(np.nan, nan_ok=True),
    )


def test_on_other_machines_the_papers_averages_are_context(tmp_path):
    folder = leave(tmp_path / "run", ["fan", "shaker"])
    write_tables(folder, [2, 5])
    lines = table(folder, 2)
    assert "Vacuum_auc" not in lines["column"].tolist()
    assert np.isnan(value(lines, METHOD, "fan_auc")["paper"])
    assert not np.isnan(value(lines, METHOD, "shaker_auc")["difference"])
    average = value(lines, METHOD, "average_auc")
    assert average["paper"] == pytest.approx(0.6841)
    assert np.isnan(average["difference"])
    assert lines.loc[lines["row"] != METHOD, "column"].str.startswith("fan").sum() == 0
    assert table(folder, 5)["difference"].isna().all()


def test_table_3_counts_the_numbers(tmp_path, factory_clips):
    folder = leave(tmp_path / "run", PAPERS)
    train = factory_clips.where(machine="fan", split="train")
    KNN().fit(train).save(folder / "models" / "fan" / "section_00")
    count = f"{len(train) * 256:,}"
    for generator, training in (
        (0, count),
        (1234, f"{count} + 1,234 (generator)"),
        (None, f"{count} + an unknown number (generator)"),
    ):
        write_tables(folder, [3], generator)
        lines = table(folder, 3)
        assert value(lines, METHOD, "training")["run"] == training
        assert value(lines, METHOD, "detection")["run"] == count
        assert value(lines, "Lv_HUAKONG", "training")["paper"] == "300M"


def test_table_5_compares_what_chose_r(tmp_path):
    folder = leave(tmp_path / "run", PAPERS)
    write_tables(folder, [5])
    lines = table(folder, 5)
    assert lines["row"].unique().tolist() == [
        "r=0 (none)", "r=1 (none)", f"{METHOD} (synthetic)", "TWFR-GMM (real)",
    ]  # fmt: skip
    worst, chosen = value(lines, "r=0 (none)", "auc"), value(lines, f"{METHOD} (synthetic)", "auc")
    assert worst["paper"] == pytest.approx(0.5644)
    assert worst["against"] == pytest.approx(worst["run"] - chosen["run"])
    assert worst["against_high"] < 0
    assert (chosen["against"], chosen["against_low"], chosen["against_high"]) == (0, 0, 0)
    # A paired difference is surer than either.
    assert worst["against_high"] - worst["against_low"] < worst["high"] - worst["low"]
    mean = value(lines, "TWFR-GMM (real)", "average")
    parts = [value(lines, "TWFR-GMM (real)", column)["run"] for column in ("auc", "pauc")]
    assert mean["run"] == pytest.approx(np.mean(parts))
    assert mean["paper"] == pytest.approx(0.6659)


def test_table_5_of_a_detector_without_r_lacks_those_rows(tmp_path):
    shifts = {"k=1": 0.5, "synthetic": 1.0, "oracle": 1.2}
    folder = leave(tmp_path / "run", PAPERS, setting_scores=setting_scores(PAPERS, shifts))
    write_tables(folder, [5])
    lines = table(folder, 5)
    assert np.isnan(value(lines, "r=0 (none)", "auc")["run"])
    assert value(lines, "TWFR-GMM (real)", "auc")["run"] > 0.5


def test_table_6_shows_r_and_what_resamples_would_select(tmp_path):
    machines = ["shaker", "fan"]
    folder = leave(
        tmp_path / "run", machines, selection=curve(machines, "argmax", 0.9),
        real_curve=curve(machines, "oracle", 1.05),
    )  # fmt: skip
    write_tables(folder, [6])
    lines = table(folder, 6)
    line = value(lines, "synthetic", "shaker")
    assert (line["paper"], line["run"]) == (1.01, 0.9)
    assert line["difference"] == pytest.approx(-0.11)
    assert (line["low"], line["high"]) == (0.88, 0.92)
    assert value(lines, "real", "shaker")["run"] == 1.05
    assert np.isnan(value(lines, "real", "fan")["paper"])


def sweep(root, arms):
    for number, (highest_r, silence_db) in enumerate(arms):
        config = {"tables": [4], "highest_r": highest_r,
                  "synthesis": {"cleaning": {"silence_db": silence_db}}}  # fmt: skip
        shifts = {**SHIFTS, "synthetic": highest_r + 0.5 * (silence_db is not None)}
        scores = setting_scores(PAPERS, shifts)
        leave(root / str(number), PAPERS, config, setting_scores=scores)
        (root / "multirun.yaml").touch()
        write_tables(root / str(number), [4])


def test_table_4_grows_with_the_runs_of_its_sweep(tmp_path):
    arms = list(product((1.0, 1.1), (None, 50.0)))
    sweep(tmp_path, arms)
    lines = table(tmp_path, 4)
    assert lines["run"].notna().all()
    assert value(table(tmp_path / "0", 4), _arm("no", "no"), "auc")["run"] > 0
    assert table(tmp_path / "0", 4)["run"].notna().sum() == 2
    least, full = value(lines, _arm("no", "no"), "auc"), value(lines, _arm("yes", "yes"), "auc")
    assert (least["paper"], full["paper"]) == (pytest.approx(0.6507), pytest.approx(0.6841))
    assert full["run"] > value(lines, _arm("yes", "no"), "auc")["run"]
    assert least["against"] == pytest.approx(least["run"] - full["run"])
    assert least["against_high"] < 0


def _arm(extended, silence):
    return (
        f"r to {'1.1' if extended == 'yes' else '1.0'}, "
        f"silence {'removed' if silence == 'yes' else 'kept'}"
    )


def test_table_4_of_a_single_run_is_refused(tmp_path):
    folder = leave(tmp_path / "run", PAPERS, {"tables": [4]})
    with pytest.raises(ValueError, match=r"run: table 4 compares the runs of a sweep"):
        write_tables(folder, [4])


def test_tables_that_lack_results_are_left_out_with_a_warning(tmp_path, caplog):
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    write_tables(folder, [2, 3, 5, 6])
    assert list(folder.glob("table*")) == []
    choice = "a choice of settings on synthetic clips, and the labels of the test clips"
    needs = {2: choice, 3: "a fitted detector", 5: choice, 6: "a choice of r"}
    assert [record.getMessage() for record in caplog.records] == [
        f"table {number} is left out: it needs {what}" for number, what in needs.items()
    ]


def test_without_a_curve_there_is_no_r_to_show(tmp_path, caplog):
    """A machine with its default setting for want of clips has no chosen r."""
    one = pd.DataFrame({"machine": ["fan"], "section": "00", "param.r": 1.0, "picked": np.nan,
                        "argmax": True, "chosen": True})  # fmt: skip
    folder = leave(tmp_path / "run", ["fan"], selection=one,
                   real_curve=curve(["fan"], "oracle", 0.5))  # fmt: skip
    write_tables(folder, [6])
    assert table(folder, 6)["row"].tolist() == ["real"]


# On the screen and in the report


def test_tables_are_shown_in_percent_where_they_are_fractions(tmp_path, capsys):
    folder = leave(tmp_path / "run", PAPERS, selection=curve(PAPERS, "argmax", 0.9),
                   real_curve=curve(PAPERS, "oracle", 1.05))  # fmt: skip
    write_tables(folder, [2, 5, 6])
    text = readable(2, table(folder, 2))
    assert text.iloc[0].tolist()[:3] == [METHOD, "ToyDrone auc", "56.3"]
    assert set(text.loc[text["Row"] == "Guan_HEU", "Column"]) == {"average auc", "average pauc"}
    r = readable(6, table(folder, 6)).set_index(["Row", "Column"]).loc[("synthetic", "shaker")]
    assert r.tolist() == ["1.01", "0.9", "0.88 to 0.92", "−0.11"]
    assert Results(folder).tables.keys() == {2, 5, 6}
    console(folder)
    out = capsys.readouterr().out
    assert "Table 5 of the paper" in out
    assert "TWFR-GMM (real)" in out
    page = write_report(folder, None).read_text(encoding="utf-8")
    assert "The paper’s tables" in page
    assert "silence removed" not in page


def test_a_page_without_tables_does_not_speak_of_them(tmp_path):
    assert "The paper’s tables" not in write_report(tmp_path, None).read_text(encoding="utf-8")


def test_machines_are_resampled_independently():
    scores = setting_scores(["pump"], {"synthetic": 0.8})
    copies = [scores.assign(machine=f"pump {i}") for i in range(9)]
    alone = cells(scores, "synthetic")["average_auc"][1:].std()
    together = cells(pd.concat(copies), "synthetic")["average_auc"][1:].std()
    # The standard error of a mean of nine is a third; with shared resamples it would be the same.
    assert together == pytest.approx(alone / 3, rel=0.15)


def test_resamples_of_a_machine_do_not_depend_on_the_others():
    scores = setting_scores(["pump", "fan"])
    both = cells(scores, "synthetic")
    turned = cells(scores.iloc[::-1].sort_values("label", kind="stable"), "r=0")
    alone = cells(scores[scores["machine"] == "fan"], "synthetic")
    np.testing.assert_array_equal(both["fan_auc"], alone["fan_auc"])
    assert list(turned) == ["fan_auc", "fan_pauc", "pump_auc", "pump_pauc", "average_auc",
                            "average_pauc"]  # fmt: skip
