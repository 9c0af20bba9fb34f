"""A contrastive masked autoencoder: reconstruction error and distance to normal clips.

After Zahedi et al., "Regularized contrastive masked autoencoder model for machinery anomaly
detection using diffusion-based data augmentation" (Algorithms 16(9), 2023), of which the abstract
was available.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from fsasd.data.clips import Clips
from fsasd.data.log_mel import LogMel
from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.base import Detector, Params, TooFewClipsError
from fsasd.detectors.networks.classifier import class_name
from fsasd.detectors.networks.heads import supervised_contrastive
from fsasd.detectors.networks.masked import MaskedAutoencoder, masked_error
from fsasd.detectors.networks.shares import gathered
from fsasd.detectors.networks.trained_networks import (
    CHECKPOINTS,
    KeptNetworks,
    TrainedNetworks,
    load_networks,
    require_trained,
)
from fsasd.detectors.networks.training import NetworkTraining, arrays, train, with_arrays
from fsasd.detectors.scoring.bank import Bank
from fsasd.runtime.ranks import rank
from fsasd.settings.objects import components

VERSION = 4
"""Version of the training, raised when the same spec gives another network."""


@dataclass(frozen=True)
class Image:
    """A front end: the first frames of a clip's log-mel, a fixed number of them.

    >>> Image(32)(np.zeros(3000, np.float32)).shape
    (128, 32)
    """

    frames: int

    @property
    def max_seconds(self) -> float:
        """Clips are decoded up to here."""
        return (self.frames + 1) * 512 / SAMPLE_RATE

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return (128, frames); a shorter clip's frames are repeated."""
        log_mel = LogMel.twfr(None)(waveform[: round(self.max_seconds * SAMPLE_RATE)])
        return np.resize(log_mel.T, (self.frames, log_mel.shape[0])).T


def collapse(embeddings: torch.Tensor) -> torch.Tensor:
    """Return a penalty for embeddings of low variance or with correlated dimensions.

    The variance and covariance terms of Bardes et al., "VICReg" (ICLR 2022).

    >>> spread = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> collapse(2 * spread) < collapse(torch.zeros(4, 2))
    tensor(True)
    """
    centred = embeddings - embeddings.mean(dim=0)
    count, dim = embeddings.shape
    covariance = centred.T @ centred / max(count - 1, 1)
    deviation = (covariance.diagonal() + 1e-4).sqrt()
    between = covariance - torch.diag(covariance.diagonal())
    return F.relu(1 - deviation).mean() + between.square().sum() / dim


