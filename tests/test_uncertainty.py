import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fsasd.evaluation.metrics import (
    DOMAINS,
    Section,
    harmonic_mean,
    metrics_table,
    official_score,
    section_metrics,
)
from fsasd.evaluation.resampling import resample, resampled_areas
from fsasd.evaluation.uncertainty import (
    bootstrap_official,
    bootstrap_section,
    official_resamples,
    paired_difference,
)


def make_section(seed, per_stratum=50, shift=1.0):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 0, 1, 1], per_stratum)
    domains = np.tile(np.repeat(["source", "target"], per_stratum), 2)
    return Section(labels, domains, rng.normal(size=labels.size) + shift * labels)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.sampled_from([3, 6, 1000]))
def test_areas_of_resamples_are_scikit_learns(seed, clips, levels):
    """With many ties, with some and with hardly any; a partial area may end within a tie."""
    rng = np.random.default_rng(seed)
    labels = np.append([0, 1], rng.integers(2, size=clips))
    domains = rng.choice(["source", "target"], labels.size)
    scores = rng.integers(levels, size=(3, labels.size)).astype(float)
    counts = resample(labels, domains, n=4, seed=rng)
    areas = resampled_areas(labels, domains, scores, counts)
    for (i, row), (j, count) in itertools.product(enumerate(scores), enumerate(counts)):
        drawn = np.repeat(np.arange(labels.size), count)
        y, x = labels[drawn], row[drawn]
        assert areas.auc[i, j] == pytest.approx(roc_auc_score(y, x))
        assert areas.pauc[i, j] == pytest.approx(roc_auc_score(y, x, max_fpr=0.1))
        for domain, of_domain in (("source", areas.auc_source), ("target", areas.auc_target)):
            inside = (y == 1) | (domains[drawn] == domain)
            if len(set(y[inside])) == 2:
                assert of_domain[i, j] == pytest.approx(roc_auc_score(y[inside], x[inside]))
            else:
                assert np.isnan(of_domain[i, j])


