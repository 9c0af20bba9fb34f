"""Representations by networks that classify machines and their states.

The networks are trained once for all machines (``prepare``). A named system is a subclass with its
network, head and training; which detector scores its embeddings is chosen in the configuration.
"""

from __future__ import annotations

import abc
import functools
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from sklearn.utils.validation import check_is_fitted

from fsasd.data.clips import Clips
from fsasd.data.front_ends import FrontEnd, compute_together
from fsasd.detectors.estimator import Params
from fsasd.detectors.learned import LearnedRepresentation
from fsasd.detectors.networks.classifier import (
    PARTS,
    Classifier,
    Recordings,
    Training,
    class_name,
    train,
)
from fsasd.detectors.networks.embedding import Embedding
from fsasd.detectors.networks.trained_networks import (
    CHECKPOINTS,
    KeptNetworks,
    TrainedNetworks,
    load_networks,
    require_trained,
)
from fsasd.detectors.networks.training import require_shapes
from fsasd.detectors.scoring.bank import unit
from fsasd.detectors.stacking import TooFewClipsError, stack
from fsasd.runtime.ranks import rank
from fsasd.settings.objects import components

log = logging.getLogger(__name__)

Arrays = Mapping[str, np.ndarray]


class Discriminative(LearnedRepresentation):
    """Embeddings by one or several networks that were trained by classification.

    A subclass implements ``classifier``. Its constructor takes at least ``training``; one of
    several networks also ``networks``, how many.

    Attributes:
        training: Settings of the training; the seed of each further network is one more.
    """

    training: Training

    trains_network: ClassVar[bool] = True
    network_attributes: ClassVar[frozenset[str]] = frozenset({"networks_"})

    version: ClassVar[int] = 2
    """Version of the training, raised when the same spec gives another network."""

    reads_weights: ClassVar[bool] = False
    """Whether ``classifier`` reads weights from elsewhere, which have the sizes that they have."""

    @abc.abstractmethod
    def classifier(self, number: int, n_classes: int) -> Classifier:
        """Return an untrained classifier, that of the network of this number."""

    def network_spec(self) -> dict[str, Any]:
        """Return class, version and all settings, nested ones by their names."""
        kind = type(self)
        name = f"{kind.__module__}.{kind.__qualname__}"
        return {"class": name, "version": self.version, **self._settings()}

    def synthetic_labels(self) -> frozenset[str]:
        """Return ``anomaly`` with ``outlier_exposure``."""
        return frozenset({"anomaly"} if self.training.outlier_exposure else ())

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
            examples = self._examples(clips)
            trained = trained or TrainedNetworks(
                folder, self.network_spec(), tuple(examples.classes)
            )
            for number in range(len(trained.files), self.networks):
                network = self._train(number, examples, folder, trainer or {})
                if rank() == 0:
                    trained = trained.with_network(network)
        self._prepared = folder
        return self

    def fit(self, clips: Clips) -> Self:
        """Load the networks; without ``prepare``, train them first, on these clips only.

        Raises:
            TooFewClipsError: There are no clips.
            ValueError: The representation is not prepared and the clips are all of one class; or it
                is prepared, and its settings were changed since.
        """
        if not len(clips):
            raise TooFewClipsError(
                f"{type(self).__name__} is fitted to at least 1 normal clip, found 0"
            )
        numbers = self.network_numbers()
        if isinstance(self._prepared, KeptNetworks):
            kept = self._prepared.of(self.network_spec())
            embeddings = {number: kept[number] for number in numbers}
        elif self._prepared is not None:
            trained = require_trained(self._prepared, self.network_spec())
            source = _Source(
                trained.folder, trained.files, trained.classes, self._named_settings(), self
            )
            embeddings = {number: _read(source)[number] for number in numbers}
        else:
            examples = self._examples(clips)
            with tempfile.TemporaryDirectory() as folder:
                embeddings = {
                    number: self._embedding(
                        number, self._train(number, examples, Path(folder), {}), examples.classes
                    )
                    for number in numbers
                }
        self._embeddings = embeddings
        if self._prepared is None:
            compute_together(embeddings.values())
        self.n_classes_ = np.array(len(embeddings[numbers[0]].classes))
        self.networks_ = {
            str(number): embedding.classifier.weights() for number, embedding in embeddings.items()
        }
        return self

    def fitted_networks(self) -> Mapping[int, Any]:
        """Return its networks as front ends."""
        check_is_fitted(self)
        return self._embeddings

    def __call__(self, clips: Clips) -> np.ndarray:
        """Return the (n, dim) embeddings by one network, or (n, networks x dim) unit vectors."""
        check_is_fitted(self)
        embedded = [stack(clips.features(one)) for one in self._embeddings.values()]
        if len(embedded) == 1:
            return embedded[0]
        return np.concatenate([unit(points) for points in embedded], axis=1)

    def classes_of(self, clips: Clips) -> np.ndarray:
        """Return (classes,) booleans: which of its one network's classes the clips have.

        Those of networks that are kept are as before: classes have no names any more.

        Raises:
            ValueError: The network was not trained on a class of the clips.
        """
        ((number, embedding),) = self._embeddings.items()
        if isinstance(self._prepared, KeptNetworks) and number in self._prepared.classes:
            return self._prepared.classes[number]
        return self.machine_classes(number, clips, embedding.classes)

    def surprisal(self, clips: Clips, classes: np.ndarray) -> np.ndarray:
        """Return (n,) -log p of some classes together, by the head of its one network."""
        ((_, embedding),) = self._embeddings.items()
        return embedding.surprisal(stack(clips.features(embedding)), classes)

    def machine_classes(self, number: int, clips: Clips, classes: Sequence[str]) -> np.ndarray:
        """Return ``classes_of`` of the network of a number, given the names of its classes."""
        names = {class_name(clip, self.training.classes) for clip in clips}
        if unknown := sorted(names - set(classes)):
            raise ValueError(
                f"class '{unknown[0]}' was not trained on: prepare the detector with clips of this "
                f"machine too (known are {', '.join(classes)})"
            )
        return np.array([name in names for name in classes])

    def front_ends(self) -> list[FrontEnd]:
        """Return its networks: waveform -> (dim,)."""
        return list(self._embeddings.values())

    def n_parameters(self) -> int:
        """Return the number of parameters of the networks, without their heads."""
        check_is_fitted(self)
        return sum(embedding.n_parameters() for embedding in self._embeddings.values())

    def _examples(self, clips: Clips) -> Recordings:
        if not self.training.outlier_exposure:
            clips = clips[[clip.label != "anomaly" for clip in clips]]
        return Recordings(clips, self.training.classes, self.training.seconds)

    def _train(self, number: int, examples: Recordings, folder: Path, trainer: Params) -> Arrays:
        log.info(
            "training network %d of %d on %d clips of %d classes",
            number + 1, self.networks, len(examples), len(examples.classes),
        )  # fmt: skip
        seed = self.training.seed + number
        # The caller's random state is kept.
        with isolate_rng():
            torch.manual_seed(seed)
            classifier = self.classifier(number, len(examples.classes))
            classifier.set_examples(examples, seed)
            train(classifier, folder / CHECKPOINTS / str(number), trainer)
        return classifier.weights()

    def _embedding(self, number: int, network: Arrays, classes: Sequence[str]) -> Embedding:
        if not self.reads_weights:
            require_shapes(lambda: self.classifier(number, len(classes)), network, PARTS)
        # Initial weights are drawn and then replaced: the caller's random state is kept.
        with isolate_rng():
            classifier = self.classifier(number, len(classes))
        classifier.load_weights(network)
        return Embedding(classifier, classes, self._named_settings())

    def _settings(self) -> dict[str, Any]:
        return {name: value for name, value in self.get_params().items() if not components(value)}

    def _named_settings(self) -> str:
        return json.dumps(self._settings(), sort_keys=True)

    def _restored(self) -> None:
        classes = [str(i) for i in range(int(self.n_classes_))]
        self._embeddings = {
            int(number): self._embedding(int(number), network, classes)
            for number, network in self.networks_.items()
        }
        compute_together(self._embeddings.values())


@dataclass(frozen=True)
class _Source:
    """Where trained networks are, and whose they are, which follows from the settings."""

    folder: Path
    files: tuple[str, ...]
    classes: tuple[str, ...]
    settings: str
    representation: Discriminative = field(compare=False)


@functools.lru_cache(maxsize=2)
def _read(source: _Source) -> list[Embedding]:
    # Cached, so that all machines share the networks in memory.
    networks = load_networks(source.folder, source.files)
    embeddings = [
        source.representation._embedding(number, network, source.classes)
        for number, network in enumerate(networks)
    ]
    compute_together(embeddings)
    return embeddings
