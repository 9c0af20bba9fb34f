"""How sure a classifying network is that a clip is of its machine."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fsasd.data.clips import Clips
from fsasd.detectors.networks.discriminative import Discriminative
from fsasd.detectors.vector_detector import VectorDetector


class Confidence(VectorDetector):
    """-log p or 1 - p, with p the probability of the classes of a machine's normal clips.

    The probability is that of the representation's head; ArcFace's has the margin of the clip's
    class.

    Args:
        representation: By one network that classifies; several are scored one by one by ``Pooled``.
        scored_by: ``probability`` (-log p) or ``confidence`` (1 - p).
    """

    score_params: ClassVar[frozenset[str]] = frozenset({"scored_by"})

    representation: Discriminative
    representation_: Discriminative

    def __init__(
        self,
        representation: Discriminative,
        scored_by: Literal["probability", "confidence"] = "probability",
    ) -> None:
        self.representation = representation
        self.scored_by = scored_by

    def fit(self, clips: Clips) -> Self:
        """Note the classes of the clips.

        Raises:
            ValueError: The representation is not by one network that classifies, or the network
                does not know a class of the clips.
        """
        if not isinstance(self.representation, Discriminative):
            raise ValueError(
                "expected a representation by a network that classifies, such as thuee, found "
                f"{self.representation!r}"
            )
        if (count := len(self.representation.network_numbers())) > 1:
            raise ValueError(
                f"expected a representation by one network, found {count} networks: let Pooled "
                "score each by itself"
            )
        self._fitted_to(clips)
        self.classes_ = self.representation_.classes_of(clips)
        return self

    def score(self, clips: Clips) -> np.ndarray:
        """Return -log p or 1 - p."""
        check_is_fitted(self)
        surprisal = self.representation_.surprisal(clips, self.classes_)
        return surprisal if self.scored_by == "probability" else -np.expm1(-surprisal)

    def n_parameters(self) -> int:
        """Return the number of parameters of the network, and of classes."""
        check_is_fitted(self)
        return self.classes_.size + self.representation_.n_parameters()
