"""Networks that classify recordings by machine, section, attributes and domain.

A ``Classifier`` is a network, the head that it is trained with, and the settings of its training.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import lightning as L
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.data.names import require_known
from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.networks.augment import mixup
from fsasd.detectors.networks.heads import Head
from fsasd.detectors.networks.shares import GlobalBatches, Share, seed_step
from fsasd.detectors.networks.training import NetworkTraining, fit

PARTS = ("network.", "head.")
"""How the names of the arrays begin that are saved."""

CLASS_FIELDS = ("machine", "section", "attributes", "domain")


@dataclass(frozen=True)
class Training(NetworkTraining):
    """Settings of the training of a classifier, beside those of any network.

    Args:
        epochs, batch_size, learning_rate, seed: See ``NetworkTraining``.
        classes: What defines a class: machine, section, attributes, domain, joined by ``+``.
        seconds: Length of the network's input; shorter clips are repeated.
        final_rate: Share of the learning rate at the end of the cosine schedule; 1 keeps it
            constant.
        weight_decay: Of Adam, a penalty on squared weights.
        mixup: Probability of an example to be mixed with another.
        outlier_exposure: Whether clips with label ``anomaly`` that ``prepare`` is given are
            trained on, as further classes.
    """

    epochs: int = 50
    batch_size: int = 64
    classes: str = "machine+section+attributes+domain"
    seconds: float = 10.0
    final_rate: float = 1.0
    weight_decay: float = 0.0
    mixup: float = 0.0
    outlier_exposure: bool = False


def class_name(clip: Clip, by: str) -> str:
    """Return the name of a clip's class.

    Args:
        clip: A recording; anomalies have further classes.
        by: What defines a class, joined by ``+``: machine, section, attributes, domain.

    Raises:
        MetadataError: ``by`` names something else.

    >>> from fsasd.data.metadata import read_name
    >>> clip = read_name("fan/train/section_00_source_train_normal_0000_m-n_W.wav")
    >>> class_name(clip, "machine+section"), class_name(clip, "machine+attributes+domain")
    ('fan|00', 'fan|m-n=W|source')
    """
    fields = by.split("+")
    require_known(fields, CLASS_FIELDS, "parts of a class")
    values = {
        "machine": clip.machine,
        "section": clip.section or "00",
        "domain": clip.domain or "source",
        "attributes": ",".join(f"{k}={v}" for k, v in sorted(clip.attributes.items()))
        or clip.raw_label,
    }
    return "|".join([values[field] for field in fields] + ["anomaly"] * (clip.label == "anomaly"))


def fixed_length(waveform: np.ndarray, samples: int, start: float = 0.0) -> np.ndarray:
    """Return ``samples`` of a waveform: cropped or repeated, never padded with silence.

    Args:
        waveform: (n,).
        samples: Number to return.
        start: Where to crop, as a share of the samples that are dropped.

    >>> fixed_length(np.arange(3), 5).tolist(), fixed_length(np.arange(9), 3, start=0.5).tolist()
    ([0, 1, 2, 0, 1], [3, 4, 5])
    """
    repeated = np.tile(waveform, -(-samples // len(waveform)))
    first = int(start * (len(repeated) - samples + 1))
    return np.ascontiguousarray(repeated[first : first + samples])


class Recordings(Dataset[tuple[torch.Tensor, int]]):
    """Waveforms of one length with the indices of their classes, read when indexed.

    An index is a clip's number and ``start`` of ``fixed_length``.

    Args:
        clips: The recordings.
        by: What defines their classes (see ``class_name``).
        seconds: Length of the examples.

    Attributes:
        classes: Names in the order of their indices.

    Raises:
        ValueError: All clips are of one class.
    """

    def __init__(self, clips: Clips, by: str, seconds: float) -> None:
        names = [class_name(clip, by) for clip in clips]
        self.classes = sorted(set(names))
        if len(self.classes) < 2:
            only = f" of class '{self.classes[0]}' only" if names else ""
            raise ValueError(
                f"expected clips of at least 2 classes to train a classifier on (classes={by}), "
                f"found {len(clips)} clips{only}: give prepare() clips of several machines, "
                f"or set classes to more of {'+'.join(CLASS_FIELDS)}"
            )
        numbers = {name: i for i, name in enumerate(self.classes)}
        self.clips = clips
        self.labels = [numbers[name] for name in names]
        self.samples = round(seconds * SAMPLE_RATE)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, item: tuple[int, float]) -> tuple[torch.Tensor, int]:
        index, start = item
        waveform = self.clips.cache.read(self.clips[index])
        return torch.from_numpy(fixed_length(waveform, self.samples, start)), self.labels[index]


class RandomCuts(GlobalBatches):
    """A process's share of random batches: clips, and where to crop each.

    Both are determined by seed and epoch, also in a resumed run.
    """

    def __iter__(self) -> Iterator[tuple[int, float]]:  # type: ignore[override]
        cuts = np.random.default_rng([self.seed, self.epoch, 1]).random(self.count)
        return self.remaining(list(zip(self.order().tolist(), cuts.tolist(), strict=True)))


class Classifier(L.LightningModule):
    """A network, its classification head, and how they are trained.

    Subclasses override ``loss``; their further submodules are used in training only and not saved.

    Args:
        network: Waveforms (batch, samples) -> embeddings (batch, dim).
        head: Embeddings -> losses.
        training: Settings.
    """

    def __init__(self, network: nn.Module, head: Head, training: Training) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.settings = training

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return (batch, dim) embeddings."""
        return self.network(waveforms)

    def loss(self, waveforms: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch: waveforms (batch, samples), targets (batch, classes)."""
        waveforms, targets = mixup(waveforms, targets, self.settings.mixup)
        return self.head(self.network(waveforms), targets).mean()

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        waveforms, labels = batch
        targets = F.one_hot(labels, len(self.examples.classes)).to(waveforms.dtype)
        loss = self.loss(waveforms, targets)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(labels))
        return loss

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        rate, decay = self.settings.learning_rate, self.settings.weight_decay
        optimizer = torch.optim.Adam(trained, rate, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer,
            max(self.trainer.max_epochs or 1, 1),
            eta_min=self.settings.final_rate * rate,
        )
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def weights(self) -> dict[str, np.ndarray]:
        """Return the trained arrays of network and head, by name."""
        return {
            name: tensor.detach().cpu().numpy()
            for name, tensor in self.state_dict().items()
            if name.startswith(PARTS)
        }

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Load the ``weights`` of an equal classifier.

        Raises:
            ValueError: They are of another network.
        """
        if differ := sorted(set(weights) ^ set(self.weights())):
            raise ValueError(
                f"expected the weights of {type(self.network).__name__}, and "
                f"{', '.join(differ[:3])} are in one of the two only"
            )
        self.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)

    def set_examples(self, examples: Recordings, seed: int) -> None:
        """Set the training examples, and the seed of their order."""
        self.examples = examples
        self.seed = seed

    def train_dataloader(self) -> DataLoader:
        """Return this process's share of the batches, in an order determined by seed and epoch."""
        share = Share(self.trainer.world_size, self.trainer.global_rank)
        size = self.settings.batch_size
        sampler = RandomCuts(len(self.examples), size, share, self.seed, self.trainer)
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        workers = min(8, joblib.cpu_count() // share.ranks) if on_gpu else 0
        return DataLoader(
            self.examples,
            len(sampler.places),
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=on_gpu,
            generator=torch.Generator(),
        )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step, so that a resumed run draws the same mixtures and masks."""
        share = Share(self.trainer.world_size, self.trainer.global_rank)
        seed_step(self.seed, self.global_step, share)


def train(classifier: Classifier, folder: Path, trainer: Mapping[str, Any] | None = None) -> None:
    """Train a classifier, resuming from the folder's last checkpoint.

    Args:
        classifier: With its examples (``set_examples``).
        folder: Of checkpoints, among them ``last.ckpt``.
        trainer: Where to train: arguments of ``lightning.Trainer`` such as ``devices``.
    """
    settings, where = classifier.settings, "representation.training"
    fit(
        classifier,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        examples=len(classifier.examples),
        trainer=trainer,
        folder=folder,
        where=where,
        lower=f"{where}.batch_size (now {settings.batch_size}) or {where}.seconds; "
        "trainer.precision=bf16-mixed",
    )


class TwoStage(Classifier, abc.ABC):
    """A classifier that is trained with another loss first.

    Args:
        network, head, training: See ``Classifier``.
        first_epochs: Epochs with the first loss.
    """

    def __init__(
        self, network: nn.Module, head: Head, training: Training, first_epochs: int
    ) -> None:
        super().__init__(network, head, training)
        self.first_epochs = first_epochs

    @abc.abstractmethod
    def first_loss(self, embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch in the first stage."""

    def loss(self, waveforms: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of the current epoch's stage."""
        waveforms, targets = mixup(waveforms, targets, self.settings.mixup)
        embeddings = self.network(waveforms)
        first = float(self.current_epoch < self.first_epochs)
        # Both, one of them times 0: DDP waits for the gradients of all weights.
        losses = self.first_loss(embeddings, targets), self.head(embeddings, targets).mean()
        return first * losses[0] + (1 - first) * losses[1]
