"""Which clip is heard when: a function of the seed, whatever number of processes share the work.

An epoch is a list of draws. A step takes the next so many of them, the global batch, in one batch
or in several that accumulate; each process takes its own part of each. What is random in an example
(its crop, noise, timestep) follows from its draw's seed. So two processes, or one that accumulates
two batches, train on what one would with twice the batch, and a run that is resumed goes on with
the next draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data.distributed import DistributedSampler


class Draw(int):
    """One hearing of one clip: its index, and the seed of all that is random in the example.

    It is the index, so that any data set can be asked by it; one whose examples are random takes
    the seed, too, and a run that is resumed then hears what one that was not cut would.

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
    """Draw clips in proportion to their weights, each as often in an epoch as it is due.

    An epoch has as many draws as there are clips, rounded up to whole steps. A clip that
    is due 2.3 times in it is drawn two or three times: with equal weights, every clip once before
    any clip twice (systematic sampling).

    Args:
        weights: (n,) positive.
        batch_size: Draws per process and batch.
        ranks: Processes.
        rank: This one's number.
        accumulate: Batches per step.
        seed: Two seeds give two orders.
        heard: Asked when iteration begins how many batches the run has trained on; an epoch that
            was begun is finished first. Without it, every iteration is the next epoch.

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
        heard: Callable[[], int] | None = None,
    ) -> None:
        # Of the data set it only asks the length.
        super().__init__(range(len(weights)), ranks, rank, seed=seed)  # type: ignore[arg-type]
        self.weights = np.asarray(weights, dtype=float)
        self.batch_size = batch_size
        self.heard = heard
        self.batches = -(-len(weights) // (batch_size * ranks * accumulate)) * accumulate
        """Per epoch."""

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
        if self.heard is None:
            epoch, first_batch = self.epoch, 0
            self.epoch += 1
        else:
            epoch, first_batch = divmod(self.heard(), self.batches)
        order, size = self.order(epoch), self.batch_size
        for batch in range(first_batch, self.batches):
            first = (batch * self.num_replicas + self.rank) * size
            yield from order[first : first + size]


class InOrder(DistributedSampler):
    """Every clip, dealt to the processes; a clip's seed is its index.

    Each process has as many, since with divided weights all have to compute at the same time; to
    that end the first clips come again.

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
