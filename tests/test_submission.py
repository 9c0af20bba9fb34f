import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsasd.cli.evaluate import main
from fsasd.evaluation.metrics import auc, pauc, section_metrics
from fsasd.evaluation.submission import (
    SubmissionError,
    evaluate,
    read_submission,
    write_decisions,
    write_scores,
)
from fsasd.evaluation.uncertainty import paired_difference

SHARED = Path(__file__).parents[2] / "shared" / "reference" / "scores"

LABELS = [0, 0, 0, 1, 1, 1, 0, 1]
DOMAINS = [0, 1, 0, 1, 0, 0, 1, 1]
SCORES = [0.1, 0.30000000000000004, -2.5, 1e-7, 3.25, 0.2, 0.15, 7.0]
DECISIONS = [0, 1, 0, 0, 1, 0, 0, 1]


def clips(section="00"):
    return [f"section_{section}_{i:04d}.wav" for i in range(len(LABELS))]


def attribute_names(section="00"):
    return [
        f"section_{section}_{'target' if d else 'source'}_test_"
        f"{'anomaly' if y else 'normal'}_{i:04d}_res_2_len_1"
        for i, (y, d) in enumerate(zip(LABELS, DOMAINS, strict=True))
    ]


def write_rows(path, *columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{','.join(map(str, row))}\n" for row in zip(*columns, strict=True)))


def write_truth(folder, machine="fan", section="00", labels=LABELS, domains=DOMAINS):
    columns = {"data": labels, "domain": domains, "attributes": attribute_names(section)}
    for kind, column in columns.items():
        name = f"ground_truth_{machine}_section_{section}_test.csv"
        write_rows(folder / f"ground_truth_{kind}" / name, clips(section), column)
    return folder


@pytest.fixture
def truth(tmp_path):
    return write_truth(tmp_path / "truth")


@pytest.fixture
def scores(tmp_path):
    write_scores(tmp_path / "scores", "fan", "00", clips(), SCORES)
    return tmp_path / "scores"


def problems(scores, truth):
    with pytest.raises(SubmissionError) as caught:
        read_submission(scores, truth)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return str(caught.value)


def test_written_files_read_back_exactly(scores, truth):
    write_decisions(scores, "fan", "00", clips(), np.array(DECISIONS, dtype=bool))
    assert sorted(p.name for p in scores.iterdir()) == [
        "anomaly_score_fan_section_00_test.csv",
        "decision_result_fan_section_00_test.csv",
    ]
    section = read_submission(scores, truth)["fan", "00"]
    assert section.scores.tolist() == SCORES
    assert section.labels.tolist() == LABELS
    assert section.domains.tolist() == [("source", "target")[d] for d in DOMAINS]
    assert section.decisions.tolist() == DECISIONS


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5))
def test_scores_are_written_without_loss(tmp_path_factory, values):
    names = [f"section_00_{i:04d}.wav" for i in range(len(values))]
    path = write_scores(tmp_path_factory.mktemp("exact"), "fan", "00", names, values)
    lines = path.read_text().splitlines()
    assert [float(line.split(",")[1]) for line in lines] == values


def test_writing_replaces_or_leaves_what_was_there(scores, monkeypatch):
    path = scores / "anomaly_score_fan_section_00_test.csv"
    assert write_scores(scores, "fan", "00", ["section_00_0000.wav"], np.float32([0.5])) == path
    assert path.read_text() == "section_00_0000.wav,0.5\n"

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_scores(scores, "fan", "00", clips(), SCORES)
    assert path.read_text() == "section_00_0000.wav,0.5\n"
    assert list(scores.iterdir()) == [path]


