"""What ties worker processes to the command that started them: log, cores, tasks, end."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import pickle
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import (
    Client,
    Connection,
    Listener,
    answer_challenge,
    deliver_challenge,
)
from typing import Any

import threadpoolctl

from fsasd.runtime.memory import keep_freed_memory

_OF_RANKS = (
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "FSASD_RANKS",
    "TORCHELASTIC_", "SLURM_",
)  # fmt: skip
"""Beginnings of variables by which Lightning, torch and ``runtime.ranks`` recognise one of several
ranks. A worker is none."""

_THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS",
)  # fmt: skip


_BACKLOG = 1024
"""Workers that may begin at once."""


@dataclass(frozen=True)
class Start:
    """What a worker takes over from the command.

    Attributes:
        address: Where the command listens.
        secret: By which it knows its workers.
        cores: That the worker may use.
        threads: Of BLAS, OpenMP and torch; fewer than ``cores`` where ``OMP_NUM_THREADS`` says so.
        arguments: Of the command, for the provenance.
        path: Where the command finds modules.
        levels: Of loggers, by name; that of all is under the empty name.
        disabled: Level up to which nothing is logged.
    """

    address: tuple[str, int]
    secret: bytes
    cores: int
    threads: int
    arguments: list[str]
    path: list[str]
    levels: dict[str, int]
    disabled: int


class Supervisor:
    """The command's end: handles what its workers log, and knows which task each has.

    Args:
        host: Address of this machine, as the workers know it.
        cores: That each worker may use.
        shared: Pickled, what all tasks need.
    """

    def __init__(self, host: str, cores: int, shared: bytes) -> None:
        secret = secrets.token_bytes(32)
        self._listener = Listener((host, 0), backlog=_BACKLOG)
        loggers = logging.root.manager.loggerDict.items()
        levels = {k: v.level for k, v in loggers if isinstance(v, logging.Logger) and v.level}
        asked = os.environ.get("OMP_NUM_THREADS", "")
        self.start = Start(
            address=self._listener.address,
            secret=secret,
            cores=cores,
            threads=min(cores, int(asked)) if asked.isdecimal() and int(asked) else cores,
            arguments=list(sys.argv),
            path=list(sys.path),
            levels={"": logging.root.level, **levels},
            disabled=logging.root.manager.disable,
        )
        self._shared = shared
        self._tasks: dict[int, str] = {}
        self._ended: list[int] = []
        self._connections: list[Connection] = []
        self._threads: list[threading.Thread] = []
        self._workers: list[threading.Thread] = []
        self._closing = False
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def unfinished(self) -> list[str]:
        """Return the tasks of workers that ended amid them, and forget these.

        They are in the order in which their workers ended.
        """
        # Those that were killed have nothing more to send.
        _join(self._workers, 5)
        ended, self._ended = self._ended, []
        # Of a machine that is gone, the end of its workers shows minutes later.
        numbers = dict.fromkeys([*ended, *self._tasks])
        return [self._tasks.pop(number) for number in numbers if number in self._tasks]

    def close(self) -> None:
        """Handle what is left of messages; workers that are still there end at once."""
        self._closing = True
        with contextlib.suppress(OSError, EOFError, AuthenticationError):
            # Wakes up the thread that accepts connections.
            Client(self.start.address, authkey=self.start.secret).close()
        self._accepting.join(5)
        self._listener.close()
        _join(self._workers, 5)
        for connection in self._connections:
            # Closing it would not wake up the thread that waits for more.
            with (
                contextlib.suppress(OSError),
                socket.socket(fileno=os.dup(connection.fileno())) as s,
            ):
                s.shutdown(socket.SHUT_RDWR)
        _join(self._threads, 5)

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection = self._listener.accept()
            except OSError:
                continue
            number = len(self._threads)
            thread = threading.Thread(target=self._receive, args=(number, connection), daemon=True)
            self._connections.append(connection)
            self._threads.append(thread)
            thread.start()

    def _receive(self, number: int, connection: Connection) -> None:
        with connection, contextlib.suppress(OSError, EOFError, AuthenticationError):
            # Here, since something else that connects and says nothing holds up no worker.
            deliver_challenge(connection, self.start.secret)
            answer_challenge(connection, self.start.secret)
            # Before it can begin a task.
            self._workers.append(threading.current_thread())
            connection.send_bytes(self._shared)
            while True:
                kind, content = connection.recv()
                if kind == "log":
                    record = logging.makeLogRecord(content)
                    logging.getLogger(record.name).handle(record)
                elif kind == "begun":
                    self._tasks[number] = content
                else:
                    self._tasks.pop(number, None)
        self._ended.append(number)


def _join(threads: Sequence[threading.Thread], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for thread in [*threads]:
        thread.join(max(deadline - time.monotonic(), 0))


def supervised(start: Start, name: str, call: bytes) -> tuple[str, Any]:
    """Do a task in a worker.

    Args:
        start: What the worker takes over from the command.
        name: Of the task.
        call: Pickled, since a worker first learns where modules are: a function (what all tasks
            share, task) -> result, and the task.

    Returns:
        The name and the result.
    """
    worker = _begin(start)
    worker.send(("begun", name))
    try:
        work, task = pickle.loads(call)
        return name, work(worker.shared, task)
    finally:
        worker.send(("done", name))


class _Worker:
    """This process's end of the connection to the command; several threads send through it."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self._connection = Client(start.address, authkey=start.secret)
        self._lock = threading.Lock()
        pickled = self._connection.recv_bytes()
        threading.Thread(target=self._end_with_command, daemon=True).start()
        sys.path.extend(folder for folder in start.path if folder not in sys.path)
        self.shared = pickle.loads(pickled)

    def send(self, message: tuple[str, Any]) -> None:
        """Send a kind of message and its content."""
        with self._lock:
            self._connection.send(message)

    def _end_with_command(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._connection.recv()
        if _worker in (None, self):
            os._exit(1)


class _Sending(logging.handlers.QueueHandler):
    """Sends records to the command, which handles them as its own."""

    def enqueue(self, record: logging.LogRecord) -> None:
        worker: Any = self.queue
        worker.send(("log", record.__dict__))


_worker: _Worker | None = None


def _begin(start: Start) -> _Worker:
    """Make this process a worker of a command, once."""
    global _worker
    if _worker is not None and _worker.start == start:
        return _worker
    if threading.current_thread() is threading.main_thread():
        # Ctrl-C reaches all processes of a terminal; the command kills its workers.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.argv = start.arguments
    for variable in [name for name in os.environ if name.startswith(_OF_RANKS)]:
        del os.environ[variable]
    limit_threads(start.cores, start.threads)
    keep_freed_memory()
    _worker = None
    _worker = _Worker(start)
    logging.disable(start.disabled)
    logging.root.handlers = [_Sending(_worker)]  # type: ignore[arg-type]
    for name, level in start.levels.items():
        logging.getLogger(name).setLevel(level)
    # Of libraries that were loaded with what is shared.
    limit_threads(start.cores, start.threads)
    # The command imports it in any case, but not before it begins.
    from fsasd.runtime.processes import limit_messages

    limit_messages()
    return _worker


def limit_threads(cores: int, threads: int) -> None:
    """Limit what this process uses of the machine.

    Args:
        cores: What ``joblib.cpu_count`` returns from now on, by which readers and pools are sized.
        threads: Of BLAS, OpenMP and torch.
    """
    os.environ["LOKY_MAX_CPU_COUNT"] = str(cores)
    # For libraries that are loaded later.
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    threadpoolctl.threadpool_limits(threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
