"""Conformance checks of detectors, one function per rule; ``check_detector`` runs all of them.

Those of settings and of the fit are in ``fitting_checks``, those of degenerate clips in
``number_checks``, those of scores and of saving here. A check fails by an ``AssertionError`` with
the observed value, or by any other error that a conforming detector does not raise; both become a
``ConformanceError`` that quotes the rule.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
from joblib.externals.loky import ProcessPoolExecutor
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.front_ends import FrontEnd
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE, read
from fsasd.detectors.base import Detector, Params, load
from fsasd.settings.objects import described, packages
from fsasd.testing import fitting_checks, number_checks  # noqa: F401, their checks come first
from fsasd.testing.detector_case import (
    CHECKS,
    Check,
    ConformanceError,
    DetectorCase,
    assert_close,
    assert_numbers,
    rule,
    settings,
)


def detector_checks() -> list[Check]:
    """Return the checks, functions of a ``DetectorCase``; for pytest's ``parametrize``.

    >>> detector_checks()[0].__name__
    'check_constructor_stores_its_arguments'
    """
    return list(CHECKS)


def check_detector(
    detector: Detector, clips: Clips | None = None, grid: Sequence[Params] = ()
) -> None:
    """Check that a detector keeps every rule.

    Args:
        detector: Unfitted, with settings that are fast to fit; already prepared, if its network is
            to be trained on further machines.
        clips: Recordings of one machine, both splits, both domains; simulated ones by default.
        grid: Some settings of its grid, for a detector that overrides ``score_path``.

    Raises:
        ConformanceError: Names every failed check.

    >>> from fsasd.detectors.knn import KNN
    >>> check_detector(KNN(k=1), grid=[{"k": 2}])
    """
    broken = []
    with tempfile.TemporaryDirectory() as folder:
        case = DetectorCase(detector, clips, folder, grid)
        for check in CHECKS:
            try:
                check(case)
            except ConformanceError as error:
                broken.append(str(error))
    if broken:
        raise ConformanceError("\n".join(broken))


@rule
def check_unfitted_detector_does_not_score(case: DetectorCase) -> None:
    """``score`` before ``fit`` is a ``NotFittedError``."""
    try:
        clone(case.detector).score(case.test)
    except NotFittedError:
        return
    raise AssertionError("a detector scored before it was fitted")


@rule
def check_scores_are_finite_numbers(case: DetectorCase) -> None:
    """``score`` returns (n,) finite numbers."""
    assert_numbers(case.fitted.score(case.test), len(case.test))


@rule
def check_scoring_changes_nothing(case: DetectorCase) -> None:
    """Scoring leaves the detector as it is."""
    # The fitted detector of the other checks has scored before.
    detector = case.fit(case.train)
    states = []
    for name in ("before scoring", "after scoring"):
        detector.save(case.folder / name)
        states.append([path.read_bytes() for path in sorted((case.folder / name).iterdir())])
        again = detector.score(case.test)
    assert states[0] == states[1], "what is saved of the detector changed as it scored"
    assert_close(again, case.scores, "scoring a second time")


@rule
def check_inputs_are_not_altered(case: DetectorCase) -> None:
    """Fitting and scoring leave clips and their features as they are."""
    cache = _Watch(channel=case.train.cache.channel)
    train, test = Clips(list(case.train), cache), Clips(list(case.test), cache)
    before = repr([*train, *test])
    case.fit(train).score(test)
    assert repr([*train, *test]) == before, "the clips' metadata changed"
    altered = cache.altered()
    assert not altered, f"features were changed in place: {altered[0]}"


@rule
def check_order_does_not_matter(case: DetectorCase) -> None:
    """The order of the scored clips does not change their scores."""
    order = np.random.default_rng(0).permutation(len(case.test))
    assert_close(case.fitted.score(case.test[order]), case.scores[order], "another order", 1e-6)


@rule
def check_scores_do_not_depend_on_other_clips(case: DetectorCase) -> None:
    """A clip's score does not depend on the other clips that are scored."""
    alone = np.concatenate([case.fitted.score(case.test[[i]]) for i in range(len(case.test))])
    assert_close(alone, case.scores, "scoring one by one", 1e-6)


@rule
def check_metadata_is_not_scored(case: DetectorCase) -> None:
    """Scores do not depend on labels, domains and attributes of the scored clips."""
    hidden = [Clip(clip.path, clip.machine, section=clip.section) for clip in case.test]
    scores = case.fitted.score(Clips(hidden, case.test.cache))
    assert_close(scores, case.scores, "clips without metadata")


