"""Networks that are trained on a data set: order, seeds, interruption, what is kept."""

import lightning as L
import numpy as np
import pytest
import torch

from fsasd.detectors.autoencoder import Autoencoder
from fsasd.detectors.cmae import CMAE
from fsasd.detectors.flow import Flow
from fsasd.detectors.networks.training import NetworkTraining, arrays, train, with_arrays


class Seen(L.LightningModule):
    """Takes note of what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2, 3))
        self.register_buffer("count", torch.tensor(0))
        self.batches, self.drawn = [], []

    def training_step(self, batch, index):
        self.count += 1
        self.batches.append(batch.clone())
        self.drawn.append(torch.rand(1).item())
        return self.weight.square().sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Numbers(torch.utils.data.Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitems__(self, indices):
        return torch.tensor(indices, dtype=torch.float32)


def trained(n=10, seed=0, batch_size=4, epochs=2):
    network = Seen()
    train(network, Numbers(n), NetworkTraining(epochs, batch_size, seed=seed))
    return network


def test_every_example_is_seen_once_in_each_epoch_in_the_seeds_order():
    one, same, other = trained(), trained(), trained(seed=1)
    assert [len(batch) for batch in one.batches] == [4, 4, 2, 4, 4, 2]
    assert sorted(torch.cat(one.batches[:3]).tolist()) == list(range(10))
    assert not torch.equal(one.batches[0], one.batches[3])
    assert all(map(torch.equal, one.batches, same.batches))
    assert one.drawn == same.drawn
    assert one.drawn != other.drawn
    assert not torch.equal(torch.cat(one.batches), torch.cat(other.batches))


@pytest.mark.parametrize(("n", "sizes"), [(9, [4, 4]), (1, [1]), (8, [4, 4])])
def test_a_last_batch_of_one_is_left_out_unless_there_is_no_other(n, sizes):
    assert [len(batch) for batch in trained(n, epochs=1).batches] == sizes


def test_a_trained_network_is_ready_to_score():
    network = trained()
    assert not network.training
    assert not network.weight.requires_grad
    assert network.weight.device.type == "cpu"


def test_arrays_make_the_same_network_again():
    network = trained()
    network.weight += 1.5
    learnt = arrays(network)
    assert {name: array.shape for name, array in learnt.items()} == {"weight": (2, 3), "count": ()}
    again = with_arrays(Seen, learnt)
    assert torch.equal(again.weight, network.weight)
    assert again.count == network.count
    network.weight += 1
    assert learnt["weight"].max() == 1.5, "they are copies"


def test_an_interrupted_training_is_no_fit():
    class Interrupted(Seen):
        def training_step(self, batch, index):
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(Interrupted(), Numbers(4), NetworkTraining(1, 2))


def test_settings_to_lower_are_named_if_memory_does_not_suffice():
    class Large(Seen):
        def training_step(self, batch, index):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    with pytest.raises(
        ValueError, match=r"of memory\)\. Lower detector\.training\.batch_size \(now 2\)"
    ):
        train(Large(), Numbers(4), NetworkTraining(1, 2))


@pytest.mark.parametrize("kind", ["autoencoder", "flow", "cmae"])
def test_the_random_state_stays_the_callers(kind, factory_clips):
    train = factory_clips.where(machine="bearing", split="train")
    detector = {
        "autoencoder": Autoencoder(training=NetworkTraining(1)),
        "flow": Flow(blocks=1, hidden=16, training=NetworkTraining(1)),
        "cmae": CMAE(frames=32, dim=16, depth=2, class_epochs=1, training=NetworkTraining(1, 64)),
    }[kind]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    detector.fit(train)
    assert torch.equal(torch.get_rng_state(), state)
    scores = detector.score(train[:2])
    assert torch.equal(torch.get_rng_state(), state)
    detector.n_parameters()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    np.testing.assert_array_equal(detector.score(train[:2]), scores)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["autoencoder", "flow", "cmae"])
def test_networks_are_trained_on_a_gpu_and_score_on_the_cpu(kind, factory_clips, tmp_path):
    clips = factory_clips.where(split="train", label="normal")
    detector = {
        "autoencoder": Autoencoder(training=NetworkTraining(1)),
        "flow": Flow(blocks=1, hidden=16, training=NetworkTraining(1)),
        "cmae": CMAE(frames=32, dim=16, depth=2, class_epochs=1, training=NetworkTraining(1, 64)),
    }[kind].prepare(clips, tmp_path)
    torch.cuda.reset_peak_memory_stats()
    scores = detector.fit(clips.where(machine="bearing")).score(clips[:3])
    assert np.isfinite(scores).all()
    assert kind == "cmae" or torch.cuda.max_memory_allocated() > 0
