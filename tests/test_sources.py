"""Sources of evidence: what each expects, of what, and when it says nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module

from fsasd.cli import configure, resolvers
from fsasd.data.log_mel import LogMel
from fsasd.data.names import SectionId
from fsasd.selection.evidence import Curve, Evidence, ScoredClips
from fsasd.selection.profile import RANKS, Profile
from fsasd.selection.rungs import rung_weights
from fsasd.selection.selector import Selector
from fsasd.selection.settings import Candidates, settings_frame
from fsasd.selection.sources.base import Case, alike
from fsasd.selection.sources.normals import Normals
from fsasd.selection.sources.prior import Prior
from fsasd.selection.sources.references import References
from fsasd.selection.sources.synthetic import Synthetic
from fsasd.selection.sources.transfer import Transfer
from fsasd.testing import ConformanceError, check_source

SHIPPED = Path(__file__).parents[1] / "conf" / "selection" / "sources"

R = [0.0, 0.5, 1.0]
CANDIDATES = Candidates([{"r": r} for r in R], 3, {"r": 1.0})
SELECTOR = Selector({"r": R}, resamples=50)


def curve(objective):
    settings = CANDIDATES.settings
    table = settings_frame(settings).assign(objective=objective)
    return Curve(settings, table, np.tile(np.array(objective)[:, None], 2), 0)


def profile(loud=0.0, tilt=0.0):
    levels = np.zeros((8, 32), np.float32)
    levels[:, -4:] = loud
    return Profile(levels + tilt * np.arange(8, dtype=np.float32)[:, None])


def scored(shifts, donors=("",), strengths=(np.nan,), n=30, seed=0):
    """Clips of both labels; anomalies of a donor are separated by its shifts, one per setting."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.repeat([0, 1], n), len(donors))
    names = np.repeat(list(donors), 2 * n)
    rungs = np.resize(np.asarray(strengths, float), len(labels))
    noise = rng.standard_normal(len(labels))
    shift = np.repeat(np.array(shifts, float).reshape(len(donors), len(R)), 2 * n, axis=0).T
    scale = np.where(np.isnan(rungs), 1.0, rungs)
    return ScoredClips(
        noise + labels * shift * scale, labels, [None] * len(labels), np.arange(len(labels)),
        np.where(labels == 1, rungs, np.nan), names.tolist(), [""] * len(labels),
    )  # fmt: skip


def evidence(clips=None, reason="nothing was synthesised"):
    return Evidence(CANDIDATES, {}, "" if clips else reason, synthetic=clips, train=clips)


def case(machine="fan", real=None, synthetic=None, transfer=None, **known):
    return Case(
        SectionId(machine, "00"), known.pop("type", machine), known.pop("site", None),
        evidence(synthetic), transfer and evidence(transfer),
        known.pop("profile", profile()), real=real and curve(real), **known,
    )  # fmt: skip


PUMP = case("pump", [0.9, 0.8, 0.7], profile=profile(loud=20.0))
FAN = case("fan", [0.5, 0.6, 0.8], profile=profile(loud=1.0))
VALVE = case("valve", [0.9, 0.7, 0.7], profile=profile(loud=24.0))
MOTOR = case("motor", [0.6, 0.7, 0.8], profile=profile(loud=2.0))
REFERENCES = [PUMP, FAN, VALVE, MOTOR]


@pytest.mark.parametrize(
    "source",
    [Synthetic(), References(), References(scale=2.0, smooth=0.1), Transfer(), Normals(),
     Prior({"r": {"any": 0.9}})],
    ids=lambda source: type(source).__name__,
)  # fmt: skip
def test_every_source_keeps_the_rules(source):
    check_source(source)


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.stem for p in SHIPPED.glob("*.yaml")))
def test_every_source_that_ships_keeps_the_rules(name):
    resolvers.register()
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", ["selection=combined", f"selection/sources=[{name}]"])
    selector = configure.experiment(cfg).selector
    assert list(selector.sources) == [name]
    check_source(selector.sources[name])


def test_a_source_that_breaks_a_rule_is_named():
    class Peeking(References):
        def estimate(self, case, references, selector):
            said = super().estimate(case, references, selector)
            peeked = 0.0 if case.real is None else 1.0
            return replace(said, gains=said.gains * peeked)

    class Unsorted(References):
        def estimate(self, case, references, selector):
            return super().estimate(case, references[:1], selector)

    class Generous(References):
        def estimate(self, case, references, selector):
            said = super().estimate(case, references, selector)
            return replace(said, gains=said.gains + 0.1)

    for kind, rule in ((Peeking, "does not look at the section's real curve"),
                       (Unsorted, "the order of the reference machines does not matter"),
                       (Generous, "the default setting gains nothing over itself")):  # fmt: skip
        with pytest.raises(ConformanceError, match=rule):
            check_source(kind())