def test_writing_guards(tmp_path):
    with pytest.raises(ValueError, match="a value for each of 2 clips, found 1"):
        write_scores(tmp_path, "fan", "00", ["a.wav", "b.wav"], [0.1])
    with pytest.raises(ValueError, match=r"each clip once, found several \['a.wav'\]"):
        write_scores(tmp_path, "fan", "00", ["a.wav", "a.wav"], [0.1, 0.2])
    with pytest.raises(ValueError, match=r"fan section 00: expected finite scores, found .*nan"):
        write_scores(tmp_path, "fan", "00", ["a.wav"], [math.nan])
    with pytest.raises(ValueError, match=r"expected decisions 0 or 1, found \[0.5\]"):
        write_decisions(tmp_path, "fan", "00", ["a.wav"], [0.5])
    with pytest.raises(ValueError, match=r"machine: expected a name .* found '\.\./fan'"):
        write_scores(tmp_path / "deeper", "../fan", "00", ["a.wav"], [0.5])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("machine", ["fan", "3DPrinter", "ToyCar_v2", "my_section_7_pump"])
@pytest.mark.parametrize(
    "ending",
    ["_test", "", "_test_seed13711_id(0_)_Eval", "_test_seed1_Eval", "_test_seed13711"],
)
@pytest.mark.parametrize("prefix", ["", "DCASE2023T2", "DCASE2024T2"])
def test_every_file_name_is_read(tmp_path, machine, ending, prefix):
    truth = write_truth(tmp_path / "truth", machine)
    for kind, values in (("anomaly_score", SCORES), ("decision_result", DECISIONS)):
        name = f"{kind}_{prefix}{machine}_section_00{ending}.csv"
        write_rows(tmp_path / "scores" / name, clips(), values)
    found = read_submission(tmp_path / "scores", truth)
    assert list(found) == [(machine, "00")]
    assert found[machine, "00"].scores.tolist() == SCORES
    assert found[machine, "00"].decisions.tolist() == DECISIONS


@pytest.mark.parametrize("suffix", ["", ".wav"])
@pytest.mark.parametrize("known", ["anonymous", "attributes"])
def test_clips_are_known_by_either_name_in_any_order(tmp_path, truth, suffix, known):
    names = attribute_names() if known == "attributes" else [c[:-4] for c in clips()]
    rows = sorted((name + suffix, s) for name, s in zip(names, SCORES, strict=True))[::-1]
    path = tmp_path / "scores" / "anomaly_score_fan_section_00_test.csv"
    write_rows(path, *zip(*rows, strict=True))
    assert read_submission(path.parent, truth)["fan", "00"].scores.tolist() == SCORES


def test_attributes_may_name_a_clip_twice_or_be_absent(tmp_path, scores, truth):
    attributes = truth / "ground_truth_attributes" / "ground_truth_fan_section_00_test.csv"
    withheld = [name.replace("res_2_len_1", "noAttribute") for name in attribute_names()]
    full = [f"{name}.wav" for name in attribute_names()]
    write_rows(attributes, clips(), withheld, full)
    for index, names in enumerate((withheld, full)):
        write_scores(tmp_path / str(index), "fan", "00", names, SCORES)
        found = read_submission(tmp_path / str(index), truth)["fan", "00"]
        assert found.scores.tolist() == SCORES
    write_rows(attributes, clips(), [*withheld[:2], withheld[0], *withheld[3:]])
    assert "means section_00_0002 and section_00_0000" in problems(scores, truth)
    attributes.unlink()
    attributes.parent.rmdir()
    assert read_submission(scores, truth)["fan", "00"].scores.tolist() == SCORES


def test_a_windows_spreadsheet_is_read(scores, truth):
    path = scores / "anomaly_score_fan_section_00_test.csv"
    text = path.read_text().replace("\n", "\r\n") + "\r\n"
    path.write_text(text, encoding="utf-8-sig", newline="")
    assert read_submission(scores, truth)["fan", "00"].scores.tolist() == SCORES


