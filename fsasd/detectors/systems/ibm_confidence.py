"""Classification confidence: of the machine, and of the transform of the waveform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from fsasd.data.clips import Clips
from fsasd.detectors.networks.augment import TRANSFORMS, mixup, transform
from fsasd.detectors.networks.backbones import LogMelSpectrogram, MobileFaceNet
from fsasd.detectors.networks.classifier import Classifier, Recordings, Training
from fsasd.detectors.networks.discriminative import Discriminative
from fsasd.detectors.networks.heads import Softmax
from fsasd.detectors.networks.shares import randint


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
    """A classifier of transforms (``augment.TRANSFORMS``), drawn for each example.

    It is trained on normal sounds only, so that it is confident of no others.
    """

    normal: torch.Tensor

    def set_examples(self, examples: Recordings, seed: int) -> None:
        """Set the examples, and which classes are of normal clips."""
        super().set_examples(examples, seed)
        normal = [not name.endswith("|anomaly") for name in examples.classes]
        self.register_buffer("normal", torch.tensor(normal).float(), persistent=False)

    def loss(self, waveforms: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of the transforms of normal clips."""
        kinds = randint(len(TRANSFORMS), len(waveforms)).to(waveforms.device)
        done = F.one_hot(kinds, len(TRANSFORMS)).to(waveforms.dtype)
        weighted = torch.cat([done, (targets @ self.normal)[:, None]], dim=1)
        sounds, weighted = mixup(transform(waveforms, kinds), weighted, self.settings.mixup)
        losses = self.head(self.network(sounds), weighted[:, :-1])
        return (weighted[:, -1] * losses).mean()


@dataclass(eq=False, repr=False)
class IBMConfidence(Discriminative):
    """Two classifiers that are confident of normal sounds: of the machine, and of the transform.

    Inoue et al., "Detection of anomalous sounds for machine condition monitoring using
    classification confidence" (DCASE 2020 workshop). A clip's score is one minus the probability
    of its machine's class, and of being untransformed, averaged.

    Deviations: only the abstract was available. Networks, transforms and training are inferred, and
    so is the plain average of probabilities, for the abstract's "probability aggregation".

    Args:
        width: Factor on the networks' channels.
        training: The learning rate falls to a tenth; see ``classifier.Training``.
    """

    networks = 2
    # 2: the second classifier is not trained on anomalies. 3: draws do not depend on the number of
    # processes.
    version: ClassVar[int] = 3

    width: float = 1.0
    training: Training = Training(classes="machine+section", final_rate=0.1)

    def classifier(self, number: int, n_classes: int) -> Classifier:
        """Return the classifier of machines, or that of transforms."""
        kind, size = (Transformed, len(TRANSFORMS)) if number else (Classifier, n_classes)
        return kind(
            OneChannel(self.width),
            Softmax(128, size),
            self.training,
        )

    def machine_classes(self, number: int, clips: Clips, classes: Sequence[str]) -> np.ndarray:
        """Return the machine's classes, or that of untransformed clips."""
        if number:
            return np.array([name == "none" for name in TRANSFORMS])
        return super().machine_classes(number, clips, classes)