def test_references_expect_the_mean_of_their_gains():
    estimate = References().estimate(case("new"), REFERENCES, SELECTOR)
    assert estimate.gains == pytest.approx([-0.025, -0.05, 0])
    assert sum(estimate.origins.values()) == pytest.approx(1)
    assert estimate.error[2] == 0


def test_references_that_sound_alike_count_for_more():
    estimate = References(scale=1.0).estimate(
        case("new", profile=profile(loud=22.0)), REFERENCES, SELECTOR
    )
    assert estimate.gains[0] == pytest.approx(0.2, abs=0.02)
    assert max(estimate.origins, key=estimate.origins.get) in (
        "pump section 00",
        "valve section 00",
    )


def test_machines_of_one_type_share_a_weight():
    twin = case("fan_2", [0.5, 0.6, 0.8], type="fan")
    weights = alike(case("new"), [PUMP, FAN, twin], np.inf)
    assert weights == pytest.approx([1 / 2, 1 / 4, 1 / 4])


def test_a_distance_leaves_the_level_out():
    louder = Profile(profile(tilt=1.0).levels + 30)
    assert louder.distance(profile(tilt=1.0)) == pytest.approx(0, abs=1e-4)
    assert profile(tilt=1.0).distance(profile()) > 1


def test_a_profile_has_the_quantiles_of_each_band_in_the_mean_over_clips(factory_clips, tmp_path):
    clips = factory_clips.where(machine="fan", split="train")[:3]
    made = Profile.of(clips)
    levels = [*clips.features(LogMel.twfr())]
    bands, ranks = made.levels.shape
    assert (bands, ranks) == (len(levels[0]), RANKS)
    for rank in (0, 10, RANKS - 1):
        share = rank / (RANKS - 1)
        expected = [np.quantile(one, share, axis=1, method="nearest") for one in levels]
        np.testing.assert_allclose(made.levels[:, rank], np.mean(expected, axis=0), rtol=1e-5)
    np.testing.assert_array_equal(Profile.of(clips[::-1]).levels, made.levels)
    made.save(tmp_path)
    np.testing.assert_array_equal(Profile.load(tmp_path).levels, made.levels)
    with pytest.raises(ValueError, match="expected normal clips to describe, found none"):
        Profile.of(clips[:0])


def test_a_machine_is_as_unsteady_as_its_bands_rise_above_their_medians():
    levels = np.array([np.arange(41.0), np.repeat([0.0, 9.0], [20, 21])])
    # 95 % of 40 is 38; the medians are at 20.
    assert Profile(levels).unsteadiness == pytest.approx((18 + 0) / 2)


def test_the_unit_of_a_parameter_does_not_change_a_smoothed_curve():
    percent = Candidates([{"r": 100 * r} for r in R], 3, {"r": 100.0})
    of = References(smooth=0.3)
    rough = case("rough", [0.5, 0.9, 0.5])
    target = case("new")
    other = replace(target, synthetic=replace(target.synthetic, candidates=percent))
    shares, percents = (of.estimate(one, [rough], SELECTOR).gains for one in (target, other))
    np.testing.assert_allclose(percents, shares)


def test_a_smoothed_curve_keeps_the_default_at_zero():
    rough = case("rough", [0.5, 0.9, 0.5])
    plain, smooth = (
        References(smooth=width).estimate(case("new"), [rough], SELECTOR).gains
        for width in (0.0, 0.5)
    )
    assert plain.tolist() == pytest.approx([0, 0.4, 0])
    # At each value, the mean of the curve weighted by a Gaussian of the distance.
    near, far = np.exp(-0.5), np.exp(-2.0)
    ends, middle = 0.4 * near / (1 + near + far), 0.4 / (1 + 2 * near)
    assert smooth == pytest.approx([0, middle - ends, 0])


def test_unsteady_machines_are_expected_to_be_as_unsteady_references_are():
    steady, unsteady = (
        Normals(ridge=0.1).estimate(case("new", profile=profile(loud)), REFERENCES, SELECTOR)
        for loud in (1.0, 24.0)
    )
    assert unsteady.gains[0] > 0.1
    assert steady.gains[0] < -0.1


