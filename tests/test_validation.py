"""Leave-one-machine-out validation: what a choice is worth, and how sure that is."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fsasd.data.clips import Clips
from fsasd.data.names import SectionId
from fsasd.detection.tables import write_validation
from fsasd.detectors.knn import KNN
from fsasd.detectors.one_of import OneOf
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation.metrics import auc, harmonic_mean, pauc, section_metrics
from fsasd.evaluation.resampling import resample, resampled_areas
from fsasd.evaluation.uncertainty import percentile_interval
from fsasd.selection.selector import Selector
from fsasd.selection.validation import compare, correlate, over_types, summarise, validate

LABELS = np.repeat([0, 1], 40)
GRID = {"r": [0.0, 0.5, 0.9, 1.0]}
FAN = SectionId("fan", "00")


def scores_of(*shifts, seed=0):
    """Settings that separate anomalies by different shifts, on the same noise in part."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal(len(LABELS))
    return np.stack([shared + rng.standard_normal(len(LABELS)) + s * LABELS for s in shifts])


def setting_scores(machine, seed=0, **shifts):
    rows = scores_of(*shifts.values(), seed=seed)
    return pd.concat(
        [
            pd.DataFrame(
                {"machine": machine, "section": "00", "setting": name, "default": name == "default",
                 "label": np.where(LABELS, "anomaly", "normal"), "domain": "source", "score": row}
            )
            for name, row in zip(shifts, rows, strict=True)
        ],
        ignore_index=True,
    )  # fmt: skip


def line(table, machine, setting):
    return table[(table["machine"] == machine) & (table["setting"] == setting)].iloc[0]


# Comparing settings


def test_each_row_has_the_metrics_of_its_scores():
    scores = setting_scores("fan", default=1, synthetic=2, oracle=3)
    table = compare(scores, resamples=50)
    assert table["setting"].tolist() == ["default", "synthetic", "oracle"] * 2
    assert table["machine"].tolist() == ["fan"] * 3 + ["mean"] * 3
    assert table.index.tolist() == [*range(6)]
    for name in ("default", "synthetic", "oracle"):
        score = scores.loc[scores["setting"] == name, "score"]
        row = line(table, "fan", name)
        assert row["auc"] == pytest.approx(auc(LABELS, score))
        assert row["pauc"] == pytest.approx(pauc(LABELS, score))
        assert row["objective"] == pytest.approx((row["auc"] + row["pauc"]) / 2)
        assert row["objective_low"] < row["objective"] < row["objective_high"]
    assert line(table, "fan", "default")[["gain", "gain_low", "gain_high"]].tolist() == [0, 0, 0]
    assert line(table, "fan", "oracle")["regret"] == 0
    middle = line(table, "fan", "synthetic")
    assert middle["gain"] + middle["regret"] == pytest.approx(line(table, "fan", "oracle")["gain"])


def test_the_share_that_is_closed_goes_from_default_to_oracle():
    machines = [setting_scores(name, seed, default=0.5, synthetic=2, worse=0, oracle=3)
                for seed, name in enumerate(("fan", "pump", "valve"))]  # fmt: skip
    table = compare(pd.concat(machines), resamples=200)
    closed = table[table["machine"] == "mean"].set_index("setting")["closed"]
    assert (closed["default"], closed["oracle"]) == (0, 1)
    assert 0.3 < closed["synthetic"] < 1
    assert closed["worse"] < 0
    gains = [line(table, name, "synthetic")["gain"] for name in ("fan", "pump", "valve")]
    total = [line(table, name, "oracle")["gain"] for name in ("fan", "pump", "valve")]
    assert closed["synthetic"] == pytest.approx(sum(gains) / sum(total))
    assert table.loc[table["machine"] != "mean", "closed"].isna().all()


def test_without_a_gap_there_is_nothing_to_close():
    scores = setting_scores("fan", default=1, synthetic=1)
    oracle = scores[scores["setting"] == "default"].assign(setting="oracle", default=False)
    table = compare(pd.concat([scores, oracle]), resamples=50)
    assert table["closed"].isna().all()
    assert (table["regret"].iloc[[0, 2]] == 0).all()


def test_a_difference_is_surer_than_what_it_is_the_difference_of():
    scores = setting_scores("fan", default=1, synthetic=1)
    near = scores.loc[scores["setting"] == "default", "score"].to_numpy() + 0.05 * LABELS
    scores.loc[scores["setting"] == "synthetic", "score"] = near
    oracle = scores[scores["setting"] == "synthetic"].assign(setting="oracle")
    row = line(compare(pd.concat([scores, oracle]), resamples=200), "fan", "synthetic")
    assert row["gain"] > 0
    assert row["gain_high"] - row["gain_low"] < (row["objective_high"] - row["objective_low"]) / 4


