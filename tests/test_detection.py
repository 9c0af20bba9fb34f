import json
import logging
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
from fsasd.detection.section import detect, in_section, read_decision, sections
from fsasd.detection.tables import evaluate, write
from fsasd.detectors.base import load
from fsasd.detectors.knn import KNN
from fsasd.detectors.twfr_gmm import TWFRGMM
from fsasd.evaluation import submission
from fsasd.evaluation.metrics import section_metrics
from fsasd.selection.selector import Selector

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
def detection(selector, train, test_clips):
    """The whole of steps 5 and 6; half of the real test clips stand in for synthetic ones."""
    return detect(TWFRGMM(), selector, train, test_clips, test_clips[::2])


@pytest.fixture(scope="module")
def written(detection, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detect")
    write(folder, [detection])
    return folder


def relabelled(clips, **known):
    return Clips([replace(clip, **known) for clip in clips], clips.cache)


# One machine


def test_the_covariance_that_was_chosen_is_told_once(train, test_clips, selector, caplog):
    caplog.set_level(logging.INFO)
    detect(TWFRGMM(), selector, train, test_clips, test_clips[::2])
    said = [message for message in caplog.messages if "covariance" in message]
    assert said == ["bearing section 00: 16 training clips chose covariance=shrunk"]
    caplog.clear()
    detect(TWFRGMM(covariance="full"), selector, train, test_clips)
    assert "covariance" not in caplog.text


def test_held_out_scores_are_of_the_covariance_that_all_clips_chose(train, test_clips, monkeypatch):
    """With ten of 16 clips in a fold's fit the choice would flip, and the scale with it."""
    monkeypatch.setattr("fsasd.detectors.gaussian_mixture.CLIPS_PER_BIN", 15 / 128)
    one = TWFRGMM(n_components=1)
    chosen = detect(one, Selector(), train, test_clips)
    full = detect(clone(one).set_params(covariance="full"), Selector(), train, test_clips)
    assert chosen.detector.resolved_params() == {"covariance": "full"}
    assert chosen.threshold == full.threshold


def test_the_setting_comes_from_the_synthetic_clips_alone(detection, selector, train, test_clips):
    synthetic = test_clips[::2]
    path = TWFRGMM().score_path([{"r": r} for r in R], train, synthetic)
    doubt = detection.choice.selection.reason
    assert "16 real and 4 synthetic, at least 13 of each are needed" in doubt
    expected = selector.select(TWFRGMM(), synthetic.labels, path, synthetic.domains, doubt=doubt)
    pd.testing.assert_frame_equal(detection.choice.selection.curve, expected.curve)
    assert detection.detector.r == expected.params["r"]


def test_the_labels_of_the_test_clips_do_not_move_scores(detection, selector, train, test_clips):
    flipped = Clips(
        [
            replace(clip, label={"normal": "anomaly", "anomaly": "normal"}[clip.label])
            for clip in test_clips
        ],
        test_clips.cache,
    )
    found = detect(TWFRGMM(), selector, train, flipped, test_clips[::2])
    assert found.choice.selection.params == detection.choice.selection.params
    np.testing.assert_array_equal(found.scores, detection.scores)
    assert found.threshold == detection.threshold


def test_the_scores_are_those_of_the_chosen_detector(detection, train, test_clips):
    one = TWFRGMM(r=detection.detector.r).fit(train)
    np.testing.assert_allclose(detection.scores, one.score(test_clips), rtol=1e-9)
    np.testing.assert_array_equal(detection.detector.score(test_clips), detection.scores)
    assert (detection.machine, detection.section) == ("bearing", "00")


def test_the_detector_that_was_given_stays_unfitted(selector, train, test_clips):
    given = TWFRGMM(r=0.9)
    detect(given, selector, train, test_clips, test_clips[::2])
    assert vars(given) == vars(TWFRGMM(r=0.9))


def test_the_metrics_are_those_of_the_scores(detection, test_clips):
    metrics = detection.metrics
    assert metrics.pauc == roc_auc_score(test_clips.labels, detection.scores, max_fpr=0.1)
    heard = (test_clips.domains == "target") | (test_clips.labels == 1)
    assert metrics.auc_target == roc_auc_score(test_clips.labels[heard], detection.scores[heard])
    assert metrics.undefined == 0


def test_decisions_are_scores_above_the_threshold(detection):
    assert 0 < detection.decisions.sum() < len(detection.scores)
    np.testing.assert_array_equal(detection.decisions, detection.scores > detection.threshold)


def test_the_settings_table_compares_baselines_choice_and_oracle(detection):
    table = detection.choice.settings.set_index("setting")
    assert list(table.index) == ["r=0", "r=1", "synthetic", "argmax", "oracle"]
    chosen = detection.choice.selection
    assert table["r"].tolist()[:4] == [0.0, 1.0, chosen.params["r"], chosen.argmax["r"]]
    curve = detection.choice.real.table
    assert table["objective"]["oracle"] == curve["objective"].max()
    for _, row in table.iterrows():
        assert row["auc"] == curve.loc[curve["r"] == row["r"], "auc"].item()
    assert table["auc_target"]["synthetic"] == pytest.approx(detection.metrics.auc_target)
    assert table["own"].tolist() == [False, True, False, False, False]


def test_without_synthetic_clips_the_detector_keeps_its_own_setting(selector, train, test_clips):
    found = detect(TWFRGMM(r=0.97), selector, train, test_clips)
    assert found.choice is None
    assert found.detector.r == 0.97
    assert found.metrics.undefined == 0


def test_without_a_grid_the_detector_keeps_its_own_setting(train, test_clips):
    found = detect(KNN(k=2), Selector(), train, test_clips, test_clips[::2])
    assert found.choice is None
    assert found.detector.k == 2


def test_another_detector_is_chosen_and_run_the_same_way(train, test_clips):
    selector = Selector(
        {"k": [1, 3], "representation__pool_by": ["mean", "max"]},
        baselines=[{"k": 1, "representation__pool_by": "mean"}],
        abstain=False,
    )
    found = detect(KNN(), selector, train, test_clips, test_clips[::2])
    assert found.choice.selection.params in selector.settings()
    assert found.detector.get_params().items() >= found.choice.selection.params.items()
    assert found.choice.settings["setting"].tolist()[0] == "k=1, pool_by=mean"


def test_without_usable_synthetic_clips_the_detector_keeps_its_own_setting(
    selector, train, test_clips, caplog
):
    caplog.set_level(logging.INFO)
    found = detect(TWFRGMM(r=0.9), selector, train, test_clips, test_clips.where(label="normal"))
    assert found.detector.r == 0.9
    assert "bearing section 00: keeps r=0.9, since no synthetic clips of both" in caplog.text
    assert found.metrics.undefined == 0


def test_a_wide_gap_between_synthetic_and_real_normals_is_told(
    selector, train, test_clips, factory_clips, caplog
):
    caplog.set_level(logging.INFO)
    another = factory_clips.where(machine="fan")
    detect(TWFRGMM(), selector, train, test_clips, test_clips[::2])
    assert "told from real ones" not in caplog.text
    detect(TWFRGMM(), selector, train, test_clips, another)
    assert "keeps r=1, since synthetic normal clips alone are told from real ones" in caplog.text
    caplog.clear()
    caplog.set_level(logging.WARNING)
    detect(TWFRGMM(), Selector({"r": R}, abstain=False), train, test_clips, test_clips[::2])
    assert not caplog.records
    detect(TWFRGMM(), Selector({"r": R}, abstain=False), train, test_clips, another)
    (message,) = [m for m in warned(caplog) if "odd" not in m]
    assert "bearing section 00: synthetic normal clips are told from real ones: AUC 1.0" in message


def test_a_gap_that_cannot_be_told_is_in_what_a_run_leaves(
    selector, train, test_clips, factory_clips, caplog, tmp_path
):
    """ToyConveyor has four recordings: in one of three seeds a worse r was taken."""
    caplog.set_level(logging.INFO)
    found = detect(TWFRGMM(), selector, train[:4], test_clips, factory_clips.where(machine="fan"))
    reason = (
        "too few independent normal clips to tell whether synthetic ones sound like real ones: "
        "4 real and 24 synthetic, at least 13 of each are needed"
    )
    assert f"bearing section 00: keeps r=1, since {reason}" in caplog.text
    write(tmp_path, [found])
    for name, row in (("selection", {"chosen": True}), ("settings", {"setting": "synthetic"})):
        table = pd.read_csv(tmp_path / f"{name}.csv")
        ((column, value),) = row.items()
        assert table.loc[table[column] == value, "reason"].tolist() == [reason]


def test_no_training_clip_is_told(selector, train, test_clips):
    with pytest.raises(ValueError, match=r"bearing section 00: expected .*found 0 and 16"):
        detect(TWFRGMM(), selector, train[[]], test_clips)


def test_no_test_clip_is_told(selector, train):
    with pytest.raises(ValueError, match=r"bearing section 00: expected .*found 16 and 0"):
        detect(TWFRGMM(), selector, train, train[[]])


def test_no_clip_at_all_is_told(selector):
    with pytest.raises(ValueError, match=r"a machine: expected .*found 0 and 0"):
        detect(TWFRGMM(), selector, Clips([]), Clips([]))


def test_a_parameter_that_the_detector_lacks_is_told_before_any_clip_is_read(tmp_path, train):
    gone = Clips([replace(clip, path=tmp_path / "gone.wav") for clip in train])
    with pytest.raises(ValueError, match="KNN has no parameter r"):
        detect(KNN(), Selector({"r": R}), gone, gone)


def test_a_baseline_outside_the_grid_is_named(train, test_clips):
    selector = Selector({"r": [0.0, 1.0]}, baselines=[{"r": 0.5}])
    with pytest.raises(ValueError, match=r"setting \{'r': 0\.5\} is not in the grid"):
        detect(TWFRGMM(), selector, train, test_clips, test_clips[::2])


def test_sections_of_a_machine_are_split(bearing):
    clips = Clips(
        [
            replace(clip, section=section)
            for clip, section in zip(bearing[:5], ["01", "00", None, "01", "00"], strict=True)
        ]
    )
    split = sections(clips)
    assert [name for name, _ in split] == ["00", "01"]
    assert [clip.path for clip in split[0][1]] == [clips[i].path for i in (1, 2, 4)]
    assert list(in_section(clips, "01")) == list(split[1][1])


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
    detector, place, train, test_clips, silent, caplog
):
    """One of twelve of the source domain, or of four of the target domain, which are too few."""
    clean = detect(detector, Selector(), train[np.arange(16) != place], test_clips)
    found = detect(detector, Selector(), with_silent(train, silent, place), test_clips)
    if train[place].domain == "source":
        assert found.calibration.odd == ("silent.wav",)
        (message,) = [m for m in warned(caplog) if "odd" in m]
        assert "bearing section 00: 1 of 16 normal training clips is odd: silent.wav (" in message
        assert 1 / 1.5 < found.threshold / clean.threshold < 1.5
        recall = [d.decisions[test_clips.labels == 1].mean() for d in (clean, found)]
        assert recall[0] == recall[1] > 0


