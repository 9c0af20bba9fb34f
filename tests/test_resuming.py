"""Trainings that are cut go on as if they had not been."""

import itertools
import os
import signal

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, IterableDataset

from fsasd.resuming import fit, interruptible, latest_checkpoint


class Counting(IterableDataset):
    def __init__(self, first):
        self.first = first

    def __iter__(self):
        return (float(number) for number in itertools.count(self.first))


class Sums(L.LightningModule):
    """Adds up what it is given; at one step, someone does something."""

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
        # As the data module's draws, it never ends, and leaves out what was heard.
        heard = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed
        return DataLoader(Counting(2 * heard + 1), batch_size=2)


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
def test_after_ctrl_c_a_training_goes_on_with_the_next_step(tmp_path, step, caplog):
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


def test_what_slurm_had_written_is_gone_on_from(tmp_path):
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