def test_intervals_of_a_mean_are_over_machines_too():
    """Machines that differ leave a mean unsure, however many clips each has."""
    alike = [setting_scores(f"m{i}", i, default=1, synthetic=1.5, oracle=2) for i in range(6)]
    unlike = [setting_scores(f"m{i}", i, default=1, synthetic=1.5 + 2 * (-1) ** i, oracle=5)
              for i in range(6)]  # fmt: skip
    widths = []
    for machines in (alike, unlike):
        row = line(compare(pd.concat(machines), resamples=300), "mean", "synthetic")
        widths.append(row["gain_high"] - row["gain_low"])
        single = line(compare(pd.concat(machines), resamples=300), "m0", "synthetic")
    assert widths[1] > 2 * widths[0]
    assert widths[0] < single["gain_high"] - single["gain_low"] + widths[1]


def test_machines_of_one_type_are_no_independent_machines():
    """Four fans that are alike, and a pump: as much evidence of other types as two machines."""
    fans = [setting_scores(f"fan{i}", 0, default=1, synthetic=3, oracle=3) for i in range(4)]
    pump = setting_scores("pump", 1, default=1, synthetic=1, oracle=3)
    scores = pd.concat([*fans, pump])
    types = np.where(scores["machine"] == "pump", "pump", "fan")
    alone = compare(scores, resamples=300)
    typed = compare(scores.assign(type=types, site="north"), resamples=300)
    for setting in ("synthetic", "oracle"):
        rows = [line(table, "mean", setting) for table in (alone, typed)]
        assert rows[0]["gain"] == rows[1]["gain"]
    rows = [line(table, "mean", "synthetic") for table in (alone, typed)]
    assert rows[0]["gain_low"] > 0
    assert rows[1]["gain_low"] < 0.05 * rows[1]["gain"] < rows[0]["gain_low"]
    assert line(typed, "fan0", "synthetic")[["type", "site"]].tolist() == ["fan", "north"]
    assert typed.loc[typed["machine"] == "mean", ["type", "site"]].isna().all(axis=None)
    each = compare(scores.assign(type=scores["machine"], site=None), resamples=300)
    pd.testing.assert_frame_equal(each.drop(columns=["type", "site"]), alone, check_exact=True)


def test_runs_of_a_machine_are_averaged_on_the_same_clips():
    runs = [setting_scores("fan", seed, default=1, synthetic=2, oracle=3).assign(run=seed)
            for seed in range(3)]  # fmt: skip
    together = compare(pd.concat(runs), resamples=100)
    alone = [compare(run.drop(columns="run"), resamples=100) for run in runs]
    mean = np.mean([line(table, "fan", "synthetic")["auc"] for table in alone])
    assert line(together, "fan", "synthetic")["auc"] == pytest.approx(mean)
    assert together["machine"].tolist() == ["fan"] * 3 + ["mean"] * 3
    runs[1] = runs[1][::-1]
    with pytest.raises(ValueError, match="fan section 00: its runs score other clips"):
        compare(pd.concat(runs))


def test_the_objective_decides_what_is_gained():
    scores = setting_scores("fan", default=1, synthetic=2, oracle=3)
    row = line(compare(scores, "auc", resamples=20), "fan", "synthetic")
    assert row["objective"] == row["auc"]


@pytest.mark.parametrize("objective", ["mean", "official"])
def test_intervals_are_of_resamples_that_run_out_of_no_domain(objective):
    """Of the official score, which has an AUC of each domain; else only of no label."""
    domains = np.tile(["source", "target", "source", "source"], 20)
    recordings = np.arange(80) // 2
    scores = setting_scores("fan", default=1, oracle=3).assign(
        domain=[*domains] * 2, recording=[*recordings] * 2
    )
    table = compare(scores, objective, resamples=30, seed=5)
    strata = (LABELS, domains) if objective == "official" else (LABELS,)
    counts = resample(*strata, n=30, seed=np.random.default_rng(5), groups=recordings)
    for name in ("default", "oracle"):
        score = scores.loc[scores["setting"] == name, "score"].to_numpy()
        row, metrics = line(table, "fan", name), section_metrics(LABELS, domains, score)
        areas = resampled_areas(LABELS, domains, score[None], counts)
        official = harmonic_mean([metrics.auc_source, metrics.auc_target, metrics.pauc])
        mean = (auc(LABELS, score) + metrics.pauc) / 2
        assert row["objective"] == pytest.approx(official if objective == "official" else mean)
        drawn = areas.official[0] if objective == "official" else (areas.auc + areas.pauc)[0] / 2
        interval = percentile_interval(drawn)
        assert (row["objective_low"], row["objective_high"]) == (interval.low, interval.high)


