"""Scores of clips by detectors that were fitted without them, and without what they are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fsasd.data.clips import Clips, PooledOnce
from fsasd.detectors.base import Detector, Params, TooFewClipsError
from fsasd.evaluation.folds import recording_groups, split_folds
from fsasd.generation.sources import NO_SOURCE, source_rows

FOLDS = 5


def crossfit(
    detector: Detector,
    settings: Sequence[Params],
    train: Clips,
    synthetic: Clips,
    folds: int = FOLDS,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score training and synthetic clips with detectors that were fitted without them.

    What a detector has learnt by heart would else make a clip that was made of it look normal.

    Args:
        detector: Copies of it are fitted.
        settings: Each is fitted on each fold's complement.
        train: Real normal clips: divided into folds, each scored by a fit on the others. Clips of
            one recording are in one fold.
        synthetic: Clips that are not fitted on. One that was made of a training clip belongs to
            that clip's fold; the rest are dealt out in turn, the two clips of a pair together.
        folds: At most so many; one clip per fold where there are fewer.
        seed: Of the shuffle.

    Returns:
        (settings, train) and (settings, synthetic) scores.

    Raises:
        TooFewClipsError: There are fewer than two clips to fit on.
        ValueError: A synthetic clip was made of a recording that is not in ``train``.
    """
    if len(train) < 2:
        raise TooFewClipsError(f"cross-fitting needs 2 clips at least, found {len(train)}")
    # All folds have the clips' representations in common.
    clips = Clips([*train, *synthetic], PooledOnce(train.cache))
    train, synthetic = clips[: len(train)], clips[len(train) :]
    splits = split_folds(len(train), folds, seed, recording_groups(train.recordings))
    fold_of = np.empty(len(train), dtype=int)
    for number, (_, fold) in enumerate(splits):
        fold_of[fold] = number
    sources = source_rows(train, synthetic)
    pairs = recording_groups(clip.pair for clip in synthetic)
    in_turn = np.arange(len(synthetic)) if pairs is None else pairs
    place = np.where(sources == NO_SOURCE, in_turn % len(splits), fold_of[sources])
    held_out = np.empty((len(settings), len(train)))
    scored = np.empty((len(settings), len(synthetic)))
    for number, (rest, fold) in enumerate(splits):
        members = np.flatnonzero(place == number)
        scores = detector.score_path(settings, train[rest], train[fold] + synthetic[members])
        held_out[:, fold], scored[:, members] = scores[:, : len(fold)], scores[:, len(fold) :]
    return held_out, scored


def calibrated(
    held_out: NDArray[np.float64], synthetic: NDArray[np.float64], labels: NDArray[np.int_]
) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Take away what synthesis itself adds to a score, setting by setting.

    What synthetic normals have beyond real ones, in the median, is the generator's and not an
    anomaly's: it is subtracted from the synthetic anomalies, which then stand against real normals
    and their real spread. Mapping synthetic normals *and* anomalies onto the real scale could
    change no AUC, since ranks stay; moving the normals alone would reward a setting for hearing the
    generator.

    Args:
        held_out: (settings, n) of real normals.
        synthetic: (settings, m) of synthetic clips, by the same fits.
        labels: (m,) of these.

    Returns:
        (settings, n + anomalies) scores and their labels.

    >>> held_out, synthetic = np.array([[0.0, 1.0, 2.0]]), np.array([[10.0, 11.0, 12.0, 12.5]])
    >>> calibrated(held_out, synthetic, np.array([0, 0, 0, 1]))[0]
    array([[0. , 1. , 2. , 2.5]])
    """
    gap = np.median(synthetic[:, labels == 0], axis=1) - np.median(held_out, axis=1)
    anomalies = synthetic[:, labels == 1] - gap[:, None]
    shape = [held_out.shape[1], anomalies.shape[1]]
    return np.hstack([held_out, anomalies]), np.repeat([0, 1], shape)
