"""MDAM: attention over time, frequency and channel, and domains mixed in training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fsasd.detectors.networks.augment import mix_statistics
from fsasd.detectors.networks.backbones import LogMelSpectrogram, MultiDimensionalAttention, ResNet
from fsasd.detectors.networks.classifier import Classifier, Training
from fsasd.detectors.networks.discriminative import Discriminative
from fsasd.detectors.networks.heads import ArcFace


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
        training: The learning rate falls to 0; see ``classifier.Training``.
    """

    channels: int = 32
    dim: int = 128
    blend: float = 0.5
    margin: float = 0.5
    scale: float = 30.0
    training: Training = Training(final_rate=0.0)

    def classifier(self, number: int, n_classes: int) -> Classifier:
        """Return the network and ArcFace."""
        log_mel = LogMelSpectrogram()
        attention = nn.Sequential(
            MultiDimensionalAttention(self.channels), BlendDomains(self.blend)
        )
        resnet = ResNet(log_mel.front_end.n_mels, self.dim, self.channels, shallow=attention)
        return Classifier(
            nn.Sequential(log_mel, resnet),
            ArcFace(self.dim, n_classes, self.margin, self.scale),
            self.training,
        )
