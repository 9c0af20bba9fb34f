"""Detectors on embeddings of a network that classifies machines and their states.

The network is trained once for all machines (``prepare``); ``fit`` models the distribution of one
machine's embeddings by a back end. A named system is a subclass with its network, training and back
end.
"""

from __future__ import annotations

import abc
import functools
import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from fsasd.data.clips import Clips
from fsasd.detectors.back_ends import BACK_ENDS, Arrays
from fsasd.detectors.base import Detector, Params, TooFewClipsError
from fsasd.detectors.embedding import Classifier, Embedding, Recordings, class_name, train
from fsasd.detectors.order import canonical_order
from fsasd.detectors.trained_networks import (
    CHECKPOINTS,
    TrainedNetworks,
    load_networks,
    require_trained,
)
from fsasd.runtime.ranks import rank

log = logging.getLogger(__name__)

BY_CLASS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "probability": lambda surprisal: surprisal,
    "confidence": lambda surprisal: -np.expm1(-surprisal),
}
"""Back ends on -log p of the machine's classes, by the head, instead of on embeddings."""

POOLS: dict[str, Callable[..., np.ndarray]] = {"max": np.max, "mean": np.mean}


BackEnd = Literal["nearest", "knn", "gmm", "mahalanobis", "probability", "confidence"]
Pool = Literal["max", "mean"]


