"""The report page in headless Chromium: what it shows, plays and sorts, wide and narrow."""

import re
import shutil
from importlib import resources

import pandas as pd
import pytest
from browser import examine, needs_chromium
from run_folders import write_run

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.metadata import read_clips
from fsasd.report.figures import PALETTE
from fsasd.report.page import write_report
from fsasd.report.runs.comparison import compare_runs
from fsasd.report.runs.page import write_page

WIDTHS = """
for (const width of [390, 1280]) {
  frame.style.width = `${width}px`;
  await new Promise(drawn => page.requestAnimationFrame(() => page.requestAnimationFrame(drawn)));
  const root = page.document.documentElement;
  found.beyond[width] = root.scrollWidth - root.clientWidth;
}
"""
"""Notes by how much a page is wider than a phone, and than a desktop."""

LOOK = (
    """
const found = {broken: [], seconds: [], beyond: {}};
for (const image of page.document.images) {
  await image.decode().catch(() => found.broken.push(image.alt));
}
for (const audio of page.document.querySelectorAll("audio")) {
  await new Promise((playable, failed) => {
    audio.addEventListener("canplaythrough", playable);
    audio.addEventListener("error", () => failed(audio.ariaLabel));
    audio.preload = "auto";
    audio.load();
  });
  found.seconds.push(audio.duration);
}
for (const details of page.document.querySelectorAll("details")) details.open = true;
"""
    + WIDTHS
    + """const table = page.document.querySelector("#settings table.sortable");
const title = [...table.tHead.rows[0].cells].find(cell => cell.textContent === "Official");
const column = () => [...table.tBodies[0].rows].map(row => +row.cells[title.cellIndex].textContent);
found.sorted = [1, 2].map(() => {
  title.querySelector("button").click();
  return [title.ariaSort, column()];
});
found.means = [...page.document.querySelectorAll("#result tbody:last-child th")]
  .map(cell => cell.textContent);
page.document.querySelector("#result thead button").click();
page.document.querySelector("#result thead button").click();
found.last = [...page.document.querySelectorAll("#result tbody th")].at(-1).textContent;
found.faults = page.faults;
return found;
"""
)


@pytest.fixture
def shown(bearing_model, factory, tmp_path):
    """The page of a run of one machine, with what four settings were worth."""
    run = shutil.copytree(bearing_model.parents[1], tmp_path / "run")
    rows = [
        {"machine": "bearing", "section": "00", "setting": setting, "param.r": 0.5, "auc": score,
         "auc_source": score, "auc_target": score, "pauc": score, "objective": score}
        for setting, score in {"r=0": 0.8, "r=1": 0.55, "synthetic": 0.7, "oracle": 0.9}.items()
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(run / "settings.csv", index=False)
    return write_report(run, FirstShotDataModule(read_clips(factory))).read_text("utf-8")


@pytest.mark.slow
@needs_chromium
def test_the_page_in_a_browser(shown, tmp_path):
    found = examine(shown, LOOK, tmp_path / "chromium")
    assert "error" not in found, found["error"]
    assert found["faults"] == []
    assert found["broken"] == []
    assert len(found["seconds"]) == shown.count("<audio") > 0
    assert min(found["seconds"]) > 0.5
    # Tables scroll within their boxes; the page does not.
    assert found["beyond"] == {"390": 0, "1280": 0}
    (rising, up), (falling, down) = found["sorted"]
    assert (rising, falling) == ("ascending", "descending")
    assert up == sorted(up)
    assert down == up[::-1]
    assert found["means"] == ["arithmetic mean", "harmonic mean"]
    assert found["last"] == "harmonic mean"


LOOK_AT_COMPARISON = (
    """
const found = {beyond: {}};
"""
    + WIDTHS
    + """const table = page.document.querySelector("#scores table.sortable");
const title = [...table.tHead.rows[0].cells].find(cell => cell.textContent === "AUC source");
title.querySelector("button").click();
found.sorted = [...table.tBodies[0].rows].map(row => +row.cells[title.cellIndex].textContent);
found.faults = page.faults;
return found;
"""
)


@pytest.mark.slow
@needs_chromium
def test_a_comparison_in_a_browser(tmp_path):
    for number, (detector, shift) in enumerate({"knn": 1.5, "lof": 0.5, "pca": 1.0}.items()):
        write_run(tmp_path / str(number), [f"detector={detector}"], shift, machines=("fan", "pump"))
    runs = [tmp_path / str(number) for number in range(3)]
    page = write_page(compare_runs(*runs), tmp_path / "comparison.html").read_text("utf-8")
    found = examine(page, LOOK_AT_COMPARISON, tmp_path / "chromium")
    assert "error" not in found, found["error"]
    assert found["faults"] == []
    assert found["beyond"] == {"390": 0, "1280": 0}
    assert len(found["sorted"]) == 3
    assert found["sorted"] == sorted(found["sorted"])


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