def test_a_mean_over_types_is_between_those_of_sections():
    values = [np.full((2, 51), 0.1), np.full((2, 51), 0.3), np.full((2, 51), 0.4)]
    means = over_types(values, ["fan", "fan", "pump"])
    assert means[:, 0] == pytest.approx(0.8 / 3)
    # Both types, two fans and a pump to three of them, or one type alone.
    drawn = {0.2, 0.4, 0.8 / 3}
    assert sorted(set(means[0, 1:].round(9))) == pytest.approx(sorted(drawn))
    np.testing.assert_allclose(over_types([values[0]] * 5, "aabbb"), 0.1)


# How alike curves are


def curves(synthetic, real, grid=GRID):
    selector = Selector(grid)
    candidates = selector.candidates(TWFRGMM())
    selection = selector.select(candidates, LABELS, synthetic)
    return selection, selector.curve(LABELS, real, candidates=candidates)


def test_curves_of_one_order_correlate_and_those_of_the_opposite_anticorrelate():
    rising, falling = scores_of(0, 1, 2, 3), scores_of(3, 2, 1, 0, seed=1)
    (spearman, kendall) = correlate(*curves(rising, rising))
    assert spearman[0] == kendall[0] == 1
    (spearman, kendall) = correlate(*curves(rising, falling))
    assert spearman[0] == kendall[0] == -1
    assert np.quantile(spearman, 0.975) < 0


def test_the_correlation_is_scipys():
    selection, real = curves(scores_of(1, 1, 1.2, 1), scores_of(1, 1.1, 1, 1, seed=3))
    correlations = correlate(selection, real)[:, 0]
    pair = selection.curve["objective"], real.table["objective"]
    assert correlations[0] == pytest.approx(stats.spearmanr(*pair).statistic)
    assert correlations[1] == pytest.approx(stats.kendalltau(*pair).statistic)


def test_a_flat_curve_and_one_that_is_not_known_correlate_with_nothing():
    _, real = curves(*[scores_of(1, 2, 3, 4)] * 2)
    sure = np.tile(100.0 * LABELS, (4, 1))
    flat, _ = curves(sure, sure)
    unknown = Selector(GRID).keep_default(Selector(GRID).candidates(TWFRGMM()), "no clips")
    for selection in (flat, unknown):
        assert np.isnan(correlate(selection, real)).all()


# Leave-one-machine-out


@pytest.fixture(scope="module")
def fan(factory_clips):
    return factory_clips.where(machine="fan")


@pytest.fixture(scope="module")
def selector():
    return Selector({"r": [0.0, 0.9, 1.0, 1.1]}, baselines=[{"r": 0.0}])


@pytest.fixture(scope="module")
def validated(fan, factory_clips, selector):
    """Most of the real test clips stand in for synthetic ones."""
    sections = {}
    for machine, strict in (("fan", False), ("valve", True)):
        clips = factory_clips.where(machine=machine)
        synthetic = clips.where(split="test")[1:]
        sections[FAN._replace(machine=machine)] = validate(
            TWFRGMM(), selector, clips, synthetic, strict
        )
    return sections


def test_the_anomalies_of_the_machine_do_not_choose(fan, selector, validated):
    flipped = Clips(
        [
            replace(clip, label={"normal": "anomaly", "anomaly": "normal"}[clip.label])
            if clip.split == "test"
            else clip
            for clip in fan
        ],
        fan.cache,
    )
    synthetic = fan.where(split="test")[1:]
    again = validate(TWFRGMM(), selector, flipped, synthetic)
    pd.testing.assert_frame_equal(again.selection.curve, validated[FAN].selection.curve)
    assert again.hindsight.real.table["auc"][0] != validated[FAN].hindsight.real.table["auc"][0]


def test_type_and_site_are_those_of_the_clips(fan):
    clips = Clips([replace(clip, type="blower", site="north") for clip in fan], fan.cache)
    section = validate(KNN(), Selector({"k": [1, 2]}), clips, clips[[]])
    assert (section.type, section.site, section.strict) == ("blower", "north", False)


def test_what_cannot_be_judged_is_not_validated(fan, selector):
    synthetic = fan.where(split="test")
    for clips in (
        fan.where(split="test"),
        fan[[clip.label == "normal" for clip in fan]],
        Clips([replace(c, label=None) if c.split == "test" else c for c in fan], fan.cache),
    ):
        assert validate(TWFRGMM(), selector, clips, synthetic) is None
    few = Clips([*fan.where(split="train")[:3], *synthetic], fan.cache)
    assert validate(KNN(), Selector({"k": [1, 5]}), few, synthetic) is None