def test_gains_on_a_line_are_expected_on_the_line():
    """0.01 for each dB that a machine is more unsteady than 10 dB, at the first setting."""
    others = [case(f"m{i}", [0.5 + 0.01 * (loud - 10), 0.5, 0.5], profile=profile(loud))
              for i, loud in enumerate((1.0, 4.0, 16.0, 30.0))]  # fmt: skip
    unsteady = [one.likeness.unsteadiness for one in others]
    assert unsteady == pytest.approx([1, 4, 16, 30])
    target = case("new", profile=profile(24.0))
    exact = Normals(ridge=0.0).estimate(target, others, SELECTOR)
    assert exact.gains == pytest.approx([0.14, 0, 0])
    assert exact.error == pytest.approx([0, 0, 0])
    # The variance is 12.97 ** 2; as much again halves the slope.
    ridge = float(np.var(unsteady))
    flat = Normals(ridge=ridge).estimate(target, others, SELECTOR)
    centre = np.mean(unsteady)
    assert flat.gains[0] == pytest.approx(0.01 * (centre - 10) + 0.005 * (24 - centre))
    residual = 0.005 * np.sqrt(ridge)
    leverage = 1 / 4 + (24 - centre) ** 2 / (4 * 2 * ridge)
    assert flat.error[0] == pytest.approx(residual * np.sqrt(leverage))


def test_a_line_needs_four_types():
    twins = [FAN, case("fan_2", [0.5, 0.6, 0.8], type="fan"), PUMP, VALVE]
    said = Normals().estimate(case("new"), twins, SELECTOR)
    assert "4 types of reference machines" in said.reason
    assert "there are 3" in said.reason


def test_a_prior_falls_off_from_the_best_value_of_the_expected_faults():
    best = {"r": {"any": 0.9, "transient": 0.0, "stationary": 1.0}}
    transient = Prior(best, {"valve": "transient"}, width=0.5, loss=0.05)
    assert transient.estimate(VALVE, [], SELECTOR).gains == pytest.approx([0.2, 0.15, 0])
    assert transient.estimate(FAN, [], SELECTOR).gains[0] < 0
    unknown = Prior({"k": {"any": 1}}).estimate(FAN, [], SELECTOR)
    assert "nothing is known of these settings" in unknown.reason


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"faults": "loud"}, "expected any, transient, stationary, found loud"),
        ({"best": {"r": {"any": 0.9}}, "faults": {"fan": "transient"}}, "for transient faults"),
    ],
)
def test_a_prior_without_a_value_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Prior(**arguments)


def test_synthetic_clips_say_nothing_where_they_are_unlike_real_ones():
    clips = scored([2, 1, 0])
    assert Synthetic().estimate(case(synthetic=clips), [], SELECTOR).gains[0] > 0.2
    said = Synthetic().estimate(case(synthetic=clips, unlike="they are far"), [], SELECTOR)
    assert said.reason == "they are far"
    assert "nothing was synthesised" in Synthetic().estimate(case(), [], SELECTOR).reason


def test_clips_of_one_recording_leave_a_gain_as_unsure_as_one_clip():
    one = scored([2, 1, 0])
    cut = ScoredClips(
        np.repeat(one.scores, 9, axis=1), np.repeat(one.labels, 9), [None] * 540,
        np.repeat(one.groups, 9), np.repeat(one.strengths, 9), [""] * 540, [""] * 540,
    )  # fmt: skip
    errors = [Synthetic().estimate(case(synthetic=clips), [], SELECTOR).error[0]
              for clips in (one, cut, replace(cut, groups=np.arange(540)))]  # fmt: skip
    assert errors[1] == pytest.approx(errors[0], rel=0.2)
    assert errors[2] < 0.5 * errors[1]


def test_clips_of_a_donor_that_is_left_out_do_not_count():
    clips = scored([[3, 1, 0], [0, 1, 3]], donors=["pump section 00", "fan section 00"])
    target = case("new", transfer=clips)
    of = Transfer(scale=None)
    assert of.estimate(target, [PUMP], SELECTOR).gains[0] > 0.3
    assert of.estimate(target, [FAN], SELECTOR).gains[0] < -0.3
    both = of.estimate(target, [FAN, PUMP], SELECTOR)
    assert abs(both.gains[0]) < 0.1
    assert both.origins == pytest.approx({"pump section 00": 0.5, "fan section 00": 0.5})
    # Two machines of opposite gains leave it open which another machine has.
    assert both.error[0] > 0.5 * of.estimate(target, [PUMP], SELECTOR).gains[0]
    # Of the fan there are anomalies alone.
    kept = np.flatnonzero((clips.labels == 1) | (np.array(clips.donors) == "pump section 00"))
    fewer = replace(
        clips, scores=clips.scores[:, kept], labels=clips.labels[kept], groups=clips.groups[kept],
        strengths=clips.strengths[kept], **{name: [getattr(clips, name)[row] for row in kept]
                                            for name in ("domains", "donors", "faults")},
    )  # fmt: skip
    said = of.estimate(case("new", transfer=fewer), [FAN, PUMP], SELECTOR)
    assert (said.reason, np.isfinite(said.gains).all()) == ("", True)
    said = of.estimate(case("new", transfer=fewer), [FAN], SELECTOR)
    assert said.reason == "transferred clips of both labels are needed"
    assert said.gains.tolist() == [0, 0, 0]
    assert "no reference machine to transfer from" in of.estimate(target, [VALVE], SELECTOR).reason


