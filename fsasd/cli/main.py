"""The command ``fsasd``: builds the objects that the configuration names, runs the stages.

The only module that sees the configuration. Each stage is a function from files to files, kept in
the store under a key of all that determines its result.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import numpy as np
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from lightning.pytorch.strategies import ModelParallelStrategy
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fsasd.cli import resolvers
from fsasd.cli.paths import keep_paths
from fsasd.cli.sweep import mark_failed, unmark
from fsasd.data.check import check, find_in_recordings, inspect_once, log_findings
from fsasd.data.check.likeness import save_profiles
from fsasd.data.clips import Clips
from fsasd.data.content import content_hash, content_hashes, digest
from fsasd.data.datamodule import FirstShotDataModule, is_trainable
from fsasd.data.description import describe_clips
from fsasd.data.metadata import Clip, require_known
from fsasd.data.names import SectionId
from fsasd.detection.section import (
    Detection,
    SectionResult,
    in_section,
    log_selection,
    run_section,
    sections,
)
from fsasd.detection.tables import write, write_validation
from fsasd.detectors.base import Detector
from fsasd.detectors.saved import SHARED
from fsasd.detectors.training import SET_BY_DETECTORS, batch_norm_groups
from fsasd.evaluation.calibration import require_rate
from fsasd.generation import checkpoint as checkpoints
from fsasd.generation.encoder_space import RealClips
from fsasd.generation.filters import Filters
from fsasd.generation.fitting import changes_result, finetune, pretrain
from fsasd.generation.judging import judge
from fsasd.generation.prompts import (
    check_wording,
    clips_by_section,
    make_prompts,
    with_candidates,
)
from fsasd.generation.synthesis import synthesise
from fsasd.generation.synthetic_clips import MANIFEST, read_manifest, rejections
from fsasd.pipeline.preflight import (
    SECTIONS,
    check_accelerator,
    check_added,
    check_config,
    check_grid,
    check_heeded,
    check_networks,
    check_targets,
    check_training,
)
from fsasd.pipeline.run_folder import UNREADABLE, add_unscored, clear, list_unreadable, show
from fsasd.report import (
    console,
    mark_submission,
    objective,
    paper_table,
    write_report,
    write_tables,
)
from fsasd.report.results import Results
from fsasd.runtime.memory import keep_freed_memory, return_freed_memory
from fsasd.runtime.processes import end_with_other_ranks, limit_messages
from fsasd.runtime.progress import StepProgress
from fsasd.runtime.ranks import rank
from fsasd.selection.selector import Selector
from fsasd.selection.validation import ValidatedSection, validate
from fsasd.settings.objects import packages
from fsasd.settings.spec import spec_of
from fsasd.store.key import Description
from fsasd.store.store import Store

log = logging.getLogger(__name__)

VERSIONS = {
    "pretrain": 3, "finetune": 5, "synthesise": 7, "judge": 1, "train": 5, "detect": 13,
}  # fmt: skip
"""To be raised when a stage, given the same recipe, gives another result."""

SOME_UNREADABLE = 3
"""Exit code of a run that went on without recordings that cannot be read."""

STAGES = ("check", "pretrain", "finetune", "synthesise", "train", "detect", "report")
"""Those that are chosen; ``judge`` follows ``synthesise``."""

# What changes where and how fast a stage runs, but not what it computes.
_RUNTIME = {
    "trainer": {
        "accelerator", "devices", "strategy", "num_nodes", "enable_progress_bar",
        "enable_model_summary", "log_every_n_steps", "profiler", "num_sanity_val_steps",
        "accumulate_grad_batches",
    },
    "data": {"num_workers", "cache", "store", "root", "manifest", "ground_truth", "types", "sites"},
    "generator": {"gradient_checkpointing", "compile_unet", "channels_last"},
}  # fmt: skip


class Run:
    """One run: the configuration, the store and the folder that the results are left in."""

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        self.cfg = cfg
        # An experiment may set something of a callback that another choice of them lacks.
        chosen = {name: c for name, c in (cfg.callbacks or {}).items() if c and "_target_" in c}
        cfg.callbacks = chosen
        check_config(_resolved(cfg))
        self.folder = folder
        self.store = Store(cfg.store)
        self.data: FirstShotDataModule = hydra.utils.instantiate(cfg.data, _convert_="all")
        self.detector: Detector = hydra.utils.instantiate(cfg.detector, _convert_="all")
        self.selector: Selector = hydra.utils.instantiate(cfg.selection, _convert_="all")

    # Recipes: all that determines the result of a stage.

    def finetune_recipe(self) -> dict[str, Any]:
        """Return what a fine-tuned generator depends on."""
        parts = {key: self._plain(key) for key in ("data", "generator", "trainer", "callbacks")}
        parts["callbacks"] = {
            name: callback
            for name, callback in (parts["callbacks"] or {}).items()
            if changes_result(hydra.utils.get_class(callback["_target_"]))
        }
        start = parts["generator"].get("checkpoint")
        if not self._is_trained:
            # Only how a generator is trained depends on these.
            parts["trainer"] = parts["callbacks"] = None
        elif not self._sounds_choose_the_checkpoint():
            parts["generator"].pop("sampler", None)
        return {
            "version": VERSIONS["finetune"],
            "seed": self.cfg.seed,
            **spec_of(parts, content_hash),
            "checkpoint": digest(content_hashes(checkpoints.files(start))) if start else None,
            **self._captioned,
        }

    def pretrain_recipe(self) -> dict[str, Any]:
        """Return what a model that is made from nothing depends on."""
        own = {"version": VERSIONS["pretrain"], "pretrain": self._plain("pretrain")}
        return self.finetune_recipe() | own

    def synthesise_recipe(self) -> dict[str, Any]:
        """Return what the synthetic clips depend on."""
        synthesis = self._plain("synthesis")
        for judged in ("filters", "encoders"):
            synthesis.pop(judged)
        return {
            "version": VERSIONS["synthesise"],
            "finetune": self.finetune_recipe(),
            "sampler": self._plain("generator").get("sampler"),
            "synthesis": spec_of(synthesis, content_hash),
        }

    def judge_recipe(self) -> dict[str, Any]:
        """Return what the verdict on synthetic clips depends on."""
        judged = {name: self._plain("synthesis")[name] for name in ("filters", "encoders")}
        return {
            "version": VERSIONS["judge"],
            "synthesise": self.synthesise_recipe(),
            **spec_of(judged, content_hash),
            **self._captioned,
        }

    def train_recipe(self, part: Detector) -> dict[str, Any]:
        """Return what the networks depend on of a detector, or of one within it."""
        trainer = self._plain("trainer")
        return {
            "version": VERSIONS["train"],
            "detector": spec_of(part.network_spec(), content_hash),
            "trainer": {
                k: v for k, v in trainer.items() if k not in {"_target_", *SET_BY_DETECTORS}
            },
            "batch_norm_groups": batch_norm_groups(self._all("trainer")),
            "synthesise": self._synthesised() if part.synthetic_labels() else None,
            "clips": self._heard_digest,
        }

    def detect_recipe(self) -> dict[str, Any]:
        """Return what the detections depend on."""
        return {
            "version": VERSIONS["detect"],
            "train": [self.train_recipe(part) for part in self.detector.to_prepare()],
            "synthesise": self._synthesised(),
            "detector": spec_of(self._plain("detector"), content_hash),
            "selection": spec_of(self._plain("selection"), content_hash),
            "decision": self._plain("decision"),
            "clips": describe_clips(
                self.data.clips
                if self.cfg.synthesis.references
                else self.data.clips.where(role="target")
            ),
        }

    # Stages: folder -> files in it.

    def check(self) -> None:
        """Report what the data set holds and what is wrong with it (``check.json``).

        Raises:
            ValueError: There are errors in it.
        """
        report = check(self.data, self.cfg.check.headers_only)
        said = self.folder / "check.json"
        said.write_text(report.to_json(), encoding="utf-8")
        if self.cfg.check.json:
            print(report.to_json())
        else:
            report.print()
        if report.errors:
            raise ValueError(f"the data have errors: see {said}")

    def finetune(self, folder: Path) -> None:
        """Fine-tune the generator; goes on from the last checkpoint that the folder holds."""
        generator = hydra.utils.instantiate(self.cfg.generator, _convert_="all")
        trainer = self._generator_trainer(folder)
        finetune(generator, self.data, trainer, folder, keep_checkpoints=self.cfg.keep_checkpoints)

    def _generator_trainer(self, folder: Path) -> L.Trainer:
        options = {"callbacks": self._callbacks(), "logger": self._logger(folder)}
        if isinstance(steps := self.cfg.trainer.val_check_interval, int):
            # Lightning counts batches, of which a step may accumulate several.
            options["val_check_interval"] = steps * self.cfg.trainer.accumulate_grad_batches
        return self._trainer(folder, **options)

    def synthesise(self, folder: Path, model: Path | None) -> None:
        """Synthesise the target machines' normal and anomalous clips.

        Args:
            folder: Gets them.
            model: The fine-tuned generator, if it is one that is fine-tuned.
        """
        learnt = {"checkpoint": str(model)} if model else {}
        generator = hydra.utils.instantiate(self.cfg.generator, _convert_="all", **learnt)
        options = hydra.utils.instantiate(self.cfg.synthesis, _convert_="all")
        normal = self._normals()
        prompts = make_prompts(
            normal,
            [self.data.captions(clip) for clip in normal],
            options["clips_per_label"],
            self.cfg.seed,
            options["prompts"],
            options["per_caption"],
            # Clips that are made of their source's audio are as long as it.
            None if generator.derived else options["max_seconds"],
        )
        synthesise(
            generator,
            with_candidates(prompts, options["candidates"]),
            folder,
            self._trainer(folder, logger=False),
            options["cleaning"],
            options["batch_size"],
        )

    def judge(self, folder: Path, synthetic: Path) -> None:
        """Decide which synthetic clips are kept, and compare them with real ones."""
        options = hydra.utils.instantiate(self.cfg.synthesis, _convert_="all")
        judge(synthetic, folder, self._real(), options["filters"], options["encoders"])

    def train(self, part: Detector, folder: Path, synthetic: Path | None) -> None:
        """Train a detector's networks on the normal training clips of all machines."""
        heard = self._heard()
        if labels := part.synthetic_labels():
            if synthetic is None:
                raise ValueError(
                    f"{type(part).__name__} is to be trained on synthetic clips, too "
                    f"({', '.join(sorted(labels))}): choose a generator"
                )
            _require(synthetic, "judge")
            made = [clip for clip in self._read(synthetic) if clip.label in labels]
            heard = Clips([*heard, *made], self.data.cache)
        options = hydra.utils.instantiate(self.cfg.trainer, _partial_=True, _convert_="all")
        where = {k: v for k, v in options.keywords.items() if k not in SET_BY_DETECTORS}
        where |= {"logger": self._logger(folder)}
        if isinstance(where.get("strategy"), ModelParallelStrategy):
            # What detectors train is small enough for each device to hold all of it.
            where["strategy"] = "ddp"
        part.prepare(heard, folder, where)

    def detect(self, folder: Path, synthetic: Path | None) -> None:
        """Select, fit, score and evaluate each section of each target machine.

        Reference machines for which clips were synthesised, too, are treated as targets
        (``validation``).
        """
        detector, trained = self.detector, 0.0
        for part in detector.to_prepare():
            recipe = self.train_recipe(part)
            networks = self.store.path(_description("train", recipe))
            part.prepare(self._heard(), networks)
            trained += self.store.provenance(networks).seconds
        selector = self.selector
        made = self._synthetic(synthetic) if synthetic else None
        results: list[SectionResult[Detection]] = []
        for machine in self.data.targets:
            for section, own in sections(self.data.machine(machine)):
                train = own.where(split="train", label="normal")
                test = own.where(split="test")
                log.info("%s section %s: %d clips to learn from", machine, section, len(train))
                mine = None
                if made is not None:
                    mine = in_section(made.where(machine=machine), section)
                rate = self.cfg.decision.false_alarm_rate
                result = run_section(detector, selector, train, test, mine, rate)
                models = folder / "models"
                model = models / machine / f"section_{section}"
                result.detection.save_model(model, [models / SHARED])
                results.append(result)
        write(folder, results, trained)
        save_profiles(folder / "models", self.recordings)
        trials = {}
        if made is not None and self.cfg.synthesis.references and selector.grids:
            trials = dict(self._trials(detector, selector, made))
        if trials:
            write_validation(folder, trials, selector.objective)

    def _trials(
        self, detector: Detector, selector: Selector, made: Clips
    ) -> Iterator[tuple[SectionId, ValidatedSection]]:
        """Treat each section of each reference machine as a target."""
        heard = {clip.machine for clip in self.data.captioned if clip.label == "anomaly"}
        for machine in self.data.references:
            for section, own in sections(self.data.machine(machine)):
                mine = in_section(made.where(machine=machine), section)
                strict = not self._is_trained or machine not in heard
                validated = validate(detector, selector, own, mine, strict)
                if validated is None:
                    log.warning(
                        "%s section %s: leave-one-machine-out validation goes without it, for want "
                        "of test clips of both labels, or of normal training clips to fit every "
                        "setting on", machine, section,
                    )  # fmt: skip
                    continue
                key = SectionId(machine, section)
                log_selection(f"reference {key}", validated.selection)
                kind, site = self.data.types[machine], self.data.sites.get(machine)
                yield key, replace(validated, type=kind, site=site)

    def pretrain(self, folder: Path) -> None:
        """Make the nano model from nothing (see ``generation.nano``)."""
        steps = self.cfg.pretrain
        pretrain(
            lambda start: hydra.utils.instantiate(self.cfg.generator, checkpoint=str(start)),
            self.data,
            self._generator_trainer(folder),
            folder,
            steps.text_steps,
            steps.vae_steps,
            keep_checkpoints=self.cfg.keep_checkpoints,
        )

    # The chain.

    def check_overrides(self, overrides: Sequence[str]) -> None:
        """Check that some training heeds what the command line says of it.

        Raises:
            ValueError: None does.
        """
        trained = bool(self.cfg.generator._target_) and self._is_trained
        parts = self.detector.to_prepare()
        check_heeded(overrides, trained, any(not part.trained_by_fit for part in parts))

    def __call__(self) -> float | None:
        """Run the stages that the configuration asks for.

        Returns:
            The official score, where labels are known; for sweepers that optimise.
        """
        stages = list(self.cfg.stages)
        self._check_settings(stages)
        if rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            if "check" in stages:
                self.check()
        self._inspect()
        if rank() == 0 and {"synthesise", "detect"} & set(stages):
            clear(self.folder)
        if stages == ["check"]:
            return None
        if stages == ["report"] and not Results(self.folder).machines:
            raise FileNotFoundError(
                f"{self.folder}: expected what synthesis or detection left there, found nothing to "
                "report: say hydra.run.dir=<folder of the run>, or add these to stages"
            )
        if rank() == 0:
            self.data.caption_table().to_csv(self.folder / "captions.csv", index=False)
        if "pretrain" in stages:
            made = self._make("pretrain", self.pretrain_recipe(), self.pretrain)
            self._show(made / "model", "model")
        synthetic = self._generate(stages)
        self._train(stages, synthetic)
        if rank() > 0:
            return None
        if "detect" in stages:
            made = self._make(
                "detect",
                self.detect_recipe(),
                lambda folder: self.detect(folder, synthetic),
                alone=True,
            )
            self._show(made)
            add_unscored(self.folder, self.unreadable)
        if "report" in stages:
            trust = packages(self._all("detector"))
            write_tables(self.folder, self.cfg.tables, self._generator_parameters(), trust)
            write_report(self.folder, self.data)
            log.info("report: %s", self.folder / "report.html")
        mark_submission(self.folder)
        console(self.folder)
        return objective(self.folder)

    def _check_settings(self, stages: Sequence[str]) -> None:
        require_known([*stages, *self.cfg.force], STAGES, "stages")
        check_grid(self.detector, self.selector)
        for number in self.cfg.tables:
            paper_table(number)
        if "detect" in stages:
            require_rate(self.cfg.decision.false_alarm_rate)
            check_targets(self.data)
        if "train" in stages:
            check_networks(self.detector, self._all("trainer"))
        if {"finetune", "pretrain"} & set(stages) and self.cfg.generator._target_:
            callbacks = self.cfg.callbacks.values() if self._is_trained else ()
            monitored = [c.monitor for c in callbacks if c.get("monitor")]
            check_training(self._all("trainer"), monitored, self.data)
        trained = "train" in stages and self.detector.to_prepare()
        generated = {"finetune", "pretrain", "synthesise"} & set(stages)
        if trained or (generated and self.cfg.generator._target_):
            check_accelerator(self._all("trainer"))
            # What Lightning refuses it says now.
            self._trainer(self.folder, callbacks=self._callbacks(), logger=False)

    @cached_property
    def recordings(self) -> pd.DataFrame:
        """What the recordings hold that this run uses (see ``inspect``)."""
        cache = self.data.cache
        return inspect_once(self._used(), cache.folder, cache.channel, again=rank() == 0)

    @property
    def unreadable(self) -> pd.DataFrame:
        """Those of ``recordings`` that this run goes on without."""
        return self.recordings[self.recordings["problem"].notna()]

    def _inspect(self) -> None:
        """Log what is wrong with recordings, and go on without those that cannot be read."""
        if self.recordings.empty:
            return
        if rank() == 0:
            log_findings(find_in_recordings(self.recordings), log)
            list_unreadable(self.folder, self.unreadable)
        targets = set(self.data.targets)
        self.data.exclude(set(self.unreadable["path"]))
        if lost := sorted(targets - set(self.data.targets)):
            raise ValueError(f"{', '.join(lost)}: none of its recordings can be read")
        if "detect" in self.cfg.stages:
            check_targets(self.data)

    def _used(self) -> Clips:
        """Return the recordings that some stage reads."""
        stages = list(self.cfg.stages)
        if not set(stages) - {"check", "report"}:
            return self.data.clips[[]]
        if self.cfg.synthesis.references:
            return self.data.clips
        generated = bool(self.cfg.generator._target_) or "pretrain" in stages
        prepared = bool(self.detector.to_prepare())
        return self.data.clips.filter(
            lambda clip: (
                clip.role == "target"
                or (generated and is_trainable(clip))
                or (prepared and clip.split == "train" and clip.label == "normal")
            )
        )

    def _generate(self, stages: Sequence[str]) -> Path | None:
        wanted = {"finetune", "synthesise", "detect"} & set(stages)
        if not self.cfg.generator._target_:
            if wanted:
                log.info("generator=none: detectors keep their own settings")
            return None
        if "synthesise" in stages:
            self._check_synthesis()
        finetuned = None
        if self._is_trained:
            recipe = self.finetune_recipe()
            finetuned = self.store.path(_description("finetune", recipe))
            if "finetune" in stages:
                self._make("finetune", recipe, self.finetune)
        recipe = self.synthesise_recipe()
        synthetic = self.store.path(_description("synthesise", recipe))
        if "synthesise" in stages:
            if finetuned:
                _require(finetuned, "finetune")
            model = finetuned / "model" if finetuned else None
            self._make("synthesise", recipe, functools.partial(self.synthesise, model=model))
        recipe = self.judge_recipe()
        judged = self.store.path(_description("judge", recipe))
        if "synthesise" in stages and rank() == 0:
            build = functools.partial(self.judge, synthetic=synthetic)
            self._make("judge", recipe, build, alone=True)
        if {"synthesise", "detect"} & set(stages):
            _require(synthetic, "synthesise")
            _require(judged, "synthesise")
            self._show(synthetic, "synthetic")
            self._show(judged, "synthetic")
        return judged

    def _read(self, judged: Path, *, kept: bool = True) -> list[Clip]:
        recordings = self.store.path(_description("synthesise", self.synthesise_recipe()))
        return read_manifest(judged, recordings, kept=kept)

    def _check_synthesis(self) -> None:
        """Check that clips can be asked for and judged: hours of fine-tuning would come before."""
        options = hydra.utils.instantiate(self.cfg.synthesis, _convert_="all")
        normal = self._normals()
        check_wording(normal, [self.data.captions(clip) for clip in normal], options["prompts"])
        if isinstance(options["filters"], Filters):
            options["filters"].check(self._real(), clips_by_section(normal))

    def _train(self, stages: Sequence[str], synthetic: Path | None) -> None:
        for part in self.detector.to_prepare():
            recipe = self.train_recipe(part)
            if "train" in stages:
                build = functools.partial(self.train, part, synthetic=synthetic)
                self._make("train", recipe, build)
            if "detect" in stages:
                _require(self.store.path(_description("train", recipe)), "train")

    def _make(
        self,
        stage: str,
        recipe: Mapping[str, Any],
        build: Callable[[Path], None],
        alone: bool = False,
    ) -> Path:
        failed = True
        try:
            again = ("synthesise" if stage == "judge" else stage) in self.cfg.force
            wanted = _description(stage, recipe)
            made = self.store.build(wanted, build, again=again, together=not alone)
            failed = False
        finally:
            # The next stage, or job of a sweep, is a run of its own there.
            if (wandb := sys.modules.get("wandb")) and wandb.run:
                wandb.finish(exit_code=int(failed))
        return_freed_memory()
        return made

    def _show(self, made: Path, name: str = "") -> None:
        if rank() == 0:
            show(made, self.folder, name)

    def _synthetic(self, folder: Path) -> Clips:
        clips = Clips(self._read(folder), self.data.cache)
        for machine in sorted({clip.machine for clip in self._read(folder, kept=False)}):
            if len(set(clips.where(machine=machine).labels.tolist())) < 2:
                log.warning(
                    "%s: too few synthetic clips were kept to choose a setting. Rejected were %s: "
                    "see %s", machine, dict(rejections(folder, machine)), folder / MANIFEST,
                )  # fmt: skip
        return clips

    def _normals(self) -> Clips:
        roles = ("target", "reference") if self.cfg.synthesis.references else ("target",)
        # Test clips are there to judge by.
        normals = self.data.captioned.where(label="normal", split="train")
        return normals.filter(lambda clip: clip.role in roles)

    def _generator_parameters(self) -> int | None:
        if not self.cfg.generator._target_ or not self._is_trained:
            return 0
        made = self.store.path(_description("finetune", self.finetune_recipe()))
        return checkpoints.count_parameters(made / "model") or None

    @cached_property
    def _captioned(self) -> dict[str, Any]:
        # Once per run: with a hundred thousand clips, asking the disk about each takes seconds.
        return {
            "clips": describe_clips(self.data.captioned),
            "captions": digest(self.data.captions(clip) for clip in self.data.captioned),
        }

    def _real(self) -> RealClips:
        clips = self.data.captioned
        return RealClips(clips, [self.data.captions(clip) for clip in clips])

    @property
    def _is_trained(self) -> bool:
        return getattr(hydra.utils.get_object(self.cfg.generator._target_), "trained", True)

    def _heard(self) -> Clips:
        return self.data.clips.where(split="train", label="normal")

    @cached_property
    def _heard_digest(self) -> dict[str, str]:
        # Networks that all machines share do not know which of them are targets.
        return describe_clips(self._heard(), without=["role"])

    def _synthesised(self) -> dict[str, Any] | None:
        return self.judge_recipe() if self.cfg.generator._target_ else None

    def _all(self, group: str) -> Any:
        return OmegaConf.to_container(self.cfg[group], resolve=True) if self.cfg[group] else None

    def _plain(self, group: str) -> Any:
        plain = self._all(group)
        if isinstance(plain, dict):
            return {k: v for k, v in plain.items() if k not in _RUNTIME.get(group, ())}
        return plain

    def _sounds_choose_the_checkpoint(self) -> bool:
        monitors = [c.get("monitor") for c in self.cfg.callbacks.values()]
        return any(str(monitor).startswith("first_shot/") for monitor in monitors)

    def _callbacks(self) -> list[L.Callback]:
        return list(hydra.utils.instantiate(self.cfg.callbacks).values())

    def _logger(self, folder: Path) -> Any:
        if not self.cfg.logger:
            return False
        options = {}
        if OmegaConf.is_missing(self.cfg.logger, "save_dir"):
            options["save_dir"] = str(folder)
        return hydra.utils.instantiate(self.cfg.logger, **options)

    def _trainer(self, folder: Path, **options: Any) -> L.Trainer:
        if self.cfg.trainer.enable_progress_bar:
            options["callbacks"] = [*options.get("callbacks", ()), StepProgress()]
        return hydra.utils.instantiate(
            self.cfg.trainer, default_root_dir=str(folder), _convert_="all", **options
        )


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    """Return the configuration, but what names a value that is only known later."""
    found = {}
    for key in cfg:
        # Of a value that is not there whoever asks for it says more.
        with contextlib.suppress(OmegaConfBaseException):
            value = cfg._get_node(key)
            found[str(key)] = (
                OmegaConf.to_container(value, resolve=True)
                if isinstance(value, (DictConfig, ListConfig))
                else cfg[key]
            )
    return found


