"""Conformance checks of detectors, one function per rule; ``check_detector`` runs all of them.

A check fails by an ``AssertionError`` with the observed value, or by any other error that a
conforming detector does not raise; both become a ``ConformanceError`` that quotes the rule.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import joblib
import numpy as np
import soundfile
import torch
from joblib.externals.loky import ProcessPoolExecutor
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.front_ends import FrontEnd
from fsasd.data.metadata import Clip, read_clips
from fsasd.data.recording import SAMPLE_RATE, read
from fsasd.data.simulate import write_factory
from fsasd.detectors.base import Detector, Params, load
from fsasd.detectors.estimator import Estimator
from fsasd.settings.objects import described, packages


class ConformanceError(AssertionError):
    """A detector breaks a rule; the message names the check and the observed value."""


class DetectorCase:
    """A detector and the clips to check it on; it is fitted once for all checks.

    Args:
        detector: Unfitted; copies of it are fitted.
        clips: Recordings of one machine: normal ones of split ``train``, of both domains, to fit
            to, and those of split ``test`` to score; 20 + 8 simulated ones by default.
        folder: For recordings of the checks.
        grid: Some settings of the detector's grid.

    Raises:
        ValueError: The clips lack a split or a domain.
    """

    def __init__(
        self,
        detector: Detector,
        clips: Clips | None,
        folder: str | Path,
        grid: Sequence[Params] = (),
    ) -> None:
        self.detector = detector
        self.grid = list(grid)
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        clips = _simulated(self.folder) if clips is None else clips
        self.train = clips.where(split="train", label="normal")
        self.test = clips.where(split="test")
        counts = {
            "normal training clips of the source domain": len(self.train.where(domain="source")),
            "normal training clips of the target domain": len(self.train.where(domain="target")),
            "normal test clips": len(self.test.where(label="normal")),
        }
        for what, count in counts.items():
            if count < 2:
                raise ValueError(
                    f"expected at least 2 {what} to check a detector on, found {count}"
                )

    @cached_property
    def fitted(self) -> Detector:
        """A copy fitted to the training clips."""
        return self.fit(self.train)

    @cached_property
    def scores(self) -> np.ndarray:
        """Scores of the test clips by ``fitted``."""
        return np.asarray(self.fitted.score(self.test))

    def fit(self, clips: Clips) -> Detector:
        """Return a new copy fitted to the clips."""
        detector = clone(self.detector)
        detector.fit(clips)
        return detector

    def recording(
        self, name: str, waveform: np.ndarray, rate: int = SAMPLE_RATE, like: Clip | None = None
    ) -> Clip:
        """Write a waveform, and return its clip with the metadata of ``like``."""
        path = self.folder / f"{name}.wav"
        soundfile.write(path, waveform, rate, subtype="FLOAT")
        if like is None:
            return Clip(path, self.train[0].machine, section=self.train[0].section)
        return replace(like, path=path)


Check = Callable[[DetectorCase], None]

_CHECKS: list[Check] = []


def detector_checks() -> list[Check]:
    """Return the checks, functions of a ``DetectorCase``; for pytest's ``parametrize``.

    >>> detector_checks()[0].__name__
    'check_constructor_stores_its_arguments'
    """
    return list(_CHECKS)


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
        for check in _CHECKS:
            try:
                check(case)
            except ConformanceError as error:
                broken.append(str(error))
    if broken:
        raise ConformanceError("\n".join(broken))


def _rule(check: Check) -> Check:
    """Register a check; its docstring is the rule that a failure quotes."""

    @functools.wraps(check)
    def checked(case: DetectorCase) -> None:
        try:
            check(case)
        except Exception as error:
            message = str(error) if isinstance(error, AssertionError) else repr(error)
            raise ConformanceError(
                f"{type(case.detector).__name__} breaks {check.__name__} "
                f"({(check.__doc__ or '').strip()}): {message}"
            ) from error

    _CHECKS.append(checked)
    return checked


@_rule
def check_constructor_stores_its_arguments(case: DetectorCase) -> None:
    """The constructor stores its arguments unchanged, under their names, and nothing else."""
    params = clone(case.detector).get_params(deep=False)
    constructed = type(case.detector)(**params)
    differ = sorted(set(vars(constructed)) ^ set(params))
    assert not differ, f"attributes {differ} are no parameters, or the reverse"


@_rule
def check_clone_is_unfitted_with_equal_settings(case: DetectorCase) -> None:
    """A clone of a fitted detector has its settings and is not fitted."""
    copied = clone(case.fitted)
    assert _settings(copied) == _settings(case.fitted), "the settings of the clone differ"
    try:
        copied.score(case.test)
    except NotFittedError:
        return
    raise AssertionError("the clone of a fitted detector scores without being fitted")


@_rule
def check_settings_can_be_set_by_name(case: DetectorCase) -> None:
    """``set_params`` takes every parameter and refuses unknown ones."""
    fresh = clone(case.detector)
    for name, value in case.detector.get_params(deep=False).items():
        assert fresh.set_params(**{name: value}) is fresh, f"set_params({name}=...) is not self"
        assert fresh.get_params(deep=False)[name] is value, f"{name} was not set"
    try:
        fresh.set_params(no_such_parameter=1)
    except ValueError:
        return
    raise AssertionError("an unknown parameter was taken without an error")


@_rule
def check_fit_returns_the_detector_and_keeps_its_settings(case: DetectorCase) -> None:
    """``fit`` returns the detector itself and leaves its parameters as they were."""
    fresh = clone(case.detector)
    before = _settings(fresh)
    assert fresh.fit(case.train) is fresh, "fit did not return self"
    assert _settings(fresh) == before, f"parameters changed from {before} to {_settings(fresh)}"


@_rule
def check_two_fits_are_equal(case: DetectorCase) -> None:
    """Fitting is deterministic for a seed and does not depend on global random states."""
    expected = case.scores
    state = np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
    try:
        np.random.seed(17)  # noqa: NPY002
        torch.manual_seed(17)
        _assert_close(case.fit(case.train).score(case.test), expected, "a second fit")
    finally:
        np.random.set_state(state[0])  # noqa: NPY002
        torch.random.set_rng_state(state[1])


@_rule
def check_the_order_of_training_clips_does_not_matter(case: DetectorCase) -> None:
    """The order of the training clips does not change scores, unless a network is trained."""
    if _trains_network(case.detector):
        return
    rng = np.random.default_rng(0)
    lowest = case.scores.min()
    for _ in range(2):
        scores = case.fit(case.train[rng.permutation(len(case.train))]).score(case.test)
        # Relative to the range of the scores, not to their offset.
        _assert_close(
            scores - lowest, case.scores - lowest, "training clips in another order", 1e-6
        )


@_rule
def check_second_fit_replaces_the_first(case: DetectorCase) -> None:
    """A second ``fit`` depends on its clips only."""
    noise = np.random.default_rng(5).normal(0, 0.2, (len(case.train), SAMPLE_RATE // 2))
    others = [
        case.recording(f"other-{i}", waveform, like=clip)
        for i, (waveform, clip) in enumerate(zip(noise, case.train, strict=True))
    ]
    detector = case.fit(Clips(others))
    detector.fit(case.train)
    _assert_close(detector.score(case.test), case.scores, "a detector that was fitted before")


@_rule
def check_too_few_clips_are_reported(case: DetectorCase) -> None:
    """Fitting to no clip, or to one, works or is a ``ValueError`` that says how many were found."""
    for count in (0, 1):
        try:
            scores = case.fit(case.train[:count]).score(case.test)
        except ValueError as error:
            message = str(error)
        else:
            assert count, "fitting to no clip worked"
            _assert_numbers(scores, len(case.test))
            continue
        assert re.search(rf"\b{count}\b", message), (
            f"the error for {count} clips does not say that {count} were found: {message}"
        )


@_rule
def check_no_target_domain_is_needed(case: DetectorCase) -> None:
    """Fitting to source clips only works, or is a ``ValueError`` that names the target domain."""
    try:
        scores = case.fit(case.train.where(domain="source")).score(case.test)
    except ValueError as error:
        message = str(error)
    else:
        _assert_numbers(scores, len(case.test))
        return
    assert "target" in message, f"the error does not name the target domain: {message}"


@_rule
def check_clips_of_different_lengths_are_fitted(case: DetectorCase) -> None:
    """Training clips may have different lengths."""
    cut = []
    for i, clip in enumerate(case.train[:3]):
        waveform = case.train.cache.read(clip)
        shorter = waveform[: len(waveform) * (i + 2) // 5]
        cut.append(case.recording(f"cut-{i}", shorter, like=clip))
    mixed = Clips([*cut, *case.train[3:]], case.train.cache)
    _assert_numbers(case.fit(mixed).score(case.test), len(case.test))


@_rule
def check_unfitted_detector_does_not_score(case: DetectorCase) -> None:
    """``score`` before ``fit`` is a ``NotFittedError``."""
    try:
        clone(case.detector).score(case.test)
    except NotFittedError:
        return
    raise AssertionError("a detector scored before it was fitted")


@_rule
def check_scores_are_finite_numbers(case: DetectorCase) -> None:
    """``score`` returns (n,) finite numbers."""
    _assert_numbers(case.fitted.score(case.test), len(case.test))


@_rule
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
    _assert_close(again, case.scores, "scoring a second time")


@_rule
def check_inputs_are_not_altered(case: DetectorCase) -> None:
    """Fitting and scoring leave clips and their features as they are."""
    cache = _Watch(channel=case.train.cache.channel)
    train, test = Clips(list(case.train), cache), Clips(list(case.test), cache)
    before = repr([*train, *test])
    case.fit(train).score(test)
    assert repr([*train, *test]) == before, "the clips' metadata changed"
    altered = cache.altered()
    assert not altered, f"features were changed in place: {altered[0]}"


@_rule
def check_order_does_not_matter(case: DetectorCase) -> None:
    """The order of the scored clips does not change their scores."""
    order = np.random.default_rng(0).permutation(len(case.test))
    _assert_close(case.fitted.score(case.test[order]), case.scores[order], "another order")


@_rule
def check_scores_do_not_depend_on_other_clips(case: DetectorCase) -> None:
    """A clip's score does not depend on the other clips that are scored."""
    alone = np.concatenate([case.fitted.score(case.test[[i]]) for i in range(len(case.test))])
    _assert_close(alone, case.scores, "scoring one by one")


