"""Embeddings that are learned by telling recordings' classes apart, and then are front ends.

Classes come from what is known of the clips: machine, section, attributes, domain. A ``Classifier``
is a network and the head that trains it; an ``Embedding`` is what is left of one or several
classifiers when they are trained: waveform -> embeddings, a front end like any other.
"""

from __future__ import annotations

import abc
import copy
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
from fsasd.detectors.augment import mixup
from fsasd.detectors.heads import Head
from fsasd.detectors.shares import GlobalBatches, Share, seed_step
from fsasd.detectors.training import fit

CLASS_PARTS = ("machine", "section", "attributes", "domain")


def class_name(clip: Clip, by: str) -> str:
    """Return the class of a clip, made of what ``by`` names.

    Args:
        clip: A recording; its label counts too where it is an anomaly.
        by: Parts joined by ``+``: machine, section, attributes, domain.

    Raises:
        MetadataError: A part is not known.

    >>> from fsasd.data.metadata import read_name
    >>> clip = read_name("fan/train/section_00_source_train_normal_0000_m-n_W.wav")
    >>> class_name(clip, "machine+section"), class_name(clip, "machine+attributes+domain")
    ('fan|00', 'fan|m-n=W|source')
    """
    parts = by.split("+")
    require_known(parts, CLASS_PARTS, "parts of a class")
    known = {
        "machine": clip.machine,
        "section": clip.section or "00",
        "domain": clip.domain or "source",
        "attributes": ",".join(f"{k}={v}" for k, v in sorted(clip.attributes.items()))
        or clip.raw_label,
    }
    return "|".join([known[part] for part in parts] + ["anomaly"] * (clip.label == "anomaly"))


