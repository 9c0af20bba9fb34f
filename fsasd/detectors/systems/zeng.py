"""Zeng: a MobileFaceNet on high-passed log-mels, trained on machines, then on their states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.networks.backbones import LogMelSpectrogram, MobileFaceNet
from fsasd.detectors.networks.classifier import Classifier, Recordings, Training, TwoStage
from fsasd.detectors.networks.discriminative import Discriminative
from fsasd.detectors.networks.heads import ArcFace


class HighPassed(nn.Module):
    """A MobileFaceNet on log-mels of high-passed waveforms.

    Args:
        dim: Of the embeddings.
        width: Factor on the MobileFaceNet's channels.
        hz: Cut-off frequency.
    """

    def __init__(self, dim: int, width: float, hz: float) -> None:
        super().__init__()
        self.hz = hz
        self.log_mel = LogMelSpectrogram()
        self.mobilefacenet = MobileFaceNet(1, dim, width)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return (batch, dim)."""
        return self.mobilefacenet(self.log_mel(high_pass(waveforms, self.hz)).unsqueeze(1))


def high_pass(waveforms: torch.Tensor, hz: float) -> torch.Tensor:
    """Return waveforms (batch, samples) without frequencies below a cut-off.

    >>> tone = torch.sin(2 * torch.pi * 100 * torch.arange(16_000) / 16_000)[None]
    >>> bool(high_pass(tone, 200.0).abs().max() < 1e-4), bool(high_pass(tone, 50.0).max() > 0.99)
    (True, True)
    """
    # In single precision, rounding is left below the cut-off: it moves the lowest mel band of ten
    # seconds by 0.3 dB. Apple's devices have no other.
    precise = torch.float32 if waveforms.device.type == "mps" else torch.float64
    with torch.autocast(waveforms.device.type, enabled=False):
        spectrum = torch.fft.rfft(waveforms.to(precise))
        frequencies = torch.fft.rfftfreq(waveforms.shape[1], 1 / SAMPLE_RATE)
        passed = (frequencies >= hz).to(waveforms.device)
        return torch.fft.irfft(spectrum * passed, n=waveforms.shape[1]).float()


class MachinesFirst(TwoStage):
    """A classifier of machines first, then of all classes."""

    head: ArcFace
    machine: torch.Tensor

    def set_examples(self, examples: Recordings, seed: int) -> None:
        """Set the examples, and which classes belong to one machine."""
        super().set_examples(examples, seed)
        machine_of = {
            label: clip.machine for clip, label in zip(examples.clips, examples.labels, strict=True)
        }
        machines = sorted(set(machine_of.values()))
        members = [machines.index(machine_of[i]) for i in range(len(examples.classes))]
        self.register_buffer("machine", torch.eye(len(machines))[members], persistent=False)
        dim = self.head.centres.shape[2]
        self.machines = ArcFace(dim, len(machines), self.head.margin, self.head.scale)

    def first_loss(self, embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return ArcFace's loss of the machines."""
        return self.machines(embeddings, targets @ self.machine).mean()


@dataclass(eq=False, repr=False)
class Zeng(Discriminative):
    """A MobileFaceNet that was trained to classify machines first, then their states.

    The system's score is the Mahalanobis, or cosine, distance of its embeddings.

    Deviations: only notes on the system were available (high-pass, mel, MobileFaceNet, a machine
    classifier that is trained on all machines, then per machine; Mahalanobis or cosine). Training
    "per machine" is one network here, for all machines, that is trained further to classify
    sections, attributes and domains. Cut-off, losses and the covariance's shrinkage are inferred.

    Args:
        high_pass: Hz.
        width: Factor on the network's channels.
        dim: Of the embeddings.
        first_epochs: Of the epochs, those that classify machines.
        margin: ArcFace's, radians.
        scale: ArcFace's.
        training: The learning rate falls to a tenth; see ``classifier.Training``.
    """

    # 2: the first stage has the same scale. 3: draws do not depend on the number of processes. 4:
    # the high-pass computes in double precision.
    version: ClassVar[int] = 4

    high_pass: float = 200.0
    width: float = 1.0
    dim: int = 128
    first_epochs: int = 25
    margin: float = 0.5
    scale: float = 30.0
    training: Training = Training(final_rate=0.1)

    def classifier(self, number: int, n_classes: int) -> Classifier:
        """Return the network, trained in two stages."""
        return MachinesFirst(
            HighPassed(self.dim, self.width, self.high_pass),
            ArcFace(self.dim, n_classes, self.margin, self.scale),
            self.training,
            self.first_epochs,
        )
