"""``Stage``: one step of the method for one section, or all machines; what determines it."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fsasd.data.names import SectionId
from fsasd.pipeline.run_folder import link


@dataclass(frozen=True)
class Estimate:
    """What a build will take, as far as it is known beforehand.

    Attributes:
        hours: Of time.
        gigabytes: Of disk.
    """

    hours: float
    gigabytes: float


@dataclass(frozen=True, eq=False)
class Value:
    """An input of which only a value is needed: the value enters the key, not the artifact's key.

    Attributes:
        stage: Whose artifact holds it.
        read: Artifact's folder -> plain value (JSON).
    """

    stage: Stage
    read: Callable[[Path], Any]


class Stage(abc.ABC):
    """One step: from artifacts of other stages to an artifact of its own.

    Its key is a hash of its name, version and section, of ``spec`` and of the keys of its inputs.
    A stage object is cheap to make: what it builds with, it makes in ``build``.

    Other packages add stages by a function that plans them (``fsasd.pipeline.plan.Planner``), which
    the configuration names: ``+pipeline.<name>._target_=...``.

    Args:
        inputs: The stages whose artifacts it reads, or the values it reads of them, by name.
        section: The machine's section that it is about; ``None`` where all machines share it.

    >>> class Count(Stage):
    ...     name, version = "count", 1
    ...     def spec(self):
    ...         return {"up_to": 3}
    ...     def build(self, folder, inputs):
    ...         _ = (folder / "numbers").write_text("1 2 3")
    >>> str(Count()), str(Count(section=SectionId("fan", "00")))
    ('count', 'count of fan section 00')
    """

    name: ClassVar[str]
    """Folder of its artifacts in the store."""

    version: ClassVar[int]
    """To be raised when the same spec and inputs give another result."""

    together: bool = False
    """All ranks build it together; otherwise the first does, and sections are built at once."""

    tolerant: ClassVar[bool] = False
    """It is built of those of its inputs that did not fail, of one at least."""

    trained_on: ClassVar[tuple[str, ...]] = ()
    """Entries of its spec that a frozen stage may differ in: what it was trained on."""

    def __init__(
        self,
        inputs: Mapping[str, Stage | Value] | None = None,
        section: SectionId | None = None,
    ) -> None:
        self.inputs = dict(inputs or {})
        self.section = section

    @abc.abstractmethod
    def spec(self) -> Mapping[str, Any]:
        """Return everything else that determines the result, as plain values (JSON)."""

    @abc.abstractmethod
    def build(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        """Compute the artifact.

        Args:
            folder: Gets it. A build that was interrupted finds it as it was left.
            inputs: The folders of the inputs' artifacts, or the values read of them, by name;
                those that failed are missing where the stage is ``tolerant``.
        """

    def check(self) -> None:
        """Check before any stage is built that this one can be.

        Raises:
            ValueError: It cannot.
        """
        return

    def publish(self, artifact: Path, run: Path) -> None:
        """Give the run's folder what it is to have of the artifact: all of it by default.

        Args:
            artifact: Its folder.
            run: The run's folder; what is put into it are files of its own (``run_folder.link``).
        """
        section = f"{self.section.machine}_section_{self.section.section}" if self.section else ""
        link(artifact, run, f"{self.name}/{section}".rstrip("/"))

    def estimate(self) -> Estimate | None:
        """Return what a build will take, if that is known."""
        return None

    def input_stages(self) -> Iterator[tuple[str, Stage]]:
        """Yield the stages that it depends on, by the names of its inputs."""
        for name, source in self.inputs.items():
            yield name, source.stage if isinstance(source, Value) else source

    def __str__(self) -> str:
        return f"{self.name} of {self.section}" if self.section else self.name
