"""``Clip``: a recording with its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fsasd.data.names import SectionId


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording with its metadata; unknown values are ``None``.

    Attributes:
        path: The audio file.
        machine: Machine type, as the data set spells it.
        role: ``reference`` (anomalies may be known) or ``target`` (only normal clips to train on).
        split: ``train`` or ``test``.
        section: Section or machine id, e.g. ``00``.
        domain: ``source`` or ``target``.
        label: ``normal`` or ``anomaly``.
        attributes: Operating and environmental attributes, key to value, in the order written.
        raw_label: The attribute part of the name as written, also where it cannot be split.
        source: Of a synthetic clip that is derived from a recording's audio, the content hash of
            that recording (``content.content_hash``): a detector that was fitted on it has been
            fitted on the synthetic clip, too.
        synthetic: Synthesised by a generator: mono, whichever channel is taken of real recordings.
        strength: Of a synthetic clip, the rung of its generator's ladder of strengths: anomalies of
            one value are about as strong. A normal clip has one where it was changed as strongly.
        donor: Of a synthetic clip with something of another machine's sound, that machine and
            section (``str`` of a ``SectionId``).
        fault: Of a synthetic anomaly, what kind it is, several joined by ``+``.
        pair: Of a synthetic clip, the number of its pair in the section: a normal and an anomalous
            clip with the same noise, which are not independent of each other.
        recording: Name of the recording that the clip was cut from, where several clips were cut
            from one: they are not independent of each other (see ``Clips.recordings``).
        type: Type of the machine, such as ``fan`` (see ``FirstShotDataModule.types``). Like
            ``site``, no detector or generator uses it, and it is in no description of clips.
        site: Where the machine stands, such as a plant.

    >>> Clip(Path("fan/train/a.wav"), "fan", label="normal").domain is None
    True
    """

    path: Path
    machine: str
    role: str | None = None
    split: str | None = None
    section: str | None = None
    domain: str | None = None
    label: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)
    raw_label: str = ""
    source: str | None = None
    synthetic: bool = False
    strength: float | None = None
    donor: str | None = None
    fault: str | None = None
    pair: int | None = None
    recording: str | None = None
    type: str | None = None
    site: str | None = None

    @property
    def section_id(self) -> SectionId:
        """Machine and section, ``00`` where it has none: what a detector is fitted for."""
        return SectionId(self.machine, self.section or "00")
