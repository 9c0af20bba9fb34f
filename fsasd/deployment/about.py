"""What is known of a saved detector beside its files: data, setting, metrics, provenance; its card.

``about.json`` holds it for programs, ``README.md`` for people, as a model card of the Hugging Face
hub. Neither takes part in scoring.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fsasd.data.clips import Clips
from fsasd.detection.decision import DECISION, read_decision
from fsasd.detectors.saved import NotAModelError, read_json
from fsasd.evaluation.calibration import Calibration
from fsasd.settings.files import fields_of

ABOUT = "about.json"
"""Beside a saved detector."""

CARD = "README.md"
"""Beside a saved detector: the same as text."""

ABOUT_FORMAT = 1
"""Of the file, raised when older files cannot be read any more."""

_VALUES = 8
"""Values of an attribute that a card lists."""


@dataclass(frozen=True)
class TrainingData:
    """The normal clips that a detector was fitted to.

    Attributes:
        clips: How many.
        domains: Domain to number of clips, of those whose domain is known.
        attributes: Attribute to its values.
    """

    clips: int
    domains: Mapping[str, int] = field(default_factory=dict)
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, clips: Clips) -> TrainingData:
        """Summarise clips."""
        domains: Counter[str] = Counter()
        attributes: dict[str, set[str]] = {}
        for clip in clips:
            if clip.domain:
                domains[clip.domain] += 1
            for name, value in clip.attributes.items():
                attributes.setdefault(name, set()).add(value)
        return cls(
            len(clips),
            dict(domains),
            {name: sorted(values) for name, values in sorted(attributes.items())},
        )


@dataclass(frozen=True)
class About:
    """What is known of a saved detector.

    Attributes:
        machine: That it was fitted for.
        section: Of the machine.
        detector: Name of its class.
        setting: Parameters that were chosen for this section; empty for the default setting.
        choice: Why it has this setting, in words.
        parameters: Numbers that the fitted detector holds.
        training: The normal clips that it was fitted to.
        metrics: Of labelled test clips, fractions; empty without.
        provenance: Key of the artifact, versions of packages, commit, date and command.
        candidates: What its setting was chosen from, and by which objective (``grids`` as JSON, see
            ``Selector.measured``, and ``objective``); empty where that is not known.
    """

    machine: str
    section: str
    detector: str
    setting: Mapping[str, Any]
    choice: str
    parameters: int
    training: TrainingData
    metrics: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    candidates: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``about.json`` and ``README.md`` beside the detector.

        Args:
            folder: Holds the detector and its ``decision.json``.
        """
        about = {"format": ABOUT_FORMAT, **asdict(self)}
        text = json.dumps(about, indent=1, default=str, ensure_ascii=False) + "\n"
        (folder / ABOUT).write_text(text, encoding="utf-8")
        calibration, _ = read_decision(folder / DECISION)
        (folder / CARD).write_text(self.card(calibration), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> About | None:
        """Read what ``write`` wrote; ``None`` where it wrote nothing.

        Raises:
            NotAModelError: The file is damaged, or of another version of fsasd.
        """
        path = folder / ABOUT
        if not path.is_file():
            return None
        fields = read_json(path, ABOUT_FORMAT, again="Delete it: scoring does not need it")
        del fields["format"]
        try:
            return fields_of(cls, fields)
        except ValueError as error:
            raise NotAModelError(path, error) from error

    def card(self, calibration: Calibration) -> str:
        """Return the text of ``README.md``.

        Args:
            calibration: Of the detector.

        >>> about = About("fan", "00", "TWFRGMM", {"r": 0.9}, "chosen", 9, TrainingData(50))
        >>> text = about.card(Calibration({"a": 1.0, "b": 2.0}, (), 0.1, 2.5))
        >>> "# Anomaly detector of fan section 00" in text, "above 2.5" in text
        (True, True)
        """
        rate = calibration.false_alarm_rate
        parts = [
            "---\nlibrary_name: fsasd\ntags: [anomalous-sound-detection, machine-sound]\n---\n",
            f"# Anomaly detector of {self.machine} section {self.section}\n",
            f"{self.detector} with {self.parameters:,} parameters, fitted by fsasd to "
            f"{self.training.clips} normal recordings. A recording is called anomalous where its "
            f"score is above {calibration.threshold:.6g}: about {100 * rate:g} % of normal "
            "recordings are.\n",
            _USE,
            f"## Setting\n\n{_json(self.setting) if self.setting else 'The default.'}\n",
            f"{self.choice}\n" if self.choice else "",
            self._data(calibration),
            self._metrics(),
            _LIMITS,
            f"## Provenance\n\n{_json(self.provenance)}\n" if self.provenance else "",
        ]
        return "\n".join(part for part in parts if part)

    def _data(self, calibration: Calibration) -> str:
        training = self.training
        lines = [f"{count} of domain {name}" for name, count in training.domains.items()]
        lines += [
            f"{name}: {', '.join(values[:_VALUES])}"
            + (f" and {len(values) - _VALUES} more" if len(values) > _VALUES else "")
            for name, values in training.attributes.items()
        ]
        if odd := calibration.odd_clips():
            lines.append(odd)
        return f"## Training recordings\n\n{training.clips} normal ones.\n" + "".join(
            f"\n- {line}" for line in lines
        ) + "\n" * bool(lines)  # fmt: skip

    def _metrics(self) -> str:
        if not self.metrics:
            return "## Metrics\n\nNot known: there were no labelled test recordings.\n"
        rows = "\n".join(f"| {name} | {100 * value:.1f} |" for name, value in self.metrics.items())
        return (
            f"## Metrics\n\nOf labelled test recordings, in percent.\n\n| | |\n|---|---|\n{rows}\n"
        )


_USE = """\
## Use

```sh
fsasd-score --model path/to/this/folder recording.wav
```

```python
import fsasd

model = fsasd.load("path/to/this/folder")
scores = model.score(["recording.wav"])
anomalous = scores > model.threshold
```
"""

_LIMITS = """\
## Limits

It knows this machine under the conditions of its training recordings. Another microphone, place,
load or speed sounds anomalous to it. Fit it again to new normal recordings then (`fsasd-refit`).
"""


def _json(values: Mapping[str, Any]) -> str:
    return f"```json\n{json.dumps(values, indent=1, default=str, ensure_ascii=False)}\n```"