def test_a_curve_with_its_resamples_takes_well_under_a_second():
    """111 settings, 400 clips, 200 resamples."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    scores = rng.normal(size=(111, 400)) + labels
    domains = np.full(400, "source")
    start = time.perf_counter()
    areas = resampled_areas(labels, domains, scores, resample(labels, n=200))
    assert areas.auc.shape == (111, 200)
    # 0.1 s on an idle core.
    assert time.perf_counter() - start < 2


def test_clips_of_one_source_are_drawn_together():
    labels, groups = np.repeat([0, 1], 6), np.array(list("aabbcc") * 2)
    counts = resample(labels, n=50, groups=groups)
    np.testing.assert_array_equal(counts[:, ::2], counts[:, 1::2])
    assert (counts[:, :6].sum(axis=1) == 6).all()
    # Six clips of three sources vary as three clips do.
    alone, together = (
        np.std(resample(labels, n=2000, groups=g)[:, :6] @ np.repeat([0.0, 1.0, 2.0], 2))
        for g in (None, groups)
    )
    assert together == pytest.approx(2**0.5 * alone, rel=0.1)


def test_both_clips_of_a_pair_are_drawn_together():
    labels, pairs = np.tile([0, 1], 20), np.repeat(np.arange(20), 2)
    counts = resample(labels, n=50, groups=pairs)
    np.testing.assert_array_equal(counts[:, ::2], counts[:, 1::2])
    # What they have in common cancels: the two means of a resample differ by a constant.
    values = np.random.default_rng(0).normal(size=20).repeat(2) + labels
    differences = counts[:, labels == 1] @ values[labels == 1] - (
        counts[:, labels == 0] @ values[labels == 0]
    )
    np.testing.assert_allclose(differences, 20)


def test_strata_that_share_some_groups_are_drawn_as_alone_and_alike():
    """Two normals lost their anomaly, one anomaly its normal."""
    labels = np.repeat([0, 1], [10, 9])
    groups = np.r_[np.arange(10), np.arange(2, 11)]
    counts = resample(labels, n=4000, groups=groups)
    normal, anomalous = counts[:, :10], counts[:, 10:]
    assert (normal.sum(axis=1) == 10).all()
    assert (anomalous.sum(axis=1) == 9).all()
    for drawn in (normal, anomalous):
        n = drawn.shape[1]
        np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.06)
        np.testing.assert_allclose(drawn.var(axis=0), 1 - 1 / n, rtol=0.15)
    alike = [np.corrcoef(normal[:, i + 2], anomalous[:, i])[0, 1] for i in range(8)]
    assert min(alike) > 0.8


def test_groups_of_one_stratum_are_drawn_as_they_were():
    """Values of before groups could be in several strata."""
    rng, labels = np.random.default_rng(5), np.repeat([0, 1], [4, 3])
    counts = resample(labels, n=3, seed=5, groups=[0, 0, 1, 2, 3, 4, 4])
    for members, units in ((slice(0, 4), [0, 0, 1, 2]), (slice(4, 7), [0, 1, 1])):
        size = max(units) + 1
        picks = rng.integers(size, size=(3, size))
        once = np.stack([np.bincount(row, minlength=size) for row in picks])
        np.testing.assert_array_equal(counts[:, members], once[:, units])


def test_resamples_keep_each_stratums_size():
    section = Section(
        [0, 0, 0, 1, 1, 0], ["source"] * 3 + ["source", "target", "target"], np.arange(6.0)
    )
    counts = resample(section.labels, section.domains, n=100)
    for label in (0, 1):
        for domain in DOMAINS:
            stratum = (section.labels == label) & (section.domains == domain)
            assert (counts[:, stratum].sum(axis=1) == stratum.sum()).all()
    assert counts.std(axis=0)[:3].all()


@pytest.mark.slow
def test_intervals_have_the_spread_of_fresh_test_sets():
    fresh = [make_section(seed) for seed in range(150)]
    metrics = [section_metrics(s.labels, s.domains, s.scores) for s in fresh]
    true = np.mean([m.auc_source for m in metrics])
    spread = np.std([m.auc_source for m in metrics])
    intervals = [bootstrap_section(s, n=200).auc_source for s in fresh]
    widths = [i.high - i.low for i in intervals]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * spread, rel=0.15)
    covered = np.mean([i.low <= true <= i.high for i in intervals])
    assert 0.89 <= covered <= 0.99


def test_official_interval_holds_the_score_and_narrows_with_more_machines():
    sections = [make_section(seed) for seed in range(8)]
    results = {
        (str(i), "00"): section_metrics(s.labels, s.domains, s.scores)
        for i, s in enumerate(sections)
    }
    score = official_score(metrics_table(results)).value
    assert official_resamples([sections], n=1).observed == pytest.approx([score])
    interval = bootstrap_official(sections)
    assert interval.low < score < interval.high
    alone = bootstrap_official(sections[:1])
    ratio = (alone.high - alone.low) / (interval.high - interval.low)
    assert ratio == pytest.approx(8**0.5, rel=0.25)
    assert bootstrap_official(sections) == interval
    assert bootstrap_section(sections[0]) == bootstrap_section(sections[0])
    assert bootstrap_section(sections[0]) != bootstrap_section(sections[0], seed=1)
    wide = bootstrap_official(sections, level=0.99)
    assert wide.low < interval.low
    assert wide.high > interval.high


def test_the_official_score_of_areas_is_that_of_the_metrics():
    section = make_section(0)
    source = (section.domains == "source") & (section.labels == 0)
    scores = np.stack([section.scores, section.scores + 0.5 * source])
    areas = resampled_areas(section.labels, section.domains, scores)
    for (score,), row in zip(areas.official, scores, strict=True):
        metrics = section_metrics(section.labels, section.domains, row)
        assert metrics.auc_source != metrics.auc_target
        expected = harmonic_mean([metrics.auc_source, metrics.auc_target, metrics.pauc])
        assert score == pytest.approx(expected)


def test_an_interval_over_other_machines_is_wide_where_machines_differ():
    alike = [make_section(seed) for seed in range(6)]
    differing = [make_section(seed, shift=0.5 + seed) for seed in range(6)]

    def widening(sections: list[Section]) -> float:
        clips, machines = (bootstrap_official(sections, draw_sections=over) for over in (0, 1))
        return (machines.high - machines.low) / (clips.high - clips.low)

    assert widening(differing) > 2
    assert widening(alike) < 1.8
    assert bootstrap_official(alike[:1], draw_sections=True).low > 0.5


def test_undefined_cells_are_left_out_of_the_interval():
    whole = make_section(0)
    keep = (whole.labels == 1) | (whole.domains == "source")
    partial = Section(whole.labels[keep], whole.domains[keep], whole.scores[keep])
    assert np.isnan(bootstrap_section(partial, n=20).auc_target.low)
    interval = bootstrap_official([whole, partial], n=200)
    assert 0.5 < interval.low < interval.high < 1
    nothing = Section([0, 0], ["source", "target"], [0.1, 0.2])
    assert np.isnan(bootstrap_official([nothing], n=20).low)


def test_a_metric_of_zero_makes_the_score_zero():
    reversed_ = Section([0, 0, 1], ["source", "target", "source"], [3.0, 2.0, 1.0])
    assert bootstrap_official([reversed_], n=20).high == 0


def test_pairing_sees_a_difference_that_separate_intervals_do_not():
    first = [make_section(seed, shift=0.8) for seed in range(4)]
    rng = np.random.default_rng(9)
    second = [
        Section(s.labels, s.domains, s.scores - 0.1 * s.labels + rng.normal(0, 0.01, s.labels.size))
        for s in first
    ]
    paired = paired_difference(first, second)
    assert paired.interval.low > 0
    assert paired.interval.low < paired.difference < paired.interval.high
    assert paired.mean == pytest.approx(paired.difference, abs=0.005)
    assert bootstrap_official(first).low < bootstrap_official(second).high
    back = paired_difference(second, first)
    assert back.difference == -paired.difference
    same = paired_difference(first, first)
    assert (same.difference, same.interval.low, same.interval.high) == (0, 0, 0)


def test_a_challenge_takes_a_second():
    sections = [make_section(seed) for seed in range(7)]
    start = time.perf_counter()
    bootstrap_official(sections, n=1000)
    assert time.perf_counter() - start < 5


def test_guards():
    section = make_section(0, per_stratum=2)
    with pytest.raises(ValueError, match="at least one section"):
        bootstrap_official([])
    with pytest.raises(ValueError, match="at least 1 resample, found 0"):
        bootstrap_official([section], n=0)
    with pytest.raises(ValueError, match=r"coverage in \(0, 1\), found 95"):
        bootstrap_section(section, level=95)
    with pytest.raises(ValueError, match="as many sections, found 1 and 2"):
        paired_difference([section], [section] * 2)
    for other in (
        Section(1 - section.labels, section.domains, section.scores),
        Section(section.labels, section.domains[::-1], section.scores),
        make_section(0, per_stratum=3),
    ):
        with pytest.raises(ValueError, match="section 1: expected the same clips"):
            paired_difference([section, section], [section, other])


def test_without_domains_the_interval_is_that_of_auc_and_pauc():
    section = make_section(0)
    undivided = Section(section.labels, None, section.scores)
    metrics = section_metrics(undivided.labels, None, undivided.scores)
    score = harmonic_mean([metrics.auc, metrics.pauc])
    interval = bootstrap_official([undivided], n=300)
    assert interval.low < score < interval.high
    assert paired_difference([undivided], [undivided], n=10).difference == 0
    with pytest.raises(ValueError, match="other labels or domains"):
        paired_difference([undivided], [section], n=10)
    areas = resampled_areas(undivided.labels, None, undivided.scores[None])
    assert areas.official[0, 0] == pytest.approx(score)
    assert np.isnan(areas.auc_source).all()


def test_clips_of_few_recordings_leave_the_official_score_less_sure():
    """Ten clips of each recording sound alike: they are as much evidence as so many recordings."""
    one = make_section(0, per_stratum=10)
    copies = {name: getattr(one, name).repeat(10) for name in ("labels", "domains", "scores")}
    groups = np.arange(len(one.labels)).repeat(10)
    widths = [
        interval.high - interval.low
        for interval in map(
            bootstrap_official,
            ([one], [Section(**copies, groups=groups)], [Section(**copies)]),
        )
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
    assert widths[2] < 0.5 * widths[1]


def test_every_clip_of_a_section_has_a_group():
    with pytest.raises(
        ValueError, match=r"groups: expected shape \(2,\) like scores, found \(1,\)"
    ):
        Section([0, 1], None, [0.1, 0.2], groups=[0])
