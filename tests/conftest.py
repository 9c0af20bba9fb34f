"""What several test modules need: a tiny simulated factory, real reference material, wav files."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fsasd.data.audio import Clips, FeatureCache
from fsasd.data.metadata import read_clips
from fsasd.data.simulate import write_factory


@pytest.fixture(scope="session")
def factory(tmp_path_factory) -> Path:
    """A simulated data set: references fan and valve, target bearing, clips of one second."""
    return write_factory(
        tmp_path_factory.mktemp("factory") / "data",
        references=("fan", "valve"),
        targets=("bearing",),
        seconds=1.0,
        train_clips=16,
        target_domain_clips=4,
        test_clips=4,
    )


@pytest.fixture(scope="session")
def factory_clips(factory) -> Clips:
    """The factory's clips, with one feature cache for the whole session."""
    return Clips(read_clips(factory), FeatureCache())


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference material and real recordings, which do not ship with the project."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"reference material is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def real(shared) -> Path:
    """A small first-shot set of real recordings in the DCASE 2023 layout."""
    folder = shared / "data" / "firstshot-real"
    if not folder.is_dir():
        pytest.skip(f"real recordings are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def real_labels() -> list[tuple[str, str, str]]:
    """Edition, machine and label of file names of DCASE Task 2, 2021 to 2026.

    All of 2022 and 2023 and all that is public of the later ones, from the data sets' lists and
    the lists of the organisers' baseline (github.com/nttcslab/dcase2023_task2_baseline_ae).
    """
    with (Path(__file__).parent / "real_labels.csv").open(newline="") as file:
        return [(row["edition"], row["machine"], row["label"]) for row in csv.DictReader(file)]


@pytest.fixture
def make_wav(tmp_path) -> Callable[..., Path]:
    """Write a waveform, or so many seconds of a quiet noise, to a file under ``tmp_path``."""

    def make(name="clip.wav", waveform=None, *, seconds=0.25, rate=16_000, **options) -> Path:
        if waveform is None:
            rng = np.random.default_rng([*name.encode()])
            waveform = 0.1 * rng.standard_normal(round(seconds * rate))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, waveform, rate, **options)
        return path

    return make