BAD_ROWS = [
    (lambda rows: rows[:-2], ["2 rows missing: section_00_0006, section_00_0007"]),
    (lambda rows: [*rows, "section_00_0042.wav,1"], ["row 9: 'section_00_0042.wav' is not a clip"]),
    (lambda rows: [*rows, rows[1]], ["row 9: 'section_00_0001.wav' duplicates row 2"]),
    (
        lambda rows: [*rows, f"{attribute_names()[2]}.wav,1"],
        [f"row 9: '{attribute_names()[2]}.wav' duplicates row 3"],
    ),
    (lambda rows: ["file,score", *rows], ["row 1: 'file' is not a clip"]),
    (
        lambda rows: [*rows[:6], f"{clips()[6]},nan", f"{clips()[7]},-inf"],
        [
            "row 7: section_00_0006.wav: expected a finite number (and no header), found 'nan'",
            "row 8: section_00_0007.wav: expected a finite number (and no header), found '-inf'",
        ],
    ),
    (lambda rows: [clips()[0], *rows[1:]], ["row 1: section_00_0000.wav: expected a finite"]),
    (lambda rows: [rows[0] + ",9", *rows[1:]], ["row 1: section_00_0000.wav: expected a finite"]),
    (lambda rows: [], ["8 rows missing"]),
]


@pytest.mark.parametrize(("damage", "expected"), BAD_ROWS)
def test_bad_rows_are_named(scores, truth, damage, expected):
    path = scores / "anomaly_score_fan_section_00_test.csv"
    path.write_text("".join(f"{row}\n" for row in damage(path.read_text().splitlines())))
    message = problems(scores, truth)
    assert all(part in message for part in expected)
    assert all(line.startswith(str(path)) for line in message.splitlines())


def test_of_many_bad_rows_ten_are_shown(tmp_path, truth):
    names = [f"other_{i}.wav" for i in range(200)]
    write_scores(tmp_path / "scores", "fan", "00", names, np.arange(200))
    lines = problems(tmp_path / "scores", truth).splitlines()
    assert len(lines) == 12
    assert lines[10].endswith("190 more rows like these")


def test_binary_files_are_named(scores, truth):
    path = scores / "anomaly_score_fan_section_00_test.csv"
    path.write_bytes(b"\xff\xfe\x00")
    assert f"{path}: expected UTF-8 text" in problems(scores, truth)


def test_a_decision_is_0_or_1(scores, truth):
    path = scores / "decision_result_fan_section_00_test.csv"
    write_rows(path, clips(), [0, 1, 2, 0.5, "yes", 0, 1.0, "0.0"])
    message = problems(scores, truth)
    for row, value in ((3, "2"), (4, "0.5"), (5, "yes")):
        assert f"row {row}: {clips()[row - 1]}: expected 0 or 1, found '{value}'" in message
    assert len(message.splitlines()) == 3


def test_machines_must_match(scores, truth):
    write_truth(truth, "ToyNscale")
    write_scores(scores, "ToyNScale", "00", clips(), SCORES)
    write_decisions(scores, "submarine", "00", clips(), DECISIONS)
    assert problems(scores, truth).splitlines() == [
        f"{scores}: no anomaly_score file for ToyNscale section 00",
        f"{scores / 'anomaly_score_ToyNScale_section_00_test.csv'}: no ground truth for "
        "ToyNScale section 00; did you mean ToyNscale section 00?",
        f"{scores / 'decision_result_submarine_section_00_test.csv'}: no ground truth for "
        "submarine section 00",
    ]


def test_two_files_for_one_section_are_both_named(scores, truth):
    other = "anomaly_score_DCASE2023T2fan_section_00_test_seed1_Eval.csv"
    write_rows(scores / other, clips(), SCORES)
    message = problems(scores, truth)
    assert other in message
    assert "anomaly_score_fan_section_00_test.csv: two anomaly_score files for fan section 00" in (
        message
    )


def test_a_misspelt_file_is_not_overlooked(scores, truth):
    write_rows(scores / "anomaly_score_valve_00.csv", clips(), SCORES)
    assert "anomaly_score_valve_00.csv: expected a name like anomaly_score_<machine>" in (
        problems(scores, truth)
    )


