"""Captions: the sentences by which a text-to-audio model knows recordings.

The sentence is that of the paper (FS-TWFR-GMM, ICASSP 2024, table 1); the phrases are data, in
``conf/captions/dcase.yaml``. Any label, whatever characters it holds, makes one whole sentence on
one line.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from importlib import resources

from omegaconf import OmegaConf

from fsasd.data.csv_table import is_known
from fsasd.data.metadata import Clip
from fsasd.data.names import MetadataError, require_known

_PLACE = re.compile(r"{([^{}]+)}")


class Captions:
    """Writes the caption of a clip, from phrases for machines and attributes.

    Args:
        machines: Machine to its name in the sentence ("a toy car"), or to a mapping with ``name``
            and phrases for its attributes. A name is a template: attributes in braces ("a press
            running at {speed}") are inserted there.
        attributes: Attribute key to phrase, with ``{}`` for the value. A phrase that begins with
            a comma becomes a clause at the end.

    Raises:
        ValueError: A phrase is no text, or has no place ``{}`` for the value.

    >>> from fsasd.data.metadata import read_name
    >>> clip = read_name("ToyCar/train/section_00_source_train_normal_0000_spd_31V_mic_1.wav")
    >>> Captions({"ToyCar": "a toy car"}, {"spd": "speed {}"})(clip)
    'This is the normal sound of a toy car with speed 31V and mic 1.'
    >>> Captions({"ToyCar": "a toy car running at {spd}"}, {})(clip)
    'This is the normal sound of a toy car running at 31V with mic 1.'
    """

    def __init__(
        self,
        machines: Mapping[str, str | Mapping[str, str]],
        attributes: Mapping[str, str],
    ) -> None:
        self.names: dict[str, str] = {}
        self.machine_phrases: dict[str, dict[str, str]] = {}
        self.phrases: dict[str, dict[str, str]] = {}
        self.places: dict[str, list[str]] = {}
        self.attributes = dict(attributes)
        _require_places(self.attributes)
        for written, entry in machines.items():
            # 101 is a number in a configuration.
            machine = str(written)
            if not isinstance(entry, (str, Mapping)):
                raise ValueError(
                    f"captions of '{machine}': expected its name, or phrases, found {entry!r}"
                )
            machine_phrases = {"name": entry} if isinstance(entry, str) else dict(entry)
            self.names[machine] = machine_phrases.pop("name", _generic_name(machine))
            if not isinstance(self.names[machine], str):
                raise ValueError(
                    f"captions of '{machine}': expected a text as its name, found "
                    f"{self.names[machine]!r}"
                )
            self.places[machine] = _PLACE.findall(self.names[machine])
            _require_places(machine_phrases)
            self.machine_phrases[machine] = machine_phrases
            self.phrases[machine] = {**self.attributes, **machine_phrases}

    def __call__(self, clip: Clip) -> str:
        """Return the caption of a clip; it has no label if that is unknown.

        Raises:
            MetadataError: The machine's name has a place for an attribute that the clip lacks.
        """
        places = self.places.get(clip.machine, [])
        name = self.names.get(clip.machine) or _generic_name(clip.machine)
        if places:
            # All at once: a value may have braces, too.
            name = _PLACE.sub(lambda place: _value(clip, place[1]), name)
        phrases = self.phrases.get(clip.machine, self.attributes)
        features, clauses = [], ""
        for key, written in clip.attributes.items():
            value = _words(written)
            if key in places or not value:
                continue
            phrase = phrases.get(key)
            if phrase is None:
                features.append(f"{_words(key.replace('_', ' '))} {value}".lstrip())
            elif phrase.startswith(","):
                clauses += phrase.replace("{}", value)
            else:
                features.append(phrase.replace("{}", value))
        if not (features or clauses or places):
            text = _words(clip.raw_label.replace("_", " "))
            features = [text] if is_known(text) else []
        label = f"{clip.label} " if clip.label else ""
        details = f" with {_join(features)}" if features else ""
        return f"This is the {label}sound of {name}{details}{clauses}".rstrip(" .") + "."

    def check(self, clips: Iterable[Clip]) -> None:
        """Check that machines have the attributes for which their names have places.

        Raises:
            MetadataError: None of a machine's clips has one; lists those that there are.
        """
        keys: dict[str, set[str]] = {}
        for clip in clips:
            if self.places.get(clip.machine):
                keys.setdefault(clip.machine, set()).update(clip.attributes)
        for machine, attributes in keys.items():
            require_known(
                self.places[machine], attributes, f"attributes of {machine}, for its caption"
            )


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


def _require_places(phrases: Mapping[str, str]) -> None:
    for key, phrase in phrases.items():
        if not isinstance(phrase, str) or "{}" not in phrase:
            raise ValueError(f"phrase '{phrase}' of attribute '{key}' has no {{}}")


def _value(clip: Clip, key: str) -> str:
    value = _words(clip.attributes.get(key, ""))
    if not value:
        raise MetadataError(
            f"{clip.path}: the caption of {clip.machine} has a place for {{{key}}}, found "
            f"{', '.join(clip.attributes) or 'no attributes'}"
        )
    return value


@functools.lru_cache(maxsize=1 << 16)
def _words(text: str) -> str:
    """Put a text on one line, without invisible characters; punctuation alone counts as no text."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if words.strip(" .,;:") else ""


@functools.lru_cache(maxsize=1 << 10)
def _generic_name(machine: str) -> str:
    words = _words(machine)
    return f"{'an' if words[:1].lower() in 'aeiou' else 'a'} {words}"


def _join(phrases: list[str]) -> str:
    *others, last = phrases
    return f"{', '.join(others)} and {last}" if others else last