def fixed_length(waveform: np.ndarray, samples: int, start: float = 0.0) -> np.ndarray:
    """Return ``samples`` of a waveform: cut, or repeated, never padded with silence.

    Args:
        waveform: (n,).
        samples: How many to return.
        start: Where to begin, as a share of what can be left out.

    >>> fixed_length(np.arange(3), 5).tolist(), fixed_length(np.arange(9), 3, start=0.5).tolist()
    ([0, 1, 2, 0, 1], [3, 4, 5])
    """
    repeated = np.tile(waveform, -(-samples // len(waveform)))
    first = int(start * (len(repeated) - samples + 1))
    return np.ascontiguousarray(repeated[first : first + samples])


class Recordings(Dataset[tuple[torch.Tensor, int]]):
    """Waveforms of one length with the numbers of their classes, read as they are asked for.

    They are indexed by a clip's number and the place to cut it, a share of what can be left out.

    Args:
        clips: The recordings.
        by: What makes their classes (see ``class_name``).
        seconds: Of the examples.

    Attributes:
        classes: Names, sorted; a class's number is its place.

    Raises:
        ValueError: All clips are of one class.
    """

    def __init__(self, clips: Clips, by: str, seconds: float) -> None:
        names = [class_name(clip, by) for clip in clips]
        self.classes = sorted(set(names))
        if len(self.classes) < 2:
            found = f"all of class '{self.classes[0]}'" if names else "none"
            raise ValueError(
                f"a network learns by telling classes apart (classes={by}), and the {len(clips)} "
                f"clips are {found}: give it clips of several machines with prepare(), or let "
                f"what differs between them make classes: some of {'+'.join(CLASS_PARTS)}"
            )
        numbers = {name: i for i, name in enumerate(self.classes)}
        self.clips = clips
        self.labels = [numbers[name] for name in names]
        self.samples = round(seconds * SAMPLE_RATE)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, asked: tuple[int, float]) -> tuple[torch.Tensor, int]:
        index, place = asked
        waveform = self.clips.cache.read(self.clips[index])
        return torch.from_numpy(fixed_length(waveform, self.samples, place)), self.labels[index]


class RandomCuts(GlobalBatches):
    """A process's share of random batches of clips, each with a place to cut it.

    Order and places are fixed by seed and epoch, also in a run that was resumed.
    """

    def __iter__(self) -> Iterator[tuple[int, float]]:  # type: ignore[override]
        cuts = np.random.default_rng([self.seed, self.epoch, 1]).random(self.count)
        return zip(self.own(self.order()).tolist(), self.own(cuts).tolist(), strict=True)


class Classifier(L.LightningModule):
    """A network, the head that trains it, and how it is trained.

    Subclasses override ``loss`` to train otherwise; what only training needs, they hold in further
    submodules, which are not kept.

    Args:
        network: Waveforms (batch, samples) -> embeddings (batch, dim).
        head: Embeddings -> losses.
        learning_rate: Of Adam.
        final_rate: Share of the learning rate that is left at the end of a cosine; 1 for none.
        weight_decay: Of Adam, a penalty on squared weights.
        mixup: Probability of an example to be mixed with another.
    """

    def __init__(
        self,
        network: nn.Module,
        head: Head,
        *,
        learning_rate: float = 1e-3,
        final_rate: float = 1.0,
        weight_decay: float = 0.0,
        mixup: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.learning_rate = learning_rate
        self.final_rate = final_rate
        self.weight_decay = weight_decay
        self.mixup = mixup

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return (batch, dim) embeddings."""
        return self.network(waveforms)

    def loss(self, waveforms: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch: waveforms (batch, samples), targets (batch, classes)."""
        waveforms, targets = mixup(waveforms, targets, self.mixup)
        return self.head(self.network(waveforms), targets).mean()

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        waveforms, labels = batch
        targets = F.one_hot(labels, len(self.examples.classes)).to(waveforms.dtype)
        loss = self.loss(waveforms, targets)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(labels))
        return loss

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer,
            max(self.trainer.max_epochs or 1, 1),
            eta_min=self.final_rate * self.learning_rate,
        )
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def kept(self) -> dict[str, np.ndarray]:
        """Return what is left of it after training: the network's and the head's numbers."""
        return {
            name: tensor.detach().cpu().numpy()
            for name, tensor in self.state_dict().items()
            if name.startswith(("network.", "head."))
        }

    def keep(self, kept: Mapping[str, np.ndarray]) -> None:
        """Take the numbers that another classifier like this one kept.

        Raises:
            ValueError: They are of another network.
        """
        if differ := sorted(set(kept) ^ set(self.kept())):
            raise ValueError(
                f"expected the weights of {type(self.network).__name__}, and "
                f"{', '.join(differ[:3])} are in one of the two only"
            )
        self.load_state_dict({k: torch.from_numpy(v) for k, v in kept.items()}, strict=False)

    # What is trained on. It is here because the trainer knows how many processes share it.

    def hear(self, examples: Recordings, batch_size: int, seed: int) -> None:
        """Set the examples, how many make a step of all processes, and the seed of their order."""
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed

    def train_dataloader(self) -> DataLoader:
        """Return this process's share of the batches, in an order fixed by seed and epoch."""
        share = Share(self.trainer.world_size, self.trainer.global_rank)
        sampler = RandomCuts(len(self.examples), self.batch_size, share, self.seed)
        # Lightning does so, too, but after the first epoch of a resumed run has begun.
        sampler.set_epoch(self.current_epoch)
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        workers = min(8, (os.cpu_count() or 1) // share.ranks) if on_gpu else 0
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
        """Let a resumed run draw the mixtures and masks of one that was not cut."""
        share = Share(self.trainer.world_size, self.trainer.global_rank)
        seed_step(self.seed, self.global_step, share)


def train(
    classifier: Classifier, folder: Path, epochs: int, trainer: Mapping[str, Any] | None = None
) -> None:
    """Train a classifier; goes on from the last checkpoint that the folder holds.

    Args:
        classifier: Has been given its examples (``hear``).
        folder: Gets checkpoints, ``last.ckpt`` among them.
        epochs: Passes over the examples.
        trainer: Where to train: arguments of ``lightning.Trainer`` such as ``devices``.
    """
    fit(
        classifier,
        epochs=epochs,
        batch_size=classifier.batch_size,
        examples=len(classifier.examples),
        trainer=trainer,
        folder=folder,
        lower=f"detector.batch_size (now {classifier.batch_size}) or detector.seconds; "
        "trainer.precision=bf16-mixed",
    )


class TwoStage(Classifier, abc.ABC):
    """A classifier whose embeddings another loss shapes first.

    Args:
        first_epochs: How long the first loss is used.
        options: See ``Classifier``.
    """

    def __init__(self, network: nn.Module, head: Head, first_epochs: int, **options: Any) -> None:
        super().__init__(network, head, **options)
        self.first_epochs = first_epochs

    @abc.abstractmethod
    def first_loss(self, embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the first stage's loss of a batch."""

    def loss(self, waveforms: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of the stage that the present epoch is in."""
        embeddings = self.network(waveforms)
        first = float(self.current_epoch < self.first_epochs)
        # Both, one of them times nothing: several processes wait for the gradients of all weights.
        losses = self.first_loss(embeddings, targets), self.head(embeddings, targets).mean()
        return first * losses[0] + (1 - first) * losses[1]


class Embedding:
    """A front end: waveform -> (members, dim) embeddings by trained classifiers.

    Args:
        members: Trained classifiers.
        classes: Names of the classes that they tell apart, in the order of their logits.
        seconds: Longer clips are heard up to there, shorter ones are repeated.
        settings: What else, beside the weights, tells it from others.
    """

    def __init__(
        self,
        members: Sequence[Classifier],
        classes: Sequence[str],
        seconds: float,
        settings: str = "",
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.members = [member.eval().requires_grad_(False) for member in members]
        self.classes = list(classes)
        self.seconds = seconds
        self._name = _digest(self.members, settings)
        for member in self.members:
            member.to(self.device)
        # What a head is sure of to seven digits, it is not equally sure of.
        self.heads = [copy.deepcopy(member.head).double() for member in self.members]

    def __repr__(self) -> str:
        return f"Embedding({self._name}, {self.seconds})"

    @property
    def max_seconds(self) -> float:
        """What lies behind is not decoded."""
        return self.seconds

    @torch.inference_mode()
    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return (members, dim) float32 of a (samples,) waveform."""
        heard = fixed_length(waveform, round(self.seconds * SAMPLE_RATE))
        batch = torch.from_numpy(heard).to(self.device, torch.float32)[None]
        return np.stack([member(batch)[0].float().cpu().numpy() for member in self.members])

    @torch.inference_mode()
    def surprise(self, member: int, embeddings: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Return (n,) -log p(own classes), as a member's head has it.

        Args:
            member: Number of the classifier.
            embeddings: (n, dim) by it.
            own: (classes,) booleans, which classes are the clips' own.
        """
        points, mask = (
            torch.from_numpy(array).to(self.device, torch.float64) for array in (embeddings, own)
        )
        return self.heads[member].surprise(points, mask).cpu().numpy()

    def n_parameters(self) -> int:
        """Return how many numbers the networks hold, without the heads."""
        return sum(p.numel() for member in self.members for p in member.network.parameters())


def _digest(members: Sequence[Classifier], settings: str) -> str:
    digest = hashlib.sha256(settings.encode())
    for member in members:
        digest.update(repr(member.network).encode())
        for name, tensor in sorted(member.state_dict().items()):
            if name.startswith(("network.", "head.")):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
