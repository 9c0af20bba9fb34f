"""Which fit scores which clip: copies, gaps between synthetic and real clips, too few of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy import stats

from fsasd.data.clips import Clips
from fsasd.data.content import content_hash
from fsasd.data.metadata import Clip
from fsasd.detectors.base import Detector
from fsasd.detectors.knn import KNN
from fsasd.detectors.networks.classifier import Training
from fsasd.detectors.representations import TimeStatistics
from fsasd.detectors.systems.thuee import THUEE
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.generation.gap import Gap
from fsasd.selection.choice import choose, in_hindsight, measure
from fsasd.selection.evidence import FORMAT, Evidence
from fsasd.selection.selector import Selector
from fsasd.selection.significance import MIN_CLIPS_FOR_GAP, WIDE_GAP


class Recited(Detector):
    """Scores that stand in the clips' names: one for each of the settings 0 and 1."""

    def __init__(self, which=1):
        self.which = which

    def fit(self, clips):
        self.clips_ = np.array([len(clips)])
        return self

    def score(self, clips):
        return np.array([float(clip.path.stem.split("_")[self.which]) for clip in clips])


def recited(label, scores, **known):
    """Clips that get these (settings, n) scores."""
    return Clips([Clip(Path(f"{a}_{b}_{i}.wav"), "fan", label=label, recording=str(i), **known)
                  for i, (a, b) in enumerate(np.asarray(scores).T)])  # fmt: skip


NO_GAP = Gap(auc=0.5, low=0.4, high=0.6, synthetic=40, real=40)


def choice(detector, selector, train, synthetic, gap=None):
    return choose(measure(detector, selector, train, synthetic, gap=gap), selector)


def recited_choice(selector, train, synthetic, gap=NO_GAP, default=0):
    """Recited clips have no recordings, and so no gap of their own."""
    return choice(Recited(default), selector, train, synthetic, gap)


def both(normal, anomaly):
    return Clips([*recited("normal", normal), *recited("anomaly", anomaly)])


WHICH = Selector({"which": [0, 1]})


@pytest.fixture(scope="module")
def fan(factory_clips):
    return factory_clips.where(machine="fan")


@pytest.fixture(scope="module")
def train(fan):
    return fan.where(split="train", label="normal")


@pytest.fixture(scope="module")
def test_clips(fan):
    return fan.where(split="test")


def copies(clips, label="normal", *, named):
    return Clips(
        [
            replace(clip, label=label, source=content_hash(clip.path) if named else None)
            for clip in clips
        ],
        clips.cache,
    )


# Clips that are derived from training clips


def test_a_source_that_is_no_training_clip_is_an_error_that_names_it(train, test_clips):
    unknown = Clips([replace(test_clips[0], source="ab12")], train.cache)
    message = f"{test_clips[0].path}: expected its source among the 16 .* found none with .* ab12"
    with pytest.raises(ValueError, match=message):
        measure(KNN(), Selector({"k": [1, 2]}), train, unknown)


@pytest.fixture(scope="module")
def noises(tmp_path_factory):
    """Eighty recordings of one machine: noise, each with another spectrum."""
    folder = tmp_path_factory.mktemp("noises")
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.wav" for i in range(80)]
    for path in paths:
        colour = rng.uniform(0.5, 2, 40).repeat(50)
        spectrum = np.fft.rfft(rng.standard_normal(3998)) * colour
        soundfile.write(path, 0.05 * np.fft.irfft(spectrum), 16_000, subtype="FLOAT")
    return Clips([Clip(path, "fan", label="normal") for path in paths])


@pytest.mark.parametrize(("named", "auc"), [(False, 1.0), (True, 0.5)])
def test_a_copy_of_a_training_clip_is_not_normal_for_that(noises, named, auc):
    """Normals and anomalies alike, but of clips that are fitted and of clips that are not."""
    known, fresh = noises[::2], noises[1::2]
    synthetic = Clips([*copies(known, named=named), *copies(fresh, "anomaly", named=False)])
    selection = choice(KNN(), Selector({"k": [1, 2]}), known, synthetic)
    assert selection.curve["auc"][0] == pytest.approx(auc, abs=0.15)


# The gap between synthetic and real normals


def drawn(*shifts, count=40, scales=(1, 1), seed=0):
    """(2, count) scores, normal to the letter: their quantiles, in an order of chance."""
    rng = np.random.default_rng(seed)
    quantiles = stats.norm.ppf((np.arange(count) + 0.5) / count)
    rows = [rng.permutation(quantiles) * scale + shift
            for shift, scale in zip(shifts, scales, strict=True)]  # fmt: skip
    return np.stack(rows).round(6)


