"""The rules of a detector, one function each; ``check_detector`` runs them all.

A rule is broken by an ``AssertionError`` that says what was seen, or by any other error that a
detector following it would not raise; both arrive as ``ConformanceError`` with the rule's sentence.
"""

from __future__ import annotations

import functools
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
from joblib.externals.loky import get_reusable_executor
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fsasd.data.clips import Clips, FeatureCache, FrontEnd
from fsasd.data.metadata import Clip, read_clips
from fsasd.data.recording import SAMPLE_RATE, read
from fsasd.data.simulate import write_factory
from fsasd.detectors.base import Detector, Params, load
from fsasd.settings.objects import described, packages


class ConformanceError(AssertionError):
    """A detector breaks a rule; the message says which, and by what."""


class DetectorCase:
    """A detector and the clips that it is tried on; fitted once for all rules.

    Args:
        detector: As a user would pass it; copies of it are fitted.
        clips: Recordings of one machine: those of split ``train``, normal and of both domains, are
            fitted on, those of split ``test`` are scored; 20 + 8 simulated ones by default.
        folder: Where recordings may be written.
        grid: Settings that one is chosen from, some of them.

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
        found = {
            "normal training clips of the source domain": len(self.train.where(domain="source")),
            "normal training clips of the target domain": len(self.train.where(domain="target")),
            "normal test clips": len(self.test.where(label="normal")),
        }
        for what, count in found.items():
            if count < 2:
                raise ValueError(f"a detector is tried on at least 2 {what}, found {count}")

    @cached_property
    def fitted(self) -> Detector:
        """A copy that was fitted on the training clips."""
        return self.fit(self.train)

    @cached_property
    def scores(self) -> np.ndarray:
        """Its scores of the test clips."""
        return np.asarray(self.fitted.score(self.test))

    def fit(self, clips: Clips) -> Detector:
        """Return a fresh copy fitted on the clips."""
        detector = clone(self.detector)
        detector.fit(clips)
        return detector

    def recording(
        self, name: str, waveform: np.ndarray, rate: int = SAMPLE_RATE, like: Clip | None = None
    ) -> Clip:
        """Write a waveform and return it as a clip of which as much is known as of ``like``."""
        path = self.folder / f"{name}.wav"
        soundfile.write(path, waveform, rate, subtype="FLOAT")
        if like is None:
            return Clip(path, self.train[0].machine, section=self.train[0].section)
        return replace(like, path=path)


Check = Callable[[DetectorCase], None]

_CHECKS: list[Check] = []


def detector_checks() -> list[Check]:
    """Return the rules, each a function of a ``DetectorCase``; for pytest's ``parametrize``.

    >>> detector_checks()[0].__name__
    'check_constructor_stores_its_arguments'
    """
    return list(_CHECKS)


def check_detector(
    detector: Detector, clips: Clips | None = None, grid: Sequence[Params] = ()
) -> None:
    """Check that a detector keeps every rule.

    Args:
        detector: Unfitted, with the settings that it is to be tried with (small ones); already
            prepared, if its network is to hear other machines than that of the clips.
        clips: Recordings of one machine, both splits, both domains; simulated ones by default.
        grid: Some of the settings that its yaml lets synthetic clips choose from; a detector with
            a ``score_path`` of its own is tried on them.

    Raises:
        ConformanceError: Names every rule that is broken.

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
    """Make a rule of a function: its docstring is the sentence that a failure quotes."""

    @functools.wraps(check)
    def checked(case: DetectorCase) -> None:
        try:
            check(case)
        except Exception as error:
            said = str(error) if isinstance(error, AssertionError) else repr(error)
            raise ConformanceError(
                f"{type(case.detector).__name__} breaks {check.__name__} "
                f"({(check.__doc__ or '').strip()}): {said}"
            ) from error

    _CHECKS.append(checked)
    return checked


# Settings.


@_rule
def check_constructor_stores_its_arguments(case: DetectorCase) -> None:
    """The constructor stores its arguments unchanged, under their names, and nothing else."""
    params = clone(case.detector).get_params(deep=False)
    made = type(case.detector)(**params)
    assert set(vars(made)) == set(params), (
        f"attributes {sorted(set(vars(made)) ^ set(params))} are no parameters, or the reverse"
    )


@_rule
def check_clone_is_unfitted_with_equal_settings(case: DetectorCase) -> None:
    """A clone of a fitted detector has its settings and nothing that it learnt."""
    copied = clone(case.fitted)
    assert _said(copied) == _said(case.fitted), "the settings of the clone differ"
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


# Fitting.


@_rule
def check_fit_returns_the_detector_and_keeps_its_settings(case: DetectorCase) -> None:
    """``fit`` returns the detector itself and leaves its parameters as they were."""
    fresh = clone(case.detector)
    before = _said(fresh)
    assert fresh.fit(case.train) is fresh, "fit did not return self"
    assert _said(fresh) == before, f"parameters changed from {before} to {_said(fresh)}"


