"""Pooling of an encoder's states over time."""

from __future__ import annotations

from collections.abc import Callable

import torch

_LEAST = 1e-12
"""Smallest magnitude whose root is taken: the slope of a root is infinite at 0."""


def pool(states: torch.Tensor, by: str, *, power: float = 3.0, correction: int = 0) -> torch.Tensor:
    """Return (batch, statistics x bands x dim) of states (batch, bands, frames, dim).

    Args:
        states: Of one layer.
        by: ``mean``, ``max``, ``std``, ``gem``, or several joined by ``+``.
        power: Of ``gem``, the generalised mean: 1 is the mean, and the higher, the nearer to the
            value of largest magnitude. The power of a negative state is negative.
        correction: Of ``std``: 0 divides by the number of frames, 1 by one less.

    Raises:
        ValueError: A statistic is not known.

    >>> frames = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
    >>> pool(frames, "mean+max"), pool(frames, "gem", power=1.0)
    (tensor([[2., 3.]]), tensor([[2.]]))
    """
    require_statistics(by)
    statistics = [_STATISTICS[name](states, power, correction) for name in by.split("+")]
    return torch.cat(statistics, dim=1).flatten(1)


def require_statistics(by: str) -> None:
    """Raise a ValueError that names the known statistics unless all of these are."""
    if set(by.split("+")) - set(_STATISTICS):
        raise ValueError(
            f"pool '{by}': expected one of {', '.join(_STATISTICS)}, or several joined by +"
        )


def _generalised_mean(states: torch.Tensor, power: float, correction: int) -> torch.Tensor:
    mean = (states.sign() * states.abs().pow(power)).mean(dim=2)
    return mean.sign() * mean.abs().clamp(min=_LEAST).pow(1 / power)


_STATISTICS: dict[str, Callable[[torch.Tensor, float, int], torch.Tensor]] = {
    "mean": lambda states, power, correction: states.mean(dim=2),
    "max": lambda states, power, correction: states.amax(dim=2),
    "std": lambda states, power, correction: states.std(dim=2, correction=correction),
    "gem": _generalised_mean,
}
