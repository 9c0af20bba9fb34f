import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from fsasd.evaluation.metrics import (
    OfficialScore,
    Section,
    SectionMetrics,
    auc,
    harmonic_mean,
    known_domains,
    metrics_table,
    official_score,
    pauc,
    section_metrics,
)


@st.composite
def scored(draw):
    """Labels with both classes, and scores with ties."""
    labels = draw(st.lists(st.integers(0, 1), min_size=2, max_size=40))
    assume(len(set(labels)) == 2)
    scores = draw(st.lists(st.integers(-5, 5), min_size=len(labels), max_size=len(labels)))
    return np.array(labels), np.array(scores, dtype=float)


@st.composite
def sectioned(draw):
    labels, scores = draw(scored())
    n = len(labels)
    domains = draw(st.lists(st.sampled_from(["source", "target"]), min_size=n, max_size=n))
    decisions = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    return labels, np.array(domains), scores, np.array(decisions)


@settings(max_examples=50, deadline=None)
@given(scored())
def test_auc_is_the_share_of_pairs_in_order(case):
    labels, scores = case
    pairs = list(product(scores[labels == 1], scores[labels == 0]))
    in_order = sum((a > n) + (a == n) / 2 for a, n in pairs)
    assert auc(labels, scores) == pytest.approx(in_order / len(pairs))


@settings(max_examples=50, deadline=None)
@given(scored(), st.floats(0.01, 0.99))
def test_pauc_is_scikit_learns(case, max_fpr):
    labels, scores = case
    assert pauc(labels, scores, max_fpr) == roc_auc_score(labels, scores, max_fpr=max_fpr)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(scored())
def test_only_the_order_of_scores_matters(case):
    labels, scores = case
    for transform in (np.exp, np.arctan, lambda s: 3 * s - 7):
        assert auc(labels, transform(scores)) == pytest.approx(auc(labels, scores))
        assert pauc(labels, transform(scores)) == pytest.approx(pauc(labels, scores))
    assert auc(labels, -scores) == pytest.approx(1 - auc(labels, scores))


@settings(max_examples=50, deadline=None)
@given(sectioned())
def test_section_metrics_follow_the_official_definition(case):
    labels, domains, scores, decisions = case
    result = section_metrics(labels, domains, scores, decisions)
    assert result.pauc == roc_auc_score(labels, scores, max_fpr=0.1)
    for domain in ("source", "target"):
        inside = domains == domain
        normal = inside & (labels == 0)
        if normal.any():
            chosen = normal | (labels == 1)
            expected = roc_auc_score(labels[chosen], scores[chosen])
            assert getattr(result, f"auc_{domain}") == pytest.approx(expected)
        else:
            assert math.isnan(getattr(result, f"auc_{domain}"))
        names = [f"{name}_{domain}" for name in ("precision", "recall", "f1")]
        values = [getattr(result, name) for name in names]
        if (inside & (labels == 1)).any():
            reference = precision_recall_fscore_support(
                labels[inside], decisions[inside], average="binary", zero_division=0
            )
            assert values == pytest.approx(list(reference[:3]))
        else:
            assert np.isnan(values).all()


def test_a_section_of_one_class_has_no_areas():
    for label in (0, 1):
        result = section_metrics([label] * 2, ["source", "target"], [0.1, 0.2])
        assert np.isnan([result.auc_source, result.auc_target, result.pauc, result.f1_source]).all()
        assert result.undefined == 3
        assert math.isnan(result.auc)


def test_auc_of_a_section_needs_both_domains():
    assert SectionMetrics(0.9, 0.6, 0.5).auc == pytest.approx(0.72)
    assert math.isnan(SectionMetrics(0.9, math.nan, 0.5).auc)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.1, math.nan], "scores: expected finite numbers, found nan at index 1"),
        ([0, 1], [math.inf, 0.1], "found inf at index 0"),
        ([0, 1], [[0.1, 0.2]], r"scores: expected shape \(n,\), found \(1, 2\)"),
        ([0, 1, 1], [0.1, 0.2], r"labels: expected shape \(2,\) like scores, found \(3,\)"),
        ([0, 2], [0.1, 0.2], "labels: expected 0 or 1, found 2"),
        ([0, math.nan], [0.1, 0.2], "labels: expected 0 or 1, found nan"),
        (["normal", "anomaly"], [0.1, 0.2], "labels: expected 0 or 1, found 'normal'"),
        ([0, 0], [0.1, 0.2], "found no anomalous one"),
        ([1, 1], [0.1, 0.2], "found no normal one"),
    ],
)
def test_auc_and_pauc_say_what_is_wrong(labels, scores, message):
    for metric in (auc, pauc):
        with pytest.raises(ValueError, match=message):
            metric(labels, scores)


@pytest.mark.parametrize("max_fpr", [0, -0.1, 1.1, math.nan])
def test_pauc_refuses_an_impossible_max_fpr(max_fpr):
    with pytest.raises(ValueError, match=r"max_fpr: expected a fraction in \(0, 1\]"):
        pauc([0, 1], [0.1, 0.2], max_fpr)


def test_labels_and_decisions_are_whole_numbers():
    section = Section([False, 1.0], None, [0.1, 0.2], [1.0, True])
    assert (section.labels.dtype, section.decisions.dtype) == (int, int)


