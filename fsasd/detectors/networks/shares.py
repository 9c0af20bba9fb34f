"""Global batches: the same examples and the same random numbers in any number of processes.

``batch_size`` counts the examples of a step in all processes together. A process takes its share of
each batch, draws what is random for the whole batch and keeps its rows, and losses that compare
examples gather those of all. So two processes compute what one would, except that batch
normalisation on CPUs and dropout are computed by each process for itself.

An example is mixed with the one at the mirrored place of the batch (``augment``): a share holds
whole pairs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DistributedSampler

from fsasd.data.draws import nearest_multiples

T = TypeVar("T")


class Share(NamedTuple):
    """The part of each global batch that one process has, by its rank."""

    ranks: int = 1
    rank: int = 0


_ALL = Share()
_share = _ALL


def places(batch_size: int, share: Share) -> np.ndarray:
    """Return the places of a global batch in a process's share; they are mirrored in pairs.

    >>> places(8, Share(2, 0)).tolist(), places(8, Share(2, 1)).tolist()
    ([0, 1, 6, 7], [2, 3, 4, 5])
    """
    if share.ranks == 1:
        return np.arange(batch_size)
    half = batch_size // (2 * share.ranks)
    first = np.arange(half) + share.rank * half
    return np.concatenate([first, batch_size - 1 - first[::-1]])


def require_whole_shares(batch_size: int, ranks: int, name: str = "batch_size") -> None:
    """Check that processes can divide a batch evenly.

    Args:
        batch_size: Examples of a step, in all processes together.
        ranks: Processes.
        name: What the batch size is called where it is set.

    Raises:
        ValueError: They cannot.
    """
    unit = 2 * ranks
    if ranks > 1 and (batch_size < 1 or batch_size % unit):
        raise ValueError(
            f"{name}: expected a multiple of {unit}, found {batch_size}. It is divided among "
            f"{ranks} processes, and each takes whole pairs, since examples are mixed in pairs: "
            f"set {name} to {nearest_multiples(batch_size, unit)}, or train on fewer devices"
        )


class GlobalBatches(DistributedSampler[int]):
    """A process's share of random batches, in an order fixed by seed and epoch.

    An incomplete batch at the end of an epoch is dropped; with fewer examples than a batch, all of
    them are one batch.

    Args:
        count: Examples.
        batch_size: Of all processes together.
        share: This process's.
        seed: Of the order.
        trainer: Whose interrupted epoch goes on, if there is one.

    >>> one = list(GlobalBatches(6, 4, Share(), seed=0))
    >>> two = [list(GlobalBatches(6, 4, Share(2, rank), seed=0)) for rank in (0, 1)]
    >>> len(one), sorted(one) == sorted(two[0] + two[1])
    (4, True)
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        share: Share,
        seed: int,
        trainer: L.Trainer | None = None,
    ) -> None:
        # The sampler reads only the length of the data set.
        super().__init__(range(count), share.ranks, share.rank, seed=seed)  # type: ignore[arg-type]
        self.count = count
        self.batch_size = min(batch_size, count)
        self.places = places(self.batch_size, share)
        self.trainer = trainer
        if trainer is not None:
            # Lightning sets it only after the first epoch of a resumed run has begun.
            self.set_epoch(trainer.current_epoch)

    def __len__(self) -> int:
        return self.count // self.batch_size * len(self.places)

    def __iter__(self) -> Iterator[int]:
        return self.remaining(self.order().tolist())

    def order(self) -> np.ndarray:
        """Return all examples in this epoch's order."""
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.count)

    def remaining(self, values: Sequence[T]) -> Iterator[T]:
        """Yield those of (count,) values at this process's places that this epoch has not had."""
        places = self.of_rank(np.arange(self.count))
        return (values[place] for place in places[self._batches_done() * len(self.places) :])

    def _batches_done(self) -> int:
        """Return how many batches of this epoch a run was trained on before an interruption."""
        if self.trainer is None:
            return 0
        loop: Any = self.trainer.fit_loop.epoch_loop
        done = loop.batch_progress.current.processed
        # A checkpoint of the end of an epoch counts all of them, also where they are limited.
        return done if done < self.trainer.num_training_batches else 0

    def of_rank(self, values: np.ndarray) -> np.ndarray:
        """Return those of (count,) values at this process's places, batch by batch."""
        batches = self.count // self.batch_size
        rows = values[: batches * self.batch_size].reshape(batches, self.batch_size)
        return rows[:, self.places].flatten()


class SetShare(L.Callback):
    """Sets the share that ``rand``, ``randint`` and ``gathered`` use in this process."""

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        _set(Share(trainer.world_size, trainer.global_rank))


@contextlib.contextmanager
def using_share(share: Share) -> Iterator[None]:
    """Compute with the share of one of several processes; afterwards as a single process."""
    _set(share)
    try:
        yield
    finally:
        _set(_ALL)


def seed_step(seed: int, step: int, share: Share) -> None:
    """Seed the draws of a step: the same in any number of processes and in a resumed run."""
    torch.manual_seed(step_seed(seed, step))
    if share.rank:
        # Draws on a GPU, such as dropout's, are not shared and have to differ between processes.
        torch.cuda.manual_seed(step_seed(seed, step) + 7919 * share.rank)


def step_seed(seed: int, step: int) -> int:
    """Return the seed of one training step.

    >>> step_seed(0, 0) == step_seed(0, 1)
    False
    """
    return seed + 1_000_003 * (step + 1)


def rand(count: int, *shape: int) -> torch.Tensor:
    """Return (count, *shape) uniform numbers, for a process's ``count`` examples of a batch."""
    return rows_of_rank(torch.rand(count * _share.ranks, *shape))


def randint(high: int, count: int, *shape: int) -> torch.Tensor:
    """Return (count, *shape) whole numbers below ``high``, for a process's examples of a batch."""
    return rows_of_rank(torch.randint(high, (count * _share.ranks, *shape)))


def ranks() -> int:
    """Return how many processes share a batch."""
    return _share.ranks


def rows_of_rank(values: torch.Tensor) -> torch.Tensor:
    """Return the rows of this process's examples, of values drawn for the whole batch."""
    return values if _share == _ALL else values[places(len(values), _share)]


def gathered(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows of all processes, with gradients as if one process had computed them.

    For losses that every process computes of the whole batch and whose gradients are averaged.
    """
    ranks, rank = _share
    if ranks == 1:
        return rows
    shares = [torch.empty_like(rows) for _ in range(ranks)]
    dist.all_gather(shares, rows.detach().contiguous())
    # Each process has gradients for its rows only; the average divides by the number of processes.
    shares[rank] = rows + (ranks - 1) * (rows - rows.detach())
    return torch.cat(shares)


def _set(share: Share) -> None:
    global _share
    _share = share
