import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsasd.detectors.networks.augment import (
    TRANSFORMS,
    exchange_features,
    exchange_statistics,
    mix_statistics,
    mixup,
    spec_augment,
    transform,
)

CLASSES = 3


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(6, 5, 40), torch.eye(CLASSES).repeat(2, 1)


SHARES = st.floats(0, 1)


@given(SHARES, st.integers(0, 99))
def test_targets_go_on_summing_to_one(probability, seed):
    torch.manual_seed(seed)
    x, y = torch.randn(6, 5, 40), torch.eye(CLASSES).repeat(2, 1)
    for change in (mixup, exchange_statistics):
        torch.testing.assert_close(change(x, y, probability)[1].sum(dim=1), torch.ones(6))
    changed = exchange_features(x[:, :, 0], y, probability)[1]
    torch.testing.assert_close(changed.sum(dim=1), torch.ones(6))


def test_mixtures_lie_between_the_partners_by_one_share_for_all(batch):
    x, y = batch
    torch.manual_seed(1)
    mixed, targets = mixup(x, y, 1.0)
    share = ((mixed - x.flip(0)) / (x - x.flip(0))).flatten(1)
    np.testing.assert_allclose(share, share[:, :1].expand_as(share), atol=1e-3)
    assert ((share >= -1e-3) & (share <= 1 + 1e-3)).all()
    torch.testing.assert_close(targets, share[:, :1] * y + (1 - share[:, :1]) * y.flip(0))


@pytest.mark.parametrize("change", [mixup, exchange_statistics])
def test_with_probability_zero_nothing_changes(batch, change):
    x, y = batch
    changed, targets = change(x, y, 0.0)
    assert torch.equal(changed, x)
    assert torch.equal(targets[:, :CLASSES], y)


def test_blended_statistics_lie_between_the_partners():
    torch.manual_seed(0)
    maps = torch.rand(4, 3, 5, 6) * torch.arange(1, 5)[:, None, None, None]
    blended = mix_statistics(maps, 1.0, alpha=1.0)
    for value in (lambda m: m.mean(dim=(2, 3)), lambda m: m.std(dim=(2, 3))):
        low, high = (
            torch.minimum(value(maps), value(maps.flip(0))),
            torch.maximum(value(maps), value(maps.flip(0))),
        )
        assert ((value(blended) >= low - 1e-3) & (value(blended) <= high + 1e-3)).all()
    assert not torch.allclose(blended, maps)
    torch.testing.assert_close(mix_statistics(maps, 0.0), maps)


@pytest.mark.parametrize(
    ("kind", "hz"), [("faster", 1150), ("slower", 1000 / 1.15), ("none", 1000)]
)
def test_a_speed_moves_a_tone(kind, hz):
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16_000) / 16_000)[None]
    changed = transform(tone, torch.tensor([list(TRANSFORMS).index(kind)]))
    assert changed.shape == tone.shape
    assert torch.fft.rfft(changed[0, :8000]).abs().argmax() * 2 == pytest.approx(hz, abs=3)


def test_every_transform_but_none_changes_a_sound_and_keeps_its_length():
    torch.manual_seed(0)
    sound = torch.randn(len(TRANSFORMS), 4001)
    changed = transform(sound, torch.arange(len(TRANSFORMS)))
    assert changed.shape == sound.shape
    assert torch.isfinite(changed).all()
    same = [torch.allclose(a, b) for a, b in zip(changed, sound, strict=True)]
    assert same == [kind == "none" for kind in TRANSFORMS]


def test_transforms_of_silence_are_finite():
    silent = torch.zeros(len(TRANSFORMS), 4000)
    assert torch.isfinite(transform(silent, torch.arange(len(TRANSFORMS)))).all()


def test_about_half_of_many_examples_are_mixed():
    torch.manual_seed(0)
    x = torch.randn(2000, 2)
    mixed, _ = mixup(x, torch.zeros(2000, 1), 0.5)
    assert 0.45 < (mixed != x).any(dim=1).float().mean() < 0.55


@pytest.mark.parametrize("axis", [1, 2])
def test_statistics_are_the_partners_and_the_shape_stays(batch, axis):
    x, y = batch
    changed, targets = exchange_statistics(x, y, 1.0, axis)
    torch.testing.assert_close(changed.mean(dim=axis), x.flip(0).mean(dim=axis))
    torch.testing.assert_close(changed.std(dim=axis), x.flip(0).std(dim=axis))
    own, now = (v - v.mean(dim=axis, keepdim=True) for v in (x, changed))
    torch.testing.assert_close(
        own / own.std(dim=axis, keepdim=True), now / now.std(dim=axis, keepdim=True)
    )
    assert not targets[:, :CLASSES].any()


def test_statistics_of_silence_are_exchanged_without_a_division_by_zero():
    x = torch.stack([torch.zeros(4, 10), torch.randn(4, 10)])
    assert torch.isfinite(exchange_statistics(x, torch.eye(2), 1.0)[0]).all()


def test_masks_hide_at_most_what_they_may(batch):
    x, _ = batch
    torch.manual_seed(3)
    masked = spec_augment(x, mels=2, frames=7)
    for before, after in zip(x, masked, strict=True):
        hidden = before != after
        rows, columns = hidden.all(dim=1).sum(), hidden.all(dim=0).sum()
        assert rows <= 2
        assert columns <= 7
        assert (after[hidden] == before.mean()).all()
        # Nothing is hidden outside of one band and one stretch.
        assert hidden.sum() == rows * 40 + columns * 5 - rows * columns
    assert (x != masked).any()


def test_masks_leave_those_that_are_not_chosen(batch):
    assert torch.equal(spec_augment(batch[0], 5, 40, probability=0.0), batch[0])