def test_folders_say_what_was_expected_and_found(tmp_path, scores, truth):
    message = problems(tmp_path / "nowhere", truth)
    assert f"nowhere: expected a folder with anomaly_score files, found in {tmp_path}" in message
    assert "scores, truth" in message
    (tmp_path / "empty").mkdir()
    assert "empty: expected files anomaly_score_<machine>" in problems(tmp_path / "empty", truth)
    message = problems(scores, scores)
    assert "ground_truth_data: expected a folder with ground_truth files, found in" in message
    assert "anomaly_score_fan_section_00_test.csv" in message
    file = scores / "anomaly_score_fan_section_00_test.csv"
    assert f"found in {file}: no folder" in problems(file, truth)
    (truth / "ground_truth_domain" / "ground_truth_fan_section_00_test.csv").unlink()
    assert "ground_truth_domain: expected files ground_truth_<machine>" in problems(scores, truth)


def test_ground_truth_must_be_whole(scores, truth):
    write_truth(truth, "valve")
    (truth / "ground_truth_domain" / "ground_truth_valve_section_00_test.csv").unlink()
    domain = truth / "ground_truth_domain" / "ground_truth_fan_section_00_test.csv"
    write_rows(domain, clips()[:-1], ["source", *DOMAINS[1:-1]])
    message = problems(scores, truth)
    assert "no ground_truth_domain file for valve section 00" in message
    assert f"{domain}, row 1: section_00_0000.wav: expected 0 or 1, found 'source'" in message
    assert f"{domain}: 2 rows missing or wrong: section_00_0000, section_00_0007" in message
    # Names alone, of a machine whose labels were not published.
    names = truth / "ground_truth_attributes"
    write_rows(names / "ground_truth_saw_section_00_test.csv", clips(), attribute_names())
    assert problems(scores, truth) == message


def test_files_of_each_domain_need_the_domains_of_all_clips(tmp_path, truth):
    for domain, word in enumerate(("source", "target")):
        rows = [row for row in zip(clips(), SCORES, DOMAINS, strict=True) if row[2] == domain]
        path = tmp_path / f"scores/anomaly_score_fan_section_00_{word}_test.csv"
        write_rows(path, *list(zip(*rows, strict=True))[:2])
    domains = truth / "ground_truth_domain/ground_truth_fan_section_00_test.csv"
    write_rows(domains, clips()[1:], DOMAINS[1:])
    message = f"{domains}: 1 rows missing or wrong: section_00_0000"
    assert problems(tmp_path / "scores", truth) == message


@pytest.mark.parametrize(("missing", "more"), [(9, ""), (10, ""), (11, ", ...")])
def test_of_many_missing_rows_ten_are_named(tmp_path, missing, more):
    names = [f"section_00_{i:04d}.wav" for i in range(12)]
    folder = tmp_path / "truth"
    for kind in ("data", "domain"):
        path = folder / f"ground_truth_{kind}/ground_truth_fan_section_00_test.csv"
        write_rows(path, names, [0, 1] * 6)
    write_scores(tmp_path / "scores", "fan", "00", names[missing:], np.arange(12 - missing))
    shown = ", ".join(name[:-4] for name in names[: min(missing, 10)])
    message = problems(tmp_path / "scores", folder)
    assert message.endswith(f": {missing} rows missing: {shown}{more}")


