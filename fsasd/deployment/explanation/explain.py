"""Explain the score of a recording by the way that suits its detector."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from fsasd.data.check.measures import BANDS
from fsasd.data.clips import Clips
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip
from fsasd.data.recording import read
from fsasd.deployment.explanation.exact import (
    band_ranges,
    explain_mixture,
    explain_neighbours,
    frame_weights,
    of_shares,
)
from fsasd.deployment.explanation.explanation import Explanation
from fsasd.deployment.explanation.perturbation import MOMENTS, explain_by_perturbation
from fsasd.deployment.model import Model
from fsasd.deployment.waveforms import ScoringCache
from fsasd.detectors.scoring.scorers import MixtureScorer, NeighbourScorer


def explain(model: Model, path: Path) -> Explanation:
    """Return what the score of a recording consists of.

    Exactly for TWFR-GMM, and for k-NN on time-weighted log-mels (on statistics over time, the bands
    are exact); by perturbation for any other detector.

    Args:
        model: The saved detector.
        path: The recording.

    Raises:
        AudioError: The recording cannot be used.
    """
    scorer = model.detector
    if isinstance(scorer, MixtureScorer):
        return explain_mixture(scorer, _log_mel(model, scorer.representation.front_end, path))
    if isinstance(scorer, NeighbourScorer):
        return _neighbours(model, scorer, path)
    return explain_by_perturbation(model, path)


def perturbations(model: Model) -> int:
    """Return how many times, at most, ``explain`` scores a recording."""
    return 0 if isinstance(model.detector, MixtureScorer) else 1 + MOMENTS + len(BANDS)


def _neighbours(model: Model, scorer: NeighbourScorer, path: Path) -> Explanation:
    from fsasd.detectors.representations import TimeStatistics, TimeWeighted

    clips = Clips([Clip(path, machine="", split="test")], ScoringCache(model.channel))
    files = dict(enumerate(model.calibration.held_out))
    contributions, other, nearest = explain_neighbours(
        scorer, scorer.representation(clips)[0], files
    )
    representation = scorer.representation
    front_end = getattr(representation, "front_end", None)
    if not isinstance(front_end, LogMel) or scorer.banks.metric != "euclidean":
        return replace(explain_by_perturbation(model, path), nearest=nearest)
    if isinstance(representation, TimeWeighted):
        log_mel = _log_mel(model, front_end, path)
        offsets = frame_weights(log_mel, representation.r) * (log_mel - other[:, None])
        whole = offsets.sum(axis=1, keepdims=True)
        shares = np.divide(offsets, whole, out=np.zeros_like(offsets), where=whole != 0)
        return of_shares(front_end, contributions[:, None] * shares, nearest)
    perturbed = replace(explain_by_perturbation(model, path), nearest=nearest)
    if isinstance(representation, TimeStatistics):
        bands = contributions.reshape(-1, front_end.n_mels).sum(axis=0)
        return replace(perturbed, hertz=band_ranges(front_end), bands=bands)
    return perturbed


def _log_mel(model: Model, front_end: LogMel, path: Path) -> np.ndarray:
    waveform = read(
        path,
        channel=model.channel,
        seconds=front_end.max_seconds,
        sampling_rate=front_end.sampling_rate,
    )
    return front_end(waveform).astype(np.float64)
