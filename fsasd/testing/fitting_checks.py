"""Checks of a detector's settings and of its fit."""

from __future__ import annotations

import re

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fsasd.data.clips import Clips
from fsasd.data.recording import SAMPLE_RATE
from fsasd.detectors.estimator import Estimator
from fsasd.testing.detector_case import (
    DetectorCase,
    assert_close,
    assert_numbers,
    rule,
    settings,
)


@rule
def check_constructor_stores_its_arguments(case: DetectorCase) -> None:
    """The constructor stores its arguments unchanged, under their names, and nothing else."""
    params = clone(case.detector).get_params(deep=False)
    constructed = type(case.detector)(**params)
    differ = sorted(set(vars(constructed)) ^ set(params))
    assert not differ, f"attributes {differ} are no parameters, or the reverse"


@rule
def check_clone_is_unfitted_with_equal_settings(case: DetectorCase) -> None:
    """A clone of a fitted detector has its settings and is not fitted."""
    copied = clone(case.fitted)
    assert settings(copied) == settings(case.fitted), "the settings of the clone differ"
    try:
        copied.score(case.test)
    except NotFittedError:
        return
    raise AssertionError("the clone of a fitted detector scores without being fitted")


@rule
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


@rule
def check_fit_returns_the_detector_and_keeps_its_settings(case: DetectorCase) -> None:
    """``fit`` returns the detector itself and leaves its parameters as they were."""
    fresh = clone(case.detector)
    before = settings(fresh)
    assert fresh.fit(case.train) is fresh, "fit did not return self"
    assert settings(fresh) == before, f"parameters changed from {before} to {settings(fresh)}"


@rule
def check_two_fits_are_equal(case: DetectorCase) -> None:
    """Fitting is deterministic for a seed and does not depend on global random states."""
    expected = case.scores
    state = np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
    try:
        np.random.seed(17)  # noqa: NPY002
        torch.manual_seed(17)
        assert_close(case.fit(case.train).score(case.test), expected, "a second fit")
    finally:
        np.random.set_state(state[0])  # noqa: NPY002
        torch.random.set_rng_state(state[1])


@rule
def check_the_order_of_training_clips_does_not_matter(case: DetectorCase) -> None:
    """The order of the training clips does not change scores, unless a network is trained."""
    if _trains_network(case.detector):
        return
    rng = np.random.default_rng(0)
    lowest = case.scores.min()
    for _ in range(2):
        scores = case.fit(case.train[rng.permutation(len(case.train))]).score(case.test)
        # Relative to the range of the scores, not to their offset.
        assert_close(scores - lowest, case.scores - lowest, "training clips in another order", 1e-6)


@rule
def check_second_fit_replaces_the_first(case: DetectorCase) -> None:
    """A second ``fit`` depends on its clips only."""
    noise = np.random.default_rng(5).normal(0, 0.2, (len(case.train), SAMPLE_RATE // 2))
    others = [
        case.recording(f"other-{i}", waveform, like=clip)
        for i, (waveform, clip) in enumerate(zip(noise, case.train, strict=True))
    ]
    detector = case.fit(Clips(others))
    detector.fit(case.train)
    assert_close(detector.score(case.test), case.scores, "a detector that was fitted before")


@rule
def check_too_few_clips_are_reported(case: DetectorCase) -> None:
    """Fitting to no clip, or to one, works or is a ``ValueError`` that says how many were found."""
    for count in (0, 1):
        try:
            scores = case.fit(case.train[:count]).score(case.test)
        except ValueError as error:
            message = str(error)
        else:
            assert count, "fitting to no clip worked"
            assert_numbers(scores, len(case.test))
            continue
        assert re.search(rf"\b{count}\b", message), (
            f"the error for {count} clips does not say that {count} were found: {message}"
        )


@rule
def check_no_target_domain_is_needed(case: DetectorCase) -> None:
    """Fitting to source clips only works, or is a ``ValueError`` that names the target domain."""
    try:
        scores = case.fit(case.train.where(domain="source")).score(case.test)
    except ValueError as error:
        message = str(error)
    else:
        assert_numbers(scores, len(case.test))
        return
    assert "target" in message, f"the error does not name the target domain: {message}"


@rule
def check_clips_of_different_lengths_are_fitted(case: DetectorCase) -> None:
    """Training clips may have different lengths."""
    cut = []
    for i, clip in enumerate(case.train[:3]):
        waveform = case.train.cache.read(clip)
        shorter = waveform[: len(waveform) * (i + 2) // 5]
        cut.append(case.recording(f"cut-{i}", shorter, like=clip))
    mixed = Clips([*cut, *case.train[3:]], case.train.cache)
    assert_numbers(case.fit(mixed).score(case.test), len(case.test))


def _trains_network(detector: Estimator) -> bool:
    inner = (part for _, part in detector._estimators())
    return detector.trains_network or any(map(_trains_network, inner))
