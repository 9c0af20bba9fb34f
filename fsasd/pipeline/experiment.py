"""``Experiment``: everything that stages are planned from, made by a configuration or by hand."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fsasd.data.clips import Clips
from fsasd.data.content import content_hash
from fsasd.data.datamodule import FirstShotDataModule
from fsasd.data.names import SectionId
from fsasd.detectors.base import Detector
from fsasd.evaluation.calibration import FALSE_ALARM_RATE
from fsasd.generation.diffusion.adaptation import Untrained
from fsasd.selection.selector import Selector
from fsasd.settings.code import code_of
from fsasd.settings.spec import spec_of


class Factory:
    """What makes an object, and the plain settings that describe it.

    Args:
        settings: A mapping with the class as ``_target_`` and its arguments, which may be such
            mappings themselves.
        make: Makes the object of such settings and further arguments (``hydra.utils.instantiate``);
            by default the class is called.

    >>> from fsasd.detectors.knn import KNN
    >>> one = Factory.of(KNN, k=2)
    >>> one.settings, one().k, one(k=4).k
    ({'_target_': 'fsasd.detectors.knn.KNN', 'k': 2}, 2, 4)
    """

    def __init__(self, settings: Mapping[str, Any], make: Callable[..., Any] | None = None) -> None:
        self.settings = dict(settings)
        self._make = make

    @classmethod
    def of(cls, kind: type, **arguments: Any) -> Factory:
        """Return the factory of a class and its arguments."""
        return cls({"_target_": f"{kind.__module__}.{kind.__qualname__}", **arguments})

    @property
    def kind(self) -> Any:
        """The class, or what makes it.

        Raises:
            ImportError: There is none of that name.
        """
        name = self.settings["_target_"]
        try:
            return pkgutil.resolve_name(name)
        except (ImportError, AttributeError) as error:
            raise ImportError(f"Error loading '{name}': {error}") from error

    def having(self, **settings: Any) -> Factory:
        """Return a factory of the same class with other settings."""
        return Factory({**self.settings, **settings}, self._make)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that the class is given, objects among them made."""
        if self._make is not None:
            return dict(self._make(self.settings, _partial_=True).keywords)
        return {name: value for name, value in self.settings.items() if name[0] != "_"}

    def __call__(self, **arguments: Any) -> Any:
        """Make the object; ``arguments`` replace or extend the settings."""
        if self._make is not None:
            return self._make(self.settings, **arguments)
        return self.kind(**{**self.arguments(), **arguments})

    @cached_property
    def spec(self) -> Any:
        """What the object depends on: the settings, files by their content, code of others."""
        return spec_of(self.settings, content_hash)


def weights_in(folder: Path, generator: Factory) -> dict[str, Any]:
    """Return the arguments by which a generator loads weights that were trained here.

    >>> settings = {"_target_": "a.B", "checkpoint": "a/b", "revision": "v1"}
    >>> weights_in(Path("model"), Factory(settings))
    {'checkpoint': 'model', 'revision': None}
    """
    of_the_hub = [name for name in ("revision", "variant") if name in generator.settings]
    return {"checkpoint": str(folder), **dict.fromkeys(of_the_hub)}


@dataclass
class Synthesis:
    """What is synthesised, and what of it is kept.

    Attributes:
        prompts: How anomalous clips are asked for (``generation.prompts.PromptSet``).
        cleaning: What is done to each clip (``generation.cleaning.Cleaning``).
        filters: Which clips are kept (``generation.filters.Filters``).
        encoders: Name to the front end that quality is measured with.
        references: Synthesise reference machines' clips, too, to validate the choice of a setting.
        clips_per_label: Clips of each label for each section.
        batch_size: Clips that are generated together.
        max_seconds: Longest clip to ask for; ``None`` for no limit.
        per_caption: ``proportional`` or ``balanced`` (see ``make_prompts``).
        candidates: Clips that are generated for each that is kept.
    """

    prompts: Factory
    cleaning: Factory
    filters: Factory
    encoders: Mapping[str, Factory] = field(default_factory=dict)
    references: bool = False
    clips_per_label: int = 64
    batch_size: int = 16
    max_seconds: float | None = 10.24
    per_caption: str = "proportional"
    candidates: int = 1


