"""Processes that load training examples: one that dies ends the training, which can be resumed."""

import itertools
import os
import signal
import subprocess
import sys
import time

import lightning as L
import psutil
import pytest
from test_resuming import Sums, run
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data._utils import signal_handling

from fsasd.runtime.resuming import interruptible


class Numbers(IterableDataset):
    """Whole numbers; at one of them, something happens once."""

    def __init__(self, first, at, event, mark):
        self.first, self.at, self.event, self.mark = first, at, event, mark

    def __iter__(self):
        for number in itertools.count(self.first):
            if number == self.at and not self.mark.exists():
                self.mark.touch()
                self.event()
            yield float(number)


class LoadedByAWorker(Sums):
    """Sums of numbers that another process loads."""

    def __init__(self, event, mark):
        super().__init__()
        self.event, self.mark = event, mark

    def train_dataloader(self):
        trained_on = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed
        numbers = Numbers(2 * trained_on + 1, 11, self.event, self.mark)
        return DataLoader(numbers, batch_size=2, num_workers=1)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def failed():
    raise OSError("clip 11 cannot be read")


@pytest.mark.parametrize(
    ("event", "kind", "message"),
    [
        (killed, ChildProcessError, r"a process that loads examples was killed .*num_workers"),
        (failed, OSError, "clip 11 cannot be read"),
    ],
)
def test_a_worker_that_dies_ends_the_training_which_is_resumed(tmp_path, event, kind, message):
    mark = tmp_path / "mark"
    with pytest.raises(kind, match=message):
        run(LoadedByAWorker(event, mark), tmp_path / "folder")
    assert mark.exists()
    assert run(LoadedByAWorker(event, mark), tmp_path / "folder") == sum(range(1, 17))


def test_a_dead_worker_is_noticed_wherever_the_training_is(tmp_path, monkeypatch):
    """By the handler of SIGCHLD, which may come before the loader asks for the next batch."""
    # Other tests may have taken it away, and torch sets it once.
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    loader = iter(DataLoader(Numbers(1, 0, failed, tmp_path), batch_size=1, num_workers=1))
    next(loader)

    def train_on_a_batch():
        loader._workers[0].kill()
        time.sleep(20)

    with (
        pytest.raises(ChildProcessError, match="killed by signal: Killed"),
        interruptible(L.Trainer(logger=False)),
    ):
        train_on_a_batch()


def test_an_error_of_something_else_is_left_as_it_is():
    with pytest.raises(ConnectionResetError), interruptible(L.Trainer(logger=False)):
        raise ConnectionResetError
    with pytest.raises(RuntimeError, match="no worker"), interruptible(L.Trainer(logger=False)):
        raise RuntimeError("no worker")


SCRIPT = """
import itertools, os, time
from torch.utils.data import DataLoader, IterableDataset

class Workers(IterableDataset):
    def __iter__(self):
        while True:
            yield os.getpid()

loader = iter(DataLoader(Workers(), batch_size=None, num_workers=1))
print(next(loader), flush=True)
time.sleep(300)
"""


@pytest.mark.slow
def test_a_worker_ends_with_the_process_that_it_loads_for():
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True
    ) as process:
        worker = psutil.Process(int(process.stdout.readline()))
        begin = time.monotonic()
        process.kill()
        gone, _ = psutil.wait_procs([worker], timeout=20)
    assert gone, f"still there after {time.monotonic() - begin:.0f} s"
