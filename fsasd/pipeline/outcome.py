"""What a run has built or found, and which sections have no result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from fsasd.data.names import SectionId
from fsasd.pipeline.run_folder import note
from fsasd.pipeline.stage import Stage
from fsasd.report.cost import ARTIFACTS
from fsasd.report.results import FAILED
from fsasd.runtime.errors import message
from fsasd.store.provenance import PROVENANCE, Provenance


@dataclass(frozen=True)
class Failure:
    """A section that has no result.

    Attributes:
        section: Machine and section.
        stage: Name of the stage that failed.
        error: What it raised.
    """

    section: SectionId
    stage: str
    error: Exception

    @property
    def reason(self) -> str:
        """The error in one line, and what was being done."""
        return " ".join(message(self.error).split())


@dataclass
class Outcome:
    """What a run has built or found.

    Attributes:
        artifacts: Stage to the folder of its artifact.
        failures: One for each section that failed.
        postponed: Stages of other shards that are not built yet, and what needs them.
        collected: Whether the run's folder has all results.
    """

    artifacts: dict[Stage, Path] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    postponed: list[Stage] = field(default_factory=list)
    collected: bool = False

    def of(self, name: str) -> dict[SectionId, Path]:
        """Return the artifacts of a stage, by section."""
        return {
            stage.section: path
            for stage, path in self.artifacts.items()
            if stage.name == name and stage.section is not None
        }

    def write_artifacts(self, folder: Path, more: Iterable[Path] = ()) -> None:
        """Write ``artifacts.csv``: what each artifact took, and where and with what it was built.

        Args:
            folder: The run's folder.
            more: Artifacts that the run reads and no stage of it builds: its simulated recordings.
        """
        stages = [(path.parents[0].name, "", "", path) for path in more]
        for stage, path in self.artifacts.items():
            stages.append((stage.name, *(stage.section or ("", "")), path))
        rows = []
        for name, machine, section, path in stages:
            built = Provenance.read(path / PROVENANCE)
            rows.append(
                {"stage": name, "machine": machine, "section": section, "key": built.key,
                 "started": built.started, "seconds": built.seconds, "bytes": built.bytes,
                 "host": built.host, "commit": built.commit, "fsasd": built.versions["fsasd"]}
            )  # fmt: skip
        note(folder, [ARTIFACTS])
        pd.DataFrame(rows).to_csv(folder / ARTIFACTS, index=False)

    def write_failures(self, folder: Path) -> None:
        """Write ``failed.csv``, or take away that of an earlier run in this folder."""
        path = folder / FAILED
        path.unlink(missing_ok=True)
        if self.failures:
            rows = [(*f.section, f.stage, f.reason) for f in self.failures]
            columns = ["machine", "section", "stage", "reason"]
            pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