@_rule
def check_metadata_is_not_scored(case: DetectorCase) -> None:
    """Scores do not depend on labels, domains and attributes of the scored clips."""
    hidden = [Clip(clip.path, clip.machine, section=clip.section) for clip in case.test]
    scores = case.fitted.score(Clips(hidden, case.test.cache))
    _assert_close(scores, case.scores, "clips without metadata")


@_rule
def check_an_obvious_anomaly_scores_higher(case: DetectorCase) -> None:
    """White noise is more anomalous than every normal clip of the machine."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, case.train.cache.read(case.test[0]).shape)
    (alien,) = case.fitted.score(Clips([case.recording("noise", noise)]))
    normal = case.fitted.score(case.test.where(label="normal"))
    assert alien > normal.max(), f"noise scores {alien:g}, normal clips up to {normal.max():g}"


@_rule
def check_extreme_clips_have_finite_scores(case: DetectorCase) -> None:
    """Silence, a constant, clipping, 20 ms and 30 s have finite scores, also scored together."""
    normal = case.test.cache.read(case.test[0])
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    extremes = {
        "silence": np.zeros(SAMPLE_RATE),
        "constant": np.full(SAMPLE_RATE, 0.5),
        "clipping": np.sign(np.sin(2 * np.pi * 200 * time)),
        "20 ms": normal[: SAMPLE_RATE // 50],
        "30 s": np.resize(normal, 30 * SAMPLE_RATE),
    }
    clips = [case.recording(name, waveform) for name, waveform in extremes.items()]
    scores = np.asarray(case.fitted.score(Clips([*clips, *case.test], case.test.cache)))
    for name, score in zip(extremes, scores, strict=False):
        assert np.isfinite(score), f"{name} scores {score}"
    _assert_close(scores[len(clips) :], case.scores, "scoring together with extreme clips")


@_rule
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


@_rule
def check_score_path_equals_fitting_one_by_one(case: DetectorCase) -> None:
    """``score_path`` returns, for each setting, the scores of fitting with it."""
    settings = [{}, *(case.grid or [{}])]
    rows = clone(case.detector).score_path(settings, case.train, case.test)
    assert np.shape(rows) == (len(settings), len(case.test)), f"the shape is {np.shape(rows)}"
    for params, row in zip(settings, rows, strict=True):
        detector = clone(case.detector).set_params(**params)
        alone = detector.fit(case.train).score(case.test) if params else case.scores
        _assert_close(row, alone, f"score_path at {params or 'the default setting'}")


@_rule
def check_saved_detector_scores_the_same(case: DetectorCase) -> None:
    """A saved detector is JSON and arrays, and has the same scores and settings when loaded."""
    folder = case.folder / "saved"
    case.fitted.save(folder)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["detector.json", "detector.safetensors"], f"files are {names}"
    loaded = load(folder, packages(described(case.fitted)))
    assert type(loaded) is type(case.fitted), f"{type(loaded).__name__} was loaded"
    assert _settings(loaded) == _settings(case.fitted), f"its settings became {_settings(loaded)}"
    _assert_close(loaded.score(case.test), case.scores, "the loaded detector", 1e-6)
    counts = loaded.n_parameters(), case.fitted.n_parameters()
    assert counts[0] == counts[1], f"{counts[0]} parameters were loaded of {counts[1]}"
    section = case.folder / "models" / "machine" / "section_00"
    case.fitted.save(section, shared=case.folder / "models" / "shared")
    scores = load(section, packages(described(case.fitted))).score(case.test)
    _assert_close(scores, case.scores, "the detector that refers to shared networks", 1e-6)


@_rule
def check_network_spec_is_plain_json(case: DetectorCase) -> None:
    """``network_spec`` is plain JSON, and equal for a clone and for the fitted detector."""
    spec = case.detector.network_spec()
    assert json.loads(json.dumps(spec)) == spec, f"it is not the same after JSON: {spec}"
    for what, other in (("a clone", clone(case.detector)), ("the fitted detector", case.fitted)):
        assert other.network_spec() == spec, f"that of {what} differs: {other.network_spec()}"


@_rule
def check_parameter_count_is_reported(case: DetectorCase) -> None:
    """``n_parameters`` is a positive integer."""
    count = case.fitted.n_parameters()
    assert isinstance(count, (int, np.integer)), f"it is {count!r}"
    assert count > 0, f"it is {count}"


@_rule
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
    _assert_close(fitted, case.scores, "fitting in another process")
    _assert_close(loaded, case.scores, "loading in another process", 1e-6)


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


def _trains_network(detector: Estimator) -> bool:
    inner = (part for _, part in detector._estimators())
    return detector.trains_network or any(map(_trains_network, inner))


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


def _simulated(folder: Path) -> Clips:
    root = write_factory(
        folder / "factory",
        references=(),
        targets=("fan",),
        seconds=1.0,
        train_clips=20,
        target_domain_clips=4,
        test_clips=2,
    )
    return Clips(read_clips(root))


def _settings(detector: Detector) -> str:
    return repr(sorted(detector.get_params().items()))


def _assert_numbers(scores: np.ndarray, count: int) -> None:
    scores = np.asarray(scores)
    assert scores.shape == (count,), f"{count} clips have scores of shape {scores.shape}"
    assert np.issubdtype(scores.dtype, np.floating), f"scores are {scores.dtype}"
    assert np.isfinite(scores).all(), f"scores are {scores}"


def _assert_close(
    actual: np.ndarray, expected: np.ndarray, what: str, tolerance: float = 1e-5
) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    allowed = tolerance * max(float(np.abs(expected).max(initial=0)), 1e-12)
    furthest = float(np.abs(actual - expected).max(initial=0))
    assert furthest <= allowed, (
        f"{what}: scores differ by up to {furthest:g} where they are up to "
        f"{np.abs(expected).max():g}"
    )
