"""A run becomes the package of a submission, which is checked by the challenge's rules."""

import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from fsasd.cli.submit import main
from fsasd.evaluation.submission import write_decisions, write_scores
from fsasd.evaluation.submission.meta import read_meta
from fsasd.evaluation.submission.package import check_package, write_package

MACHINES = ("BlowerDustCollector", "Sander", "SewingMachine", "ToothBrush", "ToyDrone")
"""Of the evaluation data of DCASE 2026."""

LABEL = "FalconPerez_TU-X_task2_1"
CLIPS = [f"section_00_{number:04d}.wav" for number in range(6)]

AUTHORS = {
    "submission": {
        "name": "A system",
        "abbreviation": "System",
        "authors": [
            {
                "firstname": "A", "lastname": "Falcón Pérez", "email": "a@example.org",
                "corresponding": True,
                "affiliation": {"institution": "TU X", "location": "X"},
            },
            {
                "firstname": "B", "lastname": "Doe", "email": "b@example.org",
                "affiliation": [
                    {"institution": "TU X", "location": "X"}, {"institution": "Y", "location": "Y"},
                ],
            },
        ],
    },
    "system": {
        "description": dict.fromkeys(
            (
                "data_augmentation", "front_end", "embeddings", "domain_adaptation_method",
                "domain_generalization_method", "ensemble_method_subsystem_count",
                "decision_making", "attribute_usage", "external_data_usage",
            )
        )
        | {
            "input_sampling_rate": "16kHz", "acoustic_features": "log-mel energies",
            "machine_learning_method": "GMM", "aggregation_method": "weighted mean",
            "development_data_usage": "development",
        },
        "external_datasets": [],
        "source_code": None,
    },
}  # fmt: skip


