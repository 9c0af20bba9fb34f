"""THUEE: a residual network that classifies attributes, and nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fsasd.detectors.backbones import LogMelSpectrogram, ResNet
from fsasd.detectors.discriminative import BackEnd, Discriminative
from fsasd.detectors.embedding import Classifier
from fsasd.detectors.heads import ArcFace


@dataclass(eq=False, repr=False)
class THUEE(Discriminative):
    """Jiang_THUEE of DCASE 2023, as far as known: attribute classification, then k-NN.

    A residual network of 6 million parameters on log-mels.

    Deviations: neither report nor code were available. All of it is inferred from the group's later
    papers (attributes as classes, ArcFace, k-NN) and the number of parameters.

    Args:
        channels: Of the network's first stage.
        dim: Of the embeddings.
        mixup: Probability of an example to be mixed with another.
        margin: ArcFace's, radians.
        scale: ArcFace's.
        learning_rate: Of Adam, falling to nothing along a cosine.
        classes, seconds, epochs, batch_size, outlier_exposure, back_end, k, seed: See
            ``Discriminative``.
    """

    channels: int = 48
    dim: int = 128
    mixup: float = 0.5
    margin: float = 0.5
    scale: float = 30.0
    learning_rate: float = 1e-3
    classes: str = "machine+section+attributes"
    seconds: float = 10.0
    epochs: int = 50
    batch_size: int = 64
    outlier_exposure: bool = False
    back_end: BackEnd = "knn"
    k: int = 1
    seed: int = 0

    def classifier(self, member: int, n_classes: int) -> Classifier:
        """Return the network and ArcFace."""
        log_mel = LogMelSpectrogram()
        return Classifier(
            nn.Sequential(log_mel, ResNet(log_mel.front_end.n_mels, self.dim, self.channels)),
            ArcFace(self.dim, n_classes, self.margin, self.scale),
            learning_rate=self.learning_rate,
            final_rate=0.0,
            mixup=self.mixup,
        )
