"""STgram-MFN: a MobileFaceNet on a log-mel spectrogram and a learned time feature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fsasd.detectors.backbones import LogMelSpectrogram, MobileFaceNet, Tgram
from fsasd.detectors.discriminative import BackEnd, Discriminative
from fsasd.detectors.embedding import Classifier
from fsasd.detectors.heads import ArcFace


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
    """STgram-MFN: -log p of a clip's machine, by a network that classifies machines.

    Liu et al., "Anomalous sound detection using spectral-temporal information fusion" (ICASSP
    2022, github.com/liuyoude/STgram-MFN). A network of 1.15 million parameters beside its ArcFace
    head; the score has the margin of the clip's class, as in the original.

    Deviations: Tgram's normalisation, so that clips may have any length (see ``backbones.Tgram``).
    The learning rate falls along the cosine from the first epoch on, originally from the 20th.

    Args:
        width: Factor on the network's channels.
        margin: ArcFace's, radians.
        scale: ArcFace's.
        learning_rate: Of Adam, falling to a tenth along a cosine.
        classes, seconds, epochs, batch_size, outlier_exposure, back_end, k, seed: See
            ``Discriminative``. The original scores by ``probability`` or ``gmm``.
    """

    width: float = 1.0
    margin: float = 0.7
    scale: float = 30.0
    learning_rate: float = 1e-4
    classes: str = "machine+section"
    seconds: float = 10.0
    epochs: int = 300
    batch_size: int = 128
    outlier_exposure: bool = False
    back_end: BackEnd = "probability"
    k: int = 1
    seed: int = 0

    def classifier(self, member: int, n_classes: int) -> Classifier:
        """Return the network and ArcFace."""
        return Classifier(
            STgram(self.width),
            ArcFace(128, n_classes, self.margin, self.scale),
            learning_rate=self.learning_rate,
            final_rate=0.1,
        )
