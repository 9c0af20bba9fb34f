"""From the curves of all sections to the setting of each (step 5 of the method)."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fsasd.data.names import SectionId
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.stage import Stage
from fsasd.pipeline.stages.curve import Curve, evidence_of
from fsasd.selection.choice import choose
from fsasd.settings.code import code_of
from fsasd.settings.objects import described
from fsasd.store.atomic import write_text

log = logging.getLogger(__name__)

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
        selector = self.experiment.selector
        return {"selection": {**selector.rule(), "code": code_of(type(selector))}}

    def publish(self, artifact: Path, run: Path) -> None:
        """Nothing: what was chosen is in the tables of all sections (``collect``)."""

    def build(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        """Choose."""
        settings = {}
        for section, path in inputs.items():
            selection = choose(evidence_of(self.experiment, path), self.experiment.selector)
            settings[section] = described(selection.setting, "setting")
        write_text(folder / SETTINGS, json.dumps(settings, indent=1) + "\n")


def setting_of(section: SectionId) -> Any:
    """Return what reads the setting of a section from the artifact of ``Rule``."""

    def read(folder: Path) -> dict[str, Any]:
        path = folder / SETTINGS
        return _settings(path, path.stat().st_mtime_ns)[str(section)]

    return read


# All sections ask, and each needs one of all settings.
@functools.lru_cache(maxsize=1)
def _settings(path: Path, changed: int) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


def plan(run: Experiment, curves: Sequence[Curve]) -> list[Rule]:
    """Plan the choice, if there is anything to choose on."""
    return (
        [Rule(run, {stage.section: stage for stage in curves if stage.section})] if curves else []
    )
