"""MDAM: attention over time, frequency and channel, and domains mixed in training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fsasd.detectors.augment import mix_statistics
from fsasd.detectors.backbones import LogMelSpectrogram, MultiDimensionalAttention, ResNet
from fsasd.detectors.discriminative import BackEnd, Discriminative
from fsasd.detectors.embedding import Classifier
from fsasd.detectors.heads import ArcFace


class BlendDomains(nn.Module):
    """Mix the statistics of feature maps of different clips in training (MixStyle)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the feature maps, mixed in training."""
        return mix_statistics(maps, self.probability) if self.training else maps


@dataclass(eq=False, repr=False)
class MDAM(Discriminative):
    """Jie_IESEFPT of DCASE 2023: a network that attends to times, frequencies and channels.

    "MDAM: Multi-dimensional attention module for anomalous sound detection" (ICONIP 2023). A
    residual network of 3 million parameters on log-mels, whose first feature map goes through the
    attention; nearest neighbours of its embeddings.

    Deviations: only the abstract was available. The network, its training and the back end are
    inferred, and so is MixStyle for its blending of domains.

    Args:
        channels: Of the network's first stage.
        dim: Of the embeddings.
        blend: Probability that an example's feature statistics are mixed with another's.
        margin: ArcFace's, radians.
        scale: ArcFace's.
        learning_rate: Of Adam, falling to nothing along a cosine.
        classes, seconds, epochs, batch_size, outlier_exposure, back_end, k, seed: See
            ``Discriminative``.
    """

    channels: int = 32
    dim: int = 128
    blend: float = 0.5
    margin: float = 0.5
    scale: float = 30.0
    learning_rate: float = 1e-3
    classes: str = "machine+section+attributes+domain"
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
        attention = nn.Sequential(
            MultiDimensionalAttention(self.channels), BlendDomains(self.blend)
        )
        resnet = ResNet(log_mel.front_end.n_mels, self.dim, self.channels, shallow=attention)
        return Classifier(
            nn.Sequential(log_mel, resnet),
            ArcFace(self.dim, n_classes, self.margin, self.scale),
            learning_rate=self.learning_rate,
            final_rate=0.0,
        )
