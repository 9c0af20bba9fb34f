import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsasd.detectors.networks.masked import MaskedAutoencoder, masked_error


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = MaskedAutoencoder(32, 48, patch=16, dim=16, depth=2, heads=2).eval()
    return made.requires_grad_(False)


def test_patches_tile_the_spectrogram(network):
    image = torch.arange(32 * 48).float().reshape(1, 32, 48)
    patches = network.patches(image)
    assert patches.shape == (1, 6, 256)
    # Row after row of patches.
    torch.testing.assert_close(patches[0, 4].reshape(16, 16), image[0, 16:, 16:32])


def test_patches_are_standardised(network):
    image = torch.randn(2, 32, 48)
    network.mean.fill_(3.0)
    network.spread.fill_(2.0)
    scaled = network.patches(2 * image + 3)
    network.mean.fill_(0.0)
    network.spread.fill_(1.0)
    torch.testing.assert_close(scaled, network.patches(image))


def test_masked_patches_do_not_enter_the_reconstruction(network):
    image = torch.randn(1, 32, 48)
    visible = torch.tensor([[0, 3]])
    other = image.clone()
    other[:, :, 16:] += 5  # of what is visible, patches 0 and 3 are all of the first 16 frames
    for one, same in zip(network(image, visible), network(other, visible), strict=True):
        torch.testing.assert_close(one, same)
    other = image.clone()
    other[:, :16, :16] += 5
    assert not torch.allclose(network(image, visible)[1], network(other, visible)[1], atol=1e-3)


def test_the_order_of_what_is_seen_does_not_matter(network):
    image = torch.randn(1, 32, 48)
    states, reconstructed = network(image, torch.tensor([[0, 3, 5]]))
    turned, same = network(image, torch.tensor([[5, 0, 3]]))
    torch.testing.assert_close(reconstructed, same, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(states[:, [2, 0, 1]], turned, atol=1e-5, rtol=1e-4)


def test_the_error_is_that_of_hidden_patches():
    reconstructed, patches = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    visible = torch.tensor([[0, 1], [2, 4]])
    hidden = torch.tensor([[2, 3, 4], [0, 1, 3]])
    for i, error in enumerate(masked_error(reconstructed, patches, visible)):
        expected = (reconstructed - patches)[i, hidden[i]].square().mean()
        torch.testing.assert_close(error, expected)


@given(st.sampled_from([0.1, 0.25, 0.5, 0.9]))
def test_in_turn_each_patch_is_seen_once(share):
    made = MaskedAutoencoder(32, 64, patch=8, dim=8, depth=1, heads=1)
    turns = made.visible_in_turn(share)
    assert len(turns) >= 2
    assert torch.equal(torch.cat(turns, dim=1).sort().values[0], torch.arange(32))


def test_at_random_no_patch_is_seen_twice(network):
    visible = network.random_visible(50, 0.5, torch.device("cpu"))
    assert visible.shape == (50, 3)
    assert all(len(row.unique()) == 3 for row in visible)
    assert len(visible.sort(dim=1).values.unique(dim=0)) > 10


def test_patches_that_do_not_fill_the_spectrogram_are_refused():
    with pytest.raises(ValueError, match="patches of 16 x 16 do not fill 128 x 313"):
        MaskedAutoencoder(128, 313, patch=16, dim=8, depth=1, heads=1)
