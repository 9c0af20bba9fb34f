"""Sampling of training clips: a function of the seed, in any number of processes.

An epoch is a list of draws. Each optimizer step takes the next draws, the global batch; processes,
and batches that accumulate, divide it evenly. What is random in an example (its crop, noise,
timestep) follows from its draw's seed. So two processes, or one that accumulates two batches, train
on the same examples as one process with one batch, and a run that is resumed continues with the
next draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data.distributed import DistributedSampler


def process_batch(batch_size: int, processes: int = 1, accumulate: int = 1) -> int:
    """Return the number of examples in one batch of one process.

    Args:
        batch_size: Examples of an optimizer step, over all processes and accumulated batches.
        processes: Devices, on all nodes together.
        accumulate: Batches of a process per step.

    Raises:
        ValueError: The examples cannot be divided evenly.

    >>> process_batch(32, processes=8, accumulate=2)
    2
    """
    parts = processes * accumulate
    if batch_size % parts or batch_size < 1:
        raise ValueError(
            f"data.batch_size: expected a multiple of {parts}, found {batch_size}. These examples "
            f"of an optimizer step are divided among {processes} processes with {accumulate} "
            "accumulated batches each (trainer.accumulate_grad_batches): set it to "
            f"{nearest_multiples(batch_size, parts)}"
        )
    return batch_size // parts


def nearest_multiples(number: int, unit: int) -> str:
    """Return the multiples of a unit below and above a number, those above 0, for a message.

    >>> nearest_multiples(6, 4), nearest_multiples(3, 4)
    ('4 or 8', '4')
    """
    below, above = number // unit * unit, -(-max(number, 1) // unit) * unit
    return " or ".join(str(size) for size in (below, above) if size > 0)


class Draw(int):
    """One use of one clip: its index, and the seed of all that is random in the example.

    It is an integer, so that it indexes any data set; one whose examples are random takes the seed,
    too, and a resumed run then has the examples of one that was not interrupted.

    >>> draw = Draw(1, seed=7)
    >>> "ab"[draw], draw.clip, draw.seed
    ('b', 1, 7)
    """

    seed: int

    def __new__(cls, clip: int, seed: int) -> Draw:
        draw = super().__new__(cls, clip)
        draw.seed = seed
        return draw

    @property
    def clip(self) -> int:
        """The index alone."""
        return int(self)

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]
        return self.clip, self.seed

    def __eq__(self, other: object) -> bool:
        same = int.__eq__(self, other)
        return same and self.seed == other.seed if isinstance(other, Draw) else same

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__

    def __repr__(self) -> str:
        return f"Draw({self.clip}, {self.seed})"


# Lightning leaves samplers of this base alone; others it would replace by its own.
class BalancedDraws(DistributedSampler):
    """Draws clips in proportion to their weights, each as often in an epoch as it is due.

    An epoch has as many draws as there are clips, rounded up to whole steps. A clip that is due 2.3
    times in it is drawn two or three times: with equal weights, every clip once before any clip
    twice (systematic sampling).

    Args:
        weights: (n,) positive.
        batch_size: Draws per optimizer step, of all processes and accumulated batches together.
        ranks: Processes.
        rank: Number of this process.
        accumulate: Batches per step.
        seed: Two seeds give two orders.
        batches_done: Returns, when iteration begins, how many batches the run has trained on; an
            epoch that was begun is finished first. Without it, every iteration is the next epoch.

    Raises:
        ValueError: The draws of a step cannot be divided evenly (see ``process_batch``).

    >>> draws = BalancedDraws([1.0, 1.0, 2.0], batch_size=2)
    >>> sorted(draw.clip for draw in draws), len(draws)
    ([0, 1, 2, 2], 4)
    """

    def __init__(
        self,
        weights: Sequence[float],
        batch_size: int,
        *,
        ranks: int = 1,
        rank: int = 0,
        accumulate: int = 1,
        seed: int = 0,
        batches_done: Callable[[], int] | None = None,
    ) -> None:
        # Only the length of the data set is used.
        super().__init__(range(len(weights)), ranks, rank, seed=seed)  # type: ignore[arg-type]
        self.weights = np.asarray(weights, dtype=float)
        self.batch_size = process_batch(batch_size, ranks, accumulate)
        """Draws in a batch of this process."""
        self.batches_done = batches_done
        self.batches = -(-len(weights) // batch_size) * accumulate
        """Per epoch and process."""

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def order(self, epoch: int) -> list[Draw]:
        """Return all draws of an epoch, of all processes."""
        count = self.batches * self.batch_size * self.num_replicas
        rng = np.random.default_rng([self.seed, epoch])
        shuffled = rng.permutation(len(self.weights))
        due = np.cumsum(self.weights[shuffled]) * count / self.weights.sum()
        places = np.searchsorted(due, rng.random() + np.arange(count), side="right")
        clips = rng.permutation(shuffled[np.minimum(places, len(shuffled) - 1)])
        seeds = rng.integers(2**62, size=count)
        return [Draw(int(i), int(s)) for i, s in zip(clips, seeds, strict=True)]

    def __iter__(self) -> Iterator[Draw]:
        if self.batches_done is None:
            epoch, first_batch = self.epoch, 0
            self.epoch += 1
        else:
            epoch, first_batch = divmod(self.batches_done(), self.batches)
        order, size = self.order(epoch), self.batch_size
        for batch in range(first_batch, self.batches):
            first = (batch * self.num_replicas + self.rank) * size
            yield from order[first : first + size]


class InOrder(DistributedSampler):
    """Every clip once, divided among the processes; a clip's seed is its index.

    Each process has the same number, since processes with divided weights have to compute at the
    same time; the first clips are repeated to that end.

    >>> [draw.clip for draw in InOrder(5, ranks=2, rank=1)]
    [1, 3, 0]
    """

    def __init__(self, count: int, *, ranks: int = 1, rank: int = 0) -> None:
        super().__init__(range(count), ranks, rank)  # type: ignore[arg-type]
        self.indices = [i % count for i in range(rank, -(-count // ranks) * ranks, ranks)]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Draw]:
        return (Draw(i, i) for i in self.indices)
