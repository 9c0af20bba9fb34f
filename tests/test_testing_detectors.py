"""A plain detector keeps every rule, and for each rule there is one that breaks it."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from fsasd.data.clips import Clips
from fsasd.data.log_mel import LogMel
from fsasd.detectors.base import Detector, stack
from fsasd.detectors.knn import KNN
from fsasd.detectors.one_of import OneOf
from fsasd.testing import ConformanceError, DetectorCase, check_detector, detector_checks


class Plain(Detector):
    """Distance of the mean log-mel to that of normal clips."""

    def __init__(self, power=2.0):
        self.power = power

    def fit(self, clips):
        self.mean_ = self.means(clips).mean(axis=0)
        return self

    def score(self, clips):
        check_is_fitted(self)
        return (np.abs(self.means(clips) - self.mean_) ** self.power).mean(axis=1)

    def means(self, clips):
        return stack(log_mel.mean(axis=1) for log_mel in clips.features(LogMel.twfr()))


class KeepsMore(Plain):
    def __init__(self, power=2.0):
        self.power = power
        self.cache = {}


class Converts(Plain):
    def __init__(self, power=2.0):
        self.power = np.float32(power)


class RemembersInAClass(Plain):
    known = None

    def fit(self, clips):
        RemembersInAClass.known = self.means(clips).mean(axis=0)
        return self

    def score(self, clips):
        return np.abs(self.means(clips) - self.known).mean(axis=1)


class TakesAnySetting(Plain):
    def set_params(self, **params):
        vars(self).update(params)
        return self


class ReturnsNothing(Plain):
    def fit(self, clips):
        super().fit(clips)


class ChangesItsSettings(Plain):
    def fit(self, clips):
        self.power += 1
        return super().fit(clips)


class DrawsAnew(Plain):
    def fit(self, clips):
        super().fit(clips)
        self.mean_ += np.random.normal(size=self.mean_.shape)  # noqa: NPY002
        return self


class AddsToItsFit(Plain):
    def fit(self, clips):
        before = getattr(self, "mean_", 0.0)
        super().fit(clips)
        self.mean_ = self.mean_ + 0.1 * before
        return self


class StartsFromTheFirstClip(Plain):
    def fit(self, clips):
        self.mean_ = self.means(clips)[0]
        return self


class TrainsInOrder(StartsFromTheFirstClip):
    trains_network = True


class TakesNoClip(Plain):
    def means(self, clips):
        return super().means(clips) if len(clips) else np.zeros((1, 128))


class SaysNoCount(Plain):
    def fit(self, clips):
        if len(clips) < 2:
            raise ValueError("not enough data")
        return super().fit(clips)


class DividesByTheSpread(Plain):
    """Of one clip there is none."""

    def fit(self, clips):
        self.spread_ = self.means(clips).std(axis=0)
        return super().fit(clips)

    def score(self, clips):
        with np.errstate(divide="ignore", invalid="ignore"):
            return super().score(clips) / self.spread_.mean()


class NeedsTarget(Plain):
    def fit(self, clips):
        target = clips.where(domain="target")
        if len(clips) > 1 and not len(target):
            raise ValueError("math domain error")
        return super().fit(clips)


class NeedsOneLength(Plain):
    def fit(self, clips):
        if len(clips):
            stack(clips.features(LogMel.twfr()))
        return super().fit(clips)


class ScoresUnfitted(Plain):
    def score(self, clips):
        mean = getattr(self, "mean_", np.zeros(128))
        return ((self.means(clips) - mean) ** self.power).mean(axis=1)


class ScoresInAColumn(Plain):
    def score(self, clips):
        return super().score(clips)[:, None]


class ScoresWholeNumbers(Plain):
    def score(self, clips):
        return super().score(clips).astype(int)


class ChangesAsItScores(Plain):
    def score(self, clips):
        scores = super().score(clips)
        self.mean_ = 0.999 * self.mean_ + 0.001 * self.means(clips).mean(axis=0)
        return scores


class StoresItsFirstScore(Plain):
    """Its scores stay the same."""

    def score(self, clips):
        scores = super().score(clips)
        if not hasattr(self, "first_"):
            self.first_ = scores[:1]
        return scores


class NormalisesInPlace(Plain):
    def means(self, clips):
        rows = []
        for log_mel in clips.features(LogMel.twfr()):
            rows.append(log_mel.mean(axis=1))
            log_mel /= 2
        return stack(rows)


class SortsItsScores(Plain):
    def score(self, clips):
        return np.sort(super().score(clips))


class NormalisesOverTheBatch(Plain):
    def score(self, clips):
        scores = super().score(clips)
        return scores - scores.mean()


class PeeksAtLabels(Plain):
    def score(self, clips):
        return super().score(clips) + np.array([clip.label == "anomaly" for clip in clips])


class HigherIsNormal(Plain):
    def score(self, clips):
        return -super().score(clips)


class DividesByTheLevel(Plain):
    def means(self, clips):
        def front_end(waveform):
            with np.errstate(invalid="ignore"):
                return LogMel.twfr()(waveform / np.float32(np.abs(waveform).max()))

        return stack(log_mel.mean(axis=1) for log_mel in clips.features(front_end))


class IgnoresBandsWithoutSpread(Plain):
    """Of equal clips none is left."""

    def fit(self, clips):
        super().fit(clips)
        self.spread_ = self.means(clips).std(axis=0)
        return self

    def score(self, clips):
        check_is_fitted(self)
        z = (self.means(clips) - self.mean_) / np.where(self.spread_ > 0, self.spread_, np.inf)
        return np.square(z).mean(axis=1)


class CutsItsSamples(Plain):
    def means(self, clips):
        import soundfile

        waveforms = (soundfile.read(clip.path, dtype="float32")[0] for clip in clips)
        return stack(LogMel.twfr()(waveform.clip(-1, 1)).mean(axis=1) for waveform in waveforms)


class ReadsByItself(Plain):
    def means(self, clips):
        import soundfile

        return stack(LogMel.twfr()(soundfile.read(clip.path, dtype="float32")[0]).mean(axis=1)
                     for clip in clips)  # fmt: skip


class ShortensThePath(Plain):
    def score_path(self, grid, fit_clips, score_clips):
        return super().score_path(grid, fit_clips, score_clips)[:, ::-1]


class IgnoresTheGrid(Plain):
    def score_path(self, grid, fit_clips, score_clips):
        return super().score_path([{} for _ in grid], fit_clips, score_clips)


class ForgetsToSave(Plain):
    def fit(self, clips):
        super().fit(clips)
        self._scale = 1 + len(clips)
        return self

    def score(self, clips):
        check_is_fitted(self)
        return super().score(clips) / getattr(self, "_scale", 1)


class SpecOfObjects(Plain):
    def network_spec(self):
        return {"front_end": LogMel.twfr()}


class SpecOfTuples(Plain):
    def network_spec(self):
        return {"sizes": (128, 8)}


class SpecOfTheFit(Plain):
    def network_spec(self):
        return {"fitted": hasattr(self, "mean_")}


class HoldsNothing(Plain):
    def n_parameters(self):
        return 0


class DependsOnTheProcess(Plain):
    def fit(self, clips):
        super().fit(clips)
        self.mean_ = self.mean_ + hash(str(clips[0].machine)) % 1000
        return self


BREAKS = {
    KeepsMore: ("constructor_stores_its_arguments", r"attributes \['cache'\] are no parameters"),
    Converts: ("constructor_stores_its_arguments", "does not set or modifies parameter power"),
    RemembersInAClass: ("clone_is_unfitted", "the clone of a fitted detector scores"),
    TakesAnySetting: ("settings_can_be_set", "an unknown parameter was taken"),
    ReturnsNothing: ("fit_returns_the_detector", "fit did not return self"),
    ChangesItsSettings: ("fit_returns_the_detector", r"parameters changed from .*2\.0.* to .*3\.0"),
    DrawsAnew: ("two_fits_are_equal", "a second fit: scores differ by up to"),
    AddsToItsFit: ("second_fit_replaces", "a detector that was fitted before: scores differ"),
    StartsFromTheFirstClip: (
        "order_of_training_clips",
        "training clips in another order: scores differ",
    ),
    TakesNoClip: ("too_few_clips_are_reported", "fitting to no clip worked"),
    SaysNoCount: (
        "too_few_clips_are_reported",
        "error for 0 clips does not say that 0 were found: not",
    ),
    DividesByTheSpread: ("too_few_clips_are_reported", r"scores are \[inf"),
    NeedsTarget: ("no_target_domain", "does not name the target domain: math domain error"),
    NeedsOneLength: ("clips_of_different_lengths", "all input arrays must have the same shape"),
    ScoresUnfitted: ("unfitted_detector_does_not_score", "scored before it was fitted"),
    ScoresInAColumn: ("scores_are_finite_numbers", r"clips have scores of shape \(\d+, 1\)"),
    ScoresWholeNumbers: ("scores_are_finite_numbers", "scores are int64"),
    ChangesAsItScores: ("scoring_changes_nothing", "what is saved of the detector changed"),
    NormalisesInPlace: ("inputs_are_not_altered", "features were changed in place: LogMel"),
    SortsItsScores: ("order_does_not_matter", "another order: scores differ"),
    NormalisesOverTheBatch: ("do_not_depend_on_other_clips", "scoring one by one: scores differ"),
    PeeksAtLabels: ("metadata_is_not_scored", "clips without metadata: scores"),
    HigherIsNormal: ("obvious_anomaly_scores_higher", "noise scores .*, normal clips up to"),
    DividesByTheLevel: ("extreme_clips", "silence.wav: its features are NaN or infinite"),
    IgnoresBandsWithoutSpread: ("degenerate", "fitted to silent clips, every clip scores 0"),
    CutsItsSamples: ("samples_off_every_scale", "fitting it is no error"),
    ReadsByItself: ("another_sampling_rate", "a clip at 24 kHz scores"),
    ShortensThePath: ("score_path", "score_path at the default setting: scores differ"),
    IgnoresTheGrid: ("score_path", "score_path at {'power': 1.0}: scores differ"),
    ForgetsToSave: ("saved_detector_scores_the_same", "the loaded detector: scores differ"),
    SpecOfObjects: ("network_spec", "not JSON serializable"),
    SpecOfTuples: ("network_spec", "it is not the same after JSON"),
    SpecOfTheFit: ("network_spec", "that of the fitted detector differs"),
    HoldsNothing: ("parameter_count", "it is 0"),
    DependsOnTheProcess: ("two_processes_agree", "fitting in another process: scores differ"),
}

GRID = [{"power": 1.0}]


@pytest.fixture(scope="module")
def clips(factory_clips):
    return factory_clips.where(machine="bearing")


def broken_by(detector, check, clips, folder):
    with pytest.raises(ConformanceError) as error:
        check(DetectorCase(detector, clips, folder))
    return str(error.value)


def test_a_plain_detector_keeps_every_rule(clips):
    check_detector(Plain(), clips, GRID)


@pytest.mark.parametrize("within", [False, True])
def test_a_network_may_be_trained_in_the_order_of_the_clips(within, clips, tmp_path):
    (check,) = [c for c in detector_checks() if "order_of_training_clips" in c.__name__]
    trained, plain = TrainsInOrder(), StartsFromTheFirstClip()
    if within:
        trained, plain = OneOf({"it": trained}, use="it"), OneOf({"it": plain}, use="it")
    check(DetectorCase(trained, clips, tmp_path / "trained"))
    with pytest.raises(ConformanceError, match="in another order"):
        check(DetectorCase(plain, clips, tmp_path / "plain"))


@pytest.mark.parametrize("kind", BREAKS, ids=lambda kind: kind.__name__)
def test_a_rule_that_is_broken_is_named(kind, clips, tmp_path):
    rule, seen = BREAKS[kind]
    (check,) = [check for check in detector_checks() if rule in check.__name__]
    with pytest.raises(ConformanceError, match=seen) as error:
        check(DetectorCase(kind(), clips, tmp_path, GRID))
    sentence = check.__doc__.strip()
    assert str(error.value).startswith(f"{kind.__name__} breaks {check.__name__} ({sentence})")


def test_every_rule_has_a_detector_that_breaks_it():
    rules = {rule for rule, _ in BREAKS.values()}
    unbroken = [c.__name__ for c in detector_checks() if not any(r in c.__name__ for r in rules)]
    assert not unbroken


def test_all_broken_rules_are_named_at_once(clips):
    with pytest.raises(ConformanceError) as error:
        check_detector(SortsItsScores(), clips)
    lines = str(error.value).splitlines()
    assert len(lines) > 1
    assert any("check_order_does_not_matter" in line for line in lines)
    assert all(line.startswith("SortsItsScores breaks check_") for line in lines)


def test_a_change_at_the_first_score_is_seen_whatever_was_scored_before(clips):
    with pytest.raises(ConformanceError, match="what is saved of the detector changed") as error:
        check_detector(StoresItsFirstScore(), clips)
    assert "breaks check_scoring_changes_nothing" in str(error.value)


def test_simulated_clips_are_the_default(tmp_path):
    case = DetectorCase(Plain(), None, tmp_path)
    assert {clip.machine for clip in case.train} == {"fan"}
    assert set(case.train.domains) == {"source", "target"}
    assert set(case.test.labels) == {0, 1}


def test_the_detector_that_is_given_stays_unfitted(clips, tmp_path):
    detector = Plain()
    DetectorCase(detector, clips, tmp_path).fitted  # noqa: B018
    assert vars(detector) == vars(clone(detector))


def test_clips_without_a_domain_are_refused(clips, tmp_path):
    source = Clips([clip for clip in clips if clip.domain == "source"], clips.cache)
    with pytest.raises(
        ValueError, match="at least 2 normal training clips of the target domain to check"
    ):
        DetectorCase(KNN(), source, tmp_path)
