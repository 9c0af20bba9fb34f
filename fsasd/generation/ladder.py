"""Ladders of strength: which rung a clip is of, and which donor's sound it gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from fsasd.generation.prompts import Prompt, first_candidate


def in_turn(prompts: Sequence[Prompt], rungs: int, donors: int = 1) -> list[tuple[int, int]]:
    """Return the numbers of each clip's rung and donor, which come up in turn in each section.

    The n-th normal and the n-th anomalous clip of a section, which are of one source, have the same
    ones, as have candidates of a clip: what differs between them is not the rung. Of ``rungs *
    donors`` clips in a row each pair is one, each donor comes up as often after any number of
    laps, and the order is random, so that a source does not always meet the same rung.

    Args:
        prompts: Of any sections, in the order of ``make_prompts`` or ``with_candidates``.
        rungs: Number of rungs.
        donors: Number of donors.

    >>> one = Prompt("0.wav", "fan", None, None, "anomaly", "A fan.", 1.0, 1.0, seed=0)
    >>> [rung for rung, _ in in_turn([one._replace(wav=f"{n}.wav") for n in range(6)], rungs=3)]
    [2, 0, 1, 1, 2, 0]
    """
    # Clips of a section and label, as keys in their order.
    clips: dict[tuple[str, str | None, str], dict[str, int]] = {}
    seeds: dict[tuple[str, str | None], int] = {}
    numbers = []
    for prompt in prompts:
        seeds.setdefault((prompt.machine, prompt.section), prompt.seed)
        of_label = clips.setdefault((prompt.machine, prompt.section, prompt.label), {})
        numbers.append(of_label.setdefault(first_candidate(prompt.wav), len(of_label)))
    most = max(numbers, default=0) + 1
    orders = {
        section: list(islice(_pairs(np.random.default_rng(seed), rungs, donors), most))
        for section, seed in seeds.items()
    }
    return [
        orders[prompt.machine, prompt.section][number]
        for prompt, number in zip(prompts, numbers, strict=True)
    ]


def _pairs(rng: np.random.Generator, rungs: int, donors: int) -> Iterator[tuple[int, int]]:
    while True:
        # In a lap every donor comes up once, in the next ones with its other rungs.
        first = rng.permutation(donors) + rng.integers(rungs)
        for lap in range(rungs):
            for donor in rng.permutation(donors):
                yield int(first[donor] + lap) % rungs, int(donor)
