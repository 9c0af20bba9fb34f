"""What settings are worth on a machine's first faults, by the formulas of normal distributions."""

import numpy as np
import pytest

from fsasd.evaluation.metrics import auc, section_metrics
from fsasd.selection.faults import BETWEEN, SPREAD, WORTH, choose_on_faults
from fsasd.selection.settings import Candidates

CANDIDATES = Candidates([{"r": r} for r in (0.0, 0.5, 1.0)], 3, {"r": 1.0})


def scored(k, normals=30, seed=0):
    """Scores of normal clips and of k faults, which setting 0 separates best."""
    rng = np.random.default_rng(seed)
    shifts = np.array([3.0, 1.5, 1.0])[:, None]
    return rng.normal(size=(3, normals)), rng.normal(size=(3, k)) + shifts


def areas(normal, faults):
    """(settings, k) AUC of each fault alone."""
    return np.array([[auc([0] * len(row) + [1], [*row, fault]) for fault in of_setting]
                     for row, of_setting in zip(normal, faults, strict=True)])  # fmt: skip


@pytest.mark.parametrize("k", [1, 2, 9])
def test_a_gain_is_shrunk_by_how_much_faults_differ(k):
    normal, faults = scored(k, normals=3000)
    choice = choose_on_faults(CANDIDATES, normal, faults, "auc")
    of_faults = areas(normal, faults)
    assert choice.faults == k
    assert choice.objectives == pytest.approx(of_faults.mean(axis=1))
    over = of_faults - of_faults[2]
    observed = over.mean(axis=1)
    squares = ((over - observed[:, None]) ** 2).sum(axis=1)
    between = (WORTH * BETWEEN**2 + squares) / (WORTH + k - 1)
    # Without the normal clips' part, which is small of so many.
    trusted = SPREAD**2 / (SPREAD**2 + between / k)
    assert choice.gains == pytest.approx(trusted * observed, rel=0.02)
    assert choice.error[:2] == pytest.approx(np.sqrt(trusted * between / k)[:2], rel=0.02)
    assert (choice.gains[2], choice.error[2]) == (0, 0)
    low, high = choice.interval(0)
    assert (low + high) / 2 == pytest.approx(choice.gains[0])
    assert high - low == pytest.approx(2 * 1.96 * choice.error[0])


def test_few_normal_clips_leave_a_gain_less_sure():
    """Of recordings that were cut into many clips there are few, too."""
    normal, faults = scored(9)
    many, cut, few = (
        choose_on_faults(CANDIDATES, *given).error[0]
        for given in (
            (np.tile(normal, 20), faults),
            (np.tile(normal, 20), faults, "mean", (), np.tile(np.arange(30), 20)),
            (normal, faults),
        )
    )
    assert many < few
    assert cut == pytest.approx(few, rel=0.05)


def test_a_setting_is_left_where_another_surely_gains():
    normal, faults = scored(9)
    choice = choose_on_faults(CANDIDATES, normal, faults)
    assert (choice.row, choice.best, choice.setting) == (0, 0, {"r": 0.0})
    worse = choose_on_faults(CANDIDATES, normal[::-1], faults[::-1])
    assert worse.setting == {"r": 1.0}
    # Of one fault a small gain is not sure.
    levels = np.tile(np.arange(20.0), (3, 1))
    one = choose_on_faults(CANDIDATES, levels, np.array([[30.0], [17.0], [17.0]]))
    assert (one.best, one.row, one.setting) == (0, 2, {"r": 1.0})


def test_faults_count_in_the_auc_of_both_domains():
    normal, faults = scored(4)
    domains = ["source"] * 20 + ["target"] * 10
    choice = choose_on_faults(CANDIDATES, normal, faults, "official", domains)
    labels = [0] * 30 + [1]
    for row, objective in enumerate(choice.objectives):
        each = []
        for fault in faults[row]:
            one = section_metrics(labels, [*domains, "source"], [*normal[row], fault])
            values = one.auc_source, one.auc_target, one.pauc
            each.append(3 / sum(1 / value if value else np.inf for value in values))
        assert objective == pytest.approx(np.mean(each))
