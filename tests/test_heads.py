"""Losses against the papers' formulas, written out in float64."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fsasd.detectors.networks.heads import (
    ArcFace,
    Softmax,
    SubClusterAdaCos,
    supervised_contrastive,
)

DIM, CLASSES, BATCH = 6, 5, 8


@pytest.fixture
def embeddings():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(BATCH, DIM)))


@pytest.fixture
def labels():
    return torch.arange(BATCH) % CLASSES


@pytest.fixture
def targets(labels):
    return F.one_hot(labels, CLASSES).double()


def cosines(embeddings, centres):
    """(batch, classes, centres), one dot product at a time."""
    x, w = embeddings.numpy(), centres.detach().numpy()
    return np.array(
        [[[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in row] for row in w] for a in x]
    )


@pytest.mark.parametrize(("margin", "scale"), [(0.5, 30.0), (0.7, 30.0), (0.0, 1.0)])
def test_arcface_is_equation_3_of_its_paper(embeddings, labels, targets, margin, scale):
    head = ArcFace(DIM, CLASSES, margin, scale).double()
    angles = np.arccos(cosines(embeddings, head.centres)[:, :, 0])
    for i, y in enumerate(labels.tolist()):
        theta = angles[i]
        # Beyond pi - m the authors' code goes on along a straight line.
        own = (
            math.cos(theta[y] + margin)
            if theta[y] < math.pi - margin
            else math.cos(theta[y]) - margin * math.sin(margin)
        )
        others = sum(math.exp(scale * math.cos(t)) for c, t in enumerate(theta) if c != y)
        expected = -math.log(math.exp(scale * own) / (math.exp(scale * own) + others))
        assert head(embeddings, targets)[i].item() == pytest.approx(expected, rel=1e-9)


def test_the_margin_makes_the_target_class_harder_at_every_angle():
    """Also where cos(theta + m) alone would rise again."""
    head = ArcFace(2, 2, margin=0.7, scale=1.0)
    head.centres.data = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    theta = torch.linspace(0, math.pi, 50)
    points = torch.stack([theta.cos(), theta.sin()], dim=1)
    own = head.logits(points, torch.tensor([1.0, 0.0]))[:, 0]
    assert (own < points[:, 0]).all()
    assert (own.diff() < 0).all()


def test_the_nearest_of_several_centres_counts(embeddings, targets):
    several = ArcFace(DIM, CLASSES, margin=0.0, centres=3).double()
    expected = 30 * cosines(embeddings, several.centres).max(axis=2)
    np.testing.assert_allclose(several.logits(embeddings, targets).detach(), expected)


def test_adacos_of_one_cluster_is_its_paper_with_the_target_class_in_the_sum(
    embeddings, labels, targets
):
    head = SubClusterAdaCos(DIM, CLASSES, clusters=1).double()
    # It is kept in float32.
    start = head.scale.item()
    assert start == pytest.approx(math.sqrt(2) * math.log(CLASSES - 1))
    cos = cosines(embeddings, head.centres)[:, :, 0]
    mean_sum = np.mean([np.exp(start * row).sum() for row in cos])
    median = np.quantile([np.arccos(row[y]) for row, y in zip(cos, labels, strict=True)], 0.5)
    scale = math.log(mean_sum) / math.cos(min(math.pi / 4, median))
    logits = scale * cos
    expected = [
        -math.log(math.exp(row[y]) / np.exp(row).sum())
        for row, y in zip(logits, labels, strict=True)
    ]
    np.testing.assert_allclose(head.train()(embeddings, targets), expected, rtol=1e-9)
    assert head.scale.item() == pytest.approx(scale)


def test_a_class_is_as_likely_as_its_sub_clusters_together(embeddings, targets):
    head = SubClusterAdaCos(DIM, CLASSES, clusters=4).double().eval()
    powers = np.exp(head.scale.item() * cosines(embeddings, head.centres))
    expected = powers.sum(axis=2) / powers.sum(axis=(1, 2), keepdims=False)[:, None]
    np.testing.assert_allclose(head.logits(embeddings, targets).softmax(dim=1), expected)
    np.testing.assert_allclose(
        head(embeddings, targets), -np.log((expected * targets.numpy()).sum(axis=1)), rtol=1e-9
    )


def test_the_scale_adapts_in_training_only(embeddings, targets):
    head = SubClusterAdaCos(DIM, CLASSES).double()
    before = head.scale.clone()
    head.eval()(embeddings, targets)
    assert head.scale == before
    head.train()(embeddings, targets)
    assert head.scale != before


def test_frozen_centres_are_no_parameters_and_are_saved():
    frozen, learned = (SubClusterAdaCos(DIM, CLASSES, frozen=f) for f in (True, False))
    assert not list(frozen.parameters())
    assert [name for name, _ in learned.named_parameters()] == ["centres"]
    assert set(frozen.state_dict()) == set(learned.state_dict()) == {"centres", "scale"}


@pytest.mark.parametrize("head", [Softmax, ArcFace, SubClusterAdaCos])
def test_surprisal_is_the_negative_log_probability_of_all_target_classes(embeddings, head):
    head = head(DIM, CLASSES).double().eval()
    own = torch.tensor([1.0, 0, 0, 1, 0]).double()
    p = head.logits(embeddings, own).softmax(dim=1)
    expected = -(p[:, 0] + p[:, 3]).log()
    torch.testing.assert_close(head.surprisal(embeddings, own), expected)


@pytest.mark.parametrize("head", [Softmax, ArcFace, SubClusterAdaCos])
def test_a_loss_is_finite_for_silence(head, targets):
    head = head(DIM, CLASSES)
    silent = torch.zeros(BATCH, DIM, requires_grad=True)
    head(silent, targets.float()).mean().backward()
    assert torch.isfinite(silent.grad).all()


@pytest.mark.parametrize("head", [Softmax, ArcFace, SubClusterAdaCos])
@pytest.mark.parametrize("training", [True, False])
def test_half_precision_does_not_reach_the_logits(embeddings, targets, head, training):
    head = head(DIM, CLASSES).train(training)
    points, own = embeddings.bfloat16(), targets.float()
    state = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    expected = head.logits(points.float(), own), head(points.float(), own)
    head.load_state_dict(state)
    with torch.autocast("cpu", torch.bfloat16):
        found = head.logits(points, own), head(points, own)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_half_precision_does_not_reach_the_contrast(embeddings, targets):
    points, own = embeddings.bfloat16(), targets.float()
    expected = supervised_contrastive(points.float(), own, 0.05)
    with torch.autocast("cpu", torch.bfloat16):
        found = supervised_contrastive(points, own, 0.05)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("own", [[1.0, 0.0], [0.0, 1.0]])
def test_an_example_in_a_centre_has_a_gradient(own):
    """There the angle is 0, and the root that is its sine infinitely steep."""
    head = ArcFace(2, 2, margin=0.5, scale=30.0)
    head.centres.data = torch.eye(2).reshape(2, 1, 2)
    point = torch.tensor([[3.0, 0.0]], requires_grad=True)
    # What a version of PyTorch makes of the infinite slope, whether 0 or not, is not relied on.
    with torch.autograd.set_detect_anomaly(True):
        head.logits(point, torch.tensor(own)).sum().backward()
    assert torch.isfinite(point.grad).all()
    assert torch.isfinite(head.centres.grad).all()


@pytest.mark.parametrize("margin", [0.0, 0.5, 0.7])
def test_that_gradient_changes_no_logit(monkeypatch, margin):
    """In float32 the least 1 - cos^2 above 0 is 2^-24: what stands for 0 is lost beside the cosine.

    Tried on all cosines around 1 and -1, of which rounding takes some beyond, and on many others.
    """
    near = 1 + torch.arange(-1000, 1000) * 2.0**-24
    cosines = torch.cat([near, -near, torch.linspace(-1, 1, 10_001)])[:, None]
    monkeypatch.setattr("fsasd.detectors.networks.heads._cosines", lambda *_: cosines[:, :, None])
    sines = (1 - cosines.square()).clamp(min=0).sqrt()
    narrowed = cosines * math.cos(margin) - sines * math.sin(margin)
    beyond = cosines - margin * math.sin(margin)
    expected = 30 * torch.where(cosines > -math.cos(margin), narrowed, beyond)
    found = ArcFace(DIM, 1, margin).logits(torch.zeros(1, DIM), torch.ones(1))
    assert torch.equal(found, expected)


def test_a_mixed_example_is_its_targets_average_of_losses(embeddings):
    head = Softmax(DIM, CLASSES).double()
    half = torch.zeros(BATCH, CLASSES).double()
    half[:, :2] = 0.5
    one, two = (F.one_hot(torch.full((BATCH,), c), CLASSES).double() for c in (0, 1))
    expected = (head(embeddings, one) + head(embeddings, two)) / 2
    torch.testing.assert_close(head(embeddings, half), expected)


def test_supervised_contrast_is_equation_2_of_its_paper(embeddings, labels, targets):
    x = embeddings.numpy()
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    losses = []
    for i in range(BATCH):
        others = [a for a in range(BATCH) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        if positives:
            below = sum(math.exp(z[i] @ z[a] / 0.2) for a in others)
            terms = [math.log(math.exp(z[i] @ z[p] / 0.2) / below) for p in positives]
            losses.append(-np.mean(terms))
    found = supervised_contrastive(embeddings, targets, temperature=0.2)
    assert 0 < len(losses) < BATCH
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-9)


def test_contrast_has_gradients_for_examples_without_a_positive():
    embeddings = torch.randn(3, DIM, requires_grad=True)
    supervised_contrastive(embeddings, torch.eye(3), 0.1).backward()
    assert torch.isfinite(embeddings.grad).all()