def submit(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture
def authors(tmp_path):
    path = tmp_path / "authors.yaml"
    path.write_text(yaml.safe_dump(AUTHORS, allow_unicode=True))
    return path


@pytest.fixture
def run(tmp_path):
    """What a run on the evaluation data leaves."""
    folder = tmp_path / "run"
    for number, machine in enumerate(MACHINES):
        scores = np.random.default_rng(number).normal(size=len(CLIPS))
        write_scores(folder / "scores", machine, "00", CLIPS, scores)
        write_decisions(folder / "scores", machine, "00", CLIPS, scores > 0)
    costs = pd.DataFrame({"machine": MACHINES, "section": "00", "parameters": range(100, 105)})
    costs.to_csv(folder / "costs.csv", index=False)
    return folder


@pytest.fixture
def package(run, authors, tmp_path):
    """A package that keeps the rules."""
    write_package(run, LABEL, tmp_path / "package", authors)
    return tmp_path / "package"


@pytest.fixture
def system(package):
    return package / "task2" / LABEL


def test_a_run_becomes_a_package_that_keeps_the_rules(run, authors, tmp_path, capsys):
    development = tmp_path / "development"
    development.mkdir()
    pd.DataFrame({
        "machine": ["fan", "gearbox", "arithmetic mean"], "section": ["00", "00", None],
        "auc_source": [0.5, None, 0.5], "auc_target": [0.625, 0.5, 0.6], "pauc": [0.5, 0.75, 0.6],
    }).to_csv(development / "metrics.csv", index=False)  # fmt: skip
    written = ("--label", LABEL, "--out", tmp_path / "package", "--meta", authors)
    assert submit(run, *written, "--development", development) == 0
    out = capsys.readouterr().out
    assert f"{LABEL}: 5 machines and sections of dcase2026, 30 clips: keeps the rules" in out
    system = tmp_path / "package" / "task2" / LABEL
    kept = {path.name for path in (run / "scores").iterdir()}
    assert {path.name for path in system.iterdir()} == kept | {f"{LABEL}.meta.yaml"}
    for name in kept:
        assert (system / name).read_text() == (run / "scores" / name).read_text()
    meta = read_meta(system / f"{LABEL}.meta.yaml")
    assert meta["submission"] == {"label": LABEL, **AUTHORS["submission"]}
    assert "Falcón Pérez" in (system / f"{LABEL}.meta.yaml").read_text("utf-8")
    assert meta["system"]["complexity"]["total_parameters"] == 104
    assert meta["results"]["development_dataset"] == {
        "fan": {"auc_source": 50.0, "auc_target": 62.5, "pauc": 50.0},
        "gearbox": {"auc_target": 50.0, "pauc": 75.0},
    }
    assert submit("--check", tmp_path / "package") == 0


def test_what_only_the_authors_know_is_asked_for(run, tmp_path, capsys):
    assert submit(run, "--label", "Doe_X_task2_2", "--out", tmp_path / "package") == 1
    said = capsys.readouterr().err
    assert "submission: not filled in: name, abbreviation\n" in said
    assert "submission.authors, 1: not filled in: firstname, lastname, email\n" in said
    assert "system.description: not filled in: input_sampling_rate, data_augmentation" in said
    assert "machine_learning_method" in said
    meta = read_meta(tmp_path / "package/task2/Doe_X_task2_2/Doe_X_task2_2.meta.yaml")
    assert {"name", "abbreviation"} <= {*meta["submission"]}
    assert "(null where it does not apply)" in said


def test_two_systems_of_a_team_are_one_package(run, authors, package, capsys):
    second = LABEL.replace("_1", "_2")
    assert submit(run, "--label", second, "--out", package, "--meta", authors) == 0
    assert capsys.readouterr().out.count("keeps the rules") == 2
    shutil.copytree(package / "task2" / LABEL, package / "task2" / "Doe_Y_task2_1")
    (package / "task2" / "report.pdf").write_text("")
    (package / "task2" / "notes.txt").write_text("")
    assert submit("--check", package) == 1
    said = capsys.readouterr().err
    assert "expected the systems of one team, found Doe_Y_task2, FalconPerez_TU-X_task2" in said
    assert "notes.txt: expected folders of systems" in said
    assert "report.pdf" not in said


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("anomaly_score_Sander_section_00_test.csv", None, "no anomaly_score file of Sander"),
        ("decision_result_Sander_section_00_test.csv", None, "no decision_result file of Sander"),
        ("anomaly_score_Sander_test.csv", "", "expected anomaly_score_<machine>_section_<nn>_test"),
        ("anomaly_score_fan_section_00_test.csv", "", "fan section 00 is not in the evaluation da"),
        ("notes.txt", "", "notes.txt: expected anomaly_score_"),
    ],
)
def test_the_files_are_those_of_the_edition(package, system, capsys, name, change, says):
    if change is None:
        (system / name).unlink()
    else:
        (system / name).write_text(change)
    assert submit("--check", package, "--edition", "dcase2026") == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "old", "new", "says"),
    [
        (
            "anomaly_score",
            "section_00_0000",
            "file,score\nsection_00_0000",
            "row 1: expected secti",
        ),
        ("anomaly_score", "section_00_0001.wav,", "section_00_0001.wav,nan", "a finite score, fou"),
        ("anomaly_score", "section_00_0001.wav,", "section_00_0001.wav,1,", "two columns, found 3"),
        ("anomaly_score", "section_00_0001", "section_00_0000", "0000.wav is there 2 times"),
        ("anomaly_score", "section_00_0001", "section_00_0000", "1 clips missing: section_00_0001"),
        ("anomaly_score", "section_00_0001", "section_01_0001", "expected section_00_<nnnn>.wav"),
        ("anomaly_score", "section_00_0005", "section_00_0006", "1 clips missing: section_00_0005"),
        ("decision_result", "section_00_0001.wav,", "section_00_0001.wav,2", "decision 0 or 1, fo"),
        ("decision_result", "section_00_0005", "section_00_0006", "1 clips missing: section_00_00"),
    ],
)
def test_each_clip_has_one_finite_score_and_one_decision(
    package, system, capsys, kind, old, new, says
):
    path = system / f"{kind}_Sander_section_00_test.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert submit("--check", package) == 1
    said = capsys.readouterr().err
    assert str(path) in said
    assert says in said


