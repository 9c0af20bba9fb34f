"""One process or several: the same examples, the same draws, the same networks."""

import json
import sys
from itertools import chain

import numpy as np
import pytest
import several_ranks
import torch
import two_networks
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from fsasd.detectors.networks import augment, shares
from fsasd.detectors.networks.classifier import RandomCuts
from fsasd.detectors.networks.masked import MaskedAutoencoder
from fsasd.detectors.networks.shares import (
    GlobalBatches,
    Share,
    places,
    require_whole_shares,
    using_share,
)
from fsasd.detectors.networks.training import batch_norm_groups, processes


@given(st.integers(1, 5), st.integers(1, 4))
def test_shares_are_the_whole_batch_and_hold_each_examples_partner(pairs, ranks):
    size = 2 * ranks * pairs
    found = [places(size, Share(ranks, rank)) for rank in range(ranks)]
    assert sorted(np.concatenate(found)) == list(range(size))
    for own in found:
        np.testing.assert_array_equal(own[::-1], size - 1 - own)


@pytest.mark.parametrize(
    ("size", "ranks", "message"),
    [
        (
            6,
            2,
            r"batch_size: expected a multiple of 4, found 6\. It is divided among 2 pro.* 4 or 8",
        ),
        (2, 2, "expected a multiple of 4, found 2.* set batch_size to 4, or train on fewer"),
        (64, 3, "expected a multiple of 6, found 64.* 60 or 66"),
    ],
)
def test_a_batch_that_cannot_be_divided_is_refused(size, ranks, message):
    with pytest.raises(ValueError, match=message):
        require_whole_shares(size, ranks)
    require_whole_shares(size, 1)


@pytest.mark.parametrize(("count", "ranks"), [(4, 2), (8, 2), (21, 2), (21, 4)])
def test_every_step_has_the_examples_and_cuts_of_one_process(count, ranks):
    def steps(kind, share, epoch):
        batches = kind(count, 8, share, 0)
        batches.set_epoch(epoch)
        found = list(batches)
        assert len(found) == len(batches)
        size = len(batches.places)
        return [sorted(found[i : i + size]) for i in range(0, len(found), size)]

    for kind in (GlobalBatches, RandomCuts):
        for epoch in (0, 1):
            one = steps(kind, Share(), epoch)
            several = [steps(kind, Share(ranks, rank), epoch) for rank in range(ranks)]
            assert one == [sorted(chain(*parts)) for parts in zip(*several, strict=True)]
    orders = GlobalBatches(count, 8, Share(), 0), GlobalBatches(count, 8, Share(), 0)
    orders[1].set_epoch(1)
    assert list(orders[0]) != list(orders[1])


WAVEFORMS, CLASSES = torch.randn(8, 400, generator=torch.Generator().manual_seed(0)), torch.eye(8)
IMAGES = WAVEFORMS.reshape(8, 10, 40)
NETWORK = MaskedAutoencoder(32, 32, patch=16, dim=8, depth=1, heads=1)
DRAWN = {
    "mixup": lambda rows: augment.mixup(WAVEFORMS[rows], CLASSES[rows], 0.5),
    "spec_augment": lambda rows: [augment.spec_augment(IMAGES[rows], 5, 20)],
    "exchange_statistics": lambda rows: augment.exchange_statistics(
        IMAGES[rows], CLASSES[rows], 0.5
    ),
    "exchange_features": lambda rows: augment.exchange_features(
        WAVEFORMS[rows], CLASSES[rows], 0.5
    ),
    "mix_statistics": lambda rows: [augment.mix_statistics(IMAGES[rows, None], 0.5)],
    "transform": lambda rows: [augment.transform(WAVEFORMS[rows], shares.randint(7, len(rows)))],
    "noise": lambda rows: [augment.transform(WAVEFORMS[rows], torch.full((len(rows),), 4))],
    "masks": lambda rows: [NETWORK.random_visible(len(rows), 0.5, torch.device("cpu"))],
}


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_random_is_that_of_the_example_in_any_process(name):
    whole = None
    for share in (Share(), Share(2, 0), Share(2, 1), Share(4, 3)):
        rows = places(8, share)
        with using_share(share):
            shares.seed_step(0, 5, share)
            found = [DRAWN[name](rows), torch.rand(1)]
        whole = whole or found
        for one, several in zip(whole[0], found[0], strict=True):
            torch.testing.assert_close(several, one[rows], rtol=1e-5, atol=1e-6)
        assert found[1] == whole[1], "what is drawn next is the same, too"
    with using_share(Share(2, 1)):
        shares.seed_step(0, 6, Share(2, 1))
        other = DRAWN[name](places(8, Share(2, 1)))
    assert not all(torch.equal(a, b) for a, b in zip(other, found[0], strict=False))


