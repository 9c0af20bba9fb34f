"""The labelled test clips of a run, on which settings are compared."""

from __future__ import annotations

from dataclasses import dataclass

from fsasd.data.names import SectionId
from fsasd.evaluation.folds import recording_groups
from fsasd.evaluation.metrics import Section, known_domains
from fsasd.report.results import ID, Results


@dataclass(frozen=True, eq=False)
class LabelledClips:
    """The test clips of a section whose labels are all known.

    Attributes:
        files: Their names, in order.
        section: Their labels, domains and scores, in that order.
    """

    files: list[str]
    section: Section


def labelled_clips(results: Results) -> dict[SectionId, LabelledClips]:
    """Return the test clips of each section of a run; sections with unknown labels are left out.

    Args:
        results: The run.
    """
    sections = {}
    for key, rows in results.clips.groupby(ID, sort=False):
        if rows["label"].isna().any():
            continue
        rows = rows.sort_values("file")
        sections[SectionId(*map(str, key))] = LabelledClips(
            rows["file"].tolist(),
            Section(
                rows["label"] == "anomaly", known_domains(rows["domain"]), rows["score"],
                groups=recording_groups(rows.get("recording", ())),
            ),
        )  # fmt: skip
    return sections
