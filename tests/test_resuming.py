"""A training that was interrupted is resumed with the next step, to the same result."""

import itertools
import os
import pickle
import signal

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, IterableDataset

from fsasd.detectors import training
from fsasd.runtime.resuming import CheckpointFileError, fit, interruptible, latest_checkpoint


class Counting(IterableDataset):
    def __init__(self, first):
        self.first = first

    def __iter__(self):
        return (float(number) for number in itertools.count(self.first))


class Sums(L.LightningModule):
    """Adds up its batches; before one step, something happens."""

    def __init__(self, at=None, do=None):
        super().__init__()
        self.total = torch.nn.Parameter(torch.zeros(()))
        self.at, self.do = at, do

    def training_step(self, batch, index):
        if self.global_step == self.at:
            self.at = None
            self.do()
        return -batch.sum() * self.total

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1.0)

    def train_dataloader(self):
        # As the data module's draws, it never ends, and begins with the next example.
        trained_on = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed
        return DataLoader(Counting(2 * trained_on + 1), batch_size=2)


def run(module, folder, **options):
    checkpoint = ModelCheckpoint(folder, save_last=True)
    trainer = L.Trainer(
        max_steps=8, max_epochs=-1, default_root_dir=folder, callbacks=[checkpoint],
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        **options,
    )  # fmt: skip
    fit(trainer, module, None, folder)
    return module.total.item()


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def as_in_a_terminal():
    """Where make runs in the background, SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("step", [1, 5])
def test_after_ctrl_c_a_training_is_resumed_with_the_next_step(tmp_path, step, caplog):
    cut = Sums(step, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        run(cut, tmp_path)
    assert cut.global_step == step + 1
    assert "Ctrl-C again stops at once" in caplog.text
    assert latest_checkpoint(tmp_path, tmp_path) == tmp_path / "interrupted.ckpt"
    assert run(Sums(0, pytest.fail), tmp_path) == sum(range(1, 17))
    assert not (tmp_path / "interrupted.ckpt").exists()


def test_the_second_ctrl_c_ends_at_once(tmp_path):
    def twice():
        ctrl_c()
        ctrl_c()

    cut = Sums(5, twice)
    with pytest.raises(KeyboardInterrupt):
        run(cut, tmp_path)
    assert cut.global_step == 5
    assert latest_checkpoint(tmp_path, tmp_path) is None


def test_the_gradients_of_a_step_are_not_divided(tmp_path):
    cut = Sums(1, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        run(cut, tmp_path, accumulate_grad_batches=2)
    assert cut.global_step == 2
    whole = run(Sums(), tmp_path / "whole", accumulate_grad_batches=2)
    assert run(Sums(), tmp_path, accumulate_grad_batches=2) == whole


def test_training_is_resumed_from_what_slurm_had_written(tmp_path):
    cut = Sums(6, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        run(cut, tmp_path)
    announced = (tmp_path / "interrupted.ckpt").rename(tmp_path / "hpc_ckpt_1.ckpt")
    assert latest_checkpoint(tmp_path, tmp_path) == announced
    assert run(Sums(0, pytest.fail), tmp_path) == sum(range(1, 17))
    assert not announced.exists()


def test_an_exit_that_is_no_interruption_is_one():
    with pytest.raises(SystemExit), interruptible(L.Trainer(logger=False)):
        raise SystemExit(3)


class Planted:
    """Fails the test when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("code of a checkpoint was run",)


def plant(path, content=None):
    torch.save({"state_dict": {}, "callbacks": Planted()} if content is None else content, path)


@pytest.mark.parametrize("name", ["last.ckpt", "interrupted.ckpt", "hpc_ckpt_3.ckpt"])
def test_code_in_a_checkpoint_is_not_run(tmp_path, name):
    plant(tmp_path / name)
    with pytest.raises(CheckpointFileError, match=rf"{name}: expected .* found \S+, which"):
        run(Sums(), tmp_path)


def test_code_in_a_plain_pickle_is_not_run(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(pickle.dumps(Planted()))
    with pytest.raises(CheckpointFileError, match=r"last\.ckpt: expected a checkpoint of tensors"):
        run(Sums(), tmp_path)


def test_code_in_the_checkpoint_of_a_detectors_network_is_not_run(tmp_path):
    plant(tmp_path / "last.ckpt")
    with pytest.raises(CheckpointFileError, match=r"last\.ckpt: expected .*which could run code"):
        training.fit(Sums(), epochs=1, batch_size=2, examples=4, lower="nothing", folder=tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"PK\x03\x04 and so on", "found a damaged file"),
        (b"", "found a damaged file"),
        ({"weights": torch.zeros(2)}, "found dict without 'state_dict'"),
        ([1, 2], "found list without"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content, problem):
    if isinstance(content, bytes):
        (tmp_path / "last.ckpt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointFileError, match=rf"last\.ckpt: expected .*{problem}"):
        run(Sums(), tmp_path)


def test_a_folder_in_the_place_of_a_checkpoint_is_refused(tmp_path):
    """Folders are distributed checkpoints, whose metadata are pickled."""
    (tmp_path / "last.ckpt").mkdir()
    with pytest.raises(CheckpointFileError, match=r"last\.ckpt: expected .*directory"):
        run(Sums(), tmp_path)