@pytest.mark.parametrize("detector", [TWFRGMM(covariance="shrunk"), KNN()], ids=["gmm", "knn"])
def test_a_silent_clip_among_24_real_ones(detector, shared, caplog):
    clips = Clips(read_manifest(shared / "cases/outlier/clips.csv", ["motor"]))
    train, test = clips.where(split="train"), clips.where(split="test")
    loud = [bool(train.cache.read(clip).any()) for clip in train]
    (odd,) = [clip.path.name for clip, is_loud in zip(train, loud, strict=True) if not is_loud]
    clean = detect(detector, Selector(), train[loud], test)
    assert not warned(caplog)
    found = detect(detector, Selector(), train, test)
    (message,) = warned(caplog)
    assert f"motor section 00: 1 of 24 normal training clips is odd: {odd} (" in message
    assert 1 / 1.5 < found.threshold / clean.threshold < 1.5
    assert found.decisions.tolist() == (test.labels == 1).tolist()


def test_a_silent_training_clip_costs_real_recordings_no_f1(real, silent):
    clips = Clips(read_clips(real, ["BLDCMotor"]))
    train, test = clips.where(split="train"), clips.where(split="test")
    clean = detect(KNN(), Selector(), train, test).metrics
    for place in (3, 22):
        found = detect(KNN(), Selector(), with_silent(train, silent, place), test).metrics
        assert found.f1_source > clean.f1_source - 0.05
        assert found.f1_target > clean.f1_target - 0.05