def test_alone_a_process_gathers_nothing():
    rows = torch.ones(2, 3)
    assert shares.gathered(rows) is rows


@pytest.mark.parametrize(
    ("trainer", "count", "alone"),
    [
        ({"accelerator": "cpu", "devices": 2}, 2, 2),
        ({"accelerator": "cpu", "devices": "2", "num_nodes": 3}, 6, 6),
        ({"accelerator": "cpu", "devices": "auto"}, 1, 1),
        ({"accelerator": "gpu", "devices": 8}, 8, 1),
        ({"accelerator": "gpu", "devices": "0,3"}, 2, 1),
        ({"accelerator": "gpu", "devices": 8, "sync_batchnorm": False}, 8, 8),
        ({"accelerator": "gpu", "devices": -1, "num_nodes": 2, "sync_batchnorm": False}, 8, 8),
    ],
)
def test_processes_are_counted_and_gpus_normalise_together(trainer, count, alone, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert (processes(trainer), batch_norm_groups(trainer)) == (count, alone)


# Two processes


@pytest.fixture(scope="module")
def trained(factory, tiny_encoders, tmp_path_factory):
    """What one and two processes leave."""
    folders = {devices: tmp_path_factory.mktemp(f"of-{devices}") for devices in (1, 2)}
    threads = torch.get_num_threads()
    encoder = str(tiny_encoders("ast"))
    two_networks.main(factory, folders[1], encoder, 1)
    torch.set_num_threads(threads)
    arguments = [str(factory), str(folders[2]), encoder, "2"]
    several_ranks.run_command([sys.executable, two_networks.__file__, *arguments])
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arcface", "adacos", "contrast", "pretrained", "cmae/network"])
def test_two_processes_train_the_network_of_one(trained, name):
    one, two = (load_file(folder / f"{name}.safetensors") for folder in trained.values())
    for weight in one:
        if weight.endswith("in_proj_bias"):
            # Attention does not depend on the keys' biases: their gradients are rounding alone.
            for found in (one, two):
                found[weight] = torch.cat(found[weight].chunk(3)[::2])
        torch.testing.assert_close(two[weight], one[weight], rtol=1e-4, atol=1e-5, msg=weight)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arcface", "adacos", "contrast", "pretrained", "normalised"])
def test_two_processes_take_the_steps_of_one_with_the_same_examples(trained, name):
    """The waveforms as they were cut and mixed."""
    (one,) = (json.loads(path.read_text()) for path in trained[1].glob(f"{name}-*.json"))
    two = [json.loads(path.read_text()) for path in sorted(trained[2].glob(f"{name}-*.json"))]
    assert len(two) == 2
    assert len(one) == 2 * (21 // 8)
    for step, *parts in zip(one, *two, strict=True):
        assert [len(part) for part in parts] == [4, 4]
        np.testing.assert_allclose(sorted(step), sorted(chain(*parts)), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_the_network_is_trained(trained):
    torch.manual_seed(0)
    before = two_networks.Small().state_dict()["layers.0.weight"]
    after = load_file(trained[2] / "arcface.safetensors")["network.layers.0.weight"]
    assert (after - before).abs().max() > 1e-2


def test_a_share_ends_with_its_training():
    def training():
        with using_share(Share(2, 0)):
            assert shares.ranks() == 2
            raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        training()
    assert shares.ranks() == 1