def _description(stage: str, recipe: Mapping[str, Any]) -> Description:
    spec = json.loads(json.dumps(recipe, default=str))
    return Description(stage, spec.pop("version"), spec)


def _require(artifact: Path, stage: str) -> None:
    if rank() == 0 and not artifact.is_dir():
        raise FileNotFoundError(
            f"the result of stage '{stage}' is not in the store ({artifact}): add it to stages"
        )


@hydra.main(config_path="pkg://fsasd.conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Run fsasd."""
    resolvers.register()
    limit_messages()
    keep_freed_memory()
    end_with_other_ranks()
    np.set_printoptions(precision=4)
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    keep_paths(cfg, hydra_config.runtime.cwd)
    if rank() == 0:
        unmark(folder)
    try:
        check_added(
            hydra_config.overrides.task,
            OmegaConf.to_container(cfg),  # type: ignore[arg-type]
            [*SECTIONS[""], *filter(None, SECTIONS), *hydra_config.runtime.choices],
        )
        run = Run(cfg, folder)
        run.check_overrides(hydra_config.overrides.task)
        L.seed_everything(cfg.seed, workers=True, verbose=False)
        score = run()
        if rank() > 0 or run.unreadable.empty:
            return score
        log.error(
            "%d recordings could not be read: see %s", len(run.unreadable), folder / UNREADABLE
        )
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return score
        sys.exit(SOME_UNREADABLE)
    except KeyboardInterrupt:
        if rank() == 0:
            log.error("interrupted: the same command goes on from what %s holds", cfg.store)
        sys.exit(130)
    except Exception as error:
        # What a constructor says is clearer than that Hydra called it.
        said = error.__cause__ if isinstance(error, InstantiationException) else None
        if hydra_config.mode == RunMode.MULTIRUN:
            mark_failed(folder, str(said or error))
            raise
        expected = isinstance(error, (ValueError, OSError, ImportError, InstantiationException))
        if os.environ.get("HYDRA_FULL_ERROR") or not expected:
            raise
        log.error("%s (HYDRA_FULL_ERROR=1 shows where)", said or error)
        sys.exit(1)


if __name__ == "__main__":
    main()
