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

from fsasd.detectors.networks import training
from fsasd.runtime.resuming import (
    CheckpointFileError,
    fit,
    interruptible,
    latest_checkpoint,
    read_checkpoint,
)
from fsasd.runtime.signals import Stopped, exit_code, raise_on_signals


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


def send(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def handlers():
    """As in a terminal, and undone; where make runs in the background, SIGINT is ignored."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in numbers[1:]:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("known", [False, True], ids=["library", "command"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("step", [1, 5])
def test_after_a_signal_a_training_is_resumed_with_the_next_step(
    tmp_path, number, code, step, known, caplog
):
    if known:
        raise_on_signals()
    before = signal.getsignal(number)
    cut = Sums(step, send(number))
    with pytest.raises(KeyboardInterrupt) as ended:
        run(cut, tmp_path)
    assert exit_code(ended.value) == code
    assert cut.global_step == step + 1
    assert "stopping after this step; Ctrl-C stops at once" in caplog.text
    assert f"a checkpoint of step {step + 1} was written" in caplog.text
    assert signal.getsignal(number) == before
    assert latest_checkpoint(tmp_path, tmp_path) == tmp_path / "interrupted.ckpt"
    assert run(Sums(0, pytest.fail), tmp_path) == sum(range(1, 17))
    assert not (tmp_path / "interrupted.ckpt").exists()


def test_a_clock_that_was_put_back_makes_no_checkpoint_older(tmp_path):
    steps = {"last.ckpt": 4, "interrupted.ckpt": 6}
    for name, step in steps.items():
        torch.save({"state_dict": {}, "global_step": step}, tmp_path / name)
    os.utime(tmp_path / "interrupted.ckpt", (0, 0))
    assert latest_checkpoint(tmp_path, tmp_path) == tmp_path / "interrupted.ckpt"
    torch.save({"state_dict": {}, "global_step": 6}, tmp_path / "last.ckpt")
    assert latest_checkpoint(tmp_path, tmp_path) == tmp_path / "last.ckpt"


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_ctrl_c_after_another_signal_ends_at_once(tmp_path, first):
    def twice():
        send(first)()
        ctrl_c()

    cut = Sums(5, twice)
    with pytest.raises(KeyboardInterrupt):
        run(cut, tmp_path)
    assert cut.global_step == 5
    assert latest_checkpoint(tmp_path, tmp_path) is None


def test_a_launcher_that_sends_sigterm_twice_changes_nothing(tmp_path):
    def twice():
        send(signal.SIGTERM)()
        send(signal.SIGHUP)()
        send(signal.SIGTERM)()

    cut = Sums(5, twice)
    with pytest.raises(Stopped, match="SIGTERM"):
        run(cut, tmp_path)
    assert cut.global_step == 6
    assert latest_checkpoint(tmp_path, tmp_path) == tmp_path / "interrupted.ckpt"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_while_the_checkpoint_is_written_damages_nothing(tmp_path, number):
    class Saving(Sums):
        def on_save_checkpoint(self, checkpoint):
            send(number)()

    with pytest.raises(KeyboardInterrupt):
        run(Sums(2, ctrl_c), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(Saving(5, send(number)), tmp_path)
    # Ctrl-C leaves the older checkpoint, SIGTERM finishes the new one.
    left = read_checkpoint(tmp_path / "interrupted.ckpt")["global_step"]
    assert left == (3 if number == signal.SIGINT else 6)
    assert run(Sums(0, pytest.fail), tmp_path) == sum(range(1, 17))


def test_before_the_first_step_a_signal_ends_at_once(tmp_path):
    class Slow(Sums):
        def configure_optimizers(self):
            send(signal.SIGTERM)()

    with pytest.raises(Stopped):
        run(Slow(), tmp_path)
    assert latest_checkpoint(tmp_path, tmp_path) is None


def test_a_signal_in_the_last_step_is_not_forgotten(tmp_path):
    class Ends(Sums):
        def on_train_end(self):
            assert self.global_step == 8

    class Last(Ends):
        def train_dataloader(self):
            return DataLoader([float(n) for n in range(1, 17)], batch_size=2)

    with pytest.raises(Stopped):
        run(Last(7, send(signal.SIGTERM)), tmp_path)
    assert latest_checkpoint(tmp_path, tmp_path) is not None


def test_ignored_signals_are_ignored(tmp_path):
    """``nohup``."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise_on_signals()
    assert run(Sums(3, send(signal.SIGHUP)), tmp_path) == sum(range(1, 17))


def test_the_handler_of_a_launcher_is_called_with_a_checkpoint(tmp_path):
    """As submitit's, which puts the job into the queue again and exits."""

    def requeue(number, frame):
        assert (tmp_path / "interrupted.ckpt").is_file()
        raise SystemExit(144)

    signal.signal(signal.SIGUSR2, requeue)
    cut = Sums(3, send(signal.SIGUSR2))
    with pytest.raises(SystemExit) as ended:
        run(cut, tmp_path)
    assert ended.value.code == 144
    assert cut.global_step == 4
    assert run(Sums(0, pytest.fail), tmp_path) == sum(range(1, 17))


def test_training_goes_on_where_the_handler_of_a_launcher_returns(tmp_path):
    """As submitit's for SIGTERM, which batch systems send before they kill."""
    written = []

    def bypass(number, frame):
        written.append(read_checkpoint(tmp_path / "interrupted.ckpt")["global_step"])

    signal.signal(signal.SIGTERM, bypass)
    raise_on_signals()
    assert run(Sums(3, send(signal.SIGTERM)), tmp_path) == sum(range(1, 17))
    assert written == [4]


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A job of SLURM's, and its command, which notes its arguments."""
    asked = tmp_path / "asked"
    command = tmp_path / "bin" / "scontrol"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\necho $@ >> {asked}; exit $SCONTROL_FAILS\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    monkeypatch.setenv("SCONTROL_FAILS", "0")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    raise_on_signals()
    return asked


@pytest.mark.parametrize("array", [False, True])
def test_a_job_of_slurm_whose_time_ends_is_queued_anew(tmp_path, scontrol, monkeypatch, array):
    if array:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4700")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    with pytest.raises(Stopped, match="SIGUSR1"):
        run(Sums(3, send(signal.SIGUSR1)), tmp_path / "run")
    assert scontrol.read_text() == f"requeue {'4700_3' if array else '4711'}\n"
    assert run(Sums(0, pytest.fail), tmp_path / "run") == sum(range(1, 17))


def test_a_job_that_slurm_does_not_queue_anew_goes_on(tmp_path, scontrol, monkeypatch, caplog):
    monkeypatch.setenv("SCONTROL_FAILS", "1")
    assert run(Sums(3, send(signal.SIGUSR1)), tmp_path / "run") == sum(range(1, 17))
    assert scontrol.read_text() == "requeue 4711\n"
    assert "job 4711 could not be queued anew, and goes on" in caplog.text


def test_only_the_first_of_slurms_tasks_queues_the_job_anew(tmp_path, scontrol, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    send(signal.SIGUSR1)()
    assert not scontrol.exists()


def test_a_training_whose_time_is_over_is_resumed_with_time_of_its_own(tmp_path):
    for step in range(1, 8):
        message = rf"trainer\.max_time: 0:00:00 are over, after step {step}: the same command"
        with pytest.raises(TimeoutError, match=message):
            run(Sums(), tmp_path, max_time={"seconds": 0})
    assert run(Sums(), tmp_path, max_time={"seconds": 0}) == sum(range(1, 17))
    assert run(Sums(), tmp_path / "whole", max_time={"hours": 1}) == sum(range(1, 17))


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
        training.fit(
            Sums(), epochs=1, batch_size=2, examples=4, lower="nothing", where="nowhere",
            folder=tmp_path,
        )  # fmt: skip


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