def test_the_false_alarm_rate_sets_the_threshold(train, test_clips):
    few, many = (
        detect(KNN(), Selector(), train, test_clips, false_alarm_rate=rate) for rate in (0.02, 0.4)
    )
    assert few.threshold > many.threshold
    assert few.threshold == many.calibration.at(0.02).threshold
    np.testing.assert_array_equal(few.scores, many.scores)


class Unsure(KNN):
    """Scores a clip of this name as NaN."""

    name = ""

    def score(self, clips):
        scores = super().score(clips)
        return np.where([clip.path.name == self.name for clip in clips], np.nan, scores)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("selector", [Selector(), Selector({"k": [1, 2]})], ids=["own", "grid"])
def test_a_score_that_is_no_number_names_the_clip(train, test_clips, monkeypatch, split, selector):
    clip = {"train": train, "test": test_clips}[split][1]
    monkeypatch.setattr(Unsure, "name", clip.path.name)
    with pytest.raises(ValueError, match=f"{clip.path}: expected a finite anomaly score, found"):
        detect(Unsure(), selector, train, test_clips, test_clips[::2])


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
        "gap.csv",
        "metrics.csv",
        "costs.csv",
    }


def test_costs_are_those_of_the_fitted_detector(detection, tmp_path):
    write(tmp_path, [detection], training_seconds=12.5)
    costs = pd.read_csv(tmp_path / "costs.csv", dtype={"section": str, "parameters": "Int64"})
    assert costs.loc[0, ["machine", "section"]].tolist() == ["bearing", "00"]
    assert costs["parameters"][0] == detection.detector.n_parameters() == 33_026
    assert costs["score_ms"][0] > 0
    assert costs["machine"][1] == "all machines"
    assert costs["fit_seconds"][1] == 12.5
    assert costs.loc[1, ["section", "parameters", "score_ms"]].isna().all()