def test_every_problem_is_reported_with_exit_code_2(scores, truth, capsys):
    write_truth(truth, "valve")
    write_rows(scores / "anomaly_score_fan_section_00_test.csv", clips()[1:], ["x", *SCORES[2:]])
    assert main(["--scores", str(scores), "--ground-truth", str(truth)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    for part in ("file for valve section 00", "found 'x'", "1 rows missing: section_00_0000"):
        assert part in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--scores, --ground-truth"),
        (["--scores", "a", "--ground-truth", "b", "--bootstrap", "-1"], "expected 0 or more"),
    ],
)
def test_wrong_arguments_exit_with_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_json_has_fractions_and_null(scores, truth, capsys):
    for section in ("01", "02"):
        write_truth(truth, "valve", section)
        write_scores(scores, "valve", section, clips(section), SCORES)
    write_decisions(scores, "fan", "00", clips(), DECISIONS)
    command = ["--scores", str(scores), "--ground-truth", str(truth), "--json"]
    assert main([*command, "--bootstrap", "50"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert list(found["machines"]) == ["fan", "valve/section_01", "valve/section_02"]
    section = read_submission(scores, truth)["fan", "00"]
    metrics = section_metrics(section.labels, section.domains, section.scores, section.decisions)
    for name, value in found["machines"]["fan"].items():
        expected = getattr(metrics, name)
        assert value == (None if math.isnan(expected) else expected)
    assert found["machines"]["valve/section_01"]["f1_source"] is None
    low, high = found["official_score_ci95"]
    assert low < found["official_score"] < high
    assert found["undefined_cells"] == 0
    assert "No decision files" in captured.err
    assert "valve section 01, valve section 02" in captured.err
    assert main([*command, "--bootstrap", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["official_score_ci95"] is None
    last = evaluate(scores, truth, bootstrap=50).table.iloc[-1]
    assert (last["ci_low"], last["ci_high"]) == (low, high)
    assert evaluate(scores, truth, bootstrap=0).table[["ci_low", "ci_high"]].isna().all(axis=None)


def test_undefined_cells_are_empty_marked_and_explained(tmp_path, scores, truth, capsys):
    no_target_normals = [y or d for y, d in zip(LABELS, DOMAINS, strict=True)]
    write_truth(truth, "valve", labels=no_target_normals)
    write_scores(scores, "valve", "00", clips(), SCORES)
    evaluation = evaluate(scores, truth, bootstrap=20)
    assert math.isnan(evaluation.metrics["valve", "00"].auc_target)
    assert (evaluation.official.cells, evaluation.official.undefined) == (6, 1)
    evaluation.table.to_csv(tmp_path / "metrics.csv", index=False)
    row = (tmp_path / "metrics.csv").read_text().splitlines()[2].split(",")
    assert row[:3] == ["valve", "00", ""]
    assert row[4] == ""
    assert main(["--scores", str(scores), "--ground-truth", str(truth)]) == 0
    out = capsys.readouterr().out
    assert "(over 5 of 6 values)" in out
    assert "valve section 00: no target-domain normal clips, so AUC (target) is undefined" in out
    assert "* mean over the defined values" in out


def test_every_undefined_cell_has_its_sentence(scores, truth):
    write_truth(truth, "all_normal", labels=[0] * 8)
    write_truth(truth, "all_anomalous", labels=[1] * 8)
    for machine in ("all_normal", "all_anomalous"):
        write_scores(scores, machine, "00", clips(), SCORES)
        write_decisions(scores, machine, "00", clips(), DECISIONS)
    notes = "\n".join(evaluate(scores, truth, bootstrap=0).notes)
    assert "all_normal section 00: no anomalous clips, so AUC and pAUC are undefined" in notes
    assert "all_anomalous section 00: no normal clips, so AUC and pAUC are undefined" in notes
    assert "all_normal section 00: no target-domain anomalous clips, so precision" in notes


def test_nothing_defined_is_a_failure(scores, tmp_path, capsys):
    truth = write_truth(tmp_path / "normal", labels=[0] * 8)
    assert main(["--scores", str(scores), "--ground-truth", str(truth)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no metric is defined\nfan section 00: no anomalous clips" in captured.err


def test_two_submissions_can_be_compared(tmp_path, scores, truth):
    write_scores(tmp_path / "other", "fan", "00", clips()[::-1], np.negative(SCORES)[::-1])
    first, second = read_submission(scores, truth), read_submission(tmp_path / "other", truth)
    result = paired_difference(list(first.values()), list(second.values()), n=50)
    assert result.difference > 0


# Other editions' names


def write_list(path, machine="fan", section="01"):
    """The one list that 2020 has: id_01_00000000.wav,normal_id_01_00000049.wav,0."""
    names = [f"id_{section}_{i:08d}.wav" for i in range(len(LABELS))]
    full = [
        f"{'anomaly' if y else 'normal'}_id_{section}_{90 - i:08d}.wav"
        for i, y in enumerate(LABELS)
    ]
    rows = [f"{n},{f},{y}" for n, f, y in zip(names, full, LABELS, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([machine, *rows, ""]))
    return names, full


@pytest.mark.parametrize("called", ["anonymous", "full"])
@pytest.mark.parametrize("place", ["truth", "truth/eval_data_list.csv"])
def test_names_of_2020_are_read(tmp_path, called, place):
    anonymous, full = write_list(tmp_path / "truth/eval_data_list.csv")
    names = anonymous if called == "anonymous" else full
    write_rows(tmp_path / "scores/anomaly_score_fan_id_01.csv", names, SCORES)
    evaluation = evaluate(tmp_path / "scores", tmp_path / place, bootstrap=0)
    metrics = evaluation.metrics["fan", "01"]
    # The evaluator of 2020 gives AUC and pAUC over all clips of a machine.
    assert (metrics.auc, metrics.pauc) == (auc(LABELS, SCORES), pauc(LABELS, SCORES))
    assert evaluation.official.cells == 2
    assert evaluation.notes == (
        "No decision files, so no precision, recall and F1, for: fan section 01.",
    )


def test_clips_of_one_domain_are_told_once(tmp_path):
    for machine in ("fan", "valve"):
        truth = write_truth(tmp_path / "truth", machine, domains=[0] * len(LABELS))
        write_scores(tmp_path / "scores", machine, "00", clips(), SCORES)
    notes = [n for n in evaluate(tmp_path / "scores", truth, bootstrap=0).notes if "target" in n]
    assert notes == [
        "No clip of the target domain in the ground truth, so AUC (target) is undefined and left "
        "out of the means."
    ]


def write_2021(tmp_path, *, labels=LABELS):
    """A file of scores, of decisions and of ground truth for each domain, as in 2021."""
    for domain, word in enumerate(("source", "target")):
        own = [i for i, d in enumerate(DOMAINS) if d == domain]
        names = [f"section_03_{word}_test_{n:04d}.wav" for n in range(len(own))]
        ending = f"fan_section_03_{word}_test.csv"
        for kind, values in (("anomaly_score", SCORES), ("decision_result", DECISIONS)):
            write_rows(tmp_path / f"scores/{kind}_{ending}", names, [values[i] for i in own])
        truth = tmp_path / f"truth/ground_truth_data/ground_truth_{ending}"
        write_rows(truth, names, [labels[i] for i in own])
    return tmp_path / "scores", tmp_path / "truth"


def test_names_of_2021_are_read(tmp_path):
    evaluation = evaluate(*write_2021(tmp_path), bootstrap=0)
    domains = [("source", "target")[d] for d in DOMAINS]
    assert evaluation.metrics["fan", "03"] == section_metrics(LABELS, domains, SCORES, DECISIONS)
    assert any("as in DCASE 2021; the metrics are those since 2022" in n for n in evaluation.notes)


def test_a_domain_that_is_missing_or_twice_is_told(tmp_path):
    scores, truth = write_2021(tmp_path)
    target = scores / "anomaly_score_fan_section_03_target_test.csv"
    rows = target.read_text()
    target.unlink()
    assert problems(scores, truth) == (
        f"{scores}: no anomaly_score file for fan section 03, target domain"
    )
    decisions = scores / "decision_result_fan_section_03_target_test.csv"
    decided = decisions.read_text()
    decisions.unlink()
    assert problems(scores, truth).splitlines()[1] == (
        f"{scores}: no decision_result file for fan section 03, target domain"
    )
    decisions.write_text(decided)
    whole = scores / "anomaly_score_fan_section_03_test.csv"
    whole.write_text(rows)
    assert "two anomaly_score files for fan section 03" in problems(scores, truth)
    whole.rename(target)
    source = scores / "anomaly_score_fan_section_03_source_test.csv"
    source.write_text(source.read_text() + rows.splitlines()[0] + "\n")
    assert "row 5: 'section_03_target_test_0000.wav' is not a clip" in problems(scores, truth)


@pytest.mark.parametrize("column", ["file_name_with_full_attributes", "file_name_with_attributes"])
def test_the_ground_truth_of_2022_is_read(tmp_path, column):
    truth = write_truth(tmp_path / "truth", "valve", "05")
    attributes = truth / "ground_truth_attributes"
    (attributes / "ground_truth_valve_section_05_test.csv").unlink()
    table = attributes / "valve/attributes_05.csv"
    names = [f"valve/test/{name}.wav" for name in attribute_names("05")]
    rows = [
        f"valve/test/{clip},v1pat,05,{name}" for clip, name in zip(clips("05"), names, strict=True)
    ]
    # A clip has all attributes that are listed, the others fewer, and then fewer cells.
    rows[0] = rows[0].replace("v1pat,05", "v1pat,05,v2pat,05")
    table.parent.mkdir()
    table.write_text("\n".join([f"file_name,d1p,d1v,d2p,d2v,{column}", *rows, ""]))
    for index, called in enumerate((clips("05"), names)):
        write_rows(tmp_path / f"{index}/anomaly_score_valve_section_05.csv", called, SCORES)
        found = read_submission(tmp_path / str(index), truth)["valve", "05"]
        assert found.scores.tolist() == SCORES


def test_a_list_of_the_baseline_says_labels_and_domains(tmp_path):
    rows = [f"{clip},{name}.wav" for clip, name in zip(clips(), attribute_names(), strict=True)]
    (tmp_path / "eval_data_list_2025.csv").write_text("\n".join(["fan,", *rows, ""]))
    write_scores(tmp_path / "scores", "fan", "00", clips(), SCORES)
    found = read_submission(tmp_path / "scores", tmp_path / "eval_data_list_2025.csv")["fan", "00"]
    assert found.labels.tolist() == LABELS
    assert found.domains.tolist() == [("source", "target")[d] for d in DOMAINS]


def test_sections_have_one_spelling(tmp_path, truth):
    write_rows(tmp_path / "scores/anomaly_score_fan_section_0_test.csv", clips(), SCORES)
    assert list(read_submission(tmp_path / "scores", truth)) == [("fan", "00")]
    write_scores(tmp_path / "scores", "fan", "0", clips(), SCORES)
    assert "two anomaly_score files for fan section 00" in problems(tmp_path / "scores", truth)


def test_a_machine_may_be_called_as_the_baseline_begins(tmp_path):
    truth = write_truth(tmp_path / "truth", "DCASE2023T2fan")
    write_scores(tmp_path / "scores", "DCASE2023T2fan", "00", clips(), SCORES)
    assert list(read_submission(tmp_path / "scores", truth)) == [("DCASE2023T2fan", "00")]


def test_recordings_of_ones_own_keep_their_folders(tmp_path):
    names = [f"{folder}/{i}.wav" for folder in "ab" for i in range(4)]
    for kind, values in (("data", LABELS), ("domain", DOMAINS)):
        path = tmp_path / f"truth/ground_truth_{kind}/ground_truth_fan_section_00_test.csv"
        write_rows(path, names, values)
    write_scores(tmp_path / "scores", "fan", "00", names, SCORES)
    found = read_submission(tmp_path / "scores", tmp_path / "truth")["fan", "00"]
    assert found.scores.tolist() == SCORES


def test_rows_of_the_ground_truth_may_be_repeated_but_not_contradicted(scores, truth):
    data = truth / "ground_truth_data/ground_truth_fan_section_00_test.csv"
    rows = data.read_text()
    data.write_text(rows + "\n ,\nsection_00_0000.wav,0.0\n")
    assert read_submission(scores, truth)["fan", "00"].labels.tolist() == LABELS
    data.write_text(rows + "section_00_0000.wav,1\n")
    assert problems(scores, truth) == f"{data}, row 9: 'section_00_0000.wav' contradicts row 1"


@pytest.mark.parametrize("part", ["scores", "data", "domain", "attributes"])
@pytest.mark.parametrize("damage", ["folder", "link", "cp1252", "nul", "field", "quote"])
def test_damaged_files_end_in_a_line_and_code_2(scores, truth, capsys, part, damage):
    path = truth / f"ground_truth_{part}/ground_truth_fan_section_00_test.csv"
    if part == "scores":
        path = scores / "anomaly_score_fan_section_00_test.csv"
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "link":
        path.symlink_to("nowhere.csv")
    else:
        content = {
            "cp1252": "Löfter.wav,1".encode("cp1252"),
            "nul": b"section_00_0000.wav,\x00",
            "field": b"x" * 200_000,
            "quote": b'"section_00_0000.wav,1',
        }
        path.write_bytes(content[damage])
    assert main(["--scores", str(scores), "--ground-truth", str(truth)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert str(path) in captured.err.splitlines()[0]
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    "name", ["anomaly_score_fan_id_00", "anomaly_score_fan_section_00_source_test"]
)
def test_names_that_people_have_met(shared, name, capsys):
    cases = shared / "cases/evaluate-names"
    command = ["--scores", str(cases / name), "--ground-truth", str(cases / "truth"), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["machines"]["fan"]["auc_source"] == 1.0


@pytest.mark.parametrize(("case", "code"), [("both", 2), ("blank", 2)])
def test_ground_truth_that_people_have_met(shared, tmp_path, case, code, capsys):
    truth = shared / "cases/ground-truth" / case / "ground_truth"
    write_scores(tmp_path, "fan", "00", ["section_00_0000.wav"], [1.0])
    assert main(["--scores", str(tmp_path), "--ground-truth", str(truth)]) == code
    said = capsys.readouterr().err
    # One clip has no AUC; what is asked here is whether its row was read.
    assert ("row 2: 'section_00_0000.wav' contradicts row 1" in said) == (case == "both")
    assert ("no metric is defined" in said) == (case == "blank")


def test_a_real_submission_scores_as_on_the_challenge_page(capsys):
    if not SHARED.is_dir():
        pytest.skip(f"the DCASE 2024 submission is not at {SHARED}")
    scores, truth = SHARED / "Kim_CAU_task2_1", SHARED / "ground_truth_2024"
    evaluation = evaluate(scores, truth)
    assert 100 * evaluation.official.value == pytest.approx(46.45632996840251, abs=1e-12)
    assert not evaluation.notes
    table = evaluation.table.set_index("machine").loc[:, ["auc", "pauc"]]
    printed = {name: f"{100 * a:.2f}/{100 * p:.2f}" for name, a, p in table[:9].itertuples()}
    assert printed == {
        "3DPrinter": "45.63/50.37",
        "AirCompressor": "42.38/47.89",
        "BrushlessMotor": "42.28/49.16",
        "HairDryer": "38.85/51.58",
        "HoveringDrone": "41.32/51.95",
        "RoboticArm": "56.60/50.53",
        "Scanner": "50.01/50.42",
        "ToothBrush": "44.30/49.79",
        "ToyCircuit": "46.82/49.11",
    }
    assert main(["--scores", str(scores), "--ground-truth", str(truth)]) == 0
    out = capsys.readouterr().out
    assert "official score 46.456330 %, 95 % interval" in out
    assert "BrushlessMotor" in out


def test_the_command_is_documented(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "--ground-truth DIR" in out
    assert "95 % interval" in " ".join(out.split())
