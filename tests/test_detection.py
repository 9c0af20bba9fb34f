import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.manifest import read_manifest
from fsasd.data.metadata import read_clips
from fsasd.detection.section import (
    SectionResult,
    calibrate,
    file_names,
    load_scores,
    read_decision,
    run_section,
)
from fsasd.detection.tables import evaluate, write
from fsasd.detectors.base import load
from fsasd.detectors.knn import KNN
from fsasd.detectors.outliers import Outliers
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation import submission
from fsasd.evaluation.metrics import section_metrics
from fsasd.selection.selector import Selector

pytestmark = pytest.mark.slow

R = [0.0, 0.9, 1.0, 1.1]


@pytest.fixture(scope="module")
def bearing(factory_clips):
    return factory_clips.where(machine="bearing")


@pytest.fixture(scope="module")
def train(bearing):
    return bearing.where(split="train")


@pytest.fixture(scope="module")
def test_clips(bearing):
    return bearing.where(split="test")


@pytest.fixture(scope="module")
def selector():
    return Selector({"r": R}, baselines=[{"r": 0.0}, {"r": 1.0}])


@pytest.fixture(scope="module")
def result(selector, train, test_clips):
    """The whole of steps 5 and 6; half of the real test clips stand in for synthetic ones."""
    return run_section(TWFRGMM(), selector, train, test_clips, test_clips[::2])