class Discriminative(Detector):
    """A detector on embeddings of a network that was trained by classification.

    A subclass implements ``classifier``. Its constructor takes at least these arguments:

    Args:
        classes: What defines a class: machine, section, attributes, domain, joined by ``+``.
        seconds: Length of the network's input; shorter clips are repeated.
        epochs: Passes over the training clips.
        batch_size: Clips per step, in all processes together.
        outlier_exposure: Whether clips with label ``anomaly`` that ``prepare`` is given are
            trained on, as further classes.
        back_end: How embeddings are scored: ``nearest``, ``knn``, ``gmm``, ``mahalanobis`` (see
            ``back_ends``); or, with p the probability of the machine's classes, ``probability``
            (-log p) or ``confidence`` (1 - p).
        k: Of the back end, where it has one: k-means centres (``nearest``), the neighbour whose
            distance is the score (``knn``, as in ``knn.KNN``) or components (``gmm``).
        seed: Of the weights, the training and the back end.
    """

    classes: str
    seconds: float
    epochs: int
    batch_size: int
    outlier_exposure: bool
    back_end: BackEnd
    k: int
    seed: int

    trains_network: ClassVar[bool] = True
    back_end_params: ClassVar[frozenset[str]] = frozenset({"back_end", "k", "pool"})
    """Parameters that the networks do not depend on."""

    network_attributes: ClassVar[frozenset[str]] = frozenset({"networks_"})

    version: ClassVar[int] = 2
    """Version of the training, raised when the same spec gives another network."""

    # Parameters of the systems that are ensembles.
    networks: int = 1
    pool: Pool = "max"

    @abc.abstractmethod
    def classifier(self, member: int, n_classes: int) -> Classifier:
        """Return an untrained classifier, the ``member``-th of ``networks``."""

    def network_spec(self) -> dict[str, Any]:
        """Return class, version and the settings that the networks depend on."""
        kind = type(self)
        name = f"{kind.__module__}.{kind.__qualname__}"
        return {"class": name, "version": self.version, **self._settings()}

    def synthetic_labels(self) -> frozenset[str]:
        """Return ``anomaly`` with ``outlier_exposure``."""
        return frozenset({"anomaly"} if self.outlier_exposure else ())

    def prepare(self, clips: Clips, folder: Path, trainer: Params | None = None) -> Self:
        """Train the networks on normal clips of all machines, unless the folder holds them.

        Raises:
            ValueError: The clips are all of one class, or the folder holds other networks.
        """
        folder = Path(folder)
        trained = TrainedNetworks.read(folder)
        if trained:
            trained.require_spec(self.network_spec())
        if trained is None or len(trained.files) < self.networks:
            self._train(clips, folder, trainer or {}, trained)
        self._prepared = folder
        return self

    def _train(
        self, clips: Clips, folder: Path, trainer: Params, trained: TrainedNetworks | None
    ) -> None:
        if not self.outlier_exposure:
            clips = clips[[clip.label != "anomaly" for clip in clips]]
        examples = Recordings(clips, self.classes, self.seconds)
        trained = trained or TrainedNetworks(folder, self.network_spec(), tuple(examples.classes))
        for member in range(len(trained.files), self.networks):
            log.info(
                "training network %d of %d on %d clips of %d classes",
                member + 1, self.networks, len(examples), len(examples.classes),
            )  # fmt: skip
            arrays = self._trained_member(member, examples, folder, trainer)
            if rank() == 0:
                trained = trained.with_network(arrays)

    def _trained_member(
        self, member: int, examples: Recordings, folder: Path, trainer: Params
    ) -> Arrays:
        # The caller's random state is kept.
        with isolate_rng():
            torch.manual_seed(self.seed + member)
            classifier = self.classifier(member, len(examples.classes))
            classifier.set_examples(examples, self.batch_size, self.seed + member)
            train(classifier, folder / CHECKPOINTS / str(member), self.epochs, trainer)
        return classifier.weights()

    def fit(self, clips: Clips) -> Self:
        """Fit the back end to the embeddings of one machine's normal clips.

        Without ``prepare``, the networks are trained first, on these clips only.

        Raises:
            TooFewClipsError: There are too few for the back end.
            ValueError: The detector is not prepared and the clips are all of one class; or it is
                prepared, and was not trained on a class of the clips, or settings that the networks
                depend on were changed since.
        """
        return self._fit(self._trained_on(clips), clips)

    def score(self, clips: Clips) -> np.ndarray:
        """Return the back end's scores, the highest or the mean of all networks'."""
        check_is_fitted(self)
        embeddings = self._embedded(clips)
        scores = [self._score_member(i, embeddings[:, i]) for i in range(embeddings.shape[1])]
        return POOLS[self.pool](scores, axis=0)

    def score_path(
        self, grid: Sequence[Params], fit_clips: Clips, score_clips: Clips
    ) -> np.ndarray:
        """Score a grid; settings that differ only in the back end share the networks.

        Without ``prepare``, networks are trained for each setting that they depend on.

        Raises:
            ValueError: The detector is prepared, and the grid varies a setting that its networks
                depend on.
        """
        trained: dict[str, Embedding] = {}
        rows = []
        for params in grid:
            detector = clone(self).set_params(**params)
            key = detector._named_settings()
            if key not in trained:
                trained[key] = detector._trained_on(fit_clips)
            rows.append(detector._fit(trained[key], fit_clips).score(score_clips))
        return np.stack(rows)

    def machine_classes(self, member: int, clips: Clips, classes: Sequence[str]) -> np.ndarray:
        """Return (classes,) booleans: which of a member's classes the clips have."""
        names = {class_name(clip, self.classes) for clip in clips}
        if unknown := sorted(names - set(classes)):
            raise ValueError(
                f"class '{unknown[0]}' was not trained on: prepare the detector with clips of this "
                f"machine too (known are {', '.join(classes)})"
            )
        return np.array([name in names for name in classes])

    def n_parameters(self) -> int:
        """Return the number of parameters of the networks and of the back end."""
        check_is_fitted(self)
        back_end = [array for arrays in self.back_end_.values() for array in arrays.values()]
        return self._embedding.n_parameters() + sum(array.size for array in back_end)

    def _trained_on(self, clips: Clips) -> Embedding:
        settings = self._named_settings()
        if self._prepared is not None:
            trained = require_trained(self._prepared, self.network_spec())
            return _read(type(self), settings, trained.folder, trained.files, trained.classes)
        with tempfile.TemporaryDirectory() as folder:
            return clone(self).prepare(clips, Path(folder))._trained_on(clips)

    def _settings(self) -> dict[str, Any]:
        return {k: v for k, v in self.get_params().items() if k not in self.back_end_params}

    def _named_settings(self) -> str:
        return json.dumps(self._settings(), sort_keys=True)

    def _fit(self, embedding: Embedding, clips: Clips) -> Self:
        if not len(clips):
            raise TooFewClipsError(
                f"{type(self).__name__} is fitted to at least 1 normal clip, found 0"
            )
        known = [*BACK_ENDS, *BY_CLASS]
        if self.back_end not in known or self.pool not in POOLS:
            raise ValueError(
                f"back_end '{self.back_end}', pool '{self.pool}': expected one of "
                f"{', '.join(known)}, and one of {', '.join(POOLS)}"
            )
        self._embedding = embedding
        self.n_classes_ = np.array(len(embedding.classes))
        self.networks_ = {str(i): member.weights() for i, member in enumerate(embedding.members)}
        embeddings = None if self.back_end in BY_CLASS else self._embedded(clips)
        self.back_end_ = {
            str(i): self._fit_member(i, None if embeddings is None else embeddings[:, i], clips)
            for i in range(len(embedding.members))
        }
        return self

    def _fit_member(self, member: int, points: np.ndarray | None, clips: Clips) -> Arrays:
        if points is None:
            return {"classes": self.machine_classes(member, clips, self._embedding.classes)}
        order = canonical_order(points)
        points, domains = points[order], clips.domains[order]
        return BACK_ENDS[self.back_end].fit(points, domains, self.k, self.seed)

    def _score_member(self, member: int, points: np.ndarray) -> np.ndarray:
        fitted = self.back_end_[str(member)]
        if self.back_end in BY_CLASS:
            surprisal = self._embedding.surprisal(member, points, fitted["classes"])
            return BY_CLASS[self.back_end](surprisal)
        return BACK_ENDS[self.back_end].score(fitted, points, self.k)

    def _embedded(self, clips: Clips) -> np.ndarray:
        # (n, networks, dim)
        return np.stack(list(clips.features(self._embedding)))

    def _restored(self) -> None:
        classes = [str(i) for i in range(int(self.n_classes_))]
        self._embedding = _embedding(self, self.networks_.values(), classes)


def _embedding(
    detector: Discriminative, networks: Iterable[Arrays], classes: Sequence[str]
) -> Embedding:
    members = []
    # Initial weights are drawn and then replaced: the caller's random state is kept.
    with isolate_rng():
        for i, arrays in enumerate(networks):
            member = detector.classifier(i, len(classes))
            member.load_weights(arrays)
            members.append(member)
    return Embedding(members, classes, detector.seconds, detector._named_settings())


@functools.lru_cache(maxsize=2)
def _read(
    kind: type[Discriminative],
    settings: str,
    folder: Path,
    files: tuple[str, ...],
    classes: tuple[str, ...],
) -> Embedding:
    # Cached, so that all machines share the networks in memory.
    return _embedding(kind(**json.loads(settings)), load_networks(folder, files), classes)
