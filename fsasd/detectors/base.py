"""The interface of detectors: a scikit-learn estimator with ``fit`` and ``score``."""

from __future__ import annotations

import abc
import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import clone

from fsasd.data.audio_files import printable
from fsasd.data.clips import Clips
from fsasd.detectors import estimator
from fsasd.detectors.estimator import Estimator
from fsasd.detectors.estimator import Params as Params
from fsasd.detectors.learned import LearnedRepresentation
from fsasd.detectors.saved import ARRAYS, SETTINGS, NotAModelError, Saved, read
from fsasd.detectors.stacking import TooFewClipsError as TooFewClipsError
from fsasd.detectors.stacking import stack as stack


class Detector(Estimator):
    """An anomaly detector of one machine's sounds.

    ``fit`` sets attributes whose names end in an underscore (see ``Estimator``); ``score`` changes
    nothing. A file ``<name>.yaml`` in the config group ``detector`` makes it ``detector=<name>``.
    """

    score_params: ClassVar[frozenset[str]] = frozenset()
    """Parameters that only ``score`` reads: settings that differ in no others share a fit."""

    fits_in_threads: ClassVar[bool] = False
    """Whether several copies may be fitted at a time in threads of one process, as the folds of
    held-out scores are: for fits that change nothing but the copy, no global random state either,
    and that spend their time in libraries."""

    @abc.abstractmethod
    def score(self, clips: Clips) -> np.ndarray:
        """Return (n,) anomaly scores; higher is more anomalous."""

    def resolved_params(self) -> dict[str, Any]:
        """Return the values that ``fit`` chose for parameters set to ``auto``.

        A fit on fewer clips may choose other values. Scores that are compared with those of this
        detector, such as held-out ones, are to come from fits of ``resolved``.
        """
        return {}

    def resolved(self) -> Self:
        """Return an unfitted copy with the values of ``resolved_params`` as its settings."""
        return clone(self).set_params(**self.resolved_params())

    def score_path(
        self, grid: Sequence[Params], fit_clips: Clips, score_clips: Clips
    ) -> np.ndarray:
        """Return (len(grid), n) scores, one row for each setting fitted on ``fit_clips``.

        Override it if several settings can be fitted faster together; rows have to equal those of
        fitting one by one.
        """
        rows: dict[int, np.ndarray] = {}
        groups = self._sharing_a_fit(grid)
        with tempfile.TemporaryDirectory() as folder:
            for members in groups:
                fitted = clone(self).set_params(**grid[members[0]])
                if len(groups) > 1:
                    _train_once(fitted, fit_clips, Path(folder))
                fitted.fit(fit_clips)
                default = {key: self.get_params(deep=False)[key] for key in self.score_params}
                for row in members:
                    changed = {k: v for k, v in grid[row].items() if self._is_score_param(k)}
                    fitted.set_params(**default).set_params(**changed)
                    rows[row] = fitted.score(score_clips)
        return np.stack([rows[row] for row in range(len(grid))])

    def _is_score_param(self, name: str) -> bool:
        return name.split("__")[0] in self.score_params

    def _sharing_a_fit(self, grid: Sequence[Params]) -> list[list[int]]:
        groups: dict[str, list[int]] = {}
        for row, params in enumerate(grid):
            fitted = sorted((k, v) for k, v in params.items() if not self._is_score_param(k))
            groups.setdefault(repr(fitted), []).append(row)
        return list(groups.values())


def load(
    folder: str | Path, trust: Iterable[str] = (), shared: str | Path | Sequence[Path] = ()
) -> Detector:
    """Read what ``Detector.save`` wrote.

    Networks to which it refers are searched in ``shared/`` of the folder and of the two above it,
    nowhere else, and their content is checked.

    Args:
        folder: Holds the two files.
        trust: Packages whose classes it may name, beside those of fsasd and scikit-learn.
        shared: Further folders of networks, searched first.

    Raises:
        FileNotFoundError: There is no saved detector, or a network to which it refers is missing.
        NotAModelError: A file is damaged, or names a class that is not trusted or not allowed.
    """
    folder = Path(folder)
    return restored(read(folder, estimator.folders(shared)), folder, trust)


def restored(saved: Saved, folder: Path, trust: Iterable[str] = ()) -> Detector:
    """Create the detector of what was read from a folder (see ``load``)."""
    settings = {"": saved.settings, **saved.detectors}
    if any("back_end" in about["params"] for about in settings.values()):
        raise NotAModelError(
            folder / SETTINGS,
            "it was saved before detectors scored learned representations: fit it anew",
        )
    tree: dict[str, Any] = {}
    for name, array in saved.arrays.items():
        *path, last = name.split("/")
        branch = tree
        for key in path:
            branch = branch.setdefault(key, {})
            if not isinstance(branch, dict):
                raise NotAModelError(folder / ARRAYS, f"{name} lies within an array")
        branch[last] = array
    try:
        detector = estimator.restored(tree, settings, "", tuple(trust))
    except (OSError, ImportError):
        # An encoder that it names was moved.
        raise
    except Exception as error:
        # Constructors may raise anything for arguments from a file.
        why = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise NotAModelError(folder / SETTINGS, why) from error
    if not isinstance(detector, Detector):
        raise NotAModelError(
            folder / SETTINGS, f"expected a detector, found {saved.settings['class']}"
        )
    return detector


def require_finite(scores: np.ndarray, clips: Clips) -> None:
    """Raise if a clip's score is not finite: NaN would never exceed a threshold.

    Args:
        scores: (..., n), such as a row for each setting.
        clips: The n clips.

    Raises:
        ValueError: Names the first such clip.
    """
    finite = np.isfinite(scores).reshape(-1, len(clips)).all(axis=0)
    if not finite.all():
        first = int(np.argmin(finite))
        values = np.reshape(scores, (-1, len(clips)))[:, first]
        others = int((~finite).sum()) - 1
        more = f" (and for {others} more clips)" if others else ""
        raise ValueError(
            f"{printable(clips[first].path)}: expected a finite anomaly score, found "
            f"{values[~np.isfinite(values)][0]}{more}"
        )


def _train_once(detector: Detector, clips: Clips, folder: Path) -> None:
    """Train the learned representations that are not prepared, equal ones once for all settings."""
    for part in detector.to_prepare():
        if isinstance(part, LearnedRepresentation) and part._prepared is None:
            spec = json.dumps(part.network_spec(), sort_keys=True)
            part.prepare(clips, folder / hashlib.sha256(spec.encode()).hexdigest()[:16])