def test_scoring_is_timed_from_the_recordings(train, test_clips, monkeypatch):
    """What is in the cache, or in that of another process, does not count."""
    detector = TWFRGMM().fit(train)
    detector.score(test_clips)
    heard = []
    read = FeatureCache.read
    monkeypatch.setattr(
        FeatureCache, "read", lambda self, clip, *more: heard.append(clip.path) or read(self, clip)
    )
    detect(TWFRGMM(), Selector({}), train, test_clips)
    assert sorted(heard) == sorted(clip.path for clip in test_clips[:8])


def test_the_submission_evaluates_to_the_metrics_that_were_written(written, detection, factory):
    found = submission.evaluate(written / "scores", factory / "ground_truth", bootstrap=0)
    (metrics,) = found.metrics.values()
    assert metrics == detection.metrics
    table = pd.read_csv(written / "metrics.csv").set_index("machine")
    assert table["official_score"]["official score"] == pytest.approx(found.official.value)
    low, high = table.loc["official score", ["ci_low", "ci_high"]]
    assert low <= found.official.value <= high


def test_the_clip_table_says_what_is_known_of_each_clip(written, detection):
    table = pd.read_csv(written / "clips.csv")
    assert table["file"].tolist() == [clip.path.name for clip in detection.test]
    assert table["label"].tolist() == [clip.label for clip in detection.test]
    np.testing.assert_allclose(table["score"], detection.scores)
    np.testing.assert_array_equal(table["decision"] == 1, table["score"] > table["threshold"])
    np.testing.assert_allclose(table["p_value"], detection.calibration.p_values(table["score"]))


