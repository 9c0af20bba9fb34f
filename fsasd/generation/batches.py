"""Batches of prompts: the same on any number of ranks, also when resumed.

Kernels choose the order of their sums by the size of a batch, and Griffin-Lim turns the last bit of
a sum into another phase. So the composition of a batch is a function of the prompts alone; ranks
are dealt whole batches, and an interrupted batch is generated again as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from fsasd.generation.prompts import Prompt


def batches(
    prompts: Sequence[Prompt], remaining: Sequence[Prompt], batch_size: int, ranks: int = 1
) -> list[list[Prompt]]:
    """Return the batches that hold a remaining prompt, each as it would be if all remained.

    Args:
        prompts: All prompts of the synthesis.
        remaining: Those that are not finished.
        batch_size: Prompts of one length per batch.
        ranks: Processes among which the batches are dealt; each gets at least an empty one.

    >>> def prompt(name, seconds):
    ...     return Prompt(name, "fan", None, None, "normal", "", seconds, 1.0, 0)
    >>> all_ = [prompt("a", 1), prompt("b", 2), prompt("c", 1), prompt("d", 1)]
    >>> [[p.wav for p in batch] for batch in batches(all_, all_[2:], 2)]
    [['a', 'c'], ['d']]
    """
    missing = {prompt.wav for prompt in remaining}
    complete = []
    for seconds in sorted({prompt.seconds for prompt in prompts}):
        group = [prompt for prompt in prompts if prompt.seconds == seconds]
        complete += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
    left = [batch for batch in complete if any(prompt.wav in missing for prompt in batch)]
    return left + [[] for _ in range(ranks - len(left))]
