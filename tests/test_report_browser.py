"""The report page in headless Chromium: what it shows, plays and sorts, wide and narrow."""

import re
import shutil
from importlib import resources
from itertools import product

import pandas as pd
import pytest
from browser import MODES, beyond, browser, needs_chromium, shown, violations
from run_folders import write_run

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.metadata import read_clips
from fsasd.report.figures import PALETTE
from fsasd.report.page import write_report
from fsasd.report.runs.comparison import compare_runs
from fsasd.report.runs.page import write_page

PLAY = """async page => {
  const seconds = [], broken = [];
  for (const image of document.images) await image.decode().catch(() => broken.push(image.alt));
  for (const audio of document.querySelectorAll("audio")) {
    await new Promise((playable, failed) => {
      audio.addEventListener("canplaythrough", playable);
      audio.addEventListener("error", () => failed(audio.ariaLabel));
      audio.preload = "auto";
      audio.load();
    });
    seconds.push(audio.duration);
  }
  return [broken, seconds];
}"""
"""Pictures that cannot be shown, and how long each recording plays."""


@pytest.fixture
def report(bearing_model, factory, tmp_path):
    """The page of a run of one machine, with what four settings were worth."""
    run = shutil.copytree(bearing_model.parents[1], tmp_path / "run")
    rows = [
        {"machine": "bearing", "section": "00", "setting": setting, "param.r": 0.5, "auc": score,
         "auc_source": score, "auc_target": score, "pauc": score, "objective": score}
        for setting, score in {"r=0": 0.8, "r=1": 0.55, "synthetic": 0.7, "oracle": 0.9}.items()
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(run / "settings.csv", index=False)
    return write_report(run, FirstShotDataModule(read_clips(factory)))


@pytest.fixture
def comparison(tmp_path):
    """The page of three runs of two machines."""
    for detector, shift in {"knn": 1.5, "lof": 0.5, "pca": 1.0}.items():
        write_run(tmp_path / detector, [f"detector={detector}"], shift, machines=("fan", "pump"))
    runs = [tmp_path / detector for detector in ("knn", "lof", "pca")]
    return write_page(compare_runs(*runs), tmp_path / "comparison.html")


def column(table, title):
    """Return the numbers below a title."""
    titles = table.locator("thead th").all_text_contents()
    cells = table.locator(f"tbody tr > :nth-child({titles.index(title) + 1})")
    return [float(text) for text in cells.all_text_contents()]


@pytest.mark.slow
@needs_chromium
def test_the_page_in_a_browser(report):
    with browser() as chromium, shown(chromium, report, *MODES[0]) as page:
        broken, seconds = page.evaluate(PLAY)
        assert broken == []
        assert len(seconds) == report.read_text("utf-8").count("<audio") > 0
        assert min(seconds) > 0.5
        table = page.locator("#settings table.sortable")
        title = table.locator("th", has_text="Official")
        for order, falling in (("ascending", False), ("descending", True)):
            title.get_by_role("button").click()
            assert title.get_attribute("aria-sort") == order
            scores = column(table, "Official")
            assert scores == sorted(scores, reverse=falling)
        means = page.locator("#result tbody:last-child th")
        assert means.all_text_contents() == ["arithmetic mean", "harmonic mean"]
        page.locator("#result thead button").first.dblclick()
        assert page.locator("#result tbody th").all_text_contents()[-1] == "harmonic mean"


@pytest.mark.slow
@needs_chromium
def test_a_comparison_in_a_browser(comparison):
    with browser() as chromium, shown(chromium, comparison, *MODES[0]) as page:
        table = page.locator("#scores table.sortable")
        table.get_by_role("button", name="AUC source").click()
        scores = column(table, "AUC source")
        assert len(scores) == 3
        assert scores == sorted(scores)


@pytest.mark.nightly
@pytest.mark.slow
@needs_chromium
def test_no_rule_of_accessibility_is_broken(report, comparison):
    with browser() as chromium:
        for path, mode in product((report, comparison), MODES):
            with shown(chromium, path, *mode) as page:
                assert violations(page) == [], (path.name, mode)
                # Tables scroll within their boxes; the page does not.
                assert beyond(page) == 0, (path.name, mode)


@pytest.mark.slow
@needs_chromium
def test_what_a_page_logs_and_breaks_is_found(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<!doctype html><img src='nowhere.png'><script>missing()</script>")
    expected = pytest.raises(AssertionError, match="missing is not defined")
    with browser() as chromium, expected, shown(chromium, path, *MODES[1]) as page:
        found = violations(page)
    rules = {text.split(":")[0] for text in found}
    assert {"document-title", "html-has-lang", "image-alt"} <= rules


def luminance(colour):
    """Relative luminance of ``#rrggbb`` as WCAG 2.2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read_on_its_background(scheme):
    style = resources.files("fsasd.report").joinpath("report.css").read_text()
    page = re.findall(r"--page: (#\w{6});", style)[scheme]
    for background in (PALETTE["paper"][scheme], page):
        for name in ("ink", "muted", "source", "target", "anomaly", "synthetic"):
            lighter, darker = sorted(map(luminance, (PALETTE[name][scheme], background)))[::-1]
            contrast = (lighter + 0.05) / (darker + 0.05)
            assert contrast >= 4.5, (name, background, contrast)