@rule
def check_an_obvious_anomaly_scores_higher(case: DetectorCase) -> None:
    """White noise is more anomalous than every normal clip of the machine."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, case.train.cache.read(case.test[0]).shape)
    (alien,) = case.fitted.score(Clips([case.recording("noise", noise)]))
    normal = case.fitted.score(case.test.where(label="normal"))
    assert alien > normal.max(), f"noise scores {alien:g}, normal clips up to {normal.max():g}"


@rule
def check_another_sampling_rate_is_resampled(case: DetectorCase) -> None:
    """A recording at another sampling rate has the same score."""
    clip = case.test.where(label="normal")[0]
    waveform = case.test.cache.read(clip)
    faster = np.interp(np.arange(0, len(waveform), 2 / 3), np.arange(len(waveform)), waveform)
    slower = case.recording("24 kHz", faster, SAMPLE_RATE * 3 // 2)
    # Interpolation attenuates high frequencies; pitch and length have to be kept.
    same = case.recording("16 kHz", read(slower.path))
    wrong = case.recording("24 kHz read as 16 kHz", faster)
    score, expected, misread = case.fitted.score(Clips([slower, same, wrong]))
    assert abs(score - expected) <= 1e-3 * max(abs(misread - expected), abs(expected)), (
        f"a clip at 24 kHz scores {score:g}, the same at 16 kHz {expected:g}"
    )


@rule
def check_score_path_equals_fitting_one_by_one(case: DetectorCase) -> None:
    """``score_path`` returns, for each setting, the scores of fitting with it."""
    settings = [{}, *(case.grid or [{}])]
    rows = clone(case.detector).score_path(settings, case.train, case.test)
    assert np.shape(rows) == (len(settings), len(case.test)), f"the shape is {np.shape(rows)}"
    for params, row in zip(settings, rows, strict=True):
        detector = clone(case.detector).set_params(**params)
        alone = detector.fit(case.train).score(case.test) if params else case.scores
        assert_close(row, alone, f"score_path at {params or 'the default setting'}")


@rule
def check_saved_detector_scores_the_same(case: DetectorCase) -> None:
    """A saved detector is JSON and arrays, and has the same scores and settings when loaded."""
    folder = case.folder / "saved"
    case.fitted.save(folder)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["detector.json", "detector.safetensors"], f"files are {names}"
    loaded = load(folder, packages(described(case.fitted)))
    assert type(loaded) is type(case.fitted), f"{type(loaded).__name__} was loaded"
    assert settings(loaded) == settings(case.fitted), f"its settings became {settings(loaded)}"
    assert_close(loaded.score(case.test), case.scores, "the loaded detector", 1e-6)
    counts = loaded.n_parameters(), case.fitted.n_parameters()
    assert counts[0] == counts[1], f"{counts[0]} parameters were loaded of {counts[1]}"
    section = case.folder / "models" / "machine" / "section_00"
    case.fitted.save(section, shared=case.folder / "models" / "shared")
    scores = load(section, packages(described(case.fitted))).score(case.test)
    assert_close(scores, case.scores, "the detector that refers to shared networks", 1e-6)


@rule
def check_network_spec_is_plain_json(case: DetectorCase) -> None:
    """``network_spec`` is plain JSON, and equal for a clone and for the fitted detector."""
    spec = case.detector.network_spec()
    assert json.loads(json.dumps(spec)) == spec, f"it is not the same after JSON: {spec}"
    for what, other in (("a clone", clone(case.detector)), ("the fitted detector", case.fitted)):
        assert other.network_spec() == spec, f"that of {what} differs: {other.network_spec()}"


@rule
def check_parameter_count_is_reported(case: DetectorCase) -> None:
    """``n_parameters`` is a positive integer."""
    count = case.fitted.n_parameters()
    assert isinstance(count, (int, np.integer)), f"it is {count!r}"
    assert count > 0, f"it is {count}"


@rule
def check_two_processes_agree(case: DetectorCase) -> None:
    """Fitting, or loading the saved detector, in another process gives the same scores."""
    folder = case.folder / "for another process"
    case.fitted.save(folder)
    arguments = clone(case.detector), list(case.train), list(case.test), case.train.cache.channel
    executor = _other_process()
    # It may have been started before the module of this detector was importable.
    executor.submit(_import_from, list(sys.path)).result()
    trust = packages(described(case.fitted))
    fitted, loaded = executor.submit(_fit_and_load, *arguments, folder, trust).result()
    assert_close(fitted, case.scores, "fitting in another process")
    assert_close(loaded, case.scores, "loading in another process", 1e-6)


@functools.cache
def _other_process() -> ProcessPoolExecutor:
    """Return one process for all checks, as starting it takes most of the time.

    It is not loky's reusable one, which joblib takes for its own.
    """
    return ProcessPoolExecutor(max_workers=1, timeout=600)


def _import_from(path: list[str]) -> None:
    sys.path[:] = path


def _fit_and_load(
    detector: Detector,
    train: Sequence[Clip],
    test: Sequence[Clip],
    channel: int | str | None,
    folder: Path,
    trust: Iterable[str],
) -> tuple[np.ndarray, np.ndarray]:
    cache = FeatureCache(channel=channel)
    detector.fit(Clips(train, cache))
    return detector.score(Clips(test, cache)), load(folder, trust).score(Clips(test, cache))


@dataclass
class _Seen:
    what: str
    array: np.ndarray
    hash: str


class _Watch(FeatureCache):
    """A cache that records the features it returned, to notice changes in place."""

    def __init__(self, channel: int | str | None) -> None:
        super().__init__(channel=channel)
        self.seen: list[_Seen] = []

    def get(self, front_end: FrontEnd, clip: Clip) -> np.ndarray:
        array = super().get(front_end, clip)
        self.seen.append(_Seen(f"{front_end!r} of {clip.path.name}", array, joblib.hash(array)))
        return array

    def altered(self) -> list[str]:
        first: dict[str, str] = {}
        for seen in self.seen:
            first.setdefault(seen.what, seen.hash)
        return [s.what for s in self.seen if joblib.hash(s.array) != first[s.what]]
