"""STgram-MFN: a MobileFaceNet on a log-mel spectrogram and a learned time feature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fsasd.detectors.networks.backbones import LogMelSpectrogram, MobileFaceNet, Tgram
from fsasd.detectors.networks.classifier import Classifier, Training
from fsasd.detectors.networks.discriminative import Discriminative
from fsasd.detectors.networks.heads import ArcFace


class STgram(nn.Module):
    """Log-mel spectrogram and Tgram as the two channels of a MobileFaceNet's input.

    Args:
        width: Factor on the MobileFaceNet's channels.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.log_mel = LogMelSpectrogram()
        self.tgram = Tgram(self.log_mel.front_end.n_mels)
        self.mobilefacenet = MobileFaceNet(2, width=width)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return (batch, 128)."""
        pair = [self.log_mel(waveforms), self.tgram(waveforms)]
        return self.mobilefacenet(torch.stack(pair, dim=1))


@dataclass(eq=False, repr=False)
class STgramMFN(Discriminative):
    """STgram-MFN: a network that classifies machines by spectrogram and waveform.

    Liu et al., "Anomalous sound detection using spectral-temporal information fusion" (ICASSP
    2022, github.com/liuyoude/STgram-MFN). A network of 1.15 million parameters beside its ArcFace
    head. The original scores by -log p of the clip's machine, with the margin of its class
    (``confidence``), or by the density of a Gaussian mixture.

    Deviations: Tgram's normalisation, so that clips may have any length (see ``backbones.Tgram``).
    The learning rate falls along the cosine from the first epoch on, originally from the 20th.

    Args:
        width: Factor on the network's channels.
        margin: ArcFace's, radians.
        scale: ArcFace's.
        training: The learning rate falls to a tenth; see ``classifier.Training``.
    """

    width: float = 1.0
    margin: float = 0.7
    scale: float = 30.0
    training: Training = Training(
        classes="machine+section", epochs=300, batch_size=128, learning_rate=1e-4, final_rate=0.1
    )

    def classifier(self, number: int, n_classes: int) -> Classifier:
        """Return the network and ArcFace."""
        return Classifier(*self.components(n_classes))

    def components(self, n_classes: int) -> tuple[STgram, ArcFace, Training]:
        """Return the first arguments of a ``Classifier``."""
        head = ArcFace(128, n_classes, self.margin, self.scale)
        return STgram(self.width), head, self.training
