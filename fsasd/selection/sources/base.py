"""The interface of sources: what a section is known by, and what a source estimates of it."""

from __future__ import annotations

import abc
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsasd.data.names import SectionId
from fsasd.selection.evidence import Curve, Evidence, ScoredClips
from fsasd.selection.profile import Profile


class Objectives(Hashable, Protocol):
    """What measures settings on scored clips: a ``Selector``."""

    def objectives(
        self,
        clips: ScoredClips,
        *,
        groups: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        resampled: bool = True,
    ) -> NDArray[np.float64]:
        """Return (settings, 1 + resamples) objectives: as observed, then on each resample."""


@dataclass(frozen=True, eq=False)
class Case:
    """A section as the choice of its setting sees it.

    Attributes:
        section: Of which machine.
        type: Of the machine; machines of one type are not independent.
        site: Where it stands, as far as that is known.
        synthetic: Scores of its synthetic clips, if there are any.
        transfer: Scores of clips with transferred anomalies, if they were asked for.
        profile: Of its normal training clips; ``None`` where no source is asked.
        unlike: Why its synthetic clips are too unlike real ones to choose on; empty if not so.
        real: Of a reference machine with labelled test clips, the curve on these.
        strict: The generator of its synthetic clips was not trained on its type's anomalies.
    """

    section: SectionId
    type: Hashable
    site: str | None
    synthetic: Evidence
    transfer: Evidence | None = None
    profile: Profile | None = None
    unlike: str = ""
    real: Curve | None = None
    strict: bool = True

    @property
    def likeness(self) -> Profile:
        """Its profile.

        Raises:
            ValueError: It has none.
        """
        if self.profile is None:
            raise ValueError(f"{self.section}: expected a profile of its normal clips, found none")
        return self.profile

    @property
    def gains(self) -> NDArray[np.float64]:
        """(settings,) What each setting gained over the default on the labelled test clips.

        Raises:
            ValueError: It has none.
        """
        if self.real is None:
            raise ValueError(f"{self.section}: expected labelled test clips, found none")
        objective = self.real.table["objective"].to_numpy()
        return objective - objective[self.synthetic.candidates.default]


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a source expects of every setting.

    Attributes:
        gains: (settings,) expected objective minus that of the default setting.
        error: (settings,) standard error of these: how far another draw of what the source has
            (clips, or reference machines) would lead.
        origins: Reference machine and section (``str`` of a ``SectionId``) to its share in it;
            empty where it is from the section alone.
        details: What else there is to say of it, in words.
        reason: Why the source says nothing; empty where it does. Then the gains are 0.
    """

    gains: NDArray[np.float64]
    error: NDArray[np.float64]
    origins: Mapping[str, float] = field(default_factory=dict)
    details: str = ""
    reason: str = ""

    @classmethod
    def of(
        cls,
        objectives: NDArray[np.float64],
        default: int,
        origins: Mapping[str, float] | None = None,
        details: str = "",
    ) -> Self:
        """Return the gains of ``Objectives.objectives``, with their bootstrap error.

        Args:
            objectives: (settings, 1 + resamples).
            default: Row of the default setting.
            origins: As in ``Estimate``.
            details: As in ``Estimate``.
        """
        gains = objectives - objectives[default]
        return cls(gains[:, 0], gains[:, 1:].std(axis=1), origins or {}, details)

    @classmethod
    def nothing(cls, case: Case, reason: str) -> Self:
        """Return the estimate of a source that has nothing to say."""
        zero = np.zeros(len(case.synthetic.candidates.settings))
        return cls(zero, zero, reason=reason)


class Source(abc.ABC):
    """Evidence for settings: ``selection/sources=[<name>]`` by a file in that config group.

    A source is described by its constructor's arguments, which it keeps as attributes.

    Attributes:
        alone: Whether it is evidence where no other source says anything.
    """

    alone: ClassVar[bool] = True

    @abc.abstractmethod
    def estimate(self, case: Case, references: Sequence[Case], selector: Objectives) -> Estimate:
        """Estimate what every setting gains on the anomalies of a machine that has none yet.

        Args:
            case: The section; its ``real`` curve must not be looked at.
            references: Sections of other machines, each with its ``real`` curve, that may be used.
            selector: Measures settings by the objective.
        """

    def described(self) -> dict[str, Any]:
        """Return what the estimate depends on beside the evidence: plain values (JSON)."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def alike(case: Case, references: Sequence[Case], scale: float) -> NDArray[np.float64]:
    """Weight reference machines by how alike their normal sounds are; sections of a type share.

    Args:
        case: The section that they are compared with.
        references: One or more.
        scale: dB of distance (``Profile.distance``) by which a weight falls to 1/e; infinity
            weights all types alike.

    Returns:
        (references,) that sum to 1.
    """
    distances = np.array([case.likeness.distance(one.likeness) for one in references])
    weights = np.exp(-(distances - distances.min()) / scale)
    types = [one.type for one in references]
    weights /= [types.count(kind) for kind in types]
    return weights / weights.sum()