def test_of_many_wrong_rows_ten_are_shown(package, system, capsys):
    path = system / "anomaly_score_Sander_section_00_test.csv"
    wrong = [*["one column"] * 7, *["other.wav,1"] * 7]
    path.write_text("\n".join([*wrong, path.read_text()]))
    assert submit("--check", package) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if str(path) in line]
    assert "row 10: expected section_00_<nnnn>.wav and no header, found 'other.wav'" in lines[9]
    assert lines[10].endswith("Sander_section_00_test.csv: 4 more rows like these")
    assert len(lines) == 11


def test_the_edition_is_that_of_the_machines_that_either_kind_of_file_names(
    package, system, capsys
):
    for path in system.glob("decision_result_*.csv"):
        path.unlink()
    assert submit("--check", package) == 1
    said = capsys.readouterr().err
    assert all(f"no decision_result file of {machine}" in said for machine in MACHINES)
    assert "expected the machines of an edition" not in said


def changed(meta, place, value):
    *groups, name = place.split(".")
    for group in groups:
        meta = meta[int(group) if group.isdigit() else group]
    if value is KeyError:
        del meta[name]
    else:
        meta[name] = value


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("submission.label", "Other", f"submission.label: expected {LABEL}, as the folder"),
        ("submission.abbreviation", "elevenchars", "expected 10 characters or fewer"),
        ("submission.name", None, "submission: not filled in: name"),
        ("submission.authors", KeyError, "expected a list of authors"),
        (
            "submission.authors.0.email",
            KeyError,
            "submission.authors, 1: expected the fields email",
        ),
        ("submission.authors.0.affiliation", None, "authors, 1.affiliation: expected the fields"),
        (
            "submission.authors.0.affiliation.institution",
            None,
            "authors, 1.affiliation: not filled in: institution",
        ),
        ("submission.authors.0.lastname", "Doe", "last name of the corresponding author, Doe,"),
        ("submission.authors.0.corresponding", False, "one corresponding author, found 0"),
        ("submission.authors.1.corresponding", True, "one corresponding author, found 2"),
        ("submission", None, "expected the group submission, found none"),
        ("system.description.front_end", KeyError, "system.description: expected the fields fron"),
        *(
            ("system.complexity.total_parameters", value, "total_parameters: expected an integer")
            for value in ("9 M", True, -1)
        ),
        ("system.external_datasets", None, "external_datasets: expected a list, empty without any"),
        ("system.external_datasets", [{"name": "A"}], "external_datasets, 1: expected the fields"),
        ("system.source_code", KeyError, "system: expected the fields source_code"),
        ("system", None, "expected the group system, found none"),
        ("results.development_dataset", {"fan": {"pauc": 101}}, "fan.pauc: expected a percentage"),
        ("results.development_dataset", {"fan": {"pauc": ".5"}}, "expected a percentage, found '."),
        ("results", None, "results.development_dataset: expected machines"),
    ],
)
def test_the_fields_of_the_yaml_file_are_there(package, system, capsys, place, value, says):
    path = system / f"{LABEL}.meta.yaml"
    meta = read_meta(path)
    changed(meta, place, value)
    path.write_text(yaml.safe_dump(meta))
    assert submit("--check", package) == 1
    assert says in capsys.readouterr().err


def test_a_yaml_file_that_is_none_is_named(package, system, capsys):
    path = system / f"{LABEL}.meta.yaml"
    for text, says in (
        ("a: [", "expected YAML: "),
        (
            "a",
            "expected YAML: expected an object, found a text: expected the groups submission, "
            "system and results",
        ),
    ):
        path.write_text(text)
        assert submit("--check", package) == 1
        assert f"{path}: {says}" in capsys.readouterr().err
    path.unlink()
    assert submit("--check", package) == 1
    assert f"{path}: expected a YAML file, found none" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["Falcon_task2_1", "Falcon_X_task2_5", "Falcón_X_task2_1", "x"])
def test_labels_are_of_the_challenges_form(run, package, tmp_path, capsys, name):
    assert submit(run, "--label", name, "--out", tmp_path / "other") == 2
    form = "<last name>_<institute>_task2_<1 to 4>"
    assert f"expected a label {form}, found '{name}'" in capsys.readouterr().err
    (package / "task2" / LABEL).rename(package / "task2" / name)
    assert submit("--check", package) == 1
    assert f"expected a label {form} as its name" in capsys.readouterr().err