def test_the_gap_is_that_of_the_recordings_whatever_the_detector(noises):
    fresh = noises[1::2]
    synthetic = Clips([*copies(fresh, named=False), *copies(fresh, "anomaly", named=False)])
    gaps = [
        choice(detector, Selector({"k": [1, 2]}), noises[::2], synthetic).gap
        for detector in (KNN(), KNN(k=2))
    ]
    assert gaps[0] == gaps[1]
    assert gaps[0].low < 0.5 < gaps[0].high
    assert (gaps[0].synthetic, gaps[0].real) == (40, 40)


def test_a_gap_that_was_measured_is_not_measured_again(noises):
    selection = choice(KNN(), Selector({"k": [1, 2]}), noises, copies(noises, named=False)[:2])
    assert selection.gap is None
    both_labels = Clips([*copies(noises, named=False), *copies(noises, "anomaly", named=False)])
    assert choice(KNN(), Selector({"k": [1, 2]}), noises, both_labels, NO_GAP).gap is NO_GAP
    without = choice(KNN(), Selector({"k": [1, 2]}, max_gap=None), noises, both_labels)
    assert without.gap is None


@pytest.mark.parametrize(("low", "high"), [(0.8, 0.9), (0.1, 0.2), (0.7, 0.9), (0.2, 0.3)])
@pytest.mark.parametrize("max_gap", [0.75, None])
def test_clips_of_another_sound_choose_nothing(low, high, max_gap):
    """Setting 1 separates the anomalies; only a gap that is surely wide says they are not ours."""
    train, synthetic = recited("normal", drawn(0, 0)), both(drawn(0, 0), drawn(0, 3))
    gap = Gap((low + high) / 2, low, high, 40, 40, words="4.0 dB quieter above 5 kHz")
    selector = Selector({"which": [0, 1]}, "auc", max_gap=max_gap)
    selection = recited_choice(selector, train, synthetic, gap)
    assert selection.argmax == {"which": 1}
    if max_gap and (low > 0.75 or high < 0.25):
        assert selection.setting == {"which": 0}
        assert selection.abstain_reason.startswith(
            f"synthetic normal clips alone are distinguished from real ones: AUC {gap.auc:.2f} "
            f"(95 % interval {low:.2f} to {high:.2f}; 0.5: not distinguished; 4.0 dB quieter above "
            "5 kHz), surely beyond 0.75"
        )
    else:
        assert (selection.setting, selection.abstain_reason) == ({"which": 1}, "")


def test_the_papers_rule_knows_no_gap():
    train, synthetic = recited("normal", drawn(0, 0)), both(drawn(3, 0), drawn(3, 3))
    selector = Selector({"which": [0, 1]}, "auc", abstain=False)
    wide = Gap(1.0, 1.0, 1.0, 40, 40)
    assert recited_choice(selector, train, synthetic, wide).setting == {"which": 1}


def test_thirteen_clips_are_the_fewest_that_can_establish_a_wide_gap():
    """At the limit itself, all of fewer lie on one side of a generator of one sound too often."""
    rng = np.random.default_rng(0)
    beyond = rng.random((100_000, MIN_CLIPS_FOR_GAP)) < WIDE_GAP
    all_beyond = [beyond[:, :count].all(axis=1).mean() for count in range(1, MIN_CLIPS_FOR_GAP + 1)]
    assert all_beyond[-1] < 0.025 < all_beyond[-2]


@pytest.mark.parametrize(
    ("real", "synthetic", "enough"),
    [(40, 40, True), (13, 40, True), (40, 13, True), (12, 40, False), (40, 12, False)],
)
def test_a_gap_of_too_few_clips_chooses_nothing(real, synthetic, enough):
    """Without a gap in either setting; setting 1 separates the anomalies, which are enough."""
    train = recited("normal", drawn(0, 0, count=real))
    generated = both(drawn(0, 0, count=synthetic), drawn(0, 3))
    selection = recited_choice(WHICH, train, generated)
    assert selection.argmax == {"which": 1}
    if enough:
        assert (selection.setting, selection.abstain_reason) == ({"which": 1}, "")
    else:
        assert selection.setting == {"which": 0}
        assert selection.abstain_reason == (
            "too few independent normal clips to measure how far synthetic ones are from real "
            f"ones: {real} real and {synthetic} synthetic, at least 13 of each are needed"
        )


