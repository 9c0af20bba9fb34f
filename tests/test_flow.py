import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from fsasd.data.clips import Clips
from fsasd.data.log_mel import LogMel
from fsasd.detectors.base import load
from fsasd.detectors.ensemble import Ensemble
from fsasd.detectors.flow import (
    AutoregressiveBlock,
    Flow,
    FlowTraining,
    MaskedAutoregressiveFlow,
)
from fsasd.detectors.knn import KNN
from fsasd.detectors.networks.training import NetworkTraining, with_arrays
from fsasd.detectors.networks.windows import Windows, windows

FRONT_END = LogMel.twfr()
SMALL = {"blocks": 2, "hidden": 64, "training": NetworkTraining(4, 64)}


@pytest.fixture(scope="module")
def train(factory_clips):
    return factory_clips.where(machine="bearing", split="train")


@pytest.fixture(scope="module")
def test_clips(factory_clips):
    return factory_clips.where(machine="bearing", split="test")


def made(size, blocks=None, hidden=16, seed=0, factor=3):
    torch.manual_seed(seed)
    network = (
        AutoregressiveBlock(size, hidden)
        if blocks is None
        else MaskedAutoregressiveFlow(size, blocks, hidden)
    )
    # Weights as they are drawn do little.
    for parameter in network.parameters():
        parameter.data *= factor
    return network.double().requires_grad_(False)


@given(st.integers(1, 7), st.integers(1, 20))
@settings(max_examples=20)
def test_a_dimension_depends_on_those_before_it_alone(size, hidden):
    network = made(size, hidden=hidden)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: network(x)[0][0], torch.randn(1, size).double()
    )
    jacobian = jacobian[:, 0]
    assert torch.equal(jacobian, jacobian.tril())
    assert (jacobian.diagonal() > 0).all()


@given(st.integers(1, 6), st.integers(1, 4))
@settings(max_examples=20)
def test_the_density_is_that_of_the_change_of_variables(size, blocks):
    """-log N(u) - log |det du/dx|, in nats per dimension, with the determinant by autograd."""
    flow = made(size, blocks)
    flow.mean += 0.5
    flow.spread *= 2

    def changed(x):
        u = (x - flow.mean) / flow.spread
        for block in flow.blocks:
            u = block(u.flip(1))[0]
        return u

    x = torch.randn(1, size).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: changed(x)[0], x)[:, 0]
    log_normal = torch.distributions.Normal(0, 1).log_prob(changed(x)).sum()
    expected = -(log_normal + torch.linalg.slogdet(jacobian)[1]) / size
    torch.testing.assert_close(flow(x)[0], expected.double())


def test_the_density_integrates_to_one():
    flow = made(2, blocks=3, factor=1.5)
    axis = torch.linspace(-30, 30, 801).double()
    points = torch.cartesian_prod(axis, axis)
    density = torch.exp(-2 * flow(points))
    assert density.sum().item() * (axis[1] - axis[0]).item() ** 2 == pytest.approx(1, abs=0.02)


def test_every_dimension_influences_every_other():
    """Two blocks go through the dimensions in both directions."""
    one, two = (made(5, blocks=blocks, hidden=64) for blocks in (1, 2))

    def depends(flow):
        def changed(x):
            u = x
            for block in flow.blocks:
                u = block(u.flip(1))[0]
            return u[0]

        return (torch.autograd.functional.jacobian(changed, torch.ones(1, 5).double()) != 0)[:, 0]

    assert depends(one).sum() == 15
    assert depends(two).sum() > 20


def test_the_score_is_the_mean_over_windows(train, test_clips):
    detector = Flow(**SMALL).fit(train)
    flow = with_arrays(lambda: MaskedAutoregressiveFlow(256, 2, 64), detector.flow_)
    expected = [
        flow(windows(log_mel, 2).reshape(-1, 256)).double().mean().item()
        for log_mel in test_clips.features(FRONT_END)
    ]
    np.testing.assert_allclose(detector.score(test_clips), expected, rtol=1e-6)


