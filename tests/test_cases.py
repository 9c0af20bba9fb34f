"""The choice of all sections at once: what is left out, what is learnt, when nothing is chosen."""

import numpy as np
import pytest
from scipy import stats

from fsasd.data.names import SectionId
from fsasd.selection.cases import choose_all, first_of_each_type
from fsasd.selection.combination import Combination, LeftOut, predicted_interval
from fsasd.selection.evidence import Curve, Evidence, ScoredClips
from fsasd.selection.profile import Profile
from fsasd.selection.selector import Selector
from fsasd.selection.settings import Candidates, settings_frame
from fsasd.selection.sources.base import Case, Estimate, Source
from fsasd.selection.sources.prior import Prior
from fsasd.selection.sources.references import References
from fsasd.selection.sources.synthetic import Synthetic

R = [0.0, 0.5, 1.0]
CANDIDATES = Candidates([{"r": r} for r in R], 3, {"r": 1.0})
KINDS = ("fan", "pump", "valve", "slider", "motor")


class Fixed(Source):
    """Expects the same of every section, and notes which references it was given."""

    def __init__(self, gains, error=(0, 0, 0)):
        self.gains = gains
        self.error = error
        self._asked = []

    def estimate(self, case, references, selector):
        self._asked.append((case.section.machine, sorted(r.section.machine for r in references)))
        return Estimate(np.array(self.gains, float), np.array(self.error, float))


def clips(shifts, n=40):
    labels = np.repeat([0, 1], n)
    noise = np.random.default_rng(0).standard_normal(len(labels))
    scores = noise + labels * np.array(shifts, float)[:, None]
    return ScoredClips(scores, labels, [None] * len(labels), np.arange(len(labels)),
                       np.full(len(labels), np.nan), *[[""] * len(labels)] * 2)  # fmt: skip


def case(machine, real=None, synthetic=None, **known):
    table = settings_frame(CANDIDATES.settings)
    curve = real and Curve(CANDIDATES.settings, table.assign(objective=real), np.ones((3, 2)), 0)
    some = synthetic and clips(synthetic)
    evidence = Evidence(CANDIDATES, selector().measured(),
                        "" if some else "nothing was synthesised", some, some)  # fmt: skip
    known.setdefault("type", machine)
    return Case(SectionId(machine, "00"), site=known.pop("site", None), synthetic=evidence,
                profile=Profile(np.zeros((4, 8), np.float32)), real=curve, **known)  # fmt: skip


def selector(**settings):
    return Selector({"r": R}, resamples=20, max_gap=None, **settings)


def plain(**weights):
    return Combination(weights, caution=0.0, trust=None)


def choose(cases, **settings):
    return {key.machine: one for key, one in choose_all(cases, selector(**settings)).items()}


def test_without_sources_synthetic_clips_choose_alone():
    chosen = choose([case("fan", synthetic=[3, 1, 0])])["fan"]
    assert chosen.setting == {"r": 0.0}
    assert chosen.expectation is None
    assert not chosen.contributions


def test_a_target_is_chosen_for_by_all_references_and_a_reference_by_others_types_and_sites():
    source = Fixed([0.1, 0, 0])
    cases = [
        case("new", site="mill"),
        case("fan", [0.9, 0.5, 0.5], site="mill"),
        case("fan_2", [0.9, 0.5, 0.5], type="fan", site="port"),
        case("pump", [0.9, 0.5, 0.5], site="mill"),
        case("valve", [0.9, 0.5, 0.5], site="port"),
    ]
    asked = selector(sources={"fixed": source}, combination=plain())
    choose_all(cases, asked, [SectionId("new", "00")])
    assert ("new", ["fan", "fan_2", "pump", "valve"]) in source._asked
    # While the target's setting is learnt, a reference is left out with its type and its site.
    assert ("fan", ["valve"]) in source._asked
    source._asked.clear()
    choose_all(cases, asked, [SectionId("pump", "00")])
    assert ("pump", ["fan_2", "valve"]) in source._asked
    # What is learnt for a reference comes from others alone.
    assert all("pump" not in others for name, others in source._asked if name != "pump")
    source._asked.clear()
    choose_all(cases, asked, [SectionId("pump", "00")], leave_site_out=False)
    assert ("pump", ["fan", "fan_2", "valve"]) in source._asked


def test_the_setting_is_that_of_the_highest_expected_gain():
    references = [case(kind, [0.8, 0.6, 0.6]) for kind in KINDS]
    chosen = choose([case("new"), *references], sources={"references": References()},
                    combination=plain())["new"]  # fmt: skip
    assert chosen.setting == {"r": 0.0}
    assert chosen.gain == pytest.approx(0.2)
    assert chosen.expectation.gain == pytest.approx(0.2)
    assert chosen.expectation.is_sure
    told = chosen.contributions["references"]
    assert (told.weight, told.gain, told.best) == (1.0, pytest.approx(0.2), "r=0")
    assert told.origins == pytest.approx({f"{kind} section 00": 0.2 for kind in KINDS})
    assert chosen.curve["chosen"].tolist() == [True, False, False]
    assert chosen.curve["expected"].tolist() == pytest.approx([0.2, 0, 0])
    assert chosen.curve["expected.references"].tolist() == pytest.approx([0.2, 0, 0])


def test_a_gain_that_is_less_than_its_error_is_not_chosen():
    sources = {"fixed": Fixed([0.1, 0.02, 0.0], error=[0.3, 0.01, 0.0])}
    bold, careful, timid = (
        choose([case("new")], sources=sources, combination=Combination({}, caution, None))["new"]
        for caution in (0.0, 1.0, 3.0)
    )
    assert [one.setting["r"] for one in (bold, careful, timid)] == [0.0, 0.5, 1.0]
    assert timid.abstain_reason == ""
    assert np.isnan([timid.expectation.gain, timid.expectation.low, timid.expectation.high]).all()
    assert timid.curve["expected_error"].tolist() == [0.3, 0.01, 0]