def test_a_gap_of_few_clips_is_not_called_sure():
    """All on one side, so does every resample: the interval has no width, and means nothing."""
    train, wide = recited("normal", drawn(0, 0, count=4)), Gap(1.0, 1.0, 1.0, 40, 4)
    selection = recited_choice(WHICH, train, both(drawn(8, 0), drawn(8, 3)), wide)
    assert selection.abstain_reason.startswith("too few independent normal clips to measure")


@pytest.mark.parametrize("options", [{"abstain": False}, {"calibrate": True}, {"max_gap": None}])
def test_without_a_limit_of_the_gap_few_clips_are_enough(options):
    train, generated = recited("normal", drawn(0, 0, count=5)), both(drawn(0, 0), drawn(0, 3))
    selection = recited_choice(Selector({"which": [0, 1]}, **options), train, generated)
    assert selection.setting == {"which": 1}


@pytest.mark.parametrize(("sources", "chosen"), [(13, 1), (12, 0)])
def test_synthetic_clips_of_few_recordings_are_few_clips(sources, chosen, monkeypatch):
    def names(paths, folder):
        return [path.name for path in paths]

    monkeypatch.setattr("fsasd.generation.sources.content_hashes", names)
    train = recited("normal", drawn(0, 0))
    normal = recited("normal", drawn(0, 0))
    normal = [replace(c, source=train[i % sources].path.name) for i, c in enumerate(normal)]
    generated = Clips([*normal, *recited("anomaly", drawn(0, 3))])
    selection = recited_choice(WHICH, train, generated)
    assert selection.setting == {"which": chosen}


def calibrated_or_not(train, synthetic, default=1):
    selectors = [Selector({"which": [0, 1]}, "auc", calibrate=c) for c in (False, True)]
    wide = Gap(1.0, 1.0, 1.0, 40, 40)
    return [recited_choice(s, train, synthetic, wide, default) for s in selectors]


def test_calibrated_clips_choose_whatever_the_gap_was():
    train, synthetic = recited("normal", drawn(0, 0)), both(drawn(8, 0), drawn(8, 2))
    plain, calibrated_ = calibrated_or_not(train, synthetic, default=0)
    assert (plain.setting, calibrated_.setting) == ({"which": 0}, {"which": 1})


def test_calibration_does_not_take_the_generator_for_an_anomaly():
    """Setting 0 reacts to the generator, in all of its clips; setting 1 to the anomalies."""
    train, synthetic = recited("normal", drawn(0, 0)), both(drawn(8, 0), drawn(8, 2))
    for selection in calibrated_or_not(train, synthetic):
        expected = [0.5, stats.norm.cdf(2**0.5)]
        np.testing.assert_allclose(selection.curve["auc"], expected, atol=0.02)
        assert selection.setting == {"which": 1}


def test_calibration_judges_by_the_spread_of_real_normals():
    """The generator's normals differ more than real ones, in the setting of the best AUC."""
    train = recited("normal", drawn(0, 0, scales=(0.3, 1)))
    synthetic = both(drawn(0, 0, scales=(3, 1)), drawn(1.2, 1.2, scales=(0.3, 1)))
    plain, calibrated_ = calibrated_or_not(train, synthetic)
    assert (plain.argmax, calibrated_.argmax) == ({"which": 1}, {"which": 0})
    assert calibrated_.setting == {"which": 0}


def test_without_a_gap_calibration_changes_nothing():
    train, synthetic = recited("normal", drawn(0, 0)), both(drawn(0, 0), drawn(0.5, 1.5))
    plain, calibrated_ = calibrated_or_not(train, synthetic)
    np.testing.assert_allclose(plain.curve["auc"], calibrated_.curve["auc"], atol=1e-9)


# Clips that were cut from one recording


@pytest.mark.parametrize(("recordings", "chosen"), [(13, 1), (12, 0)])
def test_clips_of_few_recordings_are_few_real_clips(recordings, chosen):
    clips = recited("normal", drawn(0, 0))
    train = Clips([replace(c, recording=str(i % recordings)) for i, c in enumerate(clips)])
    selection = recited_choice(WHICH, train, both(drawn(0, 0), drawn(0, 3)))
    assert selection.setting == {"which": chosen}
    if not chosen:
        assert f"{recordings} real and 40 synthetic" in selection.abstain_reason