UNTRAINED = f"{Untrained.__module__}.{Untrained.__qualname__}"
"""What a configuration calls the choice to train nothing."""


@dataclass(eq=False)
class Experiment:
    """Everything that stages are planned from.

    Attributes:
        data: The recordings and their captions.
        detector: Unfitted, with its default setting.
        selector: The settings to choose from, and by what.
        trainer: Makes ``lightning.Trainer``.
        synthesis: What is synthesised.
        generator: Makes what generates; ``None`` to choose no setting.
        callbacks: Of fine-tuning, by name.
        loggers: Make Lightning's loggers, by name.
        false_alarm_rate: Share of normal clips to be called anomalous.
        seed: Of prompts and fine-tuning.
        keep_checkpoints: Whether optimizer states stay when a model is whole.
        continue_from: Steps of the fine-tuning, otherwise equal, that this one continues.
        pretrain: Steps of the nano model's components (``text_steps``, ``vae_steps``).
    """

    data: FirstShotDataModule
    detector: Detector
    selector: Selector
    trainer: Factory
    synthesis: Synthesis
    generator: Factory | None = None
    callbacks: Mapping[str, Factory] = field(default_factory=dict)
    loggers: Mapping[str, Factory] = field(default_factory=dict)
    false_alarm_rate: float = FALSE_ALARM_RATE
    seed: int = 0
    keep_checkpoints: bool = False
    continue_from: int | None = None
    pretrain: Mapping[str, int] = field(default_factory=dict)
    # Machines that are left out to the clips of the others: the same for all targets.
    _references: dict[frozenset[str], Clips] = field(default_factory=dict, init=False, repr=False)

    @property
    def trains_generator(self) -> bool:
        """Whether the generator is one that is fine-tuned."""
        if self.generator is None or not getattr(self.generator.kind, "trained", True):
            return False
        train = self.generator.settings.get("train")
        if isinstance(train, Mapping):
            return train.get("_target_") != UNTRAINED
        return not isinstance(train, Untrained)

    def trained_on_anomalies(self) -> set[str]:
        """Return the types of machines whose anomalies the generator is trained on, if it is."""
        if not self.trains_generator:
            return set()
        kinds = self.data.captioned.where(label="anomaly").kinds
        return {self.data.types[kind.machine] for kind in kinds}

    @property
    def uses_references(self) -> bool:
        """Whether the generator makes clips of what is known of reference machines."""
        return self.generator is not None and getattr(self.generator.kind, "uses_references", False)

    @property
    def detector_spec(self) -> Any:
        """What the detector's results depend on, its networks' clips excepted."""
        return spec_of(self.detector, content_hash)

    def trusted_packages(self) -> set[str]:
        """Return the packages whose classes settings may name: those that the user named."""
        return {*code_of(self.detector), *code_of(self.selector.grids)}

    def sections(self, role: str) -> dict[SectionId, Clips]:
        """Return the clips of each section of the machines of a role."""
        return {
            section: clips
            for section, clips in self.data.clips.sections.items()
            if clips[0].role == role
        }

    def synthesised(self) -> dict[SectionId, Clips]:
        """Return the real normal clips of each section that clips are synthesised of."""
        roles = ["target", *(["reference"] if self.synthesis.references else [])]
        normals = {
            section: clips.where(split="train", label="normal")
            for role in roles
            for section, clips in self.sections(role).items()
        }
        return {section: clips for section, clips in normals.items() if len(clips)}

    def references_for(self, section: SectionId) -> Clips:
        """Return the clips of reference machines that may be used to synthesise a section's.

        None of the section's machine; where that is a reference itself, none of its type either,
        as there is none for a target that is a new type of machine.
        """
        types, machine = self.data.types, section.machine
        of_type = {m for m in types if types[m] == types[machine]}
        excluded = of_type if machine in self.data.references else {machine}
        key = frozenset(excluded & {*self.data.references})
        if key not in self._references:
            references = self.data.trainable.where(role="reference")
            self._references[key] = references.filter(lambda clip: clip.machine not in key)
        return self._references[key]
