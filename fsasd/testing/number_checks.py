"""Checks of a detector's numbers: clips without sound or differences, and at extreme levels."""

from __future__ import annotations

import re
import warnings

import numpy as np

from fsasd.data.clips import Clips
from fsasd.data.recording import SAMPLE_RATE
from fsasd.data.resampling import resample
from fsasd.testing.detector_case import DetectorCase, assert_close, rule

LOUDEST = 2.0**31
"""Peak of a recording on the scale of 32-bit integers; the reader refuses what is above."""

_PER_DOMAIN = 3
"""Clips of each domain that a detector is fitted to here: some train a network each time."""


@rule
def check_extreme_clips_have_finite_scores(case: DetectorCase) -> None:
    """Silence, a constant, clipping, extreme levels and lengths have finite scores."""
    normal = case.test.cache.read(case.test[0])
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    extremes = {
        "silence": np.zeros(SAMPLE_RATE),
        "constant": np.full(SAMPLE_RATE, 0.5),
        "clipping": np.sign(np.sin(2 * np.pi * 200 * time)),
        "click": np.eye(1, SAMPLE_RATE, 500)[0],
        "faint": normal * 1e-30,
        "loud": normal * (LOUDEST / np.abs(normal).max()),
        # What a recorder at 1 kHz leaves: no sound in most mel bins.
        "empty mel bins": resample(normal[:: SAMPLE_RATE // 1000], 1000, SAMPLE_RATE),
        "one sample": normal[:1],
        "20 ms": normal[: SAMPLE_RATE // 50],
        "30 s": np.resize(normal, 30 * SAMPLE_RATE),
    }
    clips = [case.recording(name, waveform) for name, waveform in extremes.items()]
    scores = np.asarray(case.fitted.score(Clips([*clips, *case.test], case.test.cache)))
    for name, score in zip(extremes, scores, strict=False):
        assert np.isfinite(score), f"{name} scores {score}"
    assert_close(scores[len(clips) :], case.scores, "scoring together with extreme clips")


@rule
def check_degenerate_training_clips_are_fitted_or_refused(case: DetectorCase) -> None:
    """Silent, equal, doubled and very loud training clips are fitted, or a ``ValueError``."""
    train = Clips(
        [clip for d in ("source", "target") for clip in case.train.where(domain=d)[:_PER_DOMAIN]],
        case.train.cache,
    )
    waveforms = [train.cache.read(clip) for clip in train]
    degenerate = {
        "silent": [np.zeros(SAMPLE_RATE)] * len(train),
        "equal": [waveforms[0]] * len(train),
        "loud": [waveform * (LOUDEST / np.abs(waveform).max()) for waveform in waveforms],
    }
    for name, changed in degenerate.items():
        clips = [
            case.recording(f"{name}-{i}", waveform, like=clip)
            for i, (waveform, clip) in enumerate(zip(changed, train, strict=True))
        ]
        _check_fit(case, name, Clips(clips, train.cache))
    _check_fit(case, "doubled", train + train)


def _check_fit(case: DetectorCase, name: str, train: Clips) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, SAMPLE_RATE)
    others = Clips([train[0], *case.test, case.recording("noise", noise)], case.test.cache)
    try:
        with warnings.catch_warnings():
            # Rightly, of so few clips and of copies.
            warnings.simplefilter("ignore")
            scores = np.asarray(case.fit(train).score(others))
    except ValueError as error:
        message = str(error)
    else:
        assert np.isfinite(scores).all(), f"fitted to {name} clips, scores are {scores}"
        assert np.ptp(scores) > 0, f"fitted to {name} clips, every clip scores {scores[0]:g}"
        return
    assert re.search(r"\b\d+\b", message), (
        f"the error for {name} training clips does not say how many were found: {message}"
    )


@rule
def check_samples_off_every_scale_are_named(case: DetectorCase) -> None:
    """A recording with samples at 1e30 is a ``ValueError`` that names it."""
    normal = case.train.cache.read(case.train[0])
    wrong = case.recording("at 1e30", normal * np.float32(1e30), like=case.train[0])
    clips = Clips([*case.train[1:], wrong], case.train.cache)
    attempts = {
        "fitting": lambda: case.fit(clips).score(clips),
        "scoring": lambda: case.fitted.score(clips),
    }
    for what, attempt in attempts.items():
        try:
            attempt()
        except ValueError as error:
            message = str(error)
        else:
            raise AssertionError(f"{what} it is no error")
        assert wrong.path.name in message, f"{what} it, the error does not name it: {message}"