@_rule
def check_two_fits_are_equal(case: DetectorCase) -> None:
    """Fitting is deterministic for a seed, whatever was drawn elsewhere before."""
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
    """Training clips in another order lead to the same scores, unless a network is trained on them.

    That is what ``trains_network`` says of a detector.
    """
    if _trains_network(case.detector):
        return
    rng = np.random.default_rng(0)
    lowest = case.scores.min()
    for _ in range(2):
        scores = case.fit(case.train[rng.permutation(len(case.train))]).score(case.test)
        # In units of the scores' range, wherever they lie.
        _assert_close(
            scores - lowest, case.scores - lowest, "training clips in another order", 1e-6
        )


@_rule
def check_fitting_anew_forgets(case: DetectorCase) -> None:
    """A second ``fit`` forgets the clips of the first."""
    noise = np.random.default_rng(5).normal(0, 0.2, (len(case.train), SAMPLE_RATE // 2))
    others = [
        case.recording(f"other-{i}", waveform, like=clip)
        for i, (waveform, clip) in enumerate(zip(noise, case.train, strict=True))
    ]
    detector = case.fit(Clips(others))
    detector.fit(case.train)
    _assert_close(detector.score(case.test), case.scores, "a detector that was fitted before")


@_rule
def check_too_few_clips_are_told(case: DetectorCase) -> None:
    """Fitting to no clip, or to one, works or is a ``ValueError`` that says how many were found."""
    for count in (0, 1):
        try:
            scores = case.fit(case.train[:count]).score(case.test)
        except ValueError as error:
            said = str(error)
        else:
            assert count, "fitting to no clip worked"
            _assert_numbers(scores, len(case.test))
            continue
        assert re.search(rf"\b{count}\b", said), (
            f"the error for {count} clips does not say that {count} were found: {said}"
        )


@_rule
def check_no_target_domain_is_needed(case: DetectorCase) -> None:
    """Fitting to clips of one domain works, or is a ``ValueError`` that says what is missing."""
    try:
        scores = case.fit(case.train.where(domain="source")).score(case.test)
    except ValueError as error:
        said = str(error)
    else:
        _assert_numbers(scores, len(case.test))
        return
    assert "target" in said, f"the error does not say that target clips lack: {said}"


@_rule
def check_clips_of_different_lengths_are_fitted(case: DetectorCase) -> None:
    """Training clips may be of different lengths."""
    cut = []
    for i, clip in enumerate(case.train[:3]):
        waveform = case.train.cache.read(clip)
        shorter = waveform[: len(waveform) * (i + 2) // 5]
        cut.append(case.recording(f"cut-{i}", shorter, like=clip))
    mixed = Clips([*cut, *case.train[3:]], case.train.cache)
    _assert_numbers(case.fit(mixed).score(case.test), len(case.test))


# Scoring.


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
    # The one that all rules share has scored before.
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
    """Clips that are scored in another order have the same scores."""
    order = np.random.default_rng(0).permutation(len(case.test))
    _assert_close(case.fitted.score(case.test[order]), case.scores[order], "another order")


@_rule
def check_clips_beside_do_not_matter(case: DetectorCase) -> None:
    """A clip's score does not depend on the clips that are scored with it."""
    alone = np.concatenate([case.fitted.score(case.test[[i]]) for i in range(len(case.test))])
    _assert_close(alone, case.scores, "scoring one by one")


@_rule
def check_only_the_sound_is_scored(case: DetectorCase) -> None:
    """Labels, domains and attributes of the scored clips are not looked at."""
    hidden = [Clip(clip.path, clip.machine, section=clip.section) for clip in case.test]
    scores = case.fitted.score(Clips(hidden, case.test.cache))
    _assert_close(scores, case.scores, "hiding what is known of the clips")


@_rule
def check_an_obvious_anomaly_scores_higher(case: DetectorCase) -> None:
    """White noise is more anomalous than every normal clip of the machine."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, case.train.cache.read(case.test[0]).shape)
    (alien,) = case.fitted.score(Clips([case.recording("noise", noise)]))
    usual = case.fitted.score(case.test.where(label="normal"))
    assert alien > usual.max(), f"noise scores {alien:g}, normal clips up to {usual.max():g}"


@_rule
def check_extreme_clips_have_finite_scores(case: DetectorCase) -> None:
    """Silence, a constant, clipping, 20 ms and 30 s have finite scores, also side by side."""
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
    _assert_close(scores[len(clips) :], case.scores, "scoring beside extreme clips")


@_rule
def check_another_sampling_rate_is_resampled(case: DetectorCase) -> None:
    """A recording at another sampling rate is heard as the same sound."""
    clip = case.test.where(label="normal")[0]
    waveform = case.test.cache.read(clip)
    faster = np.interp(np.arange(0, len(waveform), 2 / 3), np.arange(len(waveform)), waveform)
    slower = case.recording("24 kHz", faster, SAMPLE_RATE * 3 // 2)
    # Interpolating in between loses highs: what counts is that pitch and length are those heard.
    same = case.recording("16 kHz", read(slower.path))
    wrong = case.recording("24 kHz heard at 16 kHz", faster)
    heard, expected, misheard = case.fitted.score(Clips([slower, same, wrong]))
    assert abs(heard - expected) <= 1e-3 * max(abs(misheard - expected), abs(expected)), (
        f"a clip at 24 kHz scores {heard:g}, the same at 16 kHz {expected:g}"
    )


@_rule
def check_score_path_is_scoring_one_by_one(case: DetectorCase) -> None:
    """``score_path`` has a row for each setting, that of fitting and scoring with it."""
    settings = [{}, *(case.grid or [{}])]
    rows = clone(case.detector).score_path(settings, case.train, case.test)
    assert np.shape(rows) == (len(settings), len(case.test)), f"the shape is {np.shape(rows)}"
    for params, row in zip(settings, rows, strict=True):
        detector = clone(case.detector).set_params(**params)
        alone = detector.fit(case.train).score(case.test) if params else case.scores
        _assert_close(row, alone, f"score_path at {params or 'its own setting'}")


# Saving.


@_rule
def check_saved_detector_scores_the_same(case: DetectorCase) -> None:
    """A saved detector is JSON and arrays, and what is loaded has the same scores and settings."""
    folder = case.folder / "saved"
    case.fitted.save(folder)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["detector.json", "detector.safetensors"], f"it left {names}"
    loaded = load(folder, packages(described(case.fitted)))
    assert type(loaded) is type(case.fitted), f"{type(loaded).__name__} was loaded"
    assert _said(loaded) == _said(case.fitted), f"its settings became {_said(loaded)}"
    _assert_close(loaded.score(case.test), case.scores, "the loaded detector", 1e-6)
    counts = loaded.n_parameters(), case.fitted.n_parameters()
    assert counts[0] == counts[1], f"{counts[0]} parameters were loaded of {counts[1]}"


@_rule
def check_parameter_count_is_reported(case: DetectorCase) -> None:
    """``n_parameters`` is a positive whole number."""
    count = case.fitted.n_parameters()
    assert isinstance(count, (int, np.integer)), f"it is {count!r}"
    assert count > 0, f"it is {count}"


@_rule
def check_two_processes_agree(case: DetectorCase) -> None:
    """Another process that fits, or loads what was saved, comes to the same scores."""
    folder = case.folder / "for another process"
    case.fitted.save(folder)
    asked = clone(case.detector), list(case.train), list(case.test), case.train.cache.channel
    # One other process serves all checks: most of its time goes into starting.
    executor = get_reusable_executor(max_workers=1, timeout=600)
    # It may have started before the module of this detector could be imported.
    executor.submit(_import_from, list(sys.path)).result()
    trust = packages(described(case.fitted))
    fitted, loaded = executor.submit(_elsewhere, *asked, folder, trust).result()
    _assert_close(fitted, case.scores, "fitting in another process")
    _assert_close(loaded, case.scores, "loading in another process", 1e-6)


def _import_from(path: list[str]) -> None:
    sys.path[:] = path


def _elsewhere(
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


# What the rules are made of.


def _trains_network(detector: Detector) -> bool:
    return detector.trains_network or any(_trains_network(d) for _, d in detector._detectors())


@dataclass
class _Seen:
    what: str
    array: np.ndarray
    hash: str


class _Watch(FeatureCache):
    """A cache that knows what it gave away."""

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


def _said(detector: Detector) -> str:
    return repr(sorted(detector.get_params().items()))


def _assert_numbers(scores: np.ndarray, count: int) -> None:
    scores = np.asarray(scores)
    assert scores.shape == (count,), f"{count} clips have scores of shape {scores.shape}"
    assert np.issubdtype(scores.dtype, np.floating), f"scores are {scores.dtype}"
    assert np.isfinite(scores).all(), f"scores are {scores}"


def _assert_close(
    found: np.ndarray, expected: np.ndarray, what: str, tolerance: float = 1e-5
) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, not {expected.shape}"
    allowed = tolerance * max(float(np.abs(expected).max(initial=0)), 1e-12)
    furthest = float(np.abs(found - expected).max(initial=0))
    assert furthest <= allowed, (
        f"{what}: scores differ by up to {furthest:g} where they are up to "
        f"{np.abs(expected).max():g}"
    )
