"""The interface of representations that are learned: fitted to clips, then clips -> vectors."""

from __future__ import annotations

import abc
from typing import Self

import numpy as np
from sklearn.base import clone

from fsasd.data.clips import Clips
from fsasd.data.front_ends import FrontEnd
from fsasd.detectors.estimator import Estimator


class LearnedRepresentation(Estimator):
    """A representation by one or several networks that are trained on clips.

    It is a parameter of detectors, as representations without a network are, and has the same
    config group. A detector fits a copy of it, and scores the vectors that it returns. A subclass
    whose networks all machines share overrides ``prepare`` and ``network_spec``.

    Attributes:
        networks: How many networks it has; a detector may score each by itself (``pooled``).
    """

    networks: int = 1

    _only: int | None = None
    """The network that ``alone`` selects: shared by clones, but no parameter."""

    @abc.abstractmethod
    def __call__(self, clips: Clips) -> np.ndarray:
        """Return (n, d) float64, a row for each clip; of the fitted representation.

        Of several networks, the vectors have length 1 each and are concatenated.
        """

    @abc.abstractmethod
    def n_parameters(self) -> int:
        """Return the number of parameters of the fitted networks."""

    def front_ends(self) -> list[FrontEnd]:
        """Return the fitted networks that are front ends: those of ensembles, computed together."""
        return []

    def alone(self, network: int) -> Self:
        """Return an unfitted copy with one of the networks.

        >>> from fsasd.detectors.systems.fkie import FKIE
        >>> FKIE(networks=10).alone(3).network_numbers()
        [3]
        """
        copy = clone(self)
        copy._only = network
        return copy

    def network_numbers(self) -> list[int]:
        """Return the numbers of its networks, from 0."""
        return list(range(self.networks)) if self._only is None else [self._only]

    def __sklearn_clone__(self) -> Self:
        copy = super().__sklearn_clone__()
        copy._only = self._only
        return copy