class Images(Dataset):
    """Spectrograms and the indices of their classes, in batches."""

    def __init__(self, clips: Clips, front_end: Image) -> None:
        names = [class_name(clip, "machine+section+attributes") for clip in clips]
        numbers = {name: number for number, name in enumerate(sorted(set(names)))}
        self.clips = clips
        self.front_end = front_end
        self.labels = torch.tensor([numbers[name] for name in names])

    def __len__(self) -> int:
        return len(self.clips)

    def __getitems__(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (batch, bands, frames) and (batch,)."""
        images = list(self.clips[list(indices)].features(self.front_end))
        return torch.from_numpy(np.stack(images)), self.labels[list(indices)]


class CMAETraining(L.LightningModule):
    """Reconstruction of masked patches, and a contrastive loss of recordings, later of classes.

    Args:
        network: The autoencoder.
        visible: Share of visible patches.
        weight: Of the contrastive loss and of ``collapse``.
        classes_from: The epoch from which positives are clips of one class, not only views of one
            recording.
        learning_rate: Of AdamW.
        temperature: Of the contrastive loss.
    """

    def __init__(
        self,
        network: MaskedAutoencoder,
        *,
        visible: float,
        weight: float,
        classes_from: int,
        learning_rate: float,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.network = network
        dim = network.embed.out_features
        self.project = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 64))
        self.visible = visible
        self.weight = weight
        self.classes_from = classes_from
        self.learning_rate = learning_rate
        self.temperature = temperature

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        images, labels = batch
        errors, embeddings = [], []
        for _ in range(2):
            # Views differ in their shift over time and in the masked patches.
            view = images.roll(int(torch.randint(images.shape[2], ())), dims=2)
            visible = self.network.random_visible(len(view), self.visible, view.device)
            states, reconstructed = self.network(view, visible)
            patches = self.network.patches(view)
            errors.append(masked_error(reconstructed, patches, visible).mean())
            embeddings.append(states.mean(dim=1))
        # The contrastive loss is that of the batch of all processes.
        labels, both = gathered(labels).repeat(2), torch.cat([gathered(e) for e in embeddings])
        projected = torch.cat([gathered(self.project(e)) for e in embeddings])
        if self.current_epoch < self.classes_from:
            # With one label per recording it is the loss of SimCLR.
            labels = torch.arange(len(labels) // 2, device=labels.device).repeat(2)
        contrast = supervised_contrastive(projected, F.one_hot(labels).float(), self.temperature)
        return sum(errors) / 2 + self.weight * (contrast + collapse(both))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), self.learning_rate)


class CMAE(Detector):
    """Reconstruction error of masked patches, and distance of the embedding to normal clips.

    A masked autoencoder is trained on all machines' normal clips (``prepare``), first with a
    contrastive loss of recordings, then of classes (machine and attributes). The score is a
    weighted sum of two standardised values, with mean and deviation of the machine's normal clips:
    the mean squared error of all patches, each reconstructed while most patches are masked; and the
    cosine distance of the embedding to the nearest normal clip.

    The paper augments with clips of AudioLDM. With ``synthetic_normals`` the stage ``train`` gives
    ``prepare`` the generator's normal clips beside the real ones.

    It is a detector and no representation that others score, because half of its score is how well
    a clip is reconstructed, which is no distance between embeddings.

    Deviations: network, weights of the losses and score are inferred from the abstract.

    Args:
        reconstruction: Weight of the reconstruction error in the score, in [0, 1].
        frames: Of a spectrogram, 32 ms each; a multiple of ``patch``.
        patch: Bands and frames of a patch.
        dim: Of the encoder.
        depth: Blocks of the encoder.
        heads: Attention heads of a block.
        visible: Share of visible patches in training.
        weight: Of the contrastive loss.
        class_epochs: Passes over the clips with the contrastive loss of classes, after those of
            ``training`` with that of recordings.
        synthetic_normals: Whether to train on synthetic normal clips, too.
        training: Settings of the training, by AdamW.
    """

    network_attributes: ClassVar[frozenset[str]] = frozenset({"network_"})
    trains_network: ClassVar[bool] = True
    score_params: ClassVar[frozenset[str]] = frozenset({"reconstruction"})

    def __init__(
        self,
        reconstruction: float = 0.5,
        frames: int = 304,
        patch: int = 16,
        dim: int = 192,
        depth: int = 6,
        heads: int = 4,
        visible: float = 0.25,
        weight: float = 0.1,
        class_epochs: int = 20,
        synthetic_normals: bool = False,
        training: NetworkTraining = NetworkTraining(50, 64, 5e-4),
    ) -> None:
        self.reconstruction = reconstruction
        self.frames = frames
        self.patch = patch
        self.dim = dim
        self.depth = depth
        self.heads = heads
        self.visible = visible
        self.weight = weight
        self.class_epochs = class_epochs
        self.synthetic_normals = synthetic_normals
        self.training = training

    def network_spec(self) -> dict[str, Any]:
        """Return class, version and the settings that the network depends on."""
        settings = {
            name: value
            for name, value in self.get_params().items()
            if name not in self.score_params and not components(value)
        }
        return {
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            "version": VERSION,
            **settings,
        }

    def fitted_networks(self) -> Mapping[int, Any]:
        """Return the arrays of its network."""
        check_is_fitted(self)
        return {0: self.network_}

    def synthetic_labels(self) -> frozenset[str]:
        """Return ``normal`` with ``synthetic_normals``."""
        return frozenset({"normal"} if self.synthetic_normals else ())

    def prepare(self, clips: Clips, folder: Path, trainer: Params | None = None) -> Self:
        """Train the network on normal clips of all machines, unless the folder holds it.

        An interrupted training is resumed from the folder's last checkpoint.

        Raises:
            ValueError: The folder holds another network.
        """
        folder = Path(folder)
        trained = TrainedNetworks.read(folder)
        if trained:
            trained.require_spec(self.network_spec())
        else:
            normals = clips[[clip.label != "anomaly" for clip in clips]]
            network = self._trained(normals, folder / CHECKPOINTS, trainer)
            if rank() == 0:
                TrainedNetworks(folder, self.network_spec()).with_network(arrays(network))
        self._prepared = folder
        return self

    def fit(self, clips: Clips) -> Self:
        """Fit to one machine's normal clips; without ``prepare``, train the network on them first.

        Raises:
            TooFewClipsError: There are fewer than 2 clips.
            ValueError: The detector is prepared, and settings that the network depends on were
                changed since.
        """
        if len(clips) < 2:
            raise TooFewClipsError(
                f"a clip's distance to the nearest other one needs 2 clips, found {len(clips)}"
            )
        if self._prepared is None:
            with tempfile.TemporaryDirectory() as folder:
                self.network_ = arrays(self._trained(clips, Path(folder), None))
        elif isinstance(self._prepared, KeptNetworks):
            self.network_ = self._prepared.of(self.network_spec())[0]
        else:
            trained = require_trained(self._prepared, self.network_spec())
            (self.network_,) = load_networks(trained.folder, trained.files)
        errors, self.bank_ = self._errors_and_embeddings(clips)
        # The nearest is the clip itself.
        distances = Bank(self.bank_).nearest(self.bank_, 2)[:, 1] / 2
        values = np.stack([errors, distances])
        deviation = values.std(axis=1)
        self.moments_ = np.stack([values.mean(axis=1), np.where(deviation > 0, deviation, 1.0)])
        return self

    def score(self, clips: Clips) -> np.ndarray:
        """Return the weighted sum of both standardised values."""
        check_is_fitted(self)
        errors, points = self._errors_and_embeddings(clips)
        values = np.stack([errors, Bank(self.bank_).nearest(points, 1)[:, 0] / 2])
        error, distance = (values - self.moments_[0][:, None]) / self.moments_[1][:, None]
        return self.reconstruction * error + (1 - self.reconstruction) * distance

    def n_parameters(self) -> int:
        """Return the number of weights of the network and of values in the bank."""
        check_is_fitted(self)
        weights = sum(parameter.numel() for parameter in self._fitted_network().parameters())
        return weights + self.bank_.size

    def _fitted_network(self) -> MaskedAutoencoder:
        return with_arrays(self._network, self.network_)

    def _network(self) -> MaskedAutoencoder:
        return MaskedAutoencoder(
            128,
            self.frames,
            patch=self.patch,
            dim=self.dim,
            depth=self.depth,
            heads=self.heads,
        )

    def _trained(self, clips: Clips, folder: Path, trainer: Params | None) -> MaskedAutoencoder:
        with isolate_rng():
            torch.manual_seed(self.training.seed)
            network = self._network()
            module = CMAETraining(
                network,
                visible=self.visible,
                weight=self.weight,
                classes_from=self.training.epochs,
                learning_rate=self.training.learning_rate,
            )
        images = np.stack(list(clips[: 10 * self.training.batch_size].features(Image(self.frames))))
        network.mean.fill_(float(images.mean()))
        network.spread.fill_(max(float(images.std()), 1e-3))
        train(
            module,
            Images(clips, Image(self.frames)),
            replace(self.training, epochs=self.training.epochs + self.class_epochs),
            trainer=trainer,
            folder=folder,
        )
        return network

    def _errors_and_embeddings(self, clips: Clips) -> tuple[np.ndarray, np.ndarray]:
        """Return (n,) reconstruction errors and (n, dim) embeddings of length 1."""
        network = self._fitted_network()
        turns = network.visible_in_turn(self.visible)
        everything = torch.arange(network.n_patches)[None]
        errors, points = [], []
        with torch.inference_mode():
            for image in clips.features(Image(self.frames)):
                batch = torch.from_numpy(np.ascontiguousarray(image))[None]
                patches = network.patches(batch)
                masked = [masked_error(network(batch, turn)[1], patches, turn) for turn in turns]
                errors.append(torch.cat(masked).double().mean().item())
                states = network.encode(patches, everything).double().mean(dim=1)
                points.append(F.normalize(states, dim=1)[0].numpy())
        return np.array(errors), np.stack(points)
