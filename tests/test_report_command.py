"""The command ``fsasd-report``: what it prints and writes."""

import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from run_folders import failed_section, write_finetuned, write_run, write_status, write_sweep

from fsasd.cli.report import main


@pytest.fixture
def swept(tmp_path):
    """Three detectors, two of them with two seeds, on two machines; a job that failed."""
    names = [("knn", 0), ("knn", 1), ("lof", 0), ("lof", 1), ("fkie<b>", 0), ("anopatch", 0)]
    jobs = [[f"detector={name}", f"seed={seed}"] for name, seed in names]
    folder = tmp_path / "sweep"
    write_sweep(folder, jobs, ["data=factory"])
    for number, overrides in enumerate(jobs):
        run = folder / str(number)
        machines = ("pump", "fan_1")
        official = write_run(run, overrides, 1 + number / 2, number, machines)
        write_status(run, number, overrides=overrides, result=f"official {100 * official:.1f} %")
    write_status(folder / "5", 5, "failed", overrides=jobs[5], reason="no & weights")
    return folder


class Page(HTMLParser):
    """Tags of a page, which must be closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "path", "use", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += " " + data


def test_a_sweep_is_printed_with_the_best_setting_of_each_machine(swept, capsys):
    assert main([str(swept)]) == 1
    out, err = capsys.readouterr()
    assert out.index("fkie<b>") < out.index("lof") < out.index("knn")
    assert re.search(r"Worse than detector=fkie<b>: .*detector=knn", out)
    rows = out.split("Best setting per machine")[1].splitlines()[3:5]
    assert [row.split()[:2] for row in rows] == [
        ["pump", "detector=fkie<b>"], ["fan_1", "detector=fkie<b>"],
    ]  # fmt: skip
    assert err.strip().splitlines() == [
        "1 of 6 jobs have no result:", "  detector=anopatch seed=0: no & weights",
    ]  # fmt: skip


def test_runs_are_joined_wherever_they_lie(swept, tmp_path, capsys):
    write_run(tmp_path / "alone", ["detector=gmm", "seed=0"], 9.0, machines=("pump",))
    assert main([str(swept / "0"), str(swept / "1"), str(tmp_path / "alone")]) == 0
    out, err = capsys.readouterr()
    first, second = out.splitlines()[4:6]
    assert (first.split()[0], second.split()[0]) == ("gmm", "knn")
    assert "Note: The difference of detector=knn to detector=gmm is over 1 section" in out
    assert err == ""


def test_everything_is_written(swept, tmp_path, capsys):
    folder = tmp_path / "a" / "comparison"
    assert main([str(swept), "--output", str(folder), "--baseline", "detector=knn"]) == 1
    written = {path.name for path in folder.iterdir()}
    assert written == {
        "comparison.html", "comparison.md", "comparison.tex", "comparison.csv", "jobs.csv",
        "machines.csv",
    }  # fmt: skip
    out = capsys.readouterr().out
    assert all(str(folder / name) in out for name in written)
    table = pd.read_csv(folder / "comparison.csv")
    assert table["detector"].tolist() == ["fkie<b>", "lof", "knn"]
    assert table["jobs"].tolist() == [1, 2, 2]
    assert table["verdict"].tolist() == ["better", "better", "baseline"]
    assert table["official_std"].isna().tolist() == [True, False, False]
    assert len(pd.read_csv(folder / "jobs.csv")) == 6
    assert len(pd.read_csv(folder / "machines.csv")) == 6
    markdown = (folder / "comparison.md").read_text()
    assert "| detector | Parameters |" in markdown
    assert "Better than detector=knn: detector=fkie<b>, detector=lof." in markdown
    latex = (folder / "comparison.tex").read_text()
    assert latex.count("\\toprule") == latex.count("\\bottomrule") == 2
    assert "fan\\_1" in latex
    assert re.search(r"lof & .* \$\\pm\$ ", latex)
    assert latex.isascii()


def test_the_page_needs_nothing_but_itself(swept, tmp_path):
    main([str(swept), "--output", str(tmp_path / "out")])
    text = (tmp_path / "out" / "comparison.html").read_text()
    page = Page(text)
    assert not page.open
    assert "http://" not in text
    assert "https://" not in text
    assert not any("src" in attrs for _, attrs in page.tags)
    assert "<b>" not in text.replace("<body>", "")
    for expected in ("fkie<b>", "no & weights", "6 jobs: 5 done, 1 failed", "How to read this"):
        assert expected in page.text
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    sortable = [attrs for tag, attrs in page.tags if attrs.get("class") == "sortable"]
    assert len(sortable) == 3
    assert len(text) < 150_000


def test_fine_tunings_have_a_page_too(tmp_path, capsys):
    for run, losses in (("0", {2: 0.5}), ("1", {2: 0.4, 4: 0.25})):
        overrides = [f"trainer.max_steps={2 + int(run)}"]
        write_finetuned(tmp_path / "s" / run, tmp_path / "store", overrides, losses, key=run * 16)
    assert main([str(tmp_path / "s"), "--output", str(tmp_path / "out")]) == 0
    assert "Fine-tuning" in capsys.readouterr().out
    assert not (tmp_path / "out" / "machines.csv").exists()
    page = Page((tmp_path / "out" / "comparison.html").read_text())
    assert "Lowest validation loss" in page.text
    assert "Official scores" not in page.text
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert table["val_loss"].tolist() == [0.25, 0.5]


@pytest.mark.parametrize("labels", [True, False])
def test_one_run_has_a_page(tmp_path, labels):
    write_run(tmp_path / "run", ["detector=knn"], labels=labels)
    assert main([str(tmp_path / "run"), "--output", str(tmp_path / "out")]) == 0
    page = Page((tmp_path / "out" / "comparison.html").read_text())
    text = "The official score is" if labels else "No official score is known"
    assert text in page.text


def test_sections_that_failed_lead_to_another_code(tmp_path, capsys):
    write_run(tmp_path, ["detector=knn"])
    failed_section(tmp_path)
    assert main([str(tmp_path)]) == 3
    assert "fan section 00 in stage detect: no training clips" in capsys.readouterr().err


def wrong(arguments, capsys):
    assert main(list(map(str, arguments))) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


def test_what_is_wrong_is_named_in_a_line(swept, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    line = wrong([tmp_path / "empty"], capsys)
    assert line.startswith(f"{tmp_path / 'empty'}: expected the folder of a run or of a sweep")
    assert wrong([tmp_path / "no"], capsys) == f"{tmp_path / 'no'}: there is no such folder"
    line = wrong([swept, "--baseline", "detector=x"], capsys)
    assert line.startswith("setting 'detector=x': expected one of 'detector=fkie<b>'")
    line = wrong([swept / "5"], capsys)
    assert line.endswith("found no result of them (1 job: 1 failed)")


def test_runs_of_both_kinds_are_kept_apart(swept, tmp_path, capsys):
    overrides = ["generator.learning_rate=2e-4"]
    write_finetuned(tmp_path / "tuned" / "0", tmp_path / "store", overrides, {2: 0.5})
    assert main([str(swept), str(tmp_path / "tuned"), "--output", str(tmp_path / "out")]) == 1
    scores, losses = capsys.readouterr().out.split("Fine-tuning")
    assert "generator.learning_rate" not in scores.split("Worse")[0]
    assert losses.splitlines()[2].split()[:2] == ["generator.learning_rate=0.0002", "0.5"]
    assert "not comparable" not in scores
