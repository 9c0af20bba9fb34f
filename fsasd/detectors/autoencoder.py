"""The autoencoder of the DCASE 2023 Task 2 baseline.

Harada et al., "First-shot anomaly sound detection for machine condition monitoring: a domain
generalization baseline" (EUSIPCO 2023), github.com/nttcslab/dcase2023_task2_baseline_ae.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import ClassVar, Literal, Self

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.nn import functional as F

from fsasd.data.clips import Clips
from fsasd.data.log_mel import LogMel
from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.base import Detector
from fsasd.detectors.networks.training import NetworkTraining, arrays, train, with_arrays
from fsasd.detectors.networks.windows import Windows, windows
from fsasd.detectors.scoring.domains import banks


def baseline(sampling_rate: int = SAMPLE_RATE) -> LogMel:
    """Return the baseline's log-mel: librosa's filters, 64 ms every 32 ms, of the whole clip.

    >>> baseline().n_mels, baseline().max_seconds, baseline(48_000).max_hz
    (128, None, 24000.0)
    """
    frames = LogMel.twfr(None, sampling_rate)
    return replace(frames, scale="slaney", norm="slaney", floor=float(np.finfo(float).eps))


class AutoencoderNetwork(L.LightningModule):
    """Four dense layers of 128, a bottleneck of 8, four of 128; batch normalisation and ReLU.

    >>> network = AutoencoderNetwork(640, learning_rate=1e-3)
    >>> sum(parameter.numel() for parameter in network.parameters())
    267928
    """

    def __init__(self, size: int, learning_rate: float) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        sizes = [size, 128, 128, 128, 128, 8, 128, 128, 128, 128]
        layers: list[nn.Module] = []
        for one, other in pairwise(sizes):
            layers += [
                nn.Linear(one, other),
                nn.BatchNorm1d(other, eps=1e-3, momentum=0.01),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction of (n, frames, bands)."""
        return self.layers(x.flatten(1)).reshape(x.shape)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        return F.mse_loss(self(batch), batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.learning_rate)


class Autoencoder(Detector):
    """Reconstruction error of an autoencoder of windows of five frames, trained on normal clips.

    With ``scored_by="mse"`` the score is the mean squared residual. With ``mahalanobis`` it is the
    squared Mahalanobis distance of the residual frames, by their covariance in the source or in
    the target domain, whichever distance is smaller ("selective"). The official code takes it of
    the clip's mean residual, d' S^-1 d, where the paper's text suggests the mean over frames;
    ``official`` follows the code. ``fit`` trains the network, on one machine and in one process:
    settings of the trainer do not apply to it.

    Deviations: trained on all windows, where the original keeps a tenth for a loss that it prints;
    residuals are centred over a domain instead of over a batch, for the covariance.

    Args:
        scored_by: ``mse`` or ``mahalanobis``.
        official: Take the distance of the mean residual, not the mean distance.
        frames: Of a window.
        sampling_rate: At which recordings are read, in Hz; mel bands reach up to half of it.
        training: Settings of the training, of which a batch is of windows; by Adam.
    """

    trains_network: ClassVar[bool] = True
    score_params: ClassVar[frozenset[str]] = frozenset({"scored_by", "official"})
    trained_by_fit: ClassVar[bool] = True

    def __init__(
        self,
        scored_by: Literal["mse", "mahalanobis"] = "mse",
        official: bool = True,
        frames: int = 5,
        sampling_rate: int = SAMPLE_RATE,
        training: NetworkTraining = NetworkTraining(),
    ) -> None:
        self.scored_by = scored_by
        self.official = official
        self.frames = frames
        self.sampling_rate = sampling_rate
        self.training = training

    def fit(self, clips: Clips) -> Self:
        """Train the network, then learn the residuals' covariance in each domain.

        Raises:
            TooFewClipsError: There are no clips.
            ValueError: ``scored_by`` is neither ``mse`` nor ``mahalanobis``.
        """
        self._require_known_score()
        front_end = baseline(self.sampling_rate)
        examples = Windows(clips, front_end, self.frames)
        with isolate_rng():
            torch.manual_seed(self.training.seed)
            network = self._network()
        train(network, examples, self.training)
        self.network_ = arrays(network)
        bank = banks(clips, "separate")
        # Also for mse: scored_by may be set after the fit.
        spreads = [_Spread() for _ in range(bank.max() + 1)]
        for number, spectrogram in zip(bank, clips.features(front_end), strict=True):
            spreads[number].add(self._residual(network, spectrogram).double().numpy())
        self.covariance_ = np.stack([spread.covariance() for spread in spreads])
        return self

    def score(self, clips: Clips) -> np.ndarray:
        """Return mean squared residuals, or selective squared Mahalanobis distances.

        Raises:
            ValueError: A domain has too few frames for a covariance that can be inverted.
        """
        check_is_fitted(self)
        self._require_known_score()
        network = self._fitted_network()
        front_end = baseline(self.sampling_rate)
        residuals = (self._residual(network, x) for x in clips.features(front_end))
        if self.scored_by == "mse":
            return np.array([float(r.double().square().mean()) for r in residuals])
        factors = self._inverse_factors()
        return np.array([self._mahalanobis(r.double().numpy(), factors) for r in residuals])

    def n_parameters(self) -> int:
        """Return the number of weights of the network."""
        check_is_fitted(self)
        return sum(parameter.numel() for parameter in self._fitted_network().parameters())

    def _fitted_network(self) -> AutoencoderNetwork:
        return with_arrays(self._network, self.network_)

    def _network(self) -> AutoencoderNetwork:
        return AutoencoderNetwork(self.frames * baseline().n_mels, self.training.learning_rate)

    def _residual(self, network: nn.Module, spectrogram: np.ndarray) -> torch.Tensor:
        # (windows * frames, bands)
        examples = windows(spectrogram, self.frames)
        with torch.inference_mode():
            return (examples - network(examples)).flatten(0, 1)

    def _mahalanobis(self, residual: np.ndarray, factors: np.ndarray) -> float:
        rows = residual.mean(axis=0, keepdims=True) if self.official else residual
        # (domains, rows, bands)
        return float(np.square(rows @ factors).sum(axis=2).mean(axis=1).min())

    def _inverse_factors(self) -> np.ndarray:
        """Return P with P P' the inverse covariance of each domain."""
        try:
            lower = np.linalg.cholesky(self.covariance_)
        except np.linalg.LinAlgError:
            raise ValueError(
                f"scored_by=mahalanobis inverts the covariance of {self.covariance_.shape[-1]} "
                "bins, and the normal clips of a domain have too few frames for it: use mse"
            ) from None
        return np.linalg.inv(lower).transpose(0, 2, 1)

    def _require_known_score(self) -> None:
        if self.scored_by not in ("mse", "mahalanobis"):
            raise ValueError(f"scored_by '{self.scored_by}': expected 'mse' or 'mahalanobis'")


class _Spread:
    """The covariance of rows that are added in batches, since all rows would fill the memory.

    Chan et al., "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: np.ndarray | float = 0.0
        self.squares: np.ndarray | float = 0.0

    def add(self, rows: np.ndarray) -> None:
        mean = rows.mean(axis=0)
        centred, apart = rows - mean, mean - self.mean
        count = self.count + len(rows)
        between = self.count * len(rows) / count * np.outer(apart, apart)
        self.squares = self.squares + centred.T @ centred + between
        self.mean = self.mean + apart * len(rows) / count
        self.count = count

    def covariance(self) -> np.ndarray:
        return np.asarray(self.squares / max(self.count - 1, 1))
