"""What a run knows of its saved detectors, beside each in the run's folder."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from fsasd.data.check.inspection import inspect_once
from fsasd.data.check.likeness import save_profiles
from fsasd.data.names import SectionId
from fsasd.deployment.about import About, TrainingData
from fsasd.detection.section import MODEL, SectionResult, SectionScores
from fsasd.detectors.saved import SETTINGS
from fsasd.pipeline.experiment import Experiment
from fsasd.selection.selection import Selection
from fsasd.settings.files import read_json
from fsasd.store.provenance import PROVENANCE, Provenance


def write_model_cards(
    run: Experiment,
    results: Iterable[SectionResult[SectionScores]],
    artifacts: Mapping[SectionId, Path],
    folder: Path,
) -> None:
    """Write ``about.json`` and ``README.md`` of each section's detector.

    Args:
        run: The experiment.
        results: Of all sections.
        artifacts: Those of the stage ``detect``.
        folder: The run's folder, which has the detectors already.
    """
    for result in results:
        section = result.section
        model = folder / "models" / section.machine / f"section_{section.section}"
        if model.is_dir():
            _about(run, result, artifacts[section]).write(model)


def write_profiles(run: Experiment, sections: Collection[SectionId], folder: Path) -> None:
    """Write the ranges of the training recordings beside each section's detector.

    Scoring warns of recordings beyond them.

    Args:
        run: The experiment.
        sections: Those that have a detector.
        folder: The run's folder, which has the detectors already.
    """
    normal = run.data.clips.where(split="train", label="normal")
    fitted = normal.filter(lambda clip: clip.section_id in sections)
    # They were inspected before the first stage: where features are cached, none is read again.
    cache = run.data.cache
    recordings = inspect_once(fitted, cache.folder, cache.channel, again=False)
    save_profiles(folder / "models", recordings)


def _about(run: Experiment, result: SectionResult[SectionScores], artifact: Path) -> About:
    saved = read_json(artifact / MODEL / SETTINGS)
    provenance = Provenance.read(artifact / PROVENANCE)
    selection, metrics = result.selection, result.metrics
    train = run.data.clips.sections[result.section].where(split="train", label="normal")
    known = {} if metrics is None else asdict(metrics)
    return About(
        result.section.machine,
        result.section.section,
        saved["class"].rpartition(".")[2],
        {} if selection is None or selection.abstain_reason else dict(selection.setting),
        _choice(selection),
        result.detection.cost.parameters,
        TrainingData.of(train),
        {name: value for name, value in known.items() if math.isfinite(value)},
        {
            "key": provenance.key,
            "built": provenance.started,
            "commit": provenance.commit,
            "versions": dict(provenance.versions),
        },
        {"grids": run.selector.measured()["grids"], "objective": run.selector.objective},
    )


def _choice(selection: Selection | None) -> str:
    if selection is None:
        return "There was nothing to choose it on."
    if selection.abstain_reason:
        return f"It was kept, since {selection.abstain_reason}."
    sources = ", ".join(selection.contributions) or "synthetic clips"
    return f"It was chosen on {sources}; selection.csv of the run has the metrics of all settings."