def test_frames_are_standardised_band_by_band(train):
    detector = Flow(**SMALL | {"training": NetworkTraining(1, 64)}).fit(train)
    frames = np.concatenate([x.T[:-1] for x in train.features(FRONT_END)]).astype(float)
    np.testing.assert_allclose(detector.flow_["mean"], np.tile(frames.mean(axis=0), 2), rtol=1e-4)
    np.testing.assert_allclose(detector.flow_["spread"], np.tile(frames.std(axis=0), 2), rtol=1e-3)


def test_training_makes_normal_clips_likely(train, test_clips):
    little, much = (
        Flow(**SMALL | {"training": NetworkTraining(epochs, 64)})
        .fit(train)
        .score(test_clips)
        .mean()
        for epochs in (1, 6)
    )
    assert much < little - 0.05


def test_other_machines_become_unlikely(train, test_clips, factory_clips, tmp_path):
    normals = factory_clips.where(split="train", label="normal")
    fans = factory_clips.where(machine="fan", split="test", label="normal")
    own = test_clips.where(label="normal")

    def apart(detector):
        fitted = detector.fit(train)
        return fitted.score(fans).mean() - fitted.score(own).mean()

    alone = apart(Flow(**SMALL))
    trained = apart(Flow(**SMALL).prepare(normals, tmp_path))
    assert trained > 1.4 * alone
    weightless = apart(Flow(**SMALL, outliers=0.0).prepare(normals, tmp_path))
    assert weightless == alone


def test_clips_of_the_machine_itself_and_anomalies_are_no_outliers(train, factory_clips, tmp_path):
    alone = Flow(**SMALL).fit(train)
    anomalies = factory_clips.where(machine="fan", split="test", label="anomaly")
    same = Flow(**SMALL).prepare(Clips([*train, *anomalies], train.cache), tmp_path).fit(train)
    for name, array in alone.flow_.items():
        np.testing.assert_array_equal(array, same.flow_[name])


@pytest.mark.slow
def test_copies_know_the_other_machines(train, factory_clips, test_clips, tmp_path):
    normals = factory_clips.where(split="train", label="normal")
    detector = Flow(**SMALL).prepare(normals, tmp_path)
    expected = clone(detector).fit(train).score(test_clips)
    rows = detector.score_path([{}, {"outliers": 0.0}], train, test_clips)
    np.testing.assert_array_equal(rows[0], expected)
    np.testing.assert_array_equal(rows[1], Flow(**SMALL).fit(train).score(test_clips))
    within = Ensemble({"flow": Flow(**SMALL), "knn": KNN()}, folds=2)
    assert list(within.network_spec()) == ["flow"]
    assert Flow(outliers=0.0).network_spec() == {}
    within.prepare(normals, tmp_path).fit(train)
    np.testing.assert_array_equal(within.members_["flow"].score(test_clips), expected)


def test_what_is_saved_needs_no_other_machines(train, factory_clips, test_clips, tmp_path):
    normals = factory_clips.where(split="train", label="normal")
    detector = Flow(**SMALL).prepare(normals, tmp_path).fit(train)
    detector.save(tmp_path)
    np.testing.assert_array_equal(load(tmp_path).score(test_clips), detector.score(test_clips))


def test_the_loss_of_a_batch_is_likelihood_and_classification(train, factory_clips):
    fans = Windows(factory_clips.where(machine="fan", split="train"), FRONT_END, 2)
    training = FlowTraining(made(256, 1).float(), fans, share=0.5, learning_rate=1e-3)
    training.border.data += 0.3
    batch = Windows(train, FRONT_END, 2).__getitems__(range(8))
    torch.manual_seed(4)
    loss = training.training_step(batch, 0)
    torch.manual_seed(4)
    others = fans.__getitems__(torch.randint(len(fans), (8,)).tolist())
    own, other = (training.flow(x.reshape(8, 256)) for x in (batch, others))
    # Binary cross-entropy of the logit 0.3 - nll: own windows are the machine's, the others not.
    logit = torch.cat([0.3 - own, 0.3 - other])
    truth = torch.cat([torch.ones(8), torch.zeros(8)])
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logit, truth)
    torch.testing.assert_close(loss, own.mean() + 0.5 * 2 * entropy)


def test_parameters_are_the_flows(train):
    # 4 blocks of 256 x 256 + 256, and twice 256 x 256 + 256.
    assert Flow(training=NetworkTraining(0)).fit(train).n_parameters() == 4 * 3 * (256 * 256 + 256)
