"""The official score of a run, and over which of its machines it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fsasd.data.names import SectionId
from fsasd.evaluation.metrics import OFFICIAL, official_score
from fsasd.report.formatting import count
from fsasd.report.results import Results


@dataclass(frozen=True)
class Headline:
    """The official score of a run, fractions; NaN where undefined.

    Attributes:
        score: Harmonic mean over all machines, sections and official metrics.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n_metrics: Number of metrics that enter it, undefined ones included.
        undefined: Number of undefined metrics.
        sections: Sections with metrics.
        unlabelled: Number of sections that were scored, but whose test labels are not known.
        failed: Sections that have no score because a stage failed.
    """

    score: float
    low: float
    high: float
    n_metrics: int
    undefined: int
    sections: Sequence[SectionId]
    unlabelled: int
    failed: Sequence[SectionId]

    @property
    def over(self) -> str:
        """Over which part of the run the score is, e.g. "6 of 7 machines"."""
        total = [*self.sections, *self.failed]
        machines = {section.machine for section in total}
        unit = "machine" if len(machines) == len(total) else "section"
        if self.failed:
            return f"{len(self.sections)} of {count(len(total), unit)}"
        return count(len(total), unit)

    def coverage(self) -> str:
        """Describe in sentences what the mean is of, and what is missing in it."""
        n = len(self.sections)
        undivided = n * len(OFFICIAL) - self.n_metrics
        areas = "AUC and pAUC" if undivided == n else "AUC (source), AUC (target) and pAUC"
        what = f"{areas} of {count(n, 'section')}"
        if 0 < undivided < n:
            what += f" (of {undivided} AUC and pAUC: their clips have no domain)"
        text = f"Harmonic mean of {count(self.n_metrics, 'value')}: {what}."
        if self.undefined:
            are = "is" if self.undefined == 1 else "are"
            defined = self.n_metrics - self.undefined
            text = (
                f"Harmonic mean of {defined} of {self.n_metrics} values: {what}. {self.undefined} "
                f"{are} undefined and not in the mean (shown as —)."
            )
        if self.unlabelled:
            total = n + self.unlabelled
            text += f" Not in it, because the test labels are not known: {self.unlabelled} of "
            text += f"{total} sections."
        return text


def headline(results: Results) -> Headline | None:
    """Return the official score and its interval; ``None`` without metrics."""
    metrics = results.metrics
    if metrics.empty:
        return None
    official = official_score(metrics)
    row = metrics[metrics["machine"] == "official score"].iloc[0]
    score, low, high = (float(row[name]) for name in ("official_score", "ci_low", "ci_high"))
    rows = metrics[metrics["section"].notna()]
    sections = list(map(SectionId, rows["machine"], rows["section"]))
    return Headline(
        score, low, high, official.cells, official.undefined, sections,
        len(set(results.sections) - set(sections)), results.failed_targets,
    )  # fmt: skip
