"""From the curves of all sections to the setting of each (step 5 of the method)."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fsasd.data.clips import Clips
from fsasd.data.content import digest
from fsasd.data.names import SectionId
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.stage import Stage
from fsasd.pipeline.stages.curve import TRANSFER, Curve, evidence_of
from fsasd.selection.cases import choose_all
from fsasd.selection.choice import real_curve, unlike_reason
from fsasd.selection.profile import Profile
from fsasd.selection.selection import Selection
from fsasd.selection.sources.base import Case
from fsasd.selection.validation import validation_clips
from fsasd.settings.code import code_of
from fsasd.settings.files import read_json
from fsasd.settings.objects import described
from fsasd.store.atomic import write_text

SETTINGS = "settings.json"


class Rule(Stage):
    """The chosen setting of every section, in ``settings.json``.

    It is cheap, and computed from all curves together, so that a rule may learn from other
    machines. Only its values enter the keys of what is detected with them.

    Args:
        experiment: What is planned for.
        curves: The evidence, by section.
    """

    name, version, tolerant = "rule", 1, True

    def __init__(self, experiment: Experiment, curves: Mapping[SectionId, Stage]) -> None:
        super().__init__({str(section): stage for section, stage in curves.items()})
        self.experiment = experiment

    def spec(self) -> Mapping[str, Any]:
        """What the selector decides by."""
        run, selector = self.experiment, self.experiment.selector
        spec: dict[str, Any] = {"selection": {**selector.rule(), "code": code_of(type(selector))}}
        if selector.sources:
            spec["selection"]["source_code"] = code_of(list(selector.sources.values()))
            sections = [stage.section for _, stage in self.input_stages() if stage.section]
            spec["machines"] = {str(one): _known_of(run, one) for one in sections}
        return spec

    def publish(self, artifact: Path, run: Path) -> None:
        """Nothing: what was chosen is in the tables of all sections (``collect``)."""

    def build(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        """Choose."""
        curves = {
            stage.section: inputs[name]
            for name, stage in self.input_stages()
            if stage.section and name in inputs
        }
        chosen = selections(self.experiment, cases(self.experiment, curves))
        settings = {
            str(section): described(selection.setting, "setting")
            for section, selection in chosen.items()
        }
        write_text(folder / SETTINGS, json.dumps(settings, indent=1) + "\n")


def selections(run: Experiment, known: Sequence[Case]) -> dict[SectionId, Selection]:
    """Choose the setting of every section of a target, and of a reference to be validated.

    Args:
        run: The experiment.
        known: What is known of every section (``cases``).
    """
    roles = ["target", *(["reference"] if run.synthesis.references else [])]
    wanted = {section for role in roles for section in run.sections(role)}
    return choose_all(known, run.selector, wanted)


def cases(run: Experiment, curves: Mapping[SectionId, Path]) -> list[Case]:
    """Return what is known of every section.

    Args:
        run: The experiment.
        curves: The artifact of ``Curve`` of every section that has one.
    """
    several = bool(run.selector.sources)
    trained_on = run.trained_on_anomalies()
    known = []
    for section, path in curves.items():
        evidence, test = evidence_of(run, path), _labelled(run, section)
        kind = run.data.types[section.machine]
        known.append(
            Case(
                section,
                kind,
                run.data.sites.get(section.machine),
                evidence,
                evidence_of(run, path / TRANSFER) if (path / TRANSFER).is_dir() else None,
                Profile.load(path) if several else None,
                unlike_reason(evidence, run.selector),
                real_curve(evidence, run.selector, test) if test else None,
                strict=kind not in trained_on,
            )
        )
    return known


def _labelled(run: Experiment, section: SectionId) -> Clips | None:
    """Test clips of a reference machine, if their labels may be looked at to choose a setting."""
    clips = run.data.clips.sections[section]
    if not run.selector.sources or clips[0].role != "reference":
        return None
    usable = validation_clips(clips)
    return usable[1] if usable else None


def _known_of(run: Experiment, section: SectionId) -> dict[str, Any]:
    """What the rule knows of a section beside its curve."""
    machine, test = section.machine, _labelled(run, section)
    labels = test.groups(lambda clip: clip.label) if test else []
    return {
        "type": run.data.types[machine],
        "site": run.data.sites.get(machine),
        "labels": digest(map(str, labels))[:16] if labels else None,
    }


def setting_of(section: SectionId) -> Any:
    """Return what reads the setting of a section from the artifact of ``Rule``."""

    def read(folder: Path) -> dict[str, Any]:
        path = folder / SETTINGS
        return _settings(path, path.stat().st_mtime_ns)[str(section)]

    return read


# All sections ask, and each needs one of all settings.
@functools.lru_cache(maxsize=1)
def _settings(path: Path, changed: int) -> dict[str, Any]:
    return read_json(path)


def plan(run: Experiment, curves: Sequence[Curve]) -> list[Rule]:
    """Plan the choice, if there is anything to choose on."""
    return (
        [Rule(run, {stage.section: stage for stage in curves if stage.section})] if curves else []
    )
