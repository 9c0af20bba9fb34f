"""A generator without training: faults added to the target machine's normal clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from fsasd.data.names import require_known
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.base import Generator, source_waveform
from fsasd.generation.faults import FAULTS
from fsasd.generation.ladder import in_turn
from fsasd.generation.prompts import Prompt

Ranges = Mapping[str, Sequence[float]]
"""Parameter of a fault to its lowest and highest value."""

Limits = dict[str, tuple[float, float]]

HIGHEST = 7 / 16
"""Upper limit of frequencies in Hz, as a share of the sampling rate: 7 kHz at 16 kHz."""

_FREQUENCIES = frozenset({"resonance", "pitch", "above"})


class FaultTransforms(Generator):
    """Normal clips are real ones as they are, anomalous clips real ones with faults added.

    A clip gets one fault or several, drawn alike among those of its machine; each parameter is
    drawn log-uniformly from its range, since rates, frequencies and levels are compared by their
    ratios; strengths from one part of their range, the clip's rung. What was drawn is added to the
    clip's caption, and is its prompt's ``fault``.

    The clips are as close to the machine as possible, and no more varied; whether its faults are
    like these depends on the ranges. Captions are not read.

    Args:
        faults: Fault (a key of ``faults.FAULTS``) to the ranges of its parameters, or to ``None``
            for one that is left out.
        machines: Machine to changes of the common faults.
        at_most: So many faults in a clip.
        rungs: Equal parts, by ratio, of the range of each fault's strength. They come up in turn; a
            clip's faults are all of one, whose place is the prompt's ``strength``: 1 / rungs, 2 /
            rungs ... 1.
        channel: What to take of recordings with several channels (see ``recording.read``).
        sampling_rate: Of the clips, in Hz: that at which the detector reads recordings. Faults
            reach up to half of it.

    Raises:
        MetadataError: There is no such fault.
        ValueError: A range is not one, a parameter is missing or unknown, or a machine has no
            fault.

    >>> generator = FaultTransforms({"modulation": {"strength": [0.2, 0.8], "rate": [2, 20]}})
    >>> prompt = Prompt("a.wav", "fan", None, None, "anomaly", "A fan.", 1.0, 1.0, seed=0)
    >>> generator.prepare([prompt])[0].caption
    'A fan, with its level swinging 3.72 times per second (strength 0.676).'
    """

    trained = False
    derived = True

    def __init__(
        self,
        faults: Mapping[str, Ranges | None],
        machines: Mapping[str, Mapping[str, Ranges | None]] | None = None,
        at_most: int = 1,
        rungs: int = 3,
        channel: int | str | None = None,
        sampling_rate: int = SAMPLE_RATE,
    ) -> None:
        super().__init__()
        self.sampling_rate = sampling_rate
        if at_most < 1:
            raise ValueError(f"at_most: expected 1 fault in a clip or more, found {at_most}")
        if rungs < 1:
            raise ValueError(f"rungs: expected 1 part of a range or more, found {rungs}")
        self.common = self._changed({}, faults)
        if not self.common:
            raise ValueError("expected faults to add to clips, found none")
        self.by_machine = {
            machine: self._changed(self.common, changes)
            for machine, changes in (machines or {}).items()
        }
        if without := [machine for machine, kinds in self.by_machine.items() if not kinds]:
            raise ValueError(f"{', '.join(without)}: every fault was removed, none is left")
        self.at_most = at_most
        self.rungs = rungs
        self.channel = channel

    def prepare(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Name the rung and the faults of each anomalous clip in its prompt and its caption."""
        turns = in_turn(prompts, self.rungs)
        return [
            self._with_faults(prompt._replace(strength=(rung + 1) / self.rungs))
            if prompt.label == "anomaly"
            else prompt
            for prompt, (rung, _) in zip(super().prepare(prompts), turns, strict=True)
        ]

    def generate(self, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
        """Return each prompt's source, with faults where it asks for an anomaly.

        Raises:
            ValueError: A prompt has no source, or an anomalous one was not prepared.
        """
        return [torch.from_numpy(self._waveform(prompt)) for prompt in prompts]

    def _waveform(self, prompt: Prompt) -> np.ndarray:
        waveform = source_waveform(prompt, self.channel, self.sampling_rate)
        if prompt.label == "normal":
            return waveform
        rng = np.random.default_rng([prompt.seed, 1])
        for kind, values in self._drawn(prompt).items():
            waveform = FAULTS[kind].apply(waveform, rng, self.sampling_rate, **values)
        return waveform

    def _with_faults(self, prompt: Prompt) -> Prompt:
        return prompt._replace(caption=self._described(prompt), fault="+".join(self._drawn(prompt)))

    def _drawn(self, prompt: Prompt) -> dict[str, dict[str, float]]:
        if prompt.strength is None:
            raise ValueError(f"{prompt.wav}: expected a prompt with a strength, as of 'prepare'")
        rung = prompt.strength - 1 / self.rungs, prompt.strength
        rng = np.random.default_rng([prompt.seed, 0])
        possible = self.by_machine.get(prompt.machine, self.common)
        count = rng.integers(1, min(self.at_most, len(possible)) + 1)
        kinds = rng.choice(sorted(possible), count, replace=False)
        # Rounded as in the caption, which says exactly what was applied.
        return {
            str(kind): {
                name: float(f"{np.exp(rng.uniform(*_part(limits, *shares))):.3g}")
                for name, limits in possible[kind].items()
                for shares in [rung if name == "strength" else (0.0, 1.0)]
            }
            for kind in kinds
        }

    def _described(self, prompt: Prompt) -> str:
        phrases = [
            f"{FAULTS[kind].phrase.format(**values)} (strength {values['strength']:g})"
            for kind, values in self._drawn(prompt).items()
        ]
        return f"{prompt.caption.removesuffix('.')}, with {' and '.join(phrases)}."

    def _changed(
        self, common: Mapping[str, Limits], changes: Mapping[str, Ranges | None]
    ) -> dict[str, Limits]:
        require_known(changes, FAULTS, "faults")
        ranges_by_fault = dict(common)
        for kind, ranges in changes.items():
            if ranges is None:
                ranges_by_fault.pop(kind, None)
            else:
                ranges_by_fault[kind] = _checked(kind, ranges, self.sampling_rate)
        return ranges_by_fault


def _part(limits: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    """Return the logarithms of the limits of a part of a range, which is given by two shares."""
    lowest, highest = np.log(limits)
    return lowest + low * (highest - lowest), lowest + high * (highest - lowest)


def _checked(kind: str, ranges: Ranges, sampling_rate: int) -> Limits:
    expected = FAULTS[kind].parameters
    if set(ranges) != set(expected):
        raise ValueError(f"{kind}: expected ranges of {', '.join(expected)}, found {list(ranges)}")
    for name in expected:
        limits = list(ranges[name])
        highest = HIGHEST * sampling_rate if name in _FREQUENCIES else np.inf
        highest = 1.0 if name == "strength" else highest
        if len(limits) != 2 or not 0 < limits[0] <= limits[1] <= highest:
            raise ValueError(
                f"{kind}: {name} is drawn between two positive numbers, the lower first and the "
                f"higher at most {highest:g}, found {limits}"
            )
    return {name: (float(ranges[name][0]), float(ranges[name][1])) for name in expected}
