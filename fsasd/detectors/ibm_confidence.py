"""Classification confidence: which machine is it, and what was done to the recording?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from fsasd.data.clips import Clips
from fsasd.detectors.augment import TRANSFORMS, transform
from fsasd.detectors.backbones import LogMelSpectrogram, MobileFaceNet
from fsasd.detectors.discriminative import BackEnd, Discriminative, Pool
from fsasd.detectors.embedding import Classifier, Recordings
from fsasd.detectors.heads import Softmax
from fsasd.detectors.shares import randint


class OneChannel(nn.Module):
    """A MobileFaceNet on log-mels."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.log_mel = LogMelSpectrogram()
        self.mobilefacenet = MobileFaceNet(1, width=width)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return (batch, 128)."""
        return self.mobilefacenet(self.log_mel(waveforms).unsqueeze(1))


class Transformed(Classifier):
    """Tells what was done to a recording: one of ``augment.TRANSFORMS``, drawn for each example.

    It is to be sure of normal sounds alone: of anomalies it learns nothing.
    """

    normal: torch.Tensor

    def hear(self, examples: Recordings, batch_size: int, seed: int) -> None:
        """Set the examples, and find out which classes are of normal clips."""
        super().hear(examples, batch_size, seed)
        normal = [not name.endswith("|anomaly") for name in examples.classes]
        self.register_buffer("normal", torch.tensor(normal).float(), persistent=False)

    def loss(self, waveforms: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of the kinds of transform of what is normal."""
        kinds = randint(len(TRANSFORMS), len(waveforms)).to(waveforms.device)
        done = F.one_hot(kinds, len(TRANSFORMS)).to(waveforms.dtype)
        losses = self.head(self.network(transform(waveforms, kinds)), done)
        return (targets @ self.normal * losses).mean()


@dataclass(eq=False, repr=False)
class IBMConfidence(Discriminative):
    """Two classifiers that are sure of normal sounds: of the machine, and of the transform.

    Inoue et al., "Detection of anomalous sounds for machine condition monitoring using
    classification confidence" (DCASE 2020 workshop). A clip's score is one minus the probability
    of its own class, and of being untransformed, averaged.

    Deviations: only the abstract was to be had. Networks, transforms and training are inferred, and
    so is the plain average of probabilities, for the abstract's "probability aggregation".

    Args:
        width: Factor on the networks' channels.
        learning_rate: Of Adam, falling to a tenth along a cosine.
        pool: ``mean`` or ``max`` of the two scores.
        classes, seconds, epochs, batch_size, outlier_exposure, back_end, k, seed: See
            ``Discriminative``.
    """

    networks = 2
    # From 2 on the second classifier does not learn anomalies as normal sounds; from 3 on draws do
    # not depend on the number of processes.
    version: ClassVar[int] = 3

    width: float = 1.0
    learning_rate: float = 1e-3
    classes: str = "machine+section"
    seconds: float = 10.0
    epochs: int = 50
    batch_size: int = 64
    outlier_exposure: bool = False
    back_end: BackEnd = "confidence"
    k: int = 1
    pool: Pool = "mean"
    seed: int = 0

    def classifier(self, member: int, n_classes: int) -> Classifier:
        """Return the classifier of machines, or that of transforms."""
        kind, size = (Transformed, len(TRANSFORMS)) if member else (Classifier, n_classes)
        return kind(
            OneChannel(self.width),
            Softmax(128, size),
            learning_rate=self.learning_rate,
            final_rate=0.1,
        )

    def machine_classes(self, member: int, clips: Clips, classes: Sequence[str]) -> np.ndarray:
        """Return the machine's own classes, or that of what was not transformed."""
        if member:
            return np.array([name == "none" for name in TRANSFORMS])
        return super().machine_classes(member, clips, classes)
