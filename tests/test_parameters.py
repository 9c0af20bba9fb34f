"""Values of arguments are checked by constructors' annotations and by their ranges."""

import pytest

from fsasd.settings.parameters import RANGES, check_settings, check_value

TWFR_GMM = "fsasd.detectors.twfr_gmm.TWFRGMM"


def detector(**params):
    return {"detector": {"_target_": TWFR_GMM, **params}}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (detector(n_components="abc"), "detector.n_components='abc': expected a whole number of 1"),
        (detector(n_components=-3), "detector.n_components=-3: expected a whole number of 1 or"),
        (detector(n_components=0), "detector.n_components=0: expected a whole number of 1 or more"),
        (detector(n_components=2.5), "detector.n_components=2.5: expected a whole number"),
        (detector(n_components=True), "detector.n_components=True: expected a whole number"),
        (detector(n_components=None), "detector.n_components=None: expected a whole number"),
        (detector(n_components=[2]), r"detector.n_components=\[2\]: expected a whole number"),
        (detector(r="loud"), "detector.r='loud': expected a number of 0 or more"),
        (detector(max_seconds=0), "detector.max_seconds=0: expected a number above 0"),
        (detector(covariance="ful"), "detector.covariance='ful': expected one of "),
        (detector(seed=-1), "detector.seed=-1: expected a whole number from 0 to 4294967295"),
        (detector(n_componets=3), "n_componets: TWFRGMM has no such argument. Did you mean"),
        (
            {"detector": {"_target_": "fsasd.detectors.pooled.Pooled", "pool": "sum"}},
            "detector.pool='sum': expected one of mean, max",
        ),
        (
            {"model": {"_target_": "sklearn.mixture.GaussianMixture", "n_components": -3}},
            r"model.n_components=-3: expected an int in the range \[1, inf\)",
        ),
        (
            {"parts": [{"_target_": "fsasd.detectors.knn.KNN", "metric": "cos"}]},
            "parts.0.metric='cos': expected one of euclidean, cosine",
        ),
        (
            {"data": {"_target_": "fsasd.data.datamodule.FirstShotDataModule.from_dcase",
                      "root": "x", "channel": "middle"}},
            "data.channel='middle': expected one of near, far, mean or a whole number of 0 or more",
        ),
        (
            {"data": {"_target_": "fsasd.data.datamodule.FirstShotDataModule.from_dcase",
                      "bach_size": 3}},
            "data.bach_size: .*from_dcase has no such argument. Did you mean 'batch_size'",
        ),
        (
            {"trainer": {"_target_": "lightning.Trainer", "max_steps": "abc"}},
            "trainer.max_steps='abc': expected a whole number of -1 or more",
        ),
        (
            {"generator": {"_target_": "fsasd.generation.audioldm.AudioLDM", "optimizer": "sgd"}},
            "generator.optimizer='sgd': expected one of adamw, adamw_8bit",
        ),
    ],
)  # fmt: skip
def test_what_a_constructor_does_not_take_is_said(settings, told):
    with pytest.raises(ValueError, match=told):
        check_settings(settings)


@pytest.mark.parametrize(
    "settings",
    [
        detector(n_components=1, r=0, smote=0.5, max_seconds=1),
        detector(n_components="???"),
        {"_target_": "my_package.nowhere.Thing", "k": "anything"},
        {"_target_": "fsasd.detectors.encoders.Encoder", "checkpoint": "a/b", "bands": False},
        {"_target_": "fsasd.generation.audioldm.AudioLDM", "crop_seconds": None},
        {"_target_": "fsasd.detectors.outliers.Outliers", "model": {"_target_": "a.b"}},
        {"_target_": "lightning.Trainer", "devices": [0, 1], "strategy": {"_target_": "a.b"}},
        {"_target_": "lightning.Trainer", "devices": "auto", "precision": "16-mixed"},
        {"_target_": "fsasd.data.datamodule.FirstShotDataModule.from_dcase", "channel": 1},
    ],
)
def test_what_a_constructor_takes_is_taken(settings):
    check_settings(settings)


@pytest.mark.parametrize("name", RANGES)
def test_every_range_is_tripped(name):
    for value in (-2, "some", float("nan")):
        with pytest.raises(ValueError, match=f"{name}=.*: expected a"):
            check_value(name, value, float)
