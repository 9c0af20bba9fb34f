"""Shares of faults whose mixture is like real anomalies."""

import numpy as np
import pytest

from fsasd.selection.mixture import fault_shares, mixture_weights, weights_of_fault

MACHINES, FAULTS, SETTINGS = 6, 4, 17
TYPES = ["fan", "fan", "pump", "slider", "valve", "valve"]


@pytest.fixture
def faults():
    """Curves of each fault on each machine, alike over machines."""
    rng = np.random.default_rng(0)
    kinds = rng.uniform(0.5, 0.9, (FAULTS, SETTINGS))
    return kinds + 0.02 * rng.standard_normal((MACHINES, FAULTS, SETTINGS))


def mixed(faults, shares):
    return np.einsum("mfs,f->ms", faults, shares)


def test_the_shares_of_a_mixture_are_recovered(faults):
    shares = [0.6, 0.3, 0.1, 0.0]
    fitted = fault_shares(faults, mixed(faults, shares), TYPES, ridge=0)
    np.testing.assert_allclose(fitted, shares, atol=1e-9)


def test_they_are_nearly_recovered_from_noisy_curves(faults):
    noise = 0.02 * np.random.default_rng(1).standard_normal((MACHINES, SETTINGS))
    real = mixed(faults, [0.7, 0.3, 0, 0]) + noise
    fitted = fault_shares(faults, real, TYPES, ridge=0.01)
    np.testing.assert_allclose(fitted, [0.7, 0.3, 0, 0], atol=0.1)


def test_how_hard_the_faults_are_does_not_matter(faults):
    shares = [0.6, 0.3, 0.1, 0.0]
    real = mixed(faults, shares)
    harder = 0.5 + (real - real.mean(axis=1, keepdims=True)) / 3
    np.testing.assert_allclose(fault_shares(faults, harder, TYPES, ridge=0), shares, atol=1e-9)


@pytest.mark.parametrize("ridge", [0.0, 0.1, 1.0, 100.0])
def test_they_are_shares(faults, ridge):
    fitted = fault_shares(faults, 1 - faults[:, 0], TYPES, ridge=ridge)
    assert fitted.shape == (FAULTS,)
    assert (fitted >= 0).all()
    assert fitted.sum() == pytest.approx(1)


def test_the_ridge_pulls_towards_equal_shares(faults):
    real = mixed(faults, [1, 0, 0, 0])
    largest = [fault_shares(faults, real, TYPES, ridge=r).max() for r in (0, 0.1, 1, 10, 1e6)]
    assert largest == sorted(largest, reverse=True)
    assert largest[0] == pytest.approx(1)
    assert largest[-1] == pytest.approx(1 / FAULTS, abs=1e-3)
    twice = fault_shares(np.tile(faults, (2, 1, 1)), np.tile(real, (2, 1)), TYPES * 2, ridge=1)
    np.testing.assert_allclose(twice, fault_shares(faults, real, TYPES, ridge=1), atol=1e-9)


def test_a_fault_that_prefers_other_settings_gets_nothing(faults):
    opposite = 1 - faults[:, :1]
    fitted = fault_shares(
        np.concatenate([faults[:, :1], opposite], axis=1), faults[:, 0], TYPES, ridge=0.1
    )
    assert fitted[0] > 0.9


def test_machines_of_one_type_count_as_one(faults):
    real = mixed(faults, [0.5, 0.5, 0, 0])
    # Three fans more, that are the first one again, do not outweigh the other types.
    again = [0, 0, 0, *range(MACHINES)]
    types = [TYPES[row] for row in again]
    single = [0, *range(2, MACHINES)]
    many = fault_shares(faults[[0, *single]], real[[0, *single]], ["fan", *np.take(TYPES, single)])
    once = fault_shares(faults[single], real[single], list(np.take(TYPES, single)))
    np.testing.assert_allclose(many, once, atol=1e-9)
    assert not np.allclose(fault_shares(faults[again], real[again], range(9)),
                           fault_shares(faults[again], real[again], types))  # fmt: skip


def test_without_machines_shares_are_equal():
    empty = np.empty((0, FAULTS, SETTINGS)), np.empty((0, SETTINGS))
    assert fault_shares(*empty, []).tolist() == [0.25] * FAULTS
    # Of one fault and its opposite: nothing is like them.
    assert fault_shares([[[0, 1]]], [[1, 0]], ["fan"], ridge=0).tolist() == [1.0]


def test_weights_give_each_fault_its_share_of_the_auc(faults):
    clips = ["a", "a", "a", "b", "a+b", "", ""]
    weights = mixture_weights({"a": 0.3, "b": 0.7}, clips)
    assert weights[-2:].tolist() == [1, 1]
    assert weights[:5].sum() == pytest.approx(5)
    of_a = weights_of_fault("a", clips) / weights_of_fault("a", clips).sum()
    of_b = weights_of_fault("b", clips) / weights_of_fault("b", clips).sum()
    np.testing.assert_allclose(weights[:5] / 5, (0.3 * of_a + 0.7 * of_b)[:5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"of_anomalies": np.zeros((MACHINES, 3))}, r"found \(6, 4, 17\) and \(6, 3\)"),
        ({"types": TYPES[1:]}, "expected the type of 6 machines, found 5"),
        ({"of_anomalies": np.full((MACHINES, SETTINGS), np.nan)}, "finite curves, found NaN"),
        ({"ridge": -1.0}, "ridge: expected 0 or more, found -1"),
    ],
)
def test_curves_that_do_not_fit_are_refused(faults, change, message):
    given = {"of_faults": faults, "of_anomalies": mixed(faults, [1, 0, 0, 0]), "types": TYPES}
    with pytest.raises(ValueError, match=message):
        fault_shares(**(given | change))
