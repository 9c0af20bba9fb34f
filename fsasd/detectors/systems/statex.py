"""Simulated anomalies as classes: statistics exchange and feature exchange."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.networks.augment import exchange_features, exchange_statistics, mixup
from fsasd.detectors.networks.backbones import magnitudes
from fsasd.detectors.networks.classifier import Classifier, Training
from fsasd.detectors.networks.discriminative import Discriminative
from fsasd.detectors.networks.heads import SubClusterAdaCos
from fsasd.detectors.systems.fkie import DualBranch


class Exchanging(Classifier):
    """A dual-branch network that also classifies exchanges between classes.

    Args:
        network: The two branches.
        head: Of the classes; its centres are frozen.
        statex: Probability of an example's spectrogram to get another's statistics.
        featex: Probability of an example's spectrogram embedding to be replaced by another's.
        training: See ``Classifier``.
    """

    network: DualBranch

    def __init__(
        self,
        network: DualBranch,
        head: SubClusterAdaCos,
        training: Training,
        *,
        statex: float,
        featex: float,
    ) -> None:
        super().__init__(network, head, training)
        self.statex = statex
        self.featex = featex
        n_classes, clusters, dim = head.centres.shape
        # Each exchange triples the classes; these centres are needed in training only.
        self.exchanges = SubClusterAdaCos(dim, 9 * n_classes, clusters, frozen=False)

    def loss(self, waveforms: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of the classes, and that of the exchanges, added."""
        waveforms, targets = mixup(waveforms, targets, self.settings.mixup)
        spectrograms, stated = exchange_statistics(
            magnitudes(waveforms), targets, self.statex, axis=1
        )
        spectrum, spectrogram = (
            self.network.spectrum(waveforms),
            self.network.embed_spectrogram(spectrograms),
        )
        exchanged, featured = exchange_features(spectrogram, stated, self.featex)
        classes = self.head(torch.cat([spectrum, spectrogram], dim=1), targets)
        exchanges = self.exchanges(torch.cat([spectrum, exchanged], dim=1), featured)
        return (classes + exchanges).mean()


@dataclass(eq=False, repr=False)
class StatEx(Discriminative):
    """Representation learning with simulated anomalies.

    Chen et al., "An effective anomalous sound detection method based on representation learning
    with simulated anomalies" (ICASSP 2023) simulate anomalies by statistics exchange. The network,
    the second exchange (FeatEx) and the training are Wilkinghoff's, "Self-supervised learning for
    anomalous sound detection" (ICASSP 2024, github.com/wilkinghoff/ssl4asd): the networks of
    ``FKIE`` with weighted channels, and a loss over nine times the classes. Statistics are taken
    over the bins of each frame, as in that code.

    Deviations: Chen et al. exchange statistics of regions of the spectrogram, here of all of it,
    and AdaCos' scale adapts as described in ``heads.SubClusterAdaCos``.

    Args:
        statex: Probability of an example to get another's statistics.
        featex: Probability of an example to get another's spectrogram embedding.
        networks: How many.
        dim: Of each branch's embeddings.
        channels: Of the spectrogram branch's first stage.
        clusters: Sub-clusters of a class.
        training: A weight decay of 2e-5 is the original's penalty of 1e-5 times squared weights.
    """

    statex: float = 0.5
    featex: float = 0.5
    networks: int = 5
    dim: int = 128
    channels: int = 16
    clusters: int = 16
    training: Training = Training(seconds=18.0, epochs=10, weight_decay=2e-5, mixup=0.5)

    def classifier(self, number: int, n_classes: int) -> Classifier:
        """Return both branches, and AdaCos for classes and exchanges."""
        samples = round(self.training.seconds * SAMPLE_RATE)
        return Exchanging(
            DualBranch(samples, self.dim, self.channels, squeeze=True),
            SubClusterAdaCos(2 * self.dim, n_classes, self.clusters),
            self.training,
            statex=self.statex,
            featex=self.featex,
        )
