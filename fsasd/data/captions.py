"""Clip -> caption: what a text-to-audio model is told of a recording.

The sentence is that of the paper (FS-TWFR-GMM, ICASSP 2024, table 1); the phrases are data, in
``conf/captions/dcase.yaml``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources

from omegaconf import OmegaConf

from fsasd.data.metadata import Clip


class Captions:
    """Make captions from phrases.

    Args:
        machines: Machine to its name in the sentence ("a toy car"), or to a mapping with ``name``
            and phrases of its own.
        attributes: Attribute key to phrase, with ``{}`` for the value. A phrase that begins with
            a comma becomes a clause at the end.

    Raises:
        ValueError: A phrase has no place ``{}`` for the value.

    >>> from fsasd.data.metadata import read_name
    >>> captions = Captions({"ToyCar": "a toy car"}, {"spd": "speed {}"})
    >>> captions(read_name("ToyCar/train/section_00_source_train_normal_0000_spd_31V.wav"))
    'This is the normal sound of a toy car with speed 31V.'
    """

    def __init__(
        self,
        machines: Mapping[str, str | Mapping[str, str]],
        attributes: Mapping[str, str],
    ) -> None:
        self.names: dict[str, str] = {}
        self.phrases: dict[str, dict[str, str]] = {}
        for machine, entry in machines.items():
            own = {"name": entry} if isinstance(entry, str) else dict(entry)
            self.names[machine] = own.pop("name", _generic_name(machine))
            self.phrases[machine] = own
        self.attributes = dict(attributes)
        for phrases in (self.attributes, *self.phrases.values()):
            for key, phrase in phrases.items():
                if "{}" not in phrase:
                    raise ValueError(f"phrase '{phrase}' of attribute '{key}' has no {{}}")

    def __call__(self, clip: Clip) -> str:
        """Return the caption of a clip; an unknown label is left out of the sentence."""
        phrases = {**self.attributes, **self.phrases.get(clip.machine, {})}
        said = [
            phrases.get(key, f"{key} {{}}").replace("{}", value)
            for key, value in clip.attributes.items()
        ]
        words = clip.raw_label.replace("_", " ").split()
        if not said and words not in ([], ["noAttribute"]):
            said = [" ".join(words)]
        features = [phrase for phrase in said if not phrase.startswith(",")]
        clauses = "".join(phrase for phrase in said if phrase.startswith(","))
        name = self.names.get(clip.machine, _generic_name(clip.machine))
        label = f"{clip.label} " if clip.label else ""
        details = f" with {_join(features)}" if features else ""
        return f"This is the {label}sound of {name}{details}{clauses}."


@functools.cache
def default_captions() -> Captions:
    """Return the captions of the shipped phrases."""
    text = (resources.files("fsasd.conf") / "captions" / "dcase.yaml").read_text("utf-8")
    phrases = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(phrases, dict)
    return Captions(phrases["machines"], phrases["attributes"])


def caption(clip: Clip) -> str:
    """Return the caption of a clip, from the shipped phrases (table 1 of the paper).

    >>> from fsasd.data.metadata import read_name
    >>> name = "section_00_source_test_anomaly_0000_car_B2_spd_31V_mic_1.wav"
    >>> caption(read_name(f"ToyCar/test/{name}"))  # doctest: +NORMALIZE_WHITESPACE
    'This is the anomaly sound of a toy car with model B2 and speed 31V, recorded by a microphone
    placed at the position 1.'
    """
    return default_captions()(clip)


def anomalous(caption: str) -> str:
    """Turn the caption of a normal clip into that of an anomalous one (section 3.2 of the paper).

    Raises:
        ValueError: The caption does not hold the word "normal".

    >>> anomalous("This is the normal sound of a fan.")
    'This is the anomaly sound of a fan.'
    """
    words = caption.split(" ")
    if "normal" not in words:
        raise ValueError(f"caption has no word 'normal' to replace: '{caption}'")
    words[words.index("normal")] = "anomaly"
    return " ".join(words)


def _generic_name(machine: str) -> str:
    return f"{'an' if machine[:1].lower() in 'aeiou' else 'a'} {machine}"


def _join(phrases: list[str]) -> str:
    *others, last = phrases
    return f"{', '.join(others)} and {last}" if others else last
