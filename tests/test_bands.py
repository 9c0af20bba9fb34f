import numpy as np
import pytest

from fsasd.generation.bands import band_edges, band_statistics


def test_bands_have_the_level_and_the_range_of_their_sound():
    edges = band_edges()
    assert edges[0] == 0
    assert edges[-1] == pytest.approx(8000)
    swing = 6 * np.sign(np.sin(np.arange(400)))
    log_mel = np.full((128, 400), -50.0)
    log_mel[64:] += swing
    levels, unsteadiness = band_statistics(log_mel)
    np.testing.assert_allclose(levels, -50, atol=0.1)
    np.testing.assert_allclose(unsteadiness, np.repeat([0, 12], 8), atol=1e-6)