def test_the_calibration_is_read_as_it_was_written(written, detection, train):
    found, channel = read_decision(written / "models/bearing/section_00/decision.json")
    assert channel is None
    assert found.described() == detection.calibration.described()
    assert list(found.held_out) == [clip.path.name for clip in train]


def test_the_selection_is_written_with_what_was_chosen(written, detection):
    table = pd.read_csv(written / "selection.csv")
    assert list(table.columns) == [
        *("machine", "section", "r", "auc", "pauc", "auc_source", "auc_target", "objective"),
        *("low", "high", "picked", "own", "argmax", "chosen", "reason"),
    ]
    assert table.loc[table["chosen"], "r"].item() == detection.detector.r
    real = pd.read_csv(written / "real_curve.csv")
    assert real.loc[real["oracle"], "objective"].item() == real["objective"].max()
    assert len(pd.read_csv(written / "settings.csv")) == 5
    gap = pd.read_csv(written / "gap.csv").iloc[0]
    assert (gap["machine"], gap["synthetic"], gap["real"]) == ("bearing", 4, 16)


def test_the_scores_of_the_compared_settings_are_written(written, detection, test_clips):
    table = pd.read_csv(written / "setting_scores.csv")
    assert len(table) == 5 * len(test_clips)
    used = table[table["setting"] == "synthetic"]
    assert used["file"].tolist() == [clip.path.name for clip in test_clips]
    np.testing.assert_allclose(used["score"], detection.scores)
    settings = pd.read_csv(written / "settings.csv").set_index("setting")
    for name, own in table.groupby("setting"):
        found = section_metrics(own["label"] == "anomaly", own["domain"], own["score"])
        assert settings["auc_source"][name] == pytest.approx(found.auc_source)
        assert settings["pauc"][name] == pytest.approx(found.pauc)


def test_the_written_model_scores_as_it_did(written, detection, test_clips):
    model = load(written / "models" / "bearing" / "section_00")
    np.testing.assert_allclose(model.score(test_clips), detection.scores, rtol=1e-6)
    assert (
        json.loads((written / "models/bearing/section_00/detector.json").read_text())["params"]["r"]
        == detection.detector.r
    )


def test_several_machines_share_the_tables(selector, factory_clips, detection, tmp_path):
    fan = factory_clips.where(machine="fan")
    other = detect(KNN(), Selector(), fan.where(split="train"), fan.where(split="test"))
    write(tmp_path, [detection, other])
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


def test_without_a_target_domain_its_auc_is_empty_and_told(
    selector, train, test_clips, tmp_path, caplog
):
    test = without_target_normals(test_clips)
    found = detect(TWFRGMM(), selector, train, test, test_clips[::2])
    assert np.isnan(found.metrics.auc_target)
    write(tmp_path, [found])
    (message,) = warned(caplog)
    assert message.startswith(
        "bearing section 00: no normal test clip of the target domain, so its AUC is undefined"
    )
    row = (tmp_path / "metrics.csv").read_text().splitlines()[1].split(",")
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    cells = dict(zip(header, row, strict=True))
    assert cells["auc_target"] == ""
    assert float(cells["auc_source"]) == found.metrics.auc_source
    assert cells["undefined"] == "1"
    settings = pd.read_csv(tmp_path / "settings.csv")
    assert settings["auc_target"].isna().all()
    assert settings["auc_source"].notna().all()