def test_test_clips_of_one_recording_are_resampled_together():
    test = both(drawn(0, 0), drawn(1, 1))
    few = Clips([replace(clip, recording=str(i // 8)) for i, clip in enumerate(test)])
    curves = []
    for clips in (test, few):
        evidence = measure(
            Recited(0), WHICH, test[:40], both(drawn(0, 0), drawn(0, 3)), clips, NO_GAP
        )
        curves.append(in_hindsight(evidence, choose(evidence, WHICH), WHICH, clips).real)
    groups = np.arange(len(test)) // 8
    expected = WHICH.curve(
        test.labels, evidence.test, groups=groups, candidates=evidence.candidates
    )
    np.testing.assert_array_equal(curves[1].resampled, expected.resampled)
    np.testing.assert_array_equal(curves[0].table["auc"], curves[1].table["auc"])
    assert not np.array_equal(curves[0].resampled, curves[1].resampled)


# Pairs of synthetic clips with the same noise


def paired(clips, count=40):
    return Clips([replace(clip, pair=i % count) for i, clip in enumerate(clips)], clips.cache)


def test_clips_of_a_pair_are_one_group_and_have_less_noise():
    rng, train = np.random.default_rng(0), recited("normal", drawn(0, 0))
    noise = rng.normal(size=(2, 40))
    clips = both(noise, noise + 0.5)
    curves, selector = [], Selector({"which": [0, 1]}, max_gap=None)
    for synthetic in (clips, paired(clips)):
        evidence = measure(Recited(0), selector, train, synthetic)
        curves.append(choose(evidence, selector).curve)
        groups = evidence.synthetic.groups
        together = (groups[:40, None] == groups[40:]).sum()
        assert together == (0 if synthetic is clips else 40)
        assert not set(groups) & set(evidence.train.groups)
    widths = [(table["high"] - table["low"]).to_numpy() for table in curves]
    np.testing.assert_array_equal(curves[0]["objective"], curves[1]["objective"])
    assert (widths[1] < 0.7 * widths[0]).all()


def test_derived_clips_are_grouped_by_their_source_whatever_their_pair(train):
    clips = [replace(clip, pair=i) for i, clip in enumerate(copies(train, named=True))]
    anomalies = [replace(clip, label="anomaly", pair=i // 2) for i, clip in enumerate(clips)]
    synthetic = Clips([*clips, *anomalies], train.cache)
    evidence = measure(KNN(), Selector({"k": [1, 2]}), train, synthetic)
    groups = evidence.synthetic.groups
    np.testing.assert_array_equal(groups, np.tile(evidence.train.groups, 2))


# Too few clips


@pytest.mark.parametrize(
    ("keep", "counts"),
    [(["normal"], "8 normal and 0"), (["anomaly"], "0 normal and 8"), ([], "0 normal and 0")],
)
def test_without_clips_of_both_labels_the_default_setting_is_kept(train, test_clips, keep, counts):
    synthetic = test_clips[[clip.label in keep for clip in test_clips]]
    for abstain in (True, False):
        selector = Selector({"r": [0.0, 1.0]}, abstain=abstain, baselines=[{"r": 0.0}])
        evidence = measure(TWFRGMM(r=1.0), selector, train, synthetic, test_clips)
        selection = choose(evidence, selector)
        assert selection.setting == {"r": 1.0}
        assert f"to choose on: {counts} anomalous (see synthetic/manifest.csv" in (
            selection.abstain_reason
        )
        # What the settings would have been worth is known all the same.
        hindsight = in_hindsight(evidence, selection, selector, test_clips)
        table = hindsight.settings.set_index("setting")
        assert table["abstain_reason"]["synthetic"] == selection.abstain_reason
        assert table["param.r"]["synthetic"] == 1.0
        assert {"r=0", "r=1", "oracle"} <= set(table.index)


def test_a_setting_that_needs_more_clips_is_a_reason(train, test_clips):
    selector = Selector({"k": [1, 2, 8]})
    evidence = measure(KNN(k=2), selector, train[:5], test_clips, test_clips)
    selection = choose(evidence, selector)
    assert selection.setting == {"k": 2}
    assert selection.abstain_reason == (
        "a setting cannot be fitted: k=8 neighbours need as many clips, found 5"
    )
    assert in_hindsight(evidence, selection, selector, test_clips) is None


def test_a_network_keeps_its_setting_where_scoring_needs_more_clips(train, test_clips):
    training = Training(classes="machine+section+attributes", seconds=0.5, epochs=1)
    detector = KNN(THUEE(channels=4, dim=8, training=training), metric="cosine")
    selector = Selector({"k": [1, 5]}, max_gap=None)
    selection = choice(detector, selector, train[:4], test_clips)
    assert selection.setting == {"k": 1}
    assert selection.abstain_reason == (
        "a setting cannot be fitted: k=5 neighbours need as many clips, found 4"
    )


def test_five_clips_are_enough_where_every_setting_can_be_fitted(train, test_clips):
    selection = choice(TWFRGMM(), Selector({"r": [0.0, 1.0]}), train[:5], test_clips)
    assert selection.curve["objective"].notna().all()
    assert selection.gap.real == 5
    # ... but not to measure how far the clips that it was chosen on are from real ones.
    assert selection.setting == {"r": 1.0}
    assert "5 real and" in selection.abstain_reason


def test_one_clip_to_learn_from_leaves_the_gap_unknown(train, test_clips):
    selector = Selector({"representation__pool_by": ["mean", "max"]})
    selection = choice(KNN(), selector, train[:1], test_clips)
    assert np.isnan(selection.gap.auc)
    assert "1 real and" in selection.abstain_reason
    sourced = Clips(
        [replace(clip, source=content_hash(train[0].path)) for clip in test_clips], train.cache
    )
    selection = choice(KNN(), selector, train[:1], sourced)
    assert "cross-fitting needs 2 clips at least" in selection.abstain_reason


def test_other_errors_are_not_taken_for_too_few_clips(train, test_clips):
    with pytest.raises(ValueError, match="pool_by 'median'"):
        choice(KNN(), Selector({"representation__pool_by": ["median", "max"]}), train, test_clips)


# Evidence, on which the rule acts


GRID = Selector({"k": [1, 2], "representation__pool_by": ["mean", "max"]})


@pytest.mark.parametrize("kind", ["fitted on all", "cross-fitted", "calibrated", "nothing to try"])
def test_saved_evidence_chooses_as_what_was_measured_bit_for_bit(train, test_clips, tmp_path, kind):
    selector = Selector(GRID.grids, calibrate=kind == "calibrated", abstain=False)
    synthetic = test_clips
    if kind == "cross-fitted":
        sourced = [replace(c, source=content_hash(train[i].path)) for i, c in enumerate(test_clips)]
        synthetic = Clips(sourced, train.cache)
    if kind == "nothing to try":
        synthetic = test_clips.where(label="normal")
    measured = measure(KNN(), selector, train, synthetic, test_clips)
    measured.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "evidence.json",
        "evidence.safetensors",
    ]
    read = Evidence.load(tmp_path)
    selections = [choose(one, selector) for one in (measured, read)]
    pd.testing.assert_frame_equal(*(s.curve for s in selections), check_exact=True)
    np.testing.assert_array_equal(*(s.resampled for s in selections))
    assert selections[0].setting == selections[1].setting
    assert selections[0].gap == selections[1].gap
    scores = [in_hindsight(one, selections[0], selector, test_clips) for one in (measured, read)]
    pd.testing.assert_frame_equal(*(h.scores for h in scores), check_exact=True)


def test_what_is_known_of_clips_is_in_the_evidence_and_in_its_file(tmp_path):
    train = recited("normal", drawn(0, 0))
    synthetic = Clips([
        *recited("normal", drawn(0, 0), domain="source"),
        *recited("anomaly", drawn(0, 2), domain="target", donor="pump section 00", fault="leak",
                 strength=0.7),
    ])  # fmt: skip
    measured = measure(Recited(), WHICH, train, synthetic, gap=NO_GAP)
    assert measured.test is None
    measured.save(tmp_path)
    for evidence in (measured, Evidence.load(tmp_path)):
        clips = evidence.synthetic
        assert clips.labels.tolist() == [0] * 40 + [1] * 40
        assert clips.domains == ["source"] * 40 + ["target"] * 40
        assert clips.donors == [""] * 40 + ["pump section 00"] * 40
        assert clips.faults == [""] * 40 + ["leak"] * 40
        np.testing.assert_array_equal(clips.strengths, [np.nan] * 40 + [0.7] * 40)
        assert evidence.train.labels.tolist() == [0] * 40
        assert evidence.gap.auc == NO_GAP.auc


def test_clips_count_by_their_rungs():
    """Setting 1 separates what is hard to hear, setting 0 what nobody overhears."""
    anomalies = Clips([
        *(replace(clip, strength=1.0) for clip in recited("anomaly", drawn(0.2, 1.2))),
        *(replace(clip, strength=2.0) for clip in recited("anomaly", drawn(9, 4))),
    ])  # fmt: skip
    synthetic = Clips([*recited("normal", drawn(0, 0, seed=1)), *anomalies])
    evidence = measure(Recited(), WHICH, recited("normal", drawn(0, 0)), synthetic, gap=NO_GAP)
    clips = evidence.synthetic
    weights = WHICH.rung_weights(clips)
    assert weights[-1] < 0.1 < 1 < weights[40]
    expected = WHICH.curve(
        clips.labels, clips.scores, groups=clips.groups, weights=weights,
        candidates=evidence.candidates,
    )  # fmt: skip
    selection = choose(evidence, WHICH)
    np.testing.assert_allclose(selection.curve["objective"], expected.table["objective"])
    np.testing.assert_array_equal(selection.resampled, expected.resampled)


def test_hindsight_has_the_scores_of_each_test_clip_and_marks_the_default_setting():
    test = both(drawn(0, 0), drawn(1, 2))
    evidence = measure(Recited(0), WHICH, test[:40], both(drawn(0, 0), drawn(0, 3)), test, NO_GAP)
    hindsight = in_hindsight(evidence, choose(evidence, WHICH), WHICH, test)
    names = hindsight.settings["setting"].tolist()
    assert [*names[1:], *names[:1]] == ["synthetic", "argmax", "oracle", "which=0"]
    assert hindsight.settings["default"].tolist() == [True, False, False, False]
    assert list(hindsight.scores) == [
        "file", "label", "domain", "recording", "setting", "default", "score",
    ]  # fmt: skip
    used = hindsight.scores[hindsight.scores["setting"] == "synthetic"]
    assert used["file"].tolist() == [clip.path.name for clip in test]
    assert used["label"].tolist() == ["normal"] * 40 + ["anomaly"] * 40
    np.testing.assert_array_equal(used["score"], evidence.test[1])


def test_a_setting_that_is_an_object_is_saved_with_the_evidence(train, test_clips, tmp_path):
    grid = {"representation": [TimeStatistics(pool_by="mean"), TimeStatistics(pool_by="max")]}
    selector = Selector(grid, abstain=False)
    measured = measure(KNN(), selector, train, test_clips)
    measured.save(tmp_path)
    chosen = choose(Evidence.load(tmp_path), selector).setting
    assert chosen == choose(measured, selector).setting
    assert chosen["representation"] in grid["representation"]


def test_the_rule_may_change_after_the_evidence_was_measured(train, test_clips):
    evidence = measure(KNN(), GRID, train, test_clips)
    paper = Selector(GRID.grids, "pauc", abstain=False, resamples=10, max_gap=0.9)
    assert (paper.measured(), paper.rule()) != (GRID.measured(), GRID.rule())
    assert paper.measured() == GRID.measured()
    assert choose(evidence, GRID).abstain_reason
    selection = choose(evidence, paper)
    assert not selection.abstain_reason
    assert selection.resampled.shape == (len(selection.curve), 10)


@pytest.mark.parametrize(
    "other", [{"grid": {"k": [1, 2]}}, {"calibrate": True}, {"max_gap": None}], ids=str
)
def test_evidence_that_was_measured_for_another_selector_is_refused(train, test_clips, other):
    evidence = measure(KNN(), GRID, train, test_clips)
    with pytest.raises(ValueError, match="expected scores as the selector asks for them"):
        choose(evidence, Selector(**{"grid": GRID.grids, **other}))


def test_evidence_of_another_format_is_refused(train, test_clips, tmp_path):
    measure(KNN(), GRID, train, test_clips).save(tmp_path)
    path = tmp_path / "evidence.json"
    path.write_text(path.read_text().replace(f'"format": {FORMAT}', '"format": 0'))
    with pytest.raises(ValueError, match=rf"evidence.json: expected format {FORMAT}, found 0"):
        Evidence.load(tmp_path)


def test_labels_of_other_clips_than_were_measured_are_refused(train, test_clips):
    evidence = measure(KNN(), GRID, train, test_clips, test_clips)
    selection = choose(evidence, GRID)
    with pytest.raises(ValueError, match="expected scores of 15 test clips, found 16"):
        in_hindsight(evidence, selection, GRID, test_clips[1:])


def test_a_synthetic_clip_whose_score_is_no_number_is_named():
    train, synthetic = recited("normal", drawn(0, 0)), both(drawn(0, 0), [[np.nan], [0.0]])
    with pytest.raises(ValueError, match=r"nan_0.0_0.wav: expected a finite anomaly score"):
        measure(Recited(), WHICH, train, synthetic, gap=NO_GAP)