def test_a_donor_counts_by_its_likeness_and_not_by_its_clips():
    few = scored([[3, 1, 0]], donors=["pump section 00"], n=20)
    many = scored([[0, 1, 3]], donors=["fan section 00"], n=60)
    clips = ScoredClips(
        np.hstack([few.scores, many.scores]),
        *(np.concatenate(pair) for pair in ((few.labels, many.labels),)),
        [None] * 160, np.arange(160), np.full(160, np.nan), [*few.donors, *many.donors], [""] * 160,
    )  # fmt: skip
    target = case("new", transfer=clips, profile=profile(loud=20.0))
    assert Transfer(scale=2.0).estimate(target, [FAN, PUMP], SELECTOR).gains[0] > 0.25


def with_faults(shifts, **known):
    """Clips with two kinds of faults, each with its shifts."""
    few = [scored(one, n=40, seed=seed) for seed, one in enumerate(shifts)]
    kinds = np.repeat(["impacts", "leak"], 80)
    labels = np.concatenate([one.labels for one in few])
    return ScoredClips(
        np.hstack([one.scores for one in few]), labels, [None] * 160, np.arange(160),
        np.full(160, np.nan), [""] * 160, np.where(labels == 1, kinds, "").tolist(),
    )  # fmt: skip


def test_faults_count_as_they_resemble_the_real_anomalies_of_references():
    clips = with_faults([[2, 1, 0.5], [0.5, 1, 2]])
    target = case("new", synthetic=clips)
    impacts = [replace(one, synthetic=evidence(clips)) for one in (PUMP, VALVE)]
    leaks = [replace(one, synthetic=evidence(clips)) for one in (FAN, MOTOR)]
    plain = Synthetic(fit_faults=False).estimate(target, impacts, SELECTOR)
    of_impacts = Synthetic().estimate(target, impacts, SELECTOR)
    of_leaks = Synthetic().estimate(target, leaks, SELECTOR)
    assert of_leaks.gains[0] + 0.05 < plain.gains[0] < of_impacts.gains[0] - 0.05
    assert of_impacts.details.startswith("mostly impacts 0.")
    assert of_leaks.details.startswith("mostly leak 0.")
    # No shares from machines that the generator was trained on, nor from those without the faults.
    trained = [replace(one, strict=False) for one in impacts]
    others = [replace(one, synthetic=evidence(scored([2, 1, 0.5]))) for one in (PUMP, VALVE)]
    strict = [replace(FAN, synthetic=evidence(scored([2, 1, 0.5])))]
    unnamed = Synthetic().estimate(case("new", synthetic=scored([2, 1, 0.5])), strict, SELECTOR)
    assert unnamed.gains[0] > 0
    assert unnamed.details == ""
    for references in (trained, others, [], [PUMP]):
        said = Synthetic().estimate(target, references, SELECTOR)
        assert (said.gains == plain.gains).all()
        assert said.details == ""


def test_rungs_on_which_nothing_differs_hardly_count():
    clips = scored([[0.5, 1, 2]], strengths=[0.01, 0.7, 30.0], n=60)
    weights = SELECTOR.rung_weights(clips)
    by_rung = [weights[(clips.labels == 1) & (clips.strengths == rung)][0]
               for rung in (0.01, 0.7, 30.0)]  # fmt: skip
    assert by_rung[1] > 5 * max(by_rung[0], by_rung[2])
    assert weights[clips.labels == 0].tolist() == [1.0] * 60
    assert weights[clips.labels == 1].mean() == pytest.approx(1)
    plain = Selector({"r": R}, ladder=False).rung_weights(clips)
    assert plain.tolist() == [1.0] * 120


def test_one_rung_is_no_ladder():
    labels = np.array([0, 1, 1])
    weights = rung_weights(np.array([np.nan, 1.0, 1.0]), labels, lambda w: np.array([0.99]))
    assert weights.tolist() == [1.0, 1.0, 1.0]


def test_a_case_without_labels_has_no_gains():
    with pytest.raises(ValueError, match="fan section 00: expected labelled test clips"):
        _ = case().gains
    with pytest.raises(ValueError, match="expected a profile"):
        _ = case(profile=None).likeness