def test_the_summary_says_what_was_chosen_and_what_it_was_worth(validated, tmp_path):
    validated = {
        key: replace(section, type=key.machine, site="north") for key, section in validated.items()
    }
    write_validation(tmp_path, validated)
    table = pd.read_csv(tmp_path / "validation.csv", dtype={"section": str})
    assert table["machine"].tolist() == ["fan", "valve", "mean"]
    assert table["strict"].tolist()[:2] == [False, True]
    for row, section in zip(table.to_dict("records"), validated.values(), strict=False):
        settings = section.hindsight.settings.set_index("setting")
        assert row["chosen"] == f"r={section.selection.setting['r']:g}"
        assert row["oracle"] == f"r={settings['param.r']['oracle']:g}"
        expected = settings["objective"]["oracle"] - settings["objective"]["synthetic"]
        assert row["regret"] == pytest.approx(expected)
        assert row["gain"] == pytest.approx(
            settings["objective"]["synthetic"] - settings["objective"]["r=1"]
        )
        alike = dict(
            zip(("spearman", "kendall"), correlate(section.selection, section.hindsight.real),
                strict=True)
        )  # fmt: skip
        for name, values in alike.items():
            assert row[name] == pytest.approx(values[0])
            assert -1 <= row[f"{name}_low"] <= row[f"{name}_high"] <= 1
        assert row["gap"] == pytest.approx(section.selection.gap.auc)
        assert (row["type"], row["site"]) == (section.type, "north")
    mean = table.iloc[-1]
    assert mean["regret"] == pytest.approx(table["regret"][:2].mean())
    assert mean["spearman"] == pytest.approx(table["spearman"][:2].mean())
    files = {path.name for path in (tmp_path / "validation").iterdir()}
    assert files == {
        "comparison.csv", "real_curve.csv", "selection.csv", "setting_scores.csv",
        "settings.csv",
    }  # fmt: skip


def test_choices_with_the_site_are_columns_and_no_machines(validated, tmp_path):
    """Of a machine, and in the mean: here each gets the oracle's setting."""
    known = {
        key: replace(section, with_site=_in_hindsight(section))
        for key, section in validated.items()
    }
    write_validation(tmp_path / "both", known)
    write_validation(tmp_path / "one", validated)
    both, one = (pd.read_csv(tmp_path / name / "validation.csv") for name in ("both", "one"))
    columns = [f"{name}_with_site{end}" for name, end in
               [("chosen", ""), *[("gain", end) for end in ("", "_low", "_high")]]]  # fmt: skip
    assert [name for name in both if name not in one] == columns
    pd.testing.assert_frame_equal(both[one.columns], one)
    assert both["chosen_with_site"].tolist()[:2] == both["oracle"].tolist()[:2]
    np.testing.assert_allclose(both["gain_with_site"], both["gain"] + both["regret"])
    assert (both["gain_with_site_low"] <= both["gain_with_site"]).all()
    assert all(section.scores.index.is_unique for section in known.values())
    compared = pd.read_csv(tmp_path / "both/validation/comparison.csv")
    assert (compared["setting"] == "with_site").sum() == 3


def _in_hindsight(section):
    """The section, had the oracle chosen."""
    hindsight, oracle = section.hindsight, section.hindsight.real
    scores = hindsight.scores[hindsight.scores["setting"] != "synthetic"]
    used = scores[scores["setting"] == "oracle"].assign(setting="synthetic")
    return replace(
        section,
        selection=replace(section.selection, setting=oracle.settings[oracle.best]),
        hindsight=replace(hindsight, scores=pd.concat([scores, used])),
    )


def test_a_machine_without_synthetic_clips_is_listed_with_its_reason(fan, selector, tmp_path):
    section = validate(TWFRGMM(), selector, fan, fan[[]], strict=True)
    write_validation(tmp_path, {FAN: section})
    row = pd.read_csv(tmp_path / "validation.csv").iloc[0]
    assert (row["chosen"], row["gain"]) == ("r=1", 0)
    assert row["abstain_reason"].startswith("no synthetic clips of both labels")
    assert np.isnan(row["spearman"])


def test_a_selection_of_several_detectors_names_the_oracles_parameters_only(fan):
    selector = Selector([{"use": ["knn"], "knn__k": [1, 2]}, {"use": ["gmm"], "gmm__r": [1.0]}])
    either = OneOf({"knn": KNN(), "gmm": TWFRGMM()}, use="knn")
    section = validate(either, selector, fan, fan.where(split="test"))
    scores = section.hindsight.scores.assign(machine="fan", section="00")
    table = summarise({FAN: section}, compare(scores, resamples=20))
    assert table["oracle"][0] in ("use=knn, k=1", "use=knn, k=2", "use=gmm, r=1")