def test_other_machines_need_their_data_set(run, tmp_path, authors, capsys):
    for kind in ("anomaly_score", "decision_result"):
        for machine in MACHINES[1:]:
            (run / "scores" / f"{kind}_{machine}_section_00_test.csv").unlink()
        path = run / "scores" / f"{kind}_{MACHINES[0]}_section_00_test.csv"
        path.rename(path.with_name(f"{kind}_press_section_00_test.csv"))
    written = ("--label", LABEL, "--out", tmp_path / "package", "--meta", authors)
    assert submit(run, *written) == 1
    assert "expected the machines of an edition since dcase2023, found press" in (
        capsys.readouterr().err
    )
    data = tmp_path / "data"
    for folder, names in (
        ("train", ["section_00_source_train_normal_0000_a_1.wav"]),
        ("test", [*CLIPS, "section_00_0006.wav"]),
    ):
        (data / "eval_data" / "press" / folder).mkdir(parents=True)
        for clip in names:
            soundfile.write(data / "eval_data" / "press" / folder / clip, np.zeros(16), 16_000)
    check = ("--check", tmp_path / "package", "--data", data)
    assert submit(*check) == 1
    assert "1 clips missing: section_00_0006.wav" in capsys.readouterr().err
    (data / "eval_data" / "press" / "test" / "section_00_0006.wav").unlink()
    assert submit(*check) == 0
    assert "1 machines and sections of the data set, 6 clips: keeps" in capsys.readouterr().out
    (data / "eval_data" / "press" / "test" / "section_00_0005.wav").unlink()
    assert submit(*check) == 1
    assert "1 unknown clips: section_00_0005.wav" in capsys.readouterr().err


def test_what_cannot_be_written_is_refused(run, package, tmp_path, authors, capsys):
    assert submit(run, "--label", LABEL, "--out", package) == 2
    assert "is there already: give another label, or delete it" in capsys.readouterr().err
    assert submit(tmp_path, "--label", LABEL, "--out", tmp_path / "new") == 2
    assert "expected the score files of a run, found none" in capsys.readouterr().err
    (run / "scores" / "INCOMPLETE.txt").write_text("no score of 3 clips")
    assert submit(run, "--label", LABEL, "--out", tmp_path / "new") == 2
    assert "INCOMPLETE.txt: no score of 3 clips" in capsys.readouterr().err
    assert submit("--check", tmp_path / "new") == 2
    assert "expected task2/<label>/, found no such folder" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert submit("--check", package, "--edition", "dcase2019") == 2
    assert "dcase2019" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["run"], ["run", "--label", LABEL], ["a", "--check", "b"]]
)
def test_either_a_run_or_a_package_is_asked_for(arguments, capsys):
    with pytest.raises(SystemExit):
        submit(*arguments)
    assert "expected RUN, --label and --out, or --check DIR" in capsys.readouterr().err


def test_a_submission_of_2024_keeps_the_rules_but_for_its_abbreviation(shared, tmp_path):
    label = "Kim_CAU_task2_1"
    folder = shutil.copytree(
        shared / "reference" / "scores" / label, tmp_path / "task2" / label,
        copy_function=shutil.copyfile,
    )  # fmt: skip
    (system,) = check_package(tmp_path)
    (problem,) = system.problems
    assert "expected YAML: while parsing a block mapping" in problem
    meta = folder / f"{label}.meta.yaml"
    # One of its affiliations is indented as no YAML is.
    lines = meta.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("        affiliation:"))
    lines[at : at + 3] = [line[2:] for line in lines[at : at + 3]]
    meta.write_text("\n".join(lines))
    (system,) = check_package(tmp_path)
    assert system.edition == "dcase2024"
    assert sum(system.sections.values()) == 1800
    (problem,) = system.problems
    assert (
        "submission.abbreviation: expected 10 characters or fewer, found 'weight_0.62'" in problem
    )
