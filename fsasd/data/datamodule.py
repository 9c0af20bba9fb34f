"""The data module: clips with captions, those that a generator is trained on, and their batches."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from fsasd.data.audio_files import printable
from fsasd.data.captions import Captions, default_captions
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.draws import BalancedDraws, Draw, InOrder, process_batch
from fsasd.data.joining import machine_values
from fsasd.data.manifest import read_folders, read_manifest
from fsasd.data.metadata import Clip, read_clips
from fsasd.data.names import (
    MetadataError,
    as_written,
    machine_name,
    require_distinct,
    require_known,
    section_name,
)
from fsasd.data.progress import recount
from fsasd.data.pseudo_attributes import STATE
from fsasd.data.simulate import FACTORY_VERSION, write_factory
from fsasd.store.key import Description
from fsasd.store.store import Store

log = logging.getLogger(__name__)

_FIELDS = ("machine", "section", "split", "domain", "label")


class FirstShotDataModule(L.LightningDataModule):
    """The recordings of a first-shot task, with their captions.

    Trained on are the paper's A = {A_RN, A_RA, A_TN}: the normal and anomalous clips of reference
    machines, train and test, and the normal training clips of target machines. No test clip of a
    target machine is ever trained on, labelled or not.

    Args:
        clips: Of all machines, as from ``read_clips``.
        captions: Clip to caption.
        batch_size: Examples of an optimizer step, over all devices and accumulated batches
            together; each process loads its share.
        val_share: Share of the captioned clips of each machine and label kept for validation, from
            0 to below 1.
        balance: Machines are drawn with probability proportional to (clips ** (1 - balance)): 0
            draws every clip alike, 1 every machine alike.
        hold_out: Clips that no generator is trained on: mappings of fields or attributes to values.
        num_workers: Processes that load training examples.
        cache: Folder of the feature cache.
        channel: What to take of recordings with several channels (see ``recording.read``).
        types: Machine to its type; otherwise the clips' (a manifest's column ``type``), or
            the machine's name, which is its type in DCASE's data.
        sites: Machine to where it stands; otherwise the clips', or unknown.
        pseudo_attributes: Gives training clips without attributes some (``PseudoAttributes``).
        seed: Of the split and of the order.

    Raises:
        MetadataError: A machine cannot be called so, two are easily taken for each other, a machine
            is both reference and target, its caption names an attribute that it does not have, or
            a rule of ``hold_out`` fits no clip, ``types`` or ``sites`` name an unknown machine.
        ValueError: ``batch_size`` or ``val_share`` is out of range.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        captions: Captions | None = None,
        *,
        batch_size: int = 16,
        val_share: float = 0.1,
        balance: float = 0.5,
        hold_out: Sequence[Mapping[str, str]] = (),
        num_workers: int = 0,
        cache: str | Path | None = None,
        channel: int | str | None = None,
        types: Mapping[str, str] | None = None,
        sites: Mapping[str, str] | None = None,
        pseudo_attributes: Callable[[Clips], Clips] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.cache = FeatureCache(cache, channel)
        self.clips = Clips(clips, self.cache)
        if pseudo_attributes is not None:
            self.clips = pseudo_attributes(self.clips)
        self.captions = captions or default_captions()
        self.captions.check(self.clips.kinds)
        machines = {kind.machine for kind in self.clips.kinds}
        require_distinct(machines, "clips")
        for machine in machines:
            machine_name(machine)
        if both := sorted(set(self.references) & set(self.targets)):
            raise MetadataError(
                f"{', '.join(both)}: both reference (dev_data) and target (eval_data). DCASE 2020 "
                "to 2022 have the same machine types in both: use data=dcase2020 (2021, 2022), or "
                "set data.references=[...] and data.targets=[...]"
            )
        if batch_size < 1 or not 0 <= val_share < 1:
            raise ValueError(
                "expected a batch_size of 1 or more and a val_share from 0 to below 1, found "
                f"{batch_size} and {val_share}"
            )
        self.batch_size = batch_size
        self.val_share = val_share
        self.balance = balance
        self.hold_out = [dict(rule) for rule in hold_out]
        for rule in self.hold_out:
            if not any(_matches(kind, rule) for kind in self.clips.kinds):
                raise MetadataError(f"hold_out: no clip is {rule}, so nothing is held out")
        self.num_workers = num_workers
        self.types: dict[str, str] = {m: m for m in sorted(machines)} | self._values("type", types)
        """Machine to its type."""
        self.sites: dict[str, str] = self._values("site", sites)
        """Machine to where it stands; machines of which that is unknown are not in it."""
        self.seed = seed
        self._accumulated: int | None = None

    @classmethod
    def from_dcase(
        cls,
        root: str | Path | Sequence[str | Path],
        machines: Sequence[str] | None = None,
        ground_truth: str | Path | None = None,
        references: Sequence[str] | None = None,
        targets: Sequence[str] | None = None,
        label_forms: Mapping[str, str] | None = None,
        **options: Any,
    ) -> FirstShotDataModule:
        """Read a DCASE data set (see ``metadata.read_clips``).

        Args:
            root: Its folder, or several.
            machines: Machines to read; ``None`` reads all.
            ground_truth: What DCASE's evaluators publish, if it is not in ``root/ground_truth``.
            references: Reference machines. With neither these nor ``targets``, ``dev_data`` holds
                references and ``eval_data`` targets.
            targets: Target machines; one that is also among ``references`` is a target.
            label_forms: Machine to the regular expression of its labels (see ``read_clips``).
            **options: Arguments of the constructor.
        """
        clips = read_clips(
            root,
            machines,
            ground_truth,
            references=references,
            targets=targets,
            label_forms=label_forms,
        )
        return cls(clips, **options)

    @classmethod
    def from_manifest(
        cls,
        manifest: str | Path | Sequence[str | Path],
        targets: Sequence[str] | None = None,
        **options: Any,
    ) -> FirstShotDataModule:
        """Read a table of recordings (see ``manifest.read_manifest``)."""
        return cls(read_manifest(manifest, targets), **options)

    @classmethod
    def from_folder(
        cls,
        root: str | Path | Sequence[str | Path],
        targets: Sequence[str] | None = None,
        **options: Any,
    ) -> FirstShotDataModule:
        """Read folders named after machine, split and label (see ``manifest.read_folders``)."""
        return cls(read_folders(root, targets), **options)

    @classmethod
    def from_factory(
        cls, store: str | Path, factory: Mapping[str, Any], **options: Any
    ) -> FirstShotDataModule:
        """Use a simulated factory, written into the store the first time it is asked for.

        Args:
            store: Folder of the artifact store.
            factory: Arguments of ``simulate.write_factory``.
            options: The constructor's.
        """

        def build(folder: Path) -> None:
            # A build that was killed at its end has left one, of which nobody knows if it is whole.
            shutil.rmtree(folder / "data", ignore_errors=True)
            write_factory(folder / "data", **factory)

        artifact = Store(store).build(Description("factory", FACTORY_VERSION, factory), build)
        return cls(read_clips(artifact / "data"), **options)

    @cached_property
    def captioned(self) -> Clips:
        """The clips that a generator may be trained on, at least one.

        Raises:
            MetadataError: There is none.
        """
        if not self.trainable:
            raise MetadataError("no clip to train a generator on: none is labelled and trainable")
        return self.trainable

    @cached_property
    def trainable(self) -> Clips:
        """The clips that first-shot rules and ``hold_out`` allow for training, maybe none."""
        return self.clips.filter(
            lambda clip: (
                is_trainable(clip) and not any(_matches(clip, rule) for rule in self.hold_out)
            )
        )

    @property
    def references(self) -> list[str]:
        """Machines of which anomalies may be known."""
        return self._machines("reference")

    @property
    def targets(self) -> list[str]:
        """Machines of which only normal clips are known."""
        return self._machines("target")

    def _values(self, field: str, configured: Mapping[str, str] | None) -> dict[str, str]:
        """Return a value for each machine: the configured one, or else that of its clips."""
        kinds = self.clips.kinds
        known = machine_values(self.clips, field) if any(getattr(k, field) for k in kinds) else {}
        machines = {kind.machine for kind in kinds}
        names = as_written(configured or {}, machines, f"machines with a {field}")
        require_known(names, machines, "machines")
        return known | dict(zip(names, map(str, (configured or {}).values()), strict=True))

    def _machines(self, role: str) -> list[str]:
        return sorted({kind.machine for kind in self.clips.where(role=role).kinds})

    def machine(self, name: str) -> Clips:
        """Return all clips of a machine."""
        return self.clips.where(machine=name)

    def exclude(self, paths: Collection[str]) -> None:
        """Remove clips from the data set.

        Args:
            paths: Of these clips, as ``printable`` writes them.
        """
        if not paths:
            return
        self.clips = self.clips[[printable(clip.path) not in paths for clip in self.clips]]
        for name in ("trainable", "captioned"):
            self.__dict__.pop(name, None)

    def caption_table(self) -> pd.DataFrame:
        """Return path, machine, section, role, label, domain, attributes, and caption per clip.

        Attributes are as they are written. Where operating states were found
        (``PseudoAttributes``), they are a column, too.
        """
        table = pd.DataFrame(
            {
                "path": printable(clip.path),
                "machine": clip.machine,
                "section": clip.section,
                "role": clip.role,
                "label": clip.label,
                "domain": clip.domain,
                "raw_label": clip.raw_label,
                "caption": self.captions(clip),
                STATE: clip.attributes.get(STATE),
            }
            for clip in self.captioned
        )
        return table if table[STATE].notna().any() else table.drop(columns=STATE)

    def setup(self, stage: str) -> None:
        """Create the generator's training and validation examples (fit only)."""
        if stage != "fit" or self.trainer is None:
            return
        generator: Any = self.trainer.lightning_module
        train, val = self.split()
        self.train_clips, self.val_clips = self.captioned[train], self.captioned[val]
        texts = [self.captions(clip) for clip in self.captioned]
        self.train_set = generator.examples(self.train_clips, [texts[i] for i in train], train=True)
        if len(val):
            self.val_set = generator.examples(self.val_clips, [texts[i] for i in val], train=False)
        log.info("training on %d clips, validating on %d", len(train), len(val))

    @property
    def process_batch_size(self) -> int:
        """Examples in a batch of one process.

        Raises:
            ValueError: ``batch_size`` cannot be divided evenly (see ``draws.process_batch``).
        """
        return process_batch(self.batch_size, self._processes()[0], self._accumulate)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one process in an epoch."""
        return self._draws().batches

    def train_dataloader(self) -> DataLoader:
        """Return the training examples, balanced over machines, in an order fixed by the seed."""
        draws = self._draws()
        if self.trainer is not None and self._accumulated is not None:
            recount(self.trainer, self._accumulated, draws.batches)
            self._accumulated = None
        return self._loader(self.train_set, draws)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the validation examples for each pass; none with too few clips to hold out."""
        if not len(self.val_clips):
            return []
        ranks, rank = self._processes()
        loader = self._loader(self.val_set, InOrder(len(self.val_clips), ranks=ranks, rank=rank))
        module = self.trainer.lightning_module if self.trainer else None
        passes = getattr(module, "validation_passes", 1)
        return [loader] * passes if passes > 1 else loader

    def _draws(self) -> BalancedDraws:
        machines = self.train_clips.groups(lambda clip: clip.machine)
        counts = Counter(machines)
        ranks, rank = self._processes()
        return BalancedDraws(
            [counts[machine] ** -self.balance for machine in machines],
            self.batch_size,
            ranks=ranks,
            rank=rank,
            accumulate=self._accumulate,
            seed=self.seed,
            batches_done=self._batches_done if self.trainer else None,
        )

    def _loader(self, examples: Dataset, draws: Sampler[Draw]) -> DataLoader:
        return DataLoader(
            examples,
            self.process_batch_size,
            sampler=draws,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=getattr(examples, "collate", None),
        )

    @property
    def _accumulate(self) -> int:
        return self.trainer.accumulate_grad_batches if self.trainer else 1

    def _processes(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _batches_done(self) -> int:
        """Return how many batches the run has trained on, also before an interruption."""
        assert self.trainer is not None
        loop: Any = self.trainer.fit_loop.epoch_loop
        return loop.batch_progress.total.processed

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches per step, for checkpoints."""
        return {"accumulate_grad_batches": self.trainer.accumulate_grad_batches}  # type: ignore[union-attr]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Read how many batches a step took before the run was resumed."""
        self._accumulated = state_dict["accumulate_grad_batches"]

    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Return which of the captioned clips are trained on, and which are for validation."""
        groups: dict[tuple[str, str | None], list[int]] = {}
        kinds = self.captioned.groups(lambda clip: (clip.machine, clip.label))
        for i, kind in enumerate(kinds):
            groups.setdefault(kind, []).append(i)
        rng = np.random.default_rng(self.seed)
        held = [rng.permutation(g)[: round(self.val_share * len(g))] for g in groups.values()]
        val = np.sort(np.concatenate(held)).astype(int)
        train = np.setdiff1d(np.arange(len(self.captioned)), val)
        return train, val


def _matches(clip: Clip, rule: Mapping[str, Any]) -> bool:
    known = {**clip.attributes, **{field: getattr(clip, field) for field in _FIELDS}}
    wanted = {key: str(value) for key, value in rule.items()}
    if "section" in wanted:
        wanted["section"] = section_name(wanted["section"])
    return all(known.get(key) == value for key, value in wanted.items())


def is_trainable(clip: Clip) -> bool:
    """Tell whether first-shot rules allow a generator to be trained on this clip.

    >>> from fsasd.data.metadata import read_name
    >>> test = "section_00_source_test_anomaly_0000_m-n_W.wav"
    >>> is_trainable(read_name(f"fan/test/{test}", role="reference"))
    True
    >>> is_trainable(read_name(f"fan/test/{test}", role="target"))
    False
    """
    if clip.role == "target":
        return clip.split == "train" and clip.label == "normal"
    return clip.label is not None