@pytest.fixture(scope="module")
def written(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detect")
    write(folder, [result])
    result.detection.save_model(folder / "models" / "bearing" / "section_00")
    return folder


def relabelled(clips, **known):
    return Clips([replace(clip, **known) for clip in clips], clips.cache)


# One machine


def test_the_covariance_that_was_chosen_is_logged_once(train, test_clips, selector, caplog):
    caplog.set_level(logging.INFO)
    run_section(TWFRGMM(), selector, train, test_clips, test_clips[::2])
    messages = [message for message in caplog.messages if "covariance" in message]
    assert messages == ["bearing section 00: 16 training clips chose covariance=shrunk"]
    caplog.clear()
    run_section(TWFRGMM(covariance="full"), selector, train, test_clips)
    assert "covariance" not in caplog.text


def test_held_out_scores_are_of_the_covariance_that_all_clips_chose(train, test_clips, monkeypatch):
    """With ten of 16 clips in a fold's fit the choice would flip, and the scale with it."""
    monkeypatch.setattr("fsasd.detectors.scoring.gaussian_mixture.CLIPS_PER_BIN", 15 / 128)
    one = TWFRGMM(n_components=1)
    chosen = run_section(one, Selector(), train, test_clips)
    full = run_section(clone(one).set_params(covariance="full"), Selector(), train, test_clips)
    assert chosen.detection.detector.resolved_params() == {"covariance": "full"}
    assert chosen.detection.threshold == full.detection.threshold


def test_the_setting_comes_from_the_synthetic_clips_alone(result, selector, train, test_clips):
    synthetic = test_clips[::2]
    path = TWFRGMM().score_path([{"r": r} for r in R], train, synthetic)
    reason = result.selection.abstain_reason
    assert "16 real and 4 synthetic, at least 13 of each are needed" in reason
    expected = selector.select(
        selector.candidates(TWFRGMM()),
        synthetic.labels,
        path,
        synthetic.domains,
        abstain_reason=reason,
    )
    pd.testing.assert_frame_equal(result.selection.curve, expected.curve)
    assert result.detection.detector.r == expected.setting["r"]


def test_the_labels_of_the_test_clips_do_not_move_scores(result, selector, train, test_clips):
    flipped = Clips(
        [
            replace(clip, label={"normal": "anomaly", "anomaly": "normal"}[clip.label])
            for clip in test_clips
        ],
        test_clips.cache,
    )
    other = run_section(TWFRGMM(), selector, train, flipped, test_clips[::2])
    assert other.selection.setting == result.selection.setting
    np.testing.assert_array_equal(other.detection.scores, result.detection.scores)
    assert other.detection.threshold == result.detection.threshold


def test_the_scores_are_those_of_the_chosen_detector(result, train, test_clips):
    one = TWFRGMM(r=result.detection.detector.r).fit(train)
    np.testing.assert_allclose(result.detection.scores, one.score(test_clips), rtol=1e-9)
    np.testing.assert_array_equal(
        result.detection.detector.score(test_clips), result.detection.scores
    )
    assert result.section == ("bearing", "00")


def test_the_detector_that_was_given_stays_unfitted(selector, train, test_clips):
    given = TWFRGMM(r=0.9)
    run_section(given, selector, train, test_clips, test_clips[::2])
    assert vars(given) == vars(TWFRGMM(r=0.9))


def test_the_metrics_are_those_of_the_scores(result, test_clips):
    metrics = result.metrics
    assert metrics.pauc == roc_auc_score(test_clips.labels, result.detection.scores, max_fpr=0.1)
    inside = (test_clips.domains == "target") | (test_clips.labels == 1)
    assert metrics.auc_target == roc_auc_score(
        test_clips.labels[inside], result.detection.scores[inside]
    )
    assert metrics.undefined == 0


def test_decisions_are_scores_above_the_threshold(result):
    assert 0 < result.detection.decisions.sum() < len(result.detection.scores)
    np.testing.assert_array_equal(
        result.detection.decisions, result.detection.scores > result.detection.threshold
    )


def test_the_settings_table_compares_baselines_choice_and_oracle(result):
    table = result.hindsight.settings.set_index("setting")
    assert list(table.index) == ["r=0", "r=1", "synthetic", "argmax", "oracle"]
    chosen = result.selection
    assert table["param.r"].tolist()[:4] == [0.0, 1.0, chosen.setting["r"], chosen.argmax["r"]]
    curve = result.hindsight.real.table
    assert table["objective"]["oracle"] == curve["objective"].max()
    for _, row in table.iterrows():
        assert row["auc"] == curve.loc[curve["param.r"] == row["param.r"], "auc"].item()
    assert table["auc_target"]["synthetic"] == pytest.approx(result.metrics.auc_target)
    assert table["default"].tolist() == [False, True, False, False, False]


def test_without_synthetic_clips_the_default_setting_is_kept(selector, train, test_clips):
    other = run_section(TWFRGMM(r=0.97), selector, train, test_clips)
    assert other.selection is None
    assert other.detection.detector.r == 0.97
    assert other.metrics.undefined == 0


def test_without_a_grid_the_default_setting_is_kept(train, test_clips):
    other = run_section(KNN(k=2), Selector(), train, test_clips, test_clips[::2])
    assert other.selection is None
    assert other.detection.detector.k == 2


def test_another_detector_is_chosen_and_run_the_same_way(train, test_clips):
    selector = Selector(
        {"k": [1, 3], "representation__pool_by": ["mean", "max"]},
        baselines=[{"k": 1, "representation__pool_by": "mean"}],
        abstain=False,
    )
    other = run_section(KNN(), selector, train, test_clips, test_clips[::2])
    assert other.selection.setting in selector.settings()
    assert other.detection.detector.get_params().items() >= other.selection.setting.items()
    assert other.hindsight.settings["setting"].tolist()[0] == "k=1, pool_by=mean"


def test_without_usable_synthetic_clips_the_default_setting_is_kept(
    selector, train, test_clips, caplog
):
    caplog.set_level(logging.INFO)
    other = run_section(
        TWFRGMM(r=0.9), selector, train, test_clips, test_clips.where(label="normal")
    )
    assert other.detection.detector.r == 0.9
    assert "bearing section 00: keeps r=0.9, since no synthetic clips of both" in caplog.text
    assert other.metrics.undefined == 0


def test_a_wide_gap_between_synthetic_and_real_normals_is_logged(
    selector, train, test_clips, factory_clips, caplog
):
    caplog.set_level(logging.INFO)
    another = factory_clips.where(machine="fan")
    run_section(TWFRGMM(), selector, train, test_clips, test_clips[::2])
    assert "distinguished from real ones" not in caplog.text
    run_section(TWFRGMM(), selector, train, test_clips, another)
    assert (
        "keeps r=1, since synthetic normal clips alone are distinguished from real ones"
        in caplog.text
    )
    caplog.clear()
    caplog.set_level(logging.WARNING)
    run_section(TWFRGMM(), Selector({"r": R}, abstain=False), train, test_clips, test_clips[::2])
    assert "distinguished" not in caplog.text
    run_section(TWFRGMM(), Selector({"r": R}, abstain=False), train, test_clips, another)
    (message,) = [m for m in warned(caplog) if "distinguished" in m]
    assert (
        "bearing section 00: synthetic normal clips are distinguished from real ones: AUC 1.0"
        in message
    )


def test_a_gap_of_too_few_clips_is_in_the_log_and_the_tables(
    selector, train, test_clips, factory_clips, caplog, tmp_path
):
    """ToyConveyor has four recordings: in one of three seeds a worse r was taken."""
    caplog.set_level(logging.INFO)
    other = run_section(
        TWFRGMM(), selector, train[:4], test_clips, factory_clips.where(machine="fan")
    )
    reason = (
        "too few independent normal clips to measure how far synthetic ones are from real ones: "
        "4 real and 24 synthetic, at least 13 of each are needed"
    )
    assert f"bearing section 00: keeps r=1, since {reason}" in caplog.text
    write(tmp_path, [other])
    for name, row in (("selection", {"chosen": True}), ("settings", {"setting": "synthetic"})):
        table = pd.read_csv(tmp_path / f"{name}.csv")
        ((column, value),) = row.items()
        assert table.loc[table[column] == value, "abstain_reason"].tolist() == [reason]


def test_no_training_clip_is_an_error(selector, train, test_clips):
    with pytest.raises(ValueError, match=r"bearing section 00: expected .*found 0 and 16"):
        run_section(TWFRGMM(), selector, train[[]], test_clips)


def test_no_test_clip_is_an_error(selector, train):
    with pytest.raises(ValueError, match=r"bearing section 00: expected .*found 16 and 0"):
        run_section(TWFRGMM(), selector, train, train[[]])


def test_no_clip_at_all_is_an_error(selector):
    with pytest.raises(ValueError, match=r"a machine: expected .*found 0 and 0"):
        run_section(TWFRGMM(), selector, Clips([]), Clips([]))


def test_a_parameter_that_the_detector_lacks_is_an_error_before_any_clip_is_read(tmp_path, train):
    gone = Clips([replace(clip, path=tmp_path / "gone.wav") for clip in train])
    with pytest.raises(ValueError, match="KNN has no parameter r"):
        run_section(KNN(), Selector({"r": R}), gone, gone)


def test_a_baseline_outside_the_grid_is_named(train, test_clips):
    selector = Selector({"r": [0.0, 1.0]}, baselines=[{"r": 0.5}])
    with pytest.raises(ValueError, match=r"setting \{'r': 0\.5\} is not in the grid"):
        run_section(TWFRGMM(), selector, train, test_clips, test_clips[::2])


# Odd training clips, and scores that are no numbers


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    path = tmp_path_factory.mktemp("silent") / "silent.wav"
    soundfile.write(path, np.zeros(16000), 16000)
    return path


def with_silent(train, silent, place):
    return Clips(
        [replace(c, path=silent) if i == place else c for i, c in enumerate(train)], train.cache
    )


@pytest.mark.parametrize("detector", [TWFRGMM(covariance="shrunk"), KNN()], ids=["gmm", "knn"])
@pytest.mark.parametrize("place", [0, 15])
def test_a_silent_training_clip_leaves_the_alarms_on(
    detector, place, train, test_clips, factory_clips, silent, caplog
):
    """One of twelve of the source domain, or of four of the target domain, which are too few.

    The anomaly is that a valve sounds instead.
    """
    valves = iter(factory_clips.where(machine="valve", split="test"))
    test_clips = Clips(
        [replace(c, path=next(valves).path) if c.label == "anomaly" else c for c in test_clips],
        test_clips.cache,
    )
    clean = run_section(detector, Selector(), train[np.arange(16) != place], test_clips)
    other = run_section(detector, Selector(), with_silent(train, silent, place), test_clips)
    if train[place].domain == "source":
        assert other.detection.calibration.odd == ("silent.wav",)
        (message,) = [m for m in warned(caplog) if "odd" in m]
        assert "bearing section 00: 1 of 16 normal training clips is odd: silent.wav (" in message
        assert 1 / 1.5 < other.detection.threshold / clean.detection.threshold < 1.5
        recall = [d.detection.decisions[test_clips.labels == 1].mean() for d in (clean, other)]
        assert min(recall) > 0.5


@pytest.mark.parametrize("detector", [TWFRGMM(covariance="shrunk"), KNN()], ids=["gmm", "knn"])
def test_a_silent_clip_among_24_real_ones(detector, shared, caplog):
    clips = Clips(read_manifest(shared / "cases/outlier/clips.csv", ["motor"]))
    train, test = clips.where(split="train"), clips.where(split="test")
    loud = [bool(train.cache.read(clip).any()) for clip in train]
    (odd,) = [clip.path.name for clip, is_loud in zip(train, loud, strict=True) if not is_loud]
    clean = run_section(detector, Selector(), train[loud], test)
    assert not warned(caplog)
    other = run_section(detector, Selector(), train, test)
    (message,) = warned(caplog)
    assert f"motor section 00: 1 of 24 normal training clips is odd: {odd} (" in message
    assert 1 / 1.5 < other.detection.threshold / clean.detection.threshold < 1.5
    assert other.detection.decisions.tolist() == (test.labels == 1).tolist()


def test_a_silent_training_clip_costs_real_recordings_no_f1(real, silent):
    clips = Clips(read_clips(real, ["BLDCMotor"]))
    train, test = clips.where(split="train"), clips.where(split="test")
    clean = run_section(KNN(), Selector(), train, test).metrics
    for place in (3, 22):
        other = run_section(KNN(), Selector(), with_silent(train, silent, place), test).metrics
        assert other.f1_source > clean.f1_source - 0.05
        assert other.f1_target > clean.f1_target - 0.05


def test_clips_of_one_recording_are_held_out_together(train, tmp_path):
    """Of each clip there is a copy: a threshold of fits on the copies would be near 0."""
    copies = [replace(c, path=tmp_path / f"{i}.wav", label="normal") for i, c in enumerate(train)]
    for clip, copy in zip(train, copies, strict=True):
        shutil.copy(clip.path, copy.path)
    calibration = calibrate(KNN(), Clips([*train, *copies], train.cache))
    assert (calibration.normal > 0.1).all()


def test_the_false_alarm_rate_sets_the_threshold(train, test_clips):
    few, many = (
        run_section(KNN(), Selector(), train, test_clips, false_alarm_rate=rate)
        for rate in (0.02, 0.4)
    )
    assert few.detection.threshold > many.detection.threshold
    assert few.detection.threshold == many.detection.calibration.at(0.02).threshold
    np.testing.assert_array_equal(few.detection.scores, many.detection.scores)


class Unsure(KNN):
    """Scores a clip of this name as NaN."""

    name = ""

    def score(self, clips):
        scores = super().score(clips)
        return np.where([clip.path.name == self.name for clip in clips], np.nan, scores)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("selector", [Selector(), Selector({"k": [1, 2]})], ids=["default", "grid"])
def test_a_score_that_is_no_number_names_the_clip(train, test_clips, monkeypatch, split, selector):
    clip = {"train": train, "test": test_clips}[split][1]
    monkeypatch.setattr(Unsure, "name", clip.path.name)
    with pytest.raises(ValueError, match=f"{clip.path}: expected a finite anomaly score, found"):
        run_section(Unsure(), selector, train, test_clips, test_clips[::2])


# What a run leaves


def test_every_result_has_its_file(written):
    files = {str(p.relative_to(written)) for p in written.rglob("*") if p.is_file()}
    assert files == {
        "scores/anomaly_score_bearing_section_00_test.csv",
        "scores/decision_result_bearing_section_00_test.csv",
        "models/bearing/section_00/detector.json",
        "models/bearing/section_00/detector.safetensors",
        "models/bearing/section_00/decision.json",
        "clips.csv",
        "selection.csv",
        "real_curve.csv",
        "settings.csv",
        "setting_scores.csv",
        "metrics.csv",
        "costs.csv",
    }


def test_what_tables_need_of_a_detection_is_read_as_it_was_saved(result, tmp_path):
    result.detection.save(tmp_path)
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {
        "scores.csv",
        "cost.json",
        "model/detector.json",
        "model/detector.safetensors",
        "model/decision.json",
    }
    scored, saved = load_scores(tmp_path), result.detection
    np.testing.assert_array_equal(scored.scores, saved.scores)
    assert scored.calibration.described() == saved.calibration.described()
    assert (scored.section, scored.files, scored.cost) == (saved.section, saved.files, saved.cost)
    again = replace(result, detection=scored)
    pd.testing.assert_frame_equal(evaluate([again]), evaluate([result]))
    (tmp_path / "model" / "decision.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"decision.json is missing"):
        load_scores(tmp_path)


def test_labels_of_other_clips_than_those_that_were_scored_are_refused(result):
    with pytest.raises(ValueError, match="expected the 16 test clips that were scored, found 15"):
        replace(result, test=result.test[1:])
    with pytest.raises(ValueError, match="in another order"):
        replace(result, test=result.test[::-1])


def test_costs_are_those_of_the_fitted_detector(result, tmp_path):
    write(tmp_path, [result], training_seconds=12.5)
    costs = pd.read_csv(tmp_path / "costs.csv", dtype={"section": str, "parameters": "Int64"})
    assert costs.loc[0, ["machine", "section"]].tolist() == ["bearing", "00"]
    assert costs["parameters"][0] == result.detection.detector.n_parameters() == 33_026
    assert costs["score_ms"][0] > 0
    assert costs["machine"][1] == "all machines"
    assert costs["fit_seconds"][1] == 12.5
    assert costs.loc[1, ["section", "parameters", "score_ms"]].isna().all()


def test_scoring_is_timed_from_the_recordings(train, test_clips, monkeypatch):
    """What is in the cache, or in that of another process, does not count."""
    detector = TWFRGMM().fit(train)
    detector.score(test_clips)
    paths = []
    read = FeatureCache.read
    monkeypatch.setattr(
        FeatureCache, "read", lambda self, clip, *more: paths.append(clip.path) or read(self, clip)
    )
    run_section(TWFRGMM(), Selector({}), train, test_clips)
    assert sorted(paths) == sorted(clip.path for clip in test_clips[:8])


@pytest.mark.parametrize(
    "detector",
    [TWFRGMM(), TWFRGMM(r=0.9), TWFRGMM(smote=0.5), KNN(), Outliers()],
    ids=["r=1", "r=0.9", "smote", "knn", "outliers"],
)
def test_a_clip_is_represented_once_for_the_fit_all_folds_and_its_score(
    detector, train, test_clips, monkeypatch
):
    """In all folds and the fit, training clips are fitted or scored six times."""
    paths = []
    pooled = FeatureCache.pooled
    monkeypatch.setattr(
        FeatureCache,
        "pooled",
        lambda self, representation, clip: (
            paths.append(clip.path) or pooled(self, representation, clip)
        ),
    )
    run_section(detector, Selector({}), train, test_clips)
    timed = test_clips[:8]
    recordings = [path for path in paths if not path.name.startswith("smote-")]
    assert sorted(recordings) == sorted(clip.path for clip in [*train, *test_clips, *timed])


def test_the_submission_evaluates_to_the_metrics_that_were_written(written, result, factory):
    other = submission.evaluate(written / "scores", factory / "ground_truth", bootstrap=0)
    (metrics,) = other.metrics.values()
    assert metrics == result.metrics
    table = pd.read_csv(written / "metrics.csv").set_index("machine")
    assert table["official_score"]["official score"] == pytest.approx(other.official.value)
    low, high = table.loc["official score", ["ci_low", "ci_high"]]
    assert low <= other.official.value <= high


def test_the_clip_table_says_what_is_known_of_each_clip(written, result):
    table = pd.read_csv(written / "clips.csv")
    assert table["file"].tolist() == [clip.path.name for clip in result.test]
    assert table["label"].tolist() == [clip.label for clip in result.test]
    np.testing.assert_allclose(table["score"], result.detection.scores)
    np.testing.assert_array_equal(table["decision"] == 1, table["score"] > table["threshold"])
    np.testing.assert_allclose(
        table["p_value"], result.detection.calibration.p_values(table["score"])
    )


def test_the_calibration_is_read_as_it_was_written(written, result, train):
    other, channel = read_decision(written / "models/bearing/section_00/decision.json")
    assert channel is None
    assert other.described() == result.detection.calibration.described()
    assert list(other.held_out) == [clip.path.name for clip in train]


def test_the_selection_is_written_with_what_was_chosen(written, result):
    table = pd.read_csv(written / "selection.csv")
    assert list(table.columns) == [
        *("machine", "section", "param.r", "auc", "pauc", "auc_source", "auc_target", "objective"),
        *("low", "high", "picked", "default", "argmax", "chosen", "abstain_reason"),
    ]
    assert table.loc[table["chosen"], "param.r"].item() == result.detection.detector.r
    real = pd.read_csv(written / "real_curve.csv")
    assert real.loc[real["oracle"], "objective"].item() == real["objective"].max()
    assert len(pd.read_csv(written / "settings.csv")) == 5


def test_the_scores_of_the_compared_settings_are_written(written, result, test_clips):
    table = pd.read_csv(written / "setting_scores.csv")
    assert len(table) == 5 * len(test_clips)
    used = table[table["setting"] == "synthetic"]
    assert used["file"].tolist() == [clip.path.name for clip in test_clips]
    np.testing.assert_allclose(used["score"], result.detection.scores)
    settings = pd.read_csv(written / "settings.csv").set_index("setting")
    for name, rows in table.groupby("setting"):
        other = section_metrics(rows["label"] == "anomaly", rows["domain"], rows["score"])
        assert settings["auc_source"][name] == pytest.approx(other.auc_source)
        assert settings["pauc"][name] == pytest.approx(other.pauc)


def test_the_written_model_scores_as_it_did(written, result, test_clips):
    model = load(written / "models" / "bearing" / "section_00")
    np.testing.assert_allclose(model.score(test_clips), result.detection.scores, rtol=1e-6)
    assert (
        json.loads((written / "models/bearing/section_00/detector.json").read_text())["params"]["r"]
        == result.detection.detector.r
    )


def test_several_machines_share_the_tables(selector, factory_clips, result, tmp_path):
    fan = factory_clips.where(machine="fan")
    other = run_section(KNN(), Selector(), fan.where(split="train"), fan.where(split="test"))
    write(tmp_path, [result, other])
    assert set(pd.read_csv(tmp_path / "clips.csv")["machine"]) == {"bearing", "fan"}
    metrics = pd.read_csv(tmp_path / "metrics.csv", dtype={"section": str})
    assert metrics["machine"].tolist() == [
        *("bearing", "fan", "arithmetic mean", "harmonic mean", "official score")
    ]
    assert set(pd.read_csv(tmp_path / "selection.csv")["machine"]) == {"bearing"}


# What is not known, or undefined


def warned(caplog):
    return [r.getMessage() for r in caplog.records if r.name.startswith("fsasd.detection")]


def without_target_normals(clips):
    return clips[[(c.domain, c.label) != ("target", "normal") for c in clips]]


def test_without_a_target_domain_its_auc_is_empty_and_logged(
    selector, train, test_clips, tmp_path, caplog
):
    test = without_target_normals(test_clips)
    other = run_section(TWFRGMM(), selector, train, test, test_clips[::2])
    assert np.isnan(other.metrics.auc_target)
    write(tmp_path, [other])
    (message,) = warned(caplog)
    assert message.startswith(
        "bearing section 00: no normal test clip of the target domain, so its AUC is undefined"
    )
    row = (tmp_path / "metrics.csv").read_text().splitlines()[1].split(",")
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    cells = dict(zip(header, row, strict=True))
    assert cells["auc_target"] == ""
    assert float(cells["auc_source"]) == other.metrics.auc_source
    assert cells["undefined"] == "1"
    settings = pd.read_csv(tmp_path / "settings.csv")
    assert settings["auc_target"].isna().all()
    assert settings["auc_source"].notna().all()


def test_clips_without_domains_have_one_auc_and_lack_nothing(
    selector, train, test_clips, tmp_path, caplog
):
    test = relabelled(test_clips, domain=None)
    other = run_section(TWFRGMM(), selector, train, test, relabelled(test_clips[::2], domain=None))
    auc, pauc = roc_auc_score(test.labels, other.detection.scores), other.metrics.pauc
    assert other.metrics.auc == pytest.approx(auc)
    assert np.isnan([other.metrics.auc_source, other.metrics.auc_target]).all()
    write(tmp_path, [other])
    assert warned(caplog) == []
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert metrics["undefined"].tolist() == [0, 0, 0, 0]
    assert metrics["official_score"].iloc[-1] == pytest.approx(2 / (1 / auc + 1 / pauc))
    assert metrics["ci_low"].iloc[-1] < metrics["ci_high"].iloc[-1]
    assert metrics[["precision", "recall", "f1"]].iloc[0].notna().all()
    apart = ["auc_source", "auc_target", "f1_source", "f1_target"]
    assert metrics[apart].isna().all(axis=None)
    for name in ("settings", "real_curve", "selection"):
        table = pd.read_csv(tmp_path / f"{name}.csv")
        assert table["auc"].notna().all()
        assert table[["auc_source", "auc_target"]].isna().all(axis=None)
    assert pd.read_csv(tmp_path / "setting_scores.csv")["domain"].isna().all()


@pytest.mark.parametrize(("label", "absent"), [("normal", "anomalous"), ("anomaly", "normal")])
def test_test_clips_of_one_label_leave_every_auc_undefined(
    selector, train, test_clips, tmp_path, caplog, label, absent
):
    test = test_clips.where(label=label)
    other = run_section(TWFRGMM(), selector, train, test, test_clips[::2])
    assert other.metrics.undefined == 3
    assert other.hindsight is None
    write(tmp_path, [other])
    (message,) = warned(caplog)
    assert message.startswith(f"bearing section 00: no {absent} test clip, so its AUC is undefined")
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table[["auc_source", "auc_target", "pauc", "official_score"]].isna().all(axis=None)
    assert (tmp_path / "selection.csv").exists()


def test_without_labels_scores_are_written_and_no_metrics(
    result, selector, train, test_clips, tmp_path, factory
):
    hidden = relabelled(test_clips, label=None, domain=None)
    other = run_section(TWFRGMM(), selector, train, hidden, test_clips[::2])
    assert (other.metrics, other.hindsight) == (None, None)
    np.testing.assert_array_equal(other.detection.scores, result.detection.scores)
    assert evaluate([other]) is None
    write(tmp_path, [other])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("clips.csv", "costs.csv", "scores", "selection.csv")
    ]
    # Whoever has the labels can evaluate them.
    judged = submission.evaluate(tmp_path / "scores", factory / "ground_truth", bootstrap=0)
    assert list(judged.metrics.values()) == [result.metrics]


def test_machines_without_labels_have_no_row(result, train, test_clips):
    shaker = relabelled(test_clips, label=None, machine="shaker")
    hidden = run_section(KNN(), Selector(), relabelled(train, machine="shaker"), shaker)
    table = evaluate([result, hidden], resamples=10)
    assert "shaker" not in table["machine"].tolist()
    assert "bearing" in table["machine"].tolist()


def test_one_clip_without_a_label_leaves_the_section_unjudged(train, test_clips):
    partly = Clips([replace(test_clips[0], label=None), *test_clips[1:]], test_clips.cache)
    assert run_section(KNN(), Selector(), train, partly).metrics is None


def test_real_recordings_of_a_machine_without_target_domain(real, tmp_path, caplog):
    clips = Clips(read_clips(real, ["ToyCar"]))
    other = run_section(KNN(), Selector(), clips.where(split="train"), clips.where(split="test"))
    write(tmp_path, [other])
    assert "ToyCar section 00: no normal test clip of the target domain" in warned(caplog)[0]
    assert pd.read_csv(tmp_path / "metrics.csv")["auc_target"].isna().all()


def test_nothing_is_warned_of_where_everything_is_defined(result, caplog):
    with caplog.at_level(logging.WARNING, "fsasd.detection"):
        table = evaluate([result], resamples=10)
    assert warned(caplog) == []
    assert table["undefined"].tolist() == [0, 0, 0, 0]


def test_clips_called_alike_in_different_folders_are_distinguished(result, tmp_path):
    paths = [tmp_path / str(i % 2) / f"{i // 2}.wav" for i in range(len(result.test))]
    test = Clips(
        [replace(clip, path=path) for clip, path in zip(result.test, paths, strict=True)],
        result.test.cache,
    )
    scored = replace(result.detection, files=file_names(test))
    write(tmp_path, [SectionResult(scored, test)])
    names = pd.read_csv(tmp_path / "clips.csv")["file"]
    assert names.tolist() == [f"{i % 2}/{i // 2}.wav" for i in range(len(test))]
    scores = next((tmp_path / "scores").glob("anomaly_score_*")).read_text().splitlines()
    assert [row.split(",")[0] for row in scores] == names.tolist()
