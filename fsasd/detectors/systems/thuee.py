"""THUEE: a residual network that classifies attributes, and nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fsasd.detectors.networks.backbones import LogMelSpectrogram, ResNet
from fsasd.detectors.networks.classifier import Classifier, Training
from fsasd.detectors.networks.discriminative import Discriminative
from fsasd.detectors.networks.heads import ArcFace


@dataclass(eq=False, repr=False)
class THUEE(Discriminative):
    """The network of Jiang_THUEE, DCASE 2023, as far as known: it classifies attributes.

    A residual network of 6 million parameters on log-mels.

    Deviations: neither report nor code were available. All of it is inferred from the group's later
    papers (attributes as classes, ArcFace, k-NN) and the number of parameters.

    Args:
        channels: Of the network's first stage.
        dim: Of the embeddings.
        margin: ArcFace's, radians.
        scale: ArcFace's.
        training: The learning rate falls to 0; see ``classifier.Training``.
    """

    channels: int = 48
    dim: int = 128
    margin: float = 0.5
    scale: float = 30.0
    training: Training = Training(classes="machine+section+attributes", final_rate=0.0, mixup=0.5)

    def classifier(self, number: int, n_classes: int) -> Classifier:
        """Return the network and ArcFace."""
        log_mel = LogMelSpectrogram()
        return Classifier(
            nn.Sequential(log_mel, ResNet(log_mel.front_end.n_mels, self.dim, self.channels)),
            ArcFace(self.dim, n_classes, self.margin, self.scale),
            self.training,
        )
