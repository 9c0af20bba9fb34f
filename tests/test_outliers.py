import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import EmpiricalCovariance, LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from fsasd.detectors.base import TooFewClipsError, load
from fsasd.detectors.outliers import Outliers, PCAResidual
from fsasd.detectors.representations import Patches, TimeStatistics
from fsasd.detectors.scoring.order import canonical_order

FEW = Patches(bands=2, segments=1)
"""Two numbers to a clip, so that few clips have a covariance."""


@pytest.fixture(scope="module")
def train(factory_clips):
    return factory_clips.where(machine="bearing", split="train")


@pytest.fixture(scope="module")
def test_clips(factory_clips):
    return factory_clips.where(machine="bearing", split="test")


@pytest.mark.parametrize(
    "model",
    [
        LocalOutlierFactor(n_neighbors=4, novelty=True),
        GaussianMixture(2, reg_covar=1e-2, random_state=3),
        OneClassSVM(nu=0.2),
        IsolationForest(n_estimators=10, random_state=3),
        KernelDensity(bandwidth=2.0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_the_score_is_the_negated_one_of_the_model(model, train, test_clips):
    representation = TimeStatistics(pool_by="mean")
    points = representation(train)
    # Some of them draw points by their number, or stop where the order led them.
    points = points[canonical_order(points)]
    expected = -model.fit(points).score_samples(representation(test_clips))
    scores = Outliers(model, representation).fit(train).score(test_clips)
    np.testing.assert_allclose(scores, expected, rtol=1e-9)


def test_the_selective_mahalanobis_distance_is_scipys_least(train, test_clips):
    points = FEW(train)
    inverse = {}
    for domain in ("source", "target"):
        own = points[train.domains == domain]
        inverse[domain] = own.mean(axis=0), np.linalg.inv(np.cov(own.T, bias=True))
    expected = [
        min(mahalanobis(x, mean, precision) for mean, precision in inverse.values())
        for x in FEW(test_clips)
    ]
    detector = Outliers(EmpiricalCovariance(), FEW, domains="separate").fit(train)
    np.testing.assert_allclose(detector.score(test_clips), expected, rtol=1e-9)


def test_standardised_points_have_one_scale_for_both_domains(train, test_clips):
    scaler = StandardScaler().fit(FEW(train))
    expected = np.inf
    for domain in ("source", "target"):
        own = scaler.transform(FEW(train.where(domain=domain)))
        model = KernelDensity().fit(own)
        expected = np.minimum(expected, -model.score_samples(scaler.transform(FEW(test_clips))))
    detector = Outliers(KernelDensity(), FEW, standardise=True, domains="separate").fit(train)
    np.testing.assert_allclose(detector.score(test_clips), expected, rtol=1e-9)


def test_the_seed_is_the_models_where_it_has_none(train, test_clips):
    one, same, other = (
        Outliers(IsolationForest(n_estimators=5), FEW, seed=seed).fit(train).score(test_clips)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    fixed, again = (
        Outliers(IsolationForest(n_estimators=5, random_state=0), FEW, seed=seed)
        .fit(train)
        .score(test_clips)
        for seed in (0, 1)
    )
    np.testing.assert_array_equal(fixed, again)
    np.testing.assert_array_equal(fixed, one)


def test_the_model_that_was_given_stays_unfitted(train):
    model = LedoitWolf()
    Outliers(model).fit(train)
    assert not hasattr(model, "covariance_")


def test_the_bank_is_what_is_saved(train, test_clips, tmp_path):
    detector = Outliers(IsolationForest(n_estimators=5), FEW, domains="separate", seed=4).fit(train)
    assert detector.n_parameters() == 2 * len(train)
    detector.save(tmp_path)
    np.testing.assert_array_equal(load(tmp_path).score(test_clips), detector.score(test_clips))


def test_a_model_without_a_score_is_refused(train):
    with pytest.raises(
        TypeError, match=r"LocalOutlierFactor\(\) has neither score_samples nor mah"
    ):
        Outliers(LocalOutlierFactor()).fit(train)


@pytest.mark.parametrize("clips", [3, 16])
def test_a_parameter_that_the_model_does_not_take_is_no_lack_of_clips(train, clips):
    with pytest.raises(ValueError, match=r"'n_components' parameter of Gauss.* Got 0") as error:
        Outliers(GaussianMixture(0), FEW).fit(train[:clips])
    assert not isinstance(error.value, TooFewClipsError)


def test_too_few_clips_for_the_model_are_refused(train):
    with pytest.raises(TooFewClipsError, match="PCA could not be fitted to 3 clips of 2 dimen"):
        Outliers(PCA(5), FEW).fit(train[:3])
    with pytest.raises(TooFewClipsError, match=r"LedoitWolf is fitted to .* 2 diff.*found 1$"):
        Outliers().fit(train[:1])


@pytest.mark.parametrize(
    "model",
    [LedoitWolf(), IsolationForest(n_estimators=5), PCAResidual(0.9), GaussianMixture(2)],
    ids=lambda model: type(model).__name__,
)
def test_copies_of_too_few_clips_are_refused(model, train):
    """A covariance of equal points is 0, a forest of them has no split: every clip scores alike."""
    with pytest.raises(TooFewClipsError, match=r"at least 2 different clips, found 1 among 4$"):
        Outliers(model, FEW).fit(train[[3, 3, 3, 3]])
    assert np.isfinite(Outliers(model, FEW).fit(train[[3, 4, 5, 5]]).score(train)).all()


def test_a_mixture_has_no_component_without_a_clip(train):
    with pytest.raises(TooFewClipsError, match=r"at least 3 different clips, found 2 among 6$"):
        Outliers(GaussianMixture(3), FEW).fit(train[[3, 4] * 3])


def test_a_singular_covariance_is_refused(train):
    """Of two clips LedoitWolf shrinks nothing: clips would differ along their line alone."""
    with pytest.raises(TooFewClipsError, match="of 2 clips is singular, of rank 1 in 256 dimen"):
        Outliers(LedoitWolf()).fit(train[:2])
    with pytest.raises(TooFewClipsError, match="of 9 clips is singular, of rank 8 in 256 dimens"):
        Outliers(EmpiricalCovariance()).fit(train[:9])
    assert np.isfinite(Outliers(LedoitWolf()).fit(train[:3]).score(train)).all()


def test_a_domain_of_copies_has_the_covariance_of_all_clips_about_their_domains_means(
    train, test_clips, caplog
):
    """As in three of eleven real machines, with copies of two target clips."""
    source, target = train.where(domain="source"), train.where(domain="target")
    few = source + target[[0, 0, 1, 1]]
    detector = Outliers(LedoitWolf(), FEW, domains="separate").fit(few)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "a domain has too few clips for a covariance of its own" in caplog.text
    own = Outliers(LedoitWolf(), FEW).fit(source).score(test_clips)
    points, centres = FEW(few), [FEW(source).mean(axis=0), FEW(target[[0, 0, 1, 1]]).mean(axis=0)]
    shared = LedoitWolf().fit(points - np.repeat(centres, [len(source), 4], axis=0))
    theirs = np.sqrt(shared.mahalanobis(FEW(test_clips) - centres[1]))
    expected = np.minimum(own, theirs)
    assert (theirs < own).any()
    np.testing.assert_allclose(detector.score(test_clips), expected, rtol=1e-6)
    with pytest.raises(TooFewClipsError, match="IsolationForest is fitted to at least 2"):
        Outliers(IsolationForest(), FEW, domains="separate").fit(source + target[[0, 0, 0]])


@pytest.mark.parametrize(("copies", "warned"), [(4, False), (5, True)])
def test_more_copies_than_neighbours_are_warned_of(train, caplog, copies, warned):
    twice = train[[*range(10), *[0] * (copies - 1)]]
    Outliers(LocalOutlierFactor(n_neighbors=4, novelty=True), FEW).fit(twice)
    messages = [record.getMessage() for record in caplog.records]
    expected = f"{copies} of {9 + copies} normal clips are equal to LocalOutlierFactor, more than"
    assert [message.startswith(expected) for message in messages] == [True] * warned
