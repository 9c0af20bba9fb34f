"""Commands in processes of their own, forked from one that has imported torch and its kind.

``run`` and ``start`` take what ``subprocess.run`` and ``subprocess.Popen`` take, and save the ten
seconds of CPU time that ``fsasd`` spends on imports; each process uses one thread. Not for tests
of the start itself: what is imported, when CUDA starts, the same results whatever the hash seed,
which all of them share.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

PRELOADED = (
    "fsasd.pipeline.execute", "fsasd.cli.run", "fsasd.detection.callback",
    "fsasd.generation.audioldm", "fsasd.generation.audioldm2",
)  # fmt: skip
"""Imported once, in this order; none of them starts a thread or uses torch's."""

loaded_with: dict[str, set[str]] = {}
"""In the process that forks: the modules that were there after the import of each of these."""

READ_AT_START = ("CUDA_", "HF_", "LANG", "LC_", "MKL_", "MPL", "OMP_", "OPENBLAS_", "PYTHON",
                 "TORCH_", "TRANSFORMERS_", "WANDB_")  # fmt: skip
"""How variables begin that the interpreter or a library reads when it starts."""

cpu_seconds = 0.0
"""Of the commands that have ended, with what they had started."""

_STARTED, _ENDED = struct.Struct("q"), struct.Struct("qd")
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}
_ENVIRONMENT = os.environ | _ONE_THREAD
_GIVEN = str(Path(__file__).with_name("PYTHONPATH"))
"""Stands in ``sys.path`` for what a command has in its variable of this name."""

_SERVE = "import sys; sys.path.insert(0, sys.argv[1]); import commands; commands.serve(sys.argv)"


class Command(subprocess.Popen):
    """A Python process that is a child of the one from which it is forked."""

    def _execute_child(
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
        creationflags, shell, *more,
    ):  # fmt: skip
        *pipes, _, _, _, _, _, new_session, _ = more
        program, *argv = map(os.fspath, args)
        if program != sys.executable or shell or preexec_fn or pass_fds:
            raise ValueError(f"expected a command of {sys.executable} alone, found {args}")
        if argv[0].startswith("-") and argv[0] not in ("-c", "-m"):
            raise ValueError(f"expected -m, -c or a script, found {argv[0]}")
        request = {
            "argv": argv, "cwd": os.fspath(cwd or Path.cwd()), "new_session": new_session,
            "environment": _environment(env),
        }  # fmt: skip
        standard = [pipes[0], pipes[3], pipes[5]]
        streams = [own if given == -1 else given for own, given in enumerate(standard)]
        self._status = _server().fork(request, streams)
        (self.pid,) = _STARTED.unpack(os.read(self._status, _STARTED.size))
        self._child_created = True
        self._close_pipe_fds(*pipes)

    def _try_wait(self, wait_flags):
        if wait_flags and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        global cpu_seconds
        status, seconds = _ENDED.unpack(os.read(self._status, _ENDED.size))
        cpu_seconds += seconds
        os.close(self._status)
        return self.pid, status

    def _internal_poll(self, *_, **__):
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def start(arguments: list, **options: Any) -> Command:
    """Start ``[sys.executable, ("-m", module | "-c", code | script), *arguments]``.

    Args:
        arguments: As above.
        **options: Of ``subprocess.Popen``: streams, ``cwd``, ``env``, ``text``,
            ``start_new_session``.

    Raises:
        ValueError: For what an interpreter would have to be started for.
    """
    return Command(arguments, **options)


def run(
    arguments: list, *, capture_output: bool = False, timeout: float = 600, check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess:  # fmt: skip
    """Run such a command to its end; as ``subprocess.run``."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(arguments, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


class _Server:
    """The process that imports, and forks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, Path(__file__).parent, str(other.fileno())],
                pass_fds=[other.fileno()], env=_ENVIRONMENT | {"PYTHONPATH": _GIVEN},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        atexit.register(self._end)

    def _end(self) -> None:
        self._socket.close()
        self._process.wait()

    def fork(self, request: dict, streams: list[int]) -> int:
        """Fork a process; return a pipe of its pid, and then of its exit status and CPU time."""
        _refuse_other(request["environment"])
        reading, writing = os.pipe()
        with self._lock:
            message = json.dumps(request).encode("utf-8", "surrogateescape")
            socket.send_fds(self._socket, [message], [*streams, writing])
        os.close(writing)
        return reading


def _environment(env) -> dict[str, str]:
    """Return a command's environment, without the service of W&B that a test has begun here."""
    given = dict(os.environ if env is None else env)
    given.pop("WANDB_SERVICE", None)
    return given | _ONE_THREAD


def _refuse_other(environment: dict[str, str]) -> None:
    for name in environment.keys() | _ENVIRONMENT.keys():
        values = environment.get(name), _ENVIRONMENT.get(name)
        if name.startswith(READ_AT_START) and name != "PYTHONPATH" and values[0] != values[1]:
            raise ValueError(
                f"{name}={values[0]}: expected {values[1]}, as a forked process has it; start this "
                "command with subprocess"
            )


@functools.cache
def _server() -> _Server:
    return _Server()


def serve(argv: list[str]) -> None:
    """Import, then fork a process for each request until the other end is closed."""
    # Without this folder and the current one.
    path = sys.path[2:]
    for name in PRELOADED:
        importlib.import_module(name)
        loaded_with[name] = {*sys.modules}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    requests, running = socket.socket(fileno=int(argv[2])), {}
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor != requests.fileno():
                poll.unregister(descriptor)
                _report(descriptor, *running.pop(descriptor))
                continue
            message, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 4)
            if not message:
                return
            pid = os.fork()
            if pid == 0:
                # Closed by its number below: another file of the command may get that number.
                requests.detach()
                _become(json.loads(message.decode("utf-8", "surrogateescape")), descriptors, path)
                return
            *streams, status = descriptors
            for stream in streams:
                os.close(stream)
            os.write(status, _STARTED.pack(pid))
            process = os.pidfd_open(pid)
            running[process] = pid, status
            poll.register(process, select.POLLIN)


def _report(process: int, pid: int, status: int) -> None:
    os.close(process)
    _, code, usage = os.wait4(pid, 0)
    # Whoever started it may not wait for it.
    with contextlib.suppress(BrokenPipeError):
        os.write(status, _ENDED.pack(code, usage.ru_utime + usage.ru_stime))
    os.close(status)


def _become(request: dict, descriptors: list[int], path: list[str]) -> None:
    """Run the request; what it raises goes to the interpreter, which ends as for any program."""
    if request["new_session"]:
        os.setsid()
    for standard, given in enumerate(descriptors[:3]):
        os.dup2(given, standard)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.modules["numpy"].random.seed()
    parts = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    given = [str(Path(part).absolute()) for part in parts]
    place = path.index(_GIVEN)
    sys.path[:] = [*path[:place], *given, *path[place + 1 :]]
    program, *sys.argv = request["argv"]
    if program == "-m":
        sys.path.insert(0, request["cwd"])
        # The program is another module than the one that others have imported.
        sys.modules.pop(sys.argv[0], None)
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif program == "-c":
        sys.path.insert(0, "")
        code, sys.argv[0] = sys.argv[0], "-c"
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)
    else:
        sys.path.insert(0, str(Path(program).parent))
        sys.argv.insert(0, program)
        runpy.run_path(program, run_name="__main__")
