"""The benchmark that compares the factory with real machines."""

import numpy as np
import pytest

from benchmarks import worlds
from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip


@pytest.fixture
def test_clips(tmp_path):
    """Twenty test clips, half of them anomalous."""
    clips = []
    for index in range(20):
        path = tmp_path / f"{index}.wav"
        path.write_bytes(str(index).encode())
        label = "anomaly" if index % 2 else "normal"
        clips.append(Clip(path, "valve", split="test", label=label, domain="source"))
    return Clips(clips)


def scores(test_clips, best):
    """A setting that separates the labels, among settings that know nothing."""
    rows = np.zeros((len(worlds.R), len(test_clips)))
    rows[best] = test_clips.labels
    return rows


@pytest.mark.parametrize("best", [0, 5, len(worlds.R) - 1])
def test_the_oracle_is_the_setting_that_separates(test_clips, best):
    machine = worlds._machine("valve", 20, test_clips, scores(test_clips, best))
    r, gain, area = machine.figures[:, 0]
    assert r == worlds.R[best]
    assert gain == pytest.approx(0.5)
    assert area == pytest.approx(0.5)


def test_of_equal_settings_the_default_is_the_best(test_clips):
    machine = worlds._machine("valve", 20, test_clips, np.zeros((len(worlds.R), 20)))
    assert machine.figures[:2, 0].tolist() == [1.0, 0.0]


def machine(name, value):
    figures = np.full((3, 1 + worlds.RESAMPLES), float(value))
    return worlds.Machine(name, 20, figures, np.zeros(len(worlds.R)))


def test_quartiles_are_over_machines_and_their_intervals_over_types():
    table = worlds.summary([machine(str(value), value) for value in range(5)])
    np.testing.assert_array_equal(table[:, :, 0], [[1, 2, 3]] * 3)
    assert np.all(table[:, :, 1] < table[:, :, 0])
    assert np.all(table[:, :, 2] > table[:, :, 0])
    one_type = worlds.summary([machine("fan", value) for value in range(5)])
    np.testing.assert_array_equal(one_type[:, :, 1], one_type[:, :, 0])