def test_an_expectation_is_corrected_by_how_far_others_were_off():
    # Every reference loses where the source expects a gain.
    references = [case(kind, [0.3 + 0.01 * i, 0.5, 0.6]) for i, kind in enumerate(KINDS)]
    chosen = choose([case("new"), *references], sources={"fixed": Fixed([0.1, 0, 0])},
                    combination=plain())["new"]  # fmt: skip
    assert chosen.expectation.gain == pytest.approx(
        np.mean([0.3 + 0.01 * i for i in range(5)]) - 0.6
    )
    assert not chosen.expectation.is_sure


def test_what_is_not_sure_is_chosen_only_where_something_is_known_beforehand():
    # Alike, and so sure; far apart, and so not.
    alike = [case(kind, [0.8, 0.6, 0.6]) for kind in KINDS]
    apart = [case(kind, [0.5 + 0.15 * i, 0.6, 0.6]) for i, kind in enumerate(KINDS)]
    only, both = {"references": References()}, {"references": References()}
    both["prior"] = Prior({"r": {"any": 0.0}})
    of_others = {"references": References(), "prior": Prior({"k": {"any": 0.0}})}
    sure = Combination({}, caution=0.0, trust=None, sure=True)

    def chosen(references, sources, combination=sure):
        return choose([case("new"), *references], sources=sources, combination=combination)["new"]

    assert chosen(alike, only).setting == {"r": 0.0}
    assert chosen(apart, both).setting == {"r": 0.0}
    assert chosen(apart, only, plain()).setting == {"r": 0.0}
    for sources in (only, of_others):
        kept = chosen(apart, sources)
        assert kept.setting == {"r": 1.0}
        reason = "nothing is known of r=0 beforehand, and its gain is not sure"
        assert kept.abstain_reason == reason
        assert kept.curve["abstain_reason"].tolist() == ["", "", reason]
    # Of two types nothing is sure; where the default is best, nothing is abstained from.
    assert "its gain is not sure" in chosen(alike[:2], only).abstain_reason
    worse = [case(kind, [0.5, 0.6, 0.6]) for kind in KINDS]
    assert chosen(worse, only).abstain_reason == ""


def test_a_prior_alone_is_no_evidence():
    prior = Prior({"r": {"any": 0.0}})
    sources = {"synthetic": Synthetic(), "prior": prior}
    chosen = choose([case("new")], sources=sources)["new"]
    assert chosen.setting == {"r": 1.0}
    assert chosen.abstain_reason == "there is no evidence (synthetic: nothing was synthesised)"
    silent = chosen.contributions["synthetic"]
    assert (silent.reason, silent.best, silent.gain) == ("nothing was synthesised", "", 0)
    assert np.isnan(
        [chosen.expectation.gain, chosen.expectation.low, chosen.expectation.high]
    ).all()
    with_clips = choose([case("new", synthetic=[1, 1, 1])], sources=sources)["new"]
    assert with_clips.setting == {"r": 0.0}


def test_weights_are_learnt_where_sources_were_right():
    references = [case(kind, [0.8, 0.7, 0.6]) for kind in KINDS]
    sources = {"right": Fixed([0.2, 0.1, 0.0]), "wrong": Fixed([-0.2, 0.1, 0.0])}
    for trust, apart in ((1e6, False), (1.0, True)):
        chosen = choose([case("new"), *references], sources=sources,
                        combination=Combination({}, 0.0, trust))["new"]  # fmt: skip
        weights = {name: one.weight for name, one in chosen.contributions.items()}
        assert (weights["right"] > weights["wrong"] + 0.3) == apart


def test_nothing_is_learnt_of_clips_whose_generator_knew_the_anomalies():
    gains = np.array([0.2, 0.1, 0.0])
    trusted = [LeftOut(kind, {"synthetic": gains}, -gains) for kind in KINDS]
    known = [LeftOut(kind, {"synthetic": gains}, -gains, frozenset({"synthetic"}))
             for kind in KINDS]  # fmt: skip
    assert Combination(trust=1.0).learn(trusted, ["synthetic"])["synthetic"] < 0.5
    assert Combination(trust=1.0).learn(known, ["synthetic"])["synthetic"] == pytest.approx(1)


def test_machines_of_one_type_count_once():
    gains = np.array([0.2, 0.1, 0.0])
    several = [LeftOut("fan", {"one": gains}, -gains) for _ in range(9)]
    single = several[:1]
    learnt, once = (
        Combination(trust=3.0).learn(some, ["one"])["one"] for some in (several, single)
    )
    assert learnt == pytest.approx(once)


def test_an_interval_needs_four_types():
    assert np.isnan(predicted_interval(0.1, [0, 0.1, 0.2, 0], ["a", "b", "c", "c"])[0])
    gain, low, high = predicted_interval(0.1, [0.0] * 4, "abcd")
    assert (gain, low, high) == pytest.approx((0.1, 0.1, 0.1))
    misses = [-0.03, 0.01, -0.02, 0.0, 0.04]
    gain, low, high = predicted_interval(0.1, [*misses, 0.04], "abcdee", level=0.9)
    reach = stats.t.ppf(0.95, 4) * np.std(misses, ddof=1) * np.sqrt(1 + 1 / 5)
    assert (gain, low, high) == pytest.approx((0.1, 0.1 - reach, 0.1 + reach))


def test_the_first_of_each_type_come_first():
    assert first_of_each_type([("a", 1), ("b", 1), ("c", 2), ("d", 1)]) == ["a", "c", "b", "d"]