@pytest.mark.parametrize(
    ("domains", "decisions", "message"),
    [
        (["source"], None, r"domains: expected shape \(2,\) like scores, found \(1,\)"),
        (["source", "Target"], None, r"expected 'source' or 'target', found \['Target'\]"),
        (["source", "target"], [1], r"decisions: expected shape \(2,\)"),
        (["source", "target"], [1, 0.5], "decisions: expected 0 or 1, found 0.5"),
    ],
)
def test_section_says_what_is_wrong(domains, decisions, message):
    with pytest.raises(ValueError, match=message):
        Section([0, 1], domains, [0.1, 0.2], decisions)


def test_harmonic_mean():
    assert harmonic_mean([0.25, 0.5, 1.0]) == pytest.approx(3 / 7)
    assert harmonic_mean([0.5, 0.0, math.nan]) == 0
    assert harmonic_mean([0.5, math.nan]) == 0.5
    assert math.isnan(harmonic_mean([math.nan]))
    assert math.isnan(harmonic_mean([]))
    for wrong in (-0.1, math.inf):
        with pytest.raises(ValueError, match="expected finite values of at least 0"):
            harmonic_mean([0.5, wrong])


@settings(max_examples=30)
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=20))
def test_harmonic_mean_lies_between_the_least_and_the_arithmetic_mean(values):
    mean = harmonic_mean(values)
    assert min(values) - 1e-12 <= mean <= np.mean(values) + 1e-12


@pytest.fixture
def results():
    return {
        ("3DPrinter", "00"): SectionMetrics(0.8, 0.5, 0.6, 1.0, 0.5, 2 / 3, 0.0, 0.0, 0.0),
        ("3DPrinter", "01"): SectionMetrics(0.4, math.nan, 0.7),
        ("fan_large", "00"): SectionMetrics(1.0, 0.9, 0.8),
    }


def test_official_score_counts_what_it_left_out(results):
    score = official_score(metrics_table(results))
    defined = [0.8, 0.5, 0.6, 0.4, 0.7, 1.0, 0.9, 0.8]
    value = len(defined) / sum(1 / v for v in defined)
    assert score == OfficialScore(pytest.approx(value), cells=9, undefined=1)


def test_table_has_sections_then_means_then_the_official_score(results):
    table = metrics_table(results, interval=(0.6, 0.7)).set_index(["machine", "section"])
    assert table.loc[("3DPrinter", "00"), "auc"] == pytest.approx(8 / 13)
    assert math.isnan(table.loc[("3DPrinter", "01"), "auc"])
    assert table.loc[("arithmetic mean", ""), "auc_target"] == pytest.approx(0.7)
    assert table.loc[("harmonic mean", ""), "auc_target"] == pytest.approx(2 / (1 / 0.5 + 1 / 0.9))
    assert table.loc[("harmonic mean", ""), "recall_target"] == 0
    assert table["undefined"].tolist() == [0, 1, 0, 1, 1, 1]
    last = table.loc[("official score", "")].dropna()
    assert last.index.tolist() == ["undefined", "official_score", "ci_low", "ci_high"]
    assert last[["ci_low", "ci_high"]].tolist() == [0.6, 0.7]


def test_undefined_is_empty_in_csv_and_survives_it(results, tmp_path):
    table = metrics_table(results)
    table.to_csv(tmp_path / "metrics.csv", index=False)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[2] == "3DPrinter,01,,0.4,,0.7,,,,,,,,,,1,,,"
    read = pd.read_csv(tmp_path / "metrics.csv", dtype={"section": str})
    assert official_score(read) == official_score(table)
    assert official_score(pd.read_csv(tmp_path / "metrics.csv")) == official_score(table)


def test_without_domains_there_is_one_auc_and_it_counts_once():
    labels, scores, decisions = [0, 0, 0, 1, 1], [0.1, 0.5, 0.2, 0.4, 0.9], [0, 1, 0, 0, 1]
    metrics = section_metrics(labels, None, scores, decisions)
    assert metrics.auc == pytest.approx(5 / 6)
    assert (metrics.precision, metrics.recall, metrics.f1) == (0.5, 0.5, 0.5)
    assert metrics.undefined == 0
    assert math.isnan(metrics.auc_source)
    assert math.isnan(metrics.f1_source)
    other = SectionMetrics(0.5, math.nan, 0.8)
    score = official_score(metrics_table({("own", "00"): metrics, ("fan", "00"): other}))
    assert (score.cells, score.undefined) == (5, 1)
    assert score.value == pytest.approx(harmonic_mean([5 / 6, metrics.pauc, 0.5, 0.8]))


def test_metrics_are_named_for_each_domain_or_for_all_clips():
    of_domain = [f"{kind}_{domain}" for domain in ("source", "target")
                 for kind in ("precision", "recall", "f1")]  # fmt: skip
    divided = SectionMetrics(0.9, math.nan, 0.7).named()
    assert list(divided) == ["auc_source", "auc_target", "pauc", *of_domain, "auc"]
    undivided = SectionMetrics(math.nan, math.nan, 0.7, auc=0.8).named()
    assert list(undivided) == ["pauc", "precision", "recall", "f1", "auc"]


def test_without_domains_and_a_class_both_areas_are_undefined():
    assert section_metrics([0, 0], None, [0.1, 0.2]).undefined > 0


def test_domains_are_known_where_a_clip_has_one():
    assert known_domains([None, math.nan]) is None
    assert known_domains([]) is None
    assert known_domains(["source", None, "target"]).tolist() == ["source", "source", "target"]


def test_a_table_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one machine and section"):
        metrics_table({})
