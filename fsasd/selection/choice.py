"""The choice of a setting for one machine: which fit scores which clip, and what it was worth."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import KFold

from fsasd.data.audio_files import printable
from fsasd.data.clips import Clips
from fsasd.detectors.base import Detector, Params, TooFewClipsError, require_finite
from fsasd.evaluation.metrics import known_domains
from fsasd.evaluation.uncertainty import percentile_interval, resample, resampled_areas
from fsasd.selection.selector import Curve, Selection, Selector, row_of, title

log = logging.getLogger(__name__)

FOLDS = 5

TELLING_CLIPS = 13
"""Of real and of synthetic normal clips: the fewest that can be sure of a gap beyond ``WIDE_GAP``.

Where the AUC is 0.75 and one kind is all alike, each clip of the other lies on the far side with a
chance of 0.75; so n clips all do with ``0.75**n``, which is a chance below the 2.5 % that an
interval leaves at that end from 13 on. (Five could all do where nothing is told, 0.5: in 3.1 %.)
The bootstrap does not see that: of clips that all lie on one side every resample does, too.
"""


@dataclass(frozen=True)
class DomainGap:
    """How far synthetic normal clips are from real ones, before any anomaly comes into it.

    Attributes:
        auc: Of synthetic normals (as if they were the anomalies) against held-out real normals, by
            the detector at its own setting. 0.5: the detector cannot tell them; near 1 they sound
            anomalous to it; near 0 they are more normal than real clips.
        low: Lower end of its interval.
        high: Upper end.
        synthetic: Synthetic normal clips.
        real: Real normal clips.
    """

    auc: float
    low: float
    high: float
    synthetic: int
    real: int

    def exceeds(self, limit: float) -> bool:
        """Say whether the AUC is surely above the limit, or below 1 minus the limit.

        >>> DomainGap(auc=0.9, low=0.8, high=0.95, synthetic=64, real=100).exceeds(0.75)
        True
        """
        return self.low > limit or self.high < 1 - limit


@dataclass(frozen=True, eq=False)
class Choice:
    """What synthetic clips chose, and what it was worth.

    Attributes:
        selection: The curve on synthetic clips and the setting chosen on it.
        gap: ``None`` without synthetic normals, or with too few real ones.
        real: The curve on the real test clips. Nobody could have known it beforehand: it only says
            what the choice was worth. ``None`` without labels of both kinds, as what follows.
        settings: Metrics on the test clips, a row each: the baselines, the detector's own setting
            (marked ``own``), ``synthetic`` (what is used), ``argmax`` (the paper's choice, where
            the selector may abstain) and ``oracle``, the best of ``real``.
        scores: The scores of every test clip with these settings.
    """

    selection: Selection
    gap: DomainGap | None = None
    real: Curve | None = None
    settings: pd.DataFrame | None = None
    scores: pd.DataFrame | None = None


def choose(
    detector: Detector,
    selector: Selector,
    train: Clips,
    test: Clips,
    synthetic: Clips,
) -> Choice:
    """Choose the detector's setting (step 5 of the method) on synthetic clips.

    A synthetic clip that was made of a real one (``Clip.source``) is scored by detectors that were
    fitted without that one; what a detector has learnt by heart would else make it look normal.

    Args:
        detector: Unfitted; copies are fitted on ``train``, with every setting.
        selector: The settings to choose from, and by what.
        train: Real normal clips.
        test: Real test clips, which play no part in the choice; their labels, where they are
            known, then say what it was worth.
        synthetic: Synthetic normal and anomalous clips. Without both, or where a setting needs
            more clips than ``train`` has, the detector keeps its own setting, and the reason is
            told.
    """
    settings = selector.candidates(detector)
    known = test if _has_both_labels(test) else test[[]]
    crossed = selector.calibrate or any(clip.source for clip in synthetic)
    try:
        # Fitted once for both sets.
        pool = Clips([*([] if crossed else synthetic), *known], train.cache)
        scores = detector.score_path(settings, train, pool) if len(pool) else np.empty((1, 0))
        selection, gap = _select(
            detector, selector, train, synthetic, None if crossed else scores[:, : len(synthetic)]
        )
    except TooFewClipsError as error:
        return Choice(selector.keep(detector, f"a setting cannot be fitted: {error}"))
    if not len(known):
        return Choice(selection, gap)
    path = scores[:, -len(known) :]
    require_finite(path, known)
    domains = evaluated_domains(known)
    real = selector.curve(known.labels, path, domains, detector=detector)
    rows = _rows(detector, selector, selection, real)
    own = settings.index(selector.own(detector))
    return Choice(
        selection,
        gap,
        real,
        _settings_table(rows, settings, real, own, selection.reason),
        _score_table(rows, own, known, path),
    )


def crossfit(
    detector: Detector,
    settings: Sequence[Params],
    train: Clips,
    others: Clips,
    folds: int = FOLDS,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score clips with detectors that were fitted without them, and without what they are made of.

    Args:
        detector: Copies of it are fitted.
        settings: Each is fitted on each fold's complement.
        train: Real normal clips: divided into folds, each scored by a fit on the others.
        others: Clips that are not fitted on. One whose ``source`` is in ``train`` belongs to that
            clip's fold; the rest are dealt out in turn.
        folds: At most so many; one clip per fold where there are fewer.
        seed: Of the shuffle.

    Returns:
        (settings, train) and (settings, others) scores.

    Raises:
        TooFewClipsError: There are fewer than two clips to fit on.
    """
    if len(train) < 2:
        raise TooFewClipsError(f"cross-fitting needs 2 clips at least, found {len(train)}")
    folds = min(folds, len(train))
    fold_of: dict[Path, int] = {}
    place = np.arange(len(others)) % folds
    splits = list(KFold(folds, shuffle=True, random_state=seed).split(np.empty(len(train))))
    for number, (_, fold) in enumerate(splits):
        fold_of |= {train[int(i)].path.resolve(): number for i in fold}
    for i, clip in enumerate(others):
        if clip.source is not None:
            place[i] = fold_of.get(clip.source.resolve(), place[i])
    held = np.empty((len(settings), len(train)))
    made = np.empty((len(settings), len(others)))
    for number, (rest, fold) in enumerate(splits):
        own = np.flatnonzero(place == number)
        clips = Clips([*train[fold], *others[own]], train.cache)
        scores = detector.score_path(settings, train[rest], clips)
        held[:, fold], made[:, own] = scores[:, : len(fold)], scores[:, len(fold) :]
    return held, made