def test_clips_without_domains_have_one_auc_and_lack_nothing(
    selector, train, test_clips, tmp_path, caplog
):
    test = relabelled(test_clips, domain=None)
    found = detect(TWFRGMM(), selector, train, test, relabelled(test_clips[::2], domain=None))
    auc, pauc = roc_auc_score(test.labels, found.scores), found.metrics.pauc
    assert found.metrics.auc == pytest.approx(auc)
    assert np.isnan([found.metrics.auc_source, found.metrics.auc_target]).all()
    write(tmp_path, [found])
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
    found = detect(TWFRGMM(), selector, train, test, test_clips[::2])
    assert found.metrics.undefined == 3
    assert (found.choice.real, found.choice.settings) == (None, None)
    write(tmp_path, [found])
    (message,) = warned(caplog)
    assert message.startswith(f"bearing section 00: no {absent} test clip, so its AUC is undefined")
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table[["auc_source", "auc_target", "pauc", "official_score"]].isna().all(axis=None)
    assert (tmp_path / "selection.csv").exists()


def test_without_labels_scores_are_written_and_no_metrics(
    detection, selector, train, test_clips, tmp_path, factory
):
    hidden = relabelled(test_clips, label=None, domain=None)
    found = detect(TWFRGMM(), selector, train, hidden, test_clips[::2])
    assert (found.metrics, found.choice.real, found.choice.settings) == (None, None, None)
    np.testing.assert_array_equal(found.scores, detection.scores)
    assert evaluate([found]) is None
    write(tmp_path, [found])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("clips.csv", "costs.csv", "gap.csv", "models", "scores", "selection.csv")
    ]
    # Whoever has the labels can evaluate them.
    judged = submission.evaluate(tmp_path / "scores", factory / "ground_truth", bootstrap=0)
    assert list(judged.metrics.values()) == [detection.metrics]


def test_machines_without_labels_have_no_row(detection, train, test_clips):
    hidden = replace(
        detect(KNN(), Selector(), train, relabelled(test_clips, label=None)), machine="shaker"
    )
    table = evaluate([detection, hidden], resamples=10)
    assert "shaker" not in table["machine"].tolist()
    assert "bearing" in table["machine"].tolist()


def test_one_clip_without_a_label_leaves_the_section_unjudged(train, test_clips):
    partly = Clips([replace(test_clips[0], label=None), *test_clips[1:]], test_clips.cache)
    assert detect(KNN(), Selector(), train, partly).metrics is None


def test_real_recordings_of_a_machine_without_target_domain(real, tmp_path, caplog):
    clips = Clips(read_clips(real, ["ToyCar"]))
    found = detect(KNN(), Selector(), clips.where(split="train"), clips.where(split="test"))
    write(tmp_path, [found])
    assert "ToyCar section 00: no normal test clip of the target domain" in warned(caplog)[0]
    assert pd.read_csv(tmp_path / "metrics.csv")["auc_target"].isna().all()


def test_nothing_is_warned_of_where_everything_is_defined(detection, caplog):
    with caplog.at_level(logging.WARNING, "fsasd.detection"):
        table = evaluate([detection], resamples=10)
    assert warned(caplog) == []
    assert table["undefined"].tolist() == [0, 0, 0, 0]


def test_clips_called_alike_in_different_folders_are_told_apart(detection, tmp_path):
    paths = [tmp_path / str(i % 2) / f"{i // 2}.wav" for i in range(len(detection.test))]
    test = Clips(
        [replace(clip, path=path) for clip, path in zip(detection.test, paths, strict=True)],
        detection.test.cache,
    )
    write(tmp_path, [replace(detection, test=test)])
    names = pd.read_csv(tmp_path / "clips.csv")["file"]
    assert names.tolist() == [f"{i % 2}/{i // 2}.wav" for i in range(len(test))]
    scores = next((tmp_path / "scores").glob("anomaly_score_*")).read_text().splitlines()
    assert [row.split(",")[0] for row in scores] == names.tolist()
