"""A generator without training: anomalies of reference machines put into normal clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.data.names import SectionId
from fsasd.generation.base import Generator, source_waveform
from fsasd.generation.ladder import in_turn
from fsasd.generation.prompts import Prompt
from fsasd.generation.transplant import BandQuantiles, difference, transplant

STRENGTHS = (0.35, 0.7, 1.4)

_PHRASES = {
    "anomaly": "with what distinguishes an anomaly of {donor} from its normal sound",
    "normal": "with what distinguishes two normal sounds of {donor}",
}


class AnomalyTransfer(Generator):
    """What an anomaly of a reference machine changes is put into the target's normal clips.

    An anomalous clip is a normal clip of the target, with the difference between an anomaly of a
    reference machine (its donor) and that machine's nearest normal training clip (see
    ``transplant``). A normal clip is one with the difference between a normal clip of the donor and
    its nearest: the traces of the transplant are in both classes, and in both at the same
    strengths. Donors and strengths come up in turn; the donor's clip is drawn.

    Nothing is learnt, and what faults sound like is not assumed: it is as right as the faults of
    references are like the target's. Selection weights donors, by the prompt's ``donor``.

    Args:
        references: Clips of reference machines: normal training clips, anomalies, and normal test
            clips; where there are none of these, normal training clips take their place.
        strengths: Rungs of the ladder of strengths: 1 is as strong, beside the target's clip, as
            the anomaly is beside the reference's normal clip.
        channel: What to take of the target's recordings with several channels (see
            ``recording.read``).

    Raises:
        ValueError: No section of the references has what a donor needs, or a strength is not
            positive.
    """

    trained = False
    derived = True
    uses_references: ClassVar[bool] = True

    def __init__(
        self,
        references: Clips,
        strengths: Sequence[float] = STRENGTHS,
        channel: int | str | None = None,
    ) -> None:
        super().__init__()
        self.strengths = [float(strength) for strength in strengths]
        if not self.strengths or min(self.strengths) <= 0:
            raise ValueError(f"strengths: expected positive numbers, found {list(strengths)}")
        sections = _donors(references)
        self.donors = {
            str(section): donor for section, donor in sections.items() if donor.suffices()
        }
        if not self.donors:
            raise ValueError(
                "expected a section of a reference machine with anomalies and two normal clips, "
                f"one for training, to transfer anomalies from, found {_described(sections)}"
            )
        self.channel = channel

    @classmethod
    def has_donors(cls, references: Clips) -> bool:
        """Return whether anomalies can be transferred from clips of reference machines."""
        return any(donor.suffices() for donor in _donors(references).values())

    def prepare(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Give each clip its donor and its strength, and say so in its caption."""
        donors = list(self.donors)
        turns = in_turn(prompts, len(self.strengths), len(donors))
        return [
            prompt._replace(
                strength=self.strengths[rung],
                donor=donors[donor],
                caption=f"{prompt.caption.removesuffix('.')}, "
                f"{_PHRASES[prompt.label].format(donor=donors[donor])} "
                f"(strength {self.strengths[rung]:g}).",
                fault="",
            )
            for prompt, (rung, donor) in zip(super().prepare(prompts), turns, strict=True)
        ]

    def generate(self, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
        """Return each prompt's source with the difference of two of its donor's clips.

        Raises:
            ValueError: A prompt has no source.
        """
        return [torch.from_numpy(self._waveform(prompt)) for prompt in prompts]

    def _waveform(self, prompt: Prompt) -> np.ndarray:
        waveform = source_waveform(prompt, self.channel)
        donor, rng = self.donors[prompt.donor], np.random.default_rng([prompt.seed, 1])
        clips = donor.anomalies if prompt.label == "anomaly" else donor.normals
        clip = clips[int(rng.integers(len(clips)))]
        read = clips.cache.read
        change = difference(read(clip), read(donor.nearest(clip)))
        assert prompt.strength is not None
        return transplant(waveform, change, prompt.strength, rng)


@dataclass(frozen=True, eq=False)
class Donor:
    """A section of a reference machine.

    Attributes:
        usual: Its normal training clips.
        normals: The normal clips whose difference from a usual one is transferred.
        anomalies: The same of its anomalies.
    """

    usual: Clips
    normals: Clips
    anomalies: Clips

    @classmethod
    def of(cls, clips: Clips) -> Donor:
        """Return the donor that the clips of a section make."""
        usual = clips.where(split="train", label="normal")
        normals = clips.where(split="test", label="normal") or usual
        known = set(usual.recordings)
        # The difference of a clip from its own recording would be none.
        normals = normals[[bool(known - {name}) for name in normals.recordings]]
        return cls(usual, normals, clips.where(label="anomaly"))

    def suffices(self) -> bool:
        """Return whether both kinds of differences can be taken of it."""
        return bool(len(self.normals) and len(self.anomalies))

    def nearest(self, clip: Clip) -> Clip:
        """Return the usual clip whose levels, by band and rank, are nearest those of a clip.

        It is of the clip's domain and operating state where there is such a clip, else of its
        domain, else of any; and it is not of the clip's recording.
        """
        (recording,) = Clips([clip], self.usual.cache).recordings
        others = self._recordings != recording
        same_domain = others & (self._domains == (clip.domain or "source"))
        same_state = same_domain & [one == clip.attributes for one in self._attributes]
        eligible = next((mask for mask in (same_state, same_domain, others) if mask.any()), others)
        rows = np.flatnonzero(eligible)
        levels = self.usual.cache.get(_LEVELS, clip)
        return self.usual[int(rows[np.square(self._levels[rows] - levels).mean((1, 2)).argmin()])]

    @cached_property
    def _levels(self) -> np.ndarray:
        return np.stack(list(self.usual.features(_LEVELS)))

    @cached_property
    def _recordings(self) -> np.ndarray:
        return self.usual.recordings

    @cached_property
    def _domains(self) -> np.ndarray:
        return self.usual.domains

    @cached_property
    def _attributes(self) -> list[dict[str, str]]:
        return self.usual.groups(lambda clip: dict(clip.attributes))


def _donors(references: Clips) -> dict[SectionId, Donor]:
    return {section: Donor.of(clips) for section, clips in references.sections.items()}


_LEVELS = BandQuantiles()


def _described(sections: dict[SectionId, Donor]) -> str:
    return (
        "; ".join(
            f"{section} with {len(donor.usual)} normal training clips, {len(donor.normals)} normal "
            f"clips to compare with them and {len(donor.anomalies)} anomalies"
            for section, donor in sections.items()
        )
        or "no clip of a reference machine"
    )