def calibrated(
    held: NDArray[np.float64], made: NDArray[np.float64], labels: NDArray[np.int_]
) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Take away what synthesis itself adds to a score, setting by setting.

    What synthetic normals have beyond real ones, in the median, is the generator's and not an
    anomaly's: it is subtracted from the synthetic anomalies, which then stand against real normals
    and their real spread. Mapping synthetic normals *and* anomalies onto the real scale could
    change no AUC, since ranks stay; moving the normals alone would reward a setting for hearing the
    generator.

    Args:
        held: (settings, n) of real normals.
        made: (settings, m) of synthetic clips, by the same fits.
        labels: (m,) of these.

    Returns:
        (settings, n + anomalies) scores and their labels.

    >>> held, made = np.array([[0.0, 1.0, 2.0]]), np.array([[10.0, 11.0, 12.0, 12.5]])
    >>> calibrated(held, made, np.array([0, 0, 0, 1]))[0]
    array([[0. , 1. , 2. , 2.5]])
    """
    gap = np.median(made[:, labels == 0], axis=1) - np.median(held, axis=1)
    anomalies = made[:, labels == 1] - gap[:, None]
    return np.hstack([held, anomalies]), np.repeat([0, 1], [held.shape[1], anomalies.shape[1]])


def _select(
    detector: Detector,
    selector: Selector,
    train: Clips,
    synthetic: Clips,
    scores: NDArray[np.float64] | None,
) -> tuple[Selection, DomainGap | None]:
    """Select from scores of one fit, or from cross-fitted ones where there are none."""
    settings, own = selector.candidates(detector), selector.own(detector)
    labels, domains, groups = synthetic.labels, evaluated_domains(synthetic), _groups(synthetic)
    normal = np.flatnonzero(labels == 0)
    if len(set(labels.tolist())) < 2:
        reason = (
            f"no synthetic clips of both labels to choose on: {len(normal)} normal and "
            f"{len(labels) - len(normal)} anomalous (see synthetic/manifest.csv for why not)"
        )
        return selector.keep(detector, reason), None
    telling = len(train), len(set(groups[normal].tolist()))
    if scores is not None:
        gap = None
        if selector.max_gap is not None and len(train) > 1:
            held, made = crossfit(detector, [own], train, synthetic[normal])
            gap = _gap(held[0], made[0], groups[normal])
        doubt = _doubt(selector, gap, telling)
        return selector.select(detector, labels, scores, domains, groups=groups, doubt=doubt), gap
    held, made = crossfit(detector, settings, train, synthetic)
    row = settings.index(own)
    gap = _gap(held[row], made[row, normal], groups[normal])
    if selector.calibrate:
        made, labels = calibrated(held, made, labels)
        anomalous = np.setdiff1d(np.arange(len(synthetic)), normal)
        domains = evaluated_domains(Clips([*train, *synthetic[anomalous]]))
        groups = np.concatenate([_groups(train), groups[anomalous]])
    doubt = _doubt(selector, gap, telling)
    return selector.select(detector, labels, made, domains, groups=groups, doubt=doubt), gap


def _doubt(selector: Selector, gap: DomainGap | None, telling: tuple[int, int]) -> str:
    """Say why nothing is to be chosen on clips with such a gap to real ones, if so.

    Args:
        selector: Whether there is to be any doubt, and the limit.
        gap: As measured, if it could be.
        telling: Independent real and synthetic normal clips that it was measured on.
    """
    limit = selector.max_gap
    if not selector.abstain or selector.calibrate or limit is None:
        return ""
    if min(telling) < TELLING_CLIPS:
        return (
            "too few independent normal clips to tell whether synthetic ones sound like real ones: "
            f"{telling[0]} real and {telling[1]} synthetic, at least {TELLING_CLIPS} of each are "
            "needed"
        )
    if gap is None or not gap.exceeds(limit):
        return ""
    return (
        f"synthetic normal clips alone are told from real ones: AUC {gap.auc:.2f} (95 % interval "
        f"{gap.low:.2f} to {gap.high:.2f}; 0.5: not told), surely beyond {limit:.2f} or below "
        f"{1 - limit:.2f}, so that what they choose is chosen for other sounds than the machine's"
    )


def _gap(held: NDArray, made: NDArray, groups: NDArray) -> DomainGap:
    labels = np.repeat([0, 1], [len(held), len(made)])
    scores = np.concatenate([held, made])[None]
    units = np.concatenate([np.arange(len(held)).astype(str), groups])
    drawn = resample(labels, n=200, groups=units)
    auc = resampled_areas(labels, None, scores).auc[0, 0]
    interval = percentile_interval(resampled_areas(labels, None, scores, drawn).auc[0])
    return DomainGap(float(auc), interval.low, interval.high, len(made), len(held))


def _groups(clips: Clips) -> NDArray[np.str_]:
    return np.array([str(clip.source or clip.path) for clip in clips])


def evaluated_domains(clips: Clips) -> NDArray[np.str_] | None:
    """Return the domains that metrics divide clips by, ``None`` where no clip has one."""
    return known_domains(clips.by_kind(lambda clip: clip.domain))


def _has_both_labels(clips: Clips) -> bool:
    return {clip.label for clip in clips} == {"normal", "anomaly"}


def _rows(
    detector: Detector, selector: Selector, selection: Selection, real: Curve
) -> dict[str, int]:
    """Name the settings that are compared, and say in which row of the candidates they are."""
    settings = selector.candidates(detector)
    rows: dict[str, int] = {}
    for baseline in selector.baselines:
        row = row_of(baseline, settings)
        if row is None:
            raise ValueError(f"setting {baseline} is not in the grid that settings are chosen from")
        rows[title(baseline)] = row
    own = settings.index(selector.own(detector))
    if own not in rows.values():
        rows[title(settings[own])] = own
    rows["synthetic"] = settings.index(selection.params)
    if selector.abstain:
        rows["argmax"] = settings.index(selection.argmax)
    return {**rows, "oracle": real.best}


def _settings_table(
    rows: dict[str, int], settings: list[dict], real: Curve, own: int, reason: str
) -> pd.DataFrame:
    names = dict.fromkeys(key for setting in settings for key in setting)
    metrics = ["auc", "auc_source", "auc_target", "pauc", "objective"]
    table = real.table.iloc[list(rows.values())][[*names, *metrics]].reset_index(drop=True)
    table.insert(0, "setting", list(rows))
    table["own"] = table["setting"] == _name_of(own, rows)
    table["reason"] = np.where(table["setting"] == "synthetic", reason, "")
    return table


def _score_table(
    rows: dict[str, int], own: int, test: Clips, path: NDArray[np.float64]
) -> pd.DataFrame:
    clips = pd.DataFrame(
        {"file": printable(clip.path.name), "label": clip.label, "domain": clip.domain}
        for clip in test
    )
    mine = _name_of(own, rows)
    parts = [
        clips.assign(setting=name, own=name == mine, score=path[row]) for name, row in rows.items()
    ]
    return pd.concat(parts, ignore_index=True)


def _name_of(row: int, rows: dict[str, int]) -> str:
    return next(name for name, other in rows.items() if other == row)
