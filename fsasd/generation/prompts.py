"""Prompts of a generator: captions of real normal clips -> normal and anomalous prompts."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from fsasd.data.audio_files import printable
from fsasd.data.captions import anomalous
from fsasd.data.clips import Clips
from fsasd.data.content import content_hash
from fsasd.data.metadata import Clip, MetadataError
from fsasd.data.names import SectionId
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.level import normalise

PER_CAPTION = ("proportional", "balanced")

MAX_SECONDS = 10.24
"""The length that AudioLDM was trained on."""

SHORTEST = 0.01
"""Seconds of a recording of which clips are synthesised: to hundredths, a shorter one has none."""


class Prompt(NamedTuple):
    """What a synthetic clip is generated from, and all that it depends on.

    Attributes:
        wav: File name, relative to the folder of the synthesis.
        machine: The machine type.
        section: Its section.
        domain: That of its source.
        label: ``normal`` or ``anomaly``.
        caption: Text that generation is conditioned on.
        seconds: Length to generate.
        gain: Gain by which its source was normalised (see ``latents.normalise``).
        seed: Of its noise, which the two clips of a pair have in common.
        source: The real recording whose caption, level and length it has.
        source_sha256: SHA-256 of that file.
        negative: Negative prompt, from which guidance leads away; may be empty.
        derived: Whether it is derived from the source's audio (``Generator.derived``).
        attributes: The source's attributes, a JSON object.
        raw_label: The source's attributes as written, also where they could not be split.
        fault: The fault of an anomalous clip, several joined by ``+``; empty where none is named.
        strength: The rung of the generator's ladder of strengths, where it has one: selection
            weights the rungs of anomalous clips, for each detector, by how hard they are to detect.
        donor: The machine and section (``str`` of a ``SectionId``) whose sound is in the clip, too;
            empty where it is of its own machine alone.
        pair: Number of the pair in its section: a normal and an anomalous clip of one source.
        region_start: Seconds at which the region begins that alone is generated, the rest being the
            source; ``None`` where it is the whole clip.
        region_end: Seconds at which it ends.
    """

    wav: str
    machine: str
    section: str | None
    domain: str | None
    label: str
    caption: str
    seconds: float
    gain: float
    seed: int
    source: str | None = None
    source_sha256: str = ""
    negative: str = ""
    derived: bool = False
    attributes: str = "{}"
    raw_label: str = ""
    fault: str = ""
    strength: float | None = None
    donor: str = ""
    pair: int | None = None
    region_start: float | None = None
    region_end: float | None = None


class Wording(NamedTuple):
    """The wording of a prompt.

    Attributes:
        caption: Text that generation is conditioned on.
        negative: Negative prompt.
        fault: The fault that the caption names, if any.
    """

    caption: str
    negative: str = ""
    fault: str = ""


class PromptSet(Protocol):
    """Words the prompt of an anomalous clip; chosen by the config group ``prompts``."""

    def __call__(self, clip: Clip, caption: str, rng: np.random.Generator) -> Wording:
        """Return the wording for a real normal clip and its caption."""


class WordReplacement:
    """The paper's prompts: the normal caption with "anomaly" for "normal" (section 3.2).

    Args:
        negative: Negative prompt; ``{caption}`` in it is the normal caption. Guidance leads away
            from it instead of from the empty caption.

    >>> from fsasd.data.metadata import read_name
    >>> clip, rng = read_name("fan/section_00_0000.wav"), np.random.default_rng(0)
    >>> WordReplacement()(clip, "This is the normal sound of a fan.", rng).caption
    'This is the anomaly sound of a fan.'
    """

    def __init__(self, negative: str = "") -> None:
        self.negative = negative

    def __call__(self, clip: Clip, caption: str, rng: np.random.Generator) -> Wording:
        """Replace the word.

        Raises:
            ValueError: There is no word "normal" in the caption.
        """
        return Wording(anomalous(caption), self.negative.replace("{caption}", caption))


class FaultPhrases:
    """The paper's prompts with a fault of the machine's family.

    A fault, one of its paraphrases and a severity are drawn for every clip.

    Args:
        families: Family to ``machines``, its machine types, and ``faults``, fault to paraphrases;
            ``{severity}`` in a paraphrase is the severity. The family without ``machines`` is that
            of all machines which no other names.
        severities: Adjectives.
        negative: See ``WordReplacement``.

    Raises:
        ValueError: No family is left for machines that are not named, a machine is in two
            families, or a fault has no paraphrase.

    >>> faults = {"unbalance": ["a {severity} unbalance"]}
    >>> words = FaultPhrases({"any": {"faults": faults}}, ["slight"])
    >>> from fsasd.data.metadata import read_name
    >>> clip, rng = read_name("fan/section_00_0000.wav"), np.random.default_rng(0)
    >>> words(clip, "This is the normal sound of a fan.", rng).caption
    'This is the anomaly sound of a fan, with a slight unbalance.'
    """

    def __init__(
        self,
        families: Mapping[str, Mapping],
        severities: Sequence[str],
        negative: str = "",
    ) -> None:
        self.faults = {name: dict(entry["faults"]) for name, entry in families.items()}
        self.severities = list(severities)
        self.replace = WordReplacement(negative)
        self.family: dict[str, str] = {}
        others = [name for name, entry in families.items() if not entry.get("machines")]
        if len(others) != 1:
            raise ValueError(
                "expected one family of faults without 'machines', for those that no family names, "
                f"found {len(others)}: {', '.join(others) or 'all name machines'}"
            )
        self.others = others[0]
        for name, entry in families.items():
            for machine in map(str, entry.get("machines") or ()):
                if machine in self.family:
                    raise ValueError(
                        f"{machine} is in two families: {self.family[machine]}, {name}"
                    )
                self.family[machine] = name
        for name, faults in self.faults.items():
            if empty := [fault for fault, phrases in faults.items() if not phrases] or not faults:
                raise ValueError(f"family '{name}': no phrase for {empty if faults else 'a fault'}")

    def __call__(self, clip: Clip, caption: str, rng: np.random.Generator) -> Wording:
        """Draw a fault, a paraphrase and a severity.

        Raises:
            ValueError: There is no word "normal" in the caption.
        """
        asked = self.replace(clip, caption, rng)
        faults = self.faults[self.family.get(clip.machine, self.others)]
        fault = str(rng.choice(list(faults)))
        severity = str(rng.choice(self.severities)) if self.severities else ""
        phrase = str(rng.choice(faults[fault])).replace("{severity}", severity)
        return asked._replace(
            caption=f"{asked.caption.removesuffix('.')}, with {phrase}.", fault=fault
        )


class Mixture:
    """Several prompt sets, of which one is drawn by weight for each clip.

    Args:
        sets: Name to prompt set.
        weights: Name to weight; those left out have 1.

    Raises:
        ValueError: A weight is of no set, negative, or all are 0.

    >>> sets = {"paper": WordReplacement(), "contrast": WordReplacement("{caption}")}
    >>> from fsasd.data.metadata import read_name
    >>> clip, rng = read_name("fan/section_00_0000.wav"), np.random.default_rng(0)
    >>> Mixture(sets, {"paper": 0})(clip, "a normal fan", rng)
    Wording(caption='a anomaly fan', negative='a normal fan', fault='')
    """

    def __init__(
        self, sets: Mapping[str, PromptSet], weights: Mapping[str, float] | None = None
    ) -> None:
        self.sets = dict(sets)
        given = dict(weights or {})
        if unknown := sorted(set(given) - set(self.sets)):
            raise ValueError(f"weights of no prompt set: {unknown}; sets are {list(self.sets)}")
        weight = np.array([given.get(name, 1.0) for name in self.sets], dtype=float)
        if weight.size == 0 or weight.min() < 0 or weight.sum() == 0:
            raise ValueError(f"weights of prompt sets must be positive, found {given}")
        self.shares = weight / weight.sum()

    def __call__(self, clip: Clip, caption: str, rng: np.random.Generator) -> Wording:
        """Draw a set and return its wording."""
        chosen = list(self.sets)[rng.choice(len(self.sets), p=self.shares)]
        return self.sets[chosen](clip, caption, rng)


def make_prompts(
    clips: Clips,
    captions: Sequence[str],
    clips_per_label: int,
    seed: int = 0,
    wording: PromptSet | None = None,
    per_caption: str = "proportional",
    max_seconds: float | None = None,
) -> list[Prompt]:
    """Make as many normal as anomalous prompts for each section, from its normal captions.

    An anomalous prompt differs from its normal one, of the same real clip, in nothing but the
    wording (METHOD, step 3) and the name: what differs between the two clips is not the noise's.
    The prompts of a section do not depend on which other sections and machines there are.

    Args:
        clips: Real normal training clips of the sections to synthesise.
        captions: One per clip.
        clips_per_label: Clips of each label per section of a machine.
        seed: Two values give two sets.
        wording: Of anomalous prompts; the paper's word replacement by default.
        per_caption: ``proportional``: a section's captions come up as often as in its real clips;
            ``balanced``: all alike.
        max_seconds: Longest clip to generate, of however long a real one; ``None`` for no limit.

    Raises:
        MetadataError: A clip is not normal.
        ValueError: A caption has no word "normal" to replace, ``per_caption`` is not known,
            ``max_seconds`` or a clip is shorter than ``SHORTEST``.
    """
    if per_caption not in PER_CAPTION:
        raise ValueError(f"per_caption: expected {' or '.join(PER_CAPTION)}, found '{per_caption}'")
    if max_seconds is not None and not max_seconds >= SHORTEST:
        raise ValueError(f"max_seconds: expected {SHORTEST:g} or more or null, found {max_seconds}")
    wording = wording or WordReplacement()
    if wrong := next((clip for clip in clips if clip.label != "normal"), None):
        raise MetadataError(f"{wrong.path}: prompts are made from normal clips only")
    prompts = []
    for section, group in clips_by_section(clips).items():
        # As it was when prompts were made per machine, which mostly has the one section 00.
        prefix = section.machine if section.section == "00" else "/".join(section)
        order = np.random.default_rng([seed, _number(prefix)]).permutation(group).tolist()
        turns = _turns(order, captions, balanced=per_caption == "balanced")
        for n, i in enumerate(itertools.islice(turns, clips_per_label)):
            words = {"normal": Wording(captions[i])}
            rng = np.random.default_rng([seed, _number(f"{prefix}/{n}")])
            words["anomaly"] = wording(clips[i], captions[i], rng)
            normal = _normal_prompt(clips, i, captions[i], max_seconds)
            # The anomaly's, as it was when each had its own: transforms put the same faults in.
            noise = _number(f"{seed}/{prefix}/anomaly_{n:04d}.wav")
            prompts += [
                normal._replace(
                    wav=f"{prefix}/{label}_{n:04d}.wav",
                    label=label,
                    seed=noise,
                    pair=n,
                    **asked._asdict(),
                )
                for label, asked in words.items()
            ]
    return prompts


def check_wording(clips: Clips, captions: Sequence[str], wording: PromptSet) -> None:
    """Check that each caption can be worded as an anomaly, before anything is trained.

    Args:
        clips: Real normal training clips of the machines to synthesise.
        captions: One per clip.
        wording: Of anomalous prompts.

    Raises:
        ValueError: A caption cannot be worded; names a recording that has it.
    """
    for text, clip in dict(zip(captions, clips, strict=True)).items():
        try:
            wording(clip, text, np.random.default_rng(0))
        except ValueError as error:
            raise ValueError(
                f"{clip.path}: {error}. The caption of a normal clip must hold it, or a set of "
                "prompts of your own must do without (prompts=)"
            ) from error


def with_candidates(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """Repeat each prompt as candidates with other noise; the first is the prompt itself.

    Raises:
        ValueError: ``count`` is below 1.

    >>> one = Prompt("fan/normal_0000.wav", "fan", None, None, "normal", "", 1.0, 1.0, 7)
    >>> [prompt.wav for prompt in with_candidates([one], 2)]
    ['fan/normal_0000.wav', 'fan/normal_0000-c1.wav']
    """
    if count < 1:
        raise ValueError(f"expected at least 1 candidate per clip, found {count}")
    return [
        prompt
        if number == 0
        else prompt._replace(
            wav=f"{prompt.wav.removesuffix('.wav')}-c{number}.wav",
            seed=_number(f"{prompt.seed}/{number}"),
        )
        for prompt in prompts
        for number in range(count)
    ]


def first_candidate(wav: str) -> str:
    """Return the name of the first of the candidates that a clip is one of.

    >>> first_candidate("fan/normal_0000-c1.wav")
    'fan/normal_0000.wav'
    """
    return re.sub(r"-c\d+(?=\.wav$)", "", wav)


def clips_by_section(clips: Sequence[Clip]) -> dict[SectionId, list[int]]:
    """Return the positions of each section's clips, sections in order.

    A clip without a section is of the section ``00``.

    >>> from pathlib import Path
    >>> clips_by_section([Clip(Path("a.wav"), "fan", section="01"), Clip(Path("b.wav"), "fan")])
    {SectionId(machine='fan', section='00'): [1], SectionId(machine='fan', section='01'): [0]}
    """
    groups: dict[SectionId, list[int]] = {}
    for i, clip in enumerate(clips):
        groups.setdefault(clip.section_id, []).append(i)
    return dict(sorted(groups.items()))


def _normal_prompt(clips: Clips, i: int, caption: str, max_seconds: float | None) -> Prompt:
    clip, waveform = clips[i], clips.cache.read(clips[i])
    if (seconds := len(waveform) / SAMPLE_RATE) < SHORTEST:
        why = f"found {seconds:.2g} s: leave the recording out"
        raise ValueError(f"{printable(clip.path)}: expected {SHORTEST:g} s or more, {why}")
    return Prompt(
        wav="",
        machine=clip.machine,
        section=clip.section,
        domain=clip.domain,
        label="normal",
        caption=caption,
        seconds=_at_most(max_seconds, seconds),
        gain=float(normalise(waveform)[1]),
        seed=0,
        source=printable(clip.path),
        source_sha256=content_hash(clip.path),
        attributes=json.dumps(dict(clip.attributes), ensure_ascii=False),
        raw_label=clip.raw_label,
    )


def _turns(order: Sequence[int], captions: Sequence[str], balanced: bool) -> Iterator[int]:
    if not balanced:
        return itertools.cycle(order)
    groups: dict[str, list[int]] = {}
    for i in order:
        groups.setdefault(captions[i], []).append(i)
    rounds = zip(*map(itertools.cycle, groups.values()), strict=True)
    return itertools.chain.from_iterable(rounds)


def _at_most(limit: float | None, seconds: float) -> float:
    return round(seconds if limit is None else min(seconds, limit), 2)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
