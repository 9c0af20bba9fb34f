"""Worker processes: how many a machine has room for, what runs in them, and how they end."""

from __future__ import annotations

import abc
import contextlib
import importlib
import logging
import types
import warnings
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

import joblib
import torch
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend import reduction
from joblib.externals.loky.process_executor import BrokenProcessPool

from fsasd.runtime.clusters import start_ray
from fsasd.runtime.launchers import parallel_launcher
from fsasd.runtime.supervision import Supervisor, supervised

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

CORES, TASKS = 4, 8
"""Cores and tasks for each worker, at least, where nobody says how many there are to be: one takes
as long to start as it takes to detect several sections (``benchmarks.sections``)."""


class WorkerKilledError(RuntimeError):
    """A worker process was killed, which costs the task that it had."""


class Pool(contextlib.AbstractContextManager["Pool"]):
    """Worker processes, started when the first tasks are given to them.

    They end with the block. Where it ends with an error, as when the command is interrupted, they
    are killed at once.

    Args:
        workers: How many there are at once.
        shared: Pickled, what all tasks need; each worker gets it once.
        host: Address of this machine, as the workers know it.
    """

    backend: str
    """Name of joblib's backend."""

    return_as = "generator_unordered"
    """Of ``joblib.Parallel``: results as they come."""

    killed: tuple[type[Exception], ...]
    """What the backend raises where a worker is gone."""

    suspects: int | None = None
    """How many of the tasks that were cut may have cost a worker, the first that ended before the
    others: all of them where the backend ends all workers with it."""

    def __init__(self, workers: int, shared: bytes, host: str = "127.0.0.1") -> None:
        self.workers = workers
        self.cores = max(joblib.cpu_count() // workers, 1)
        self._supervisor = Supervisor(host, self.cores, shared)

    def run(
        self, work: Callable[[Any, T], R], tasks: Mapping[str, T]
    ) -> Generator[tuple[str, R], None, None]:
        """Yield the name of each task and its result, in the order in which they are done.

        A task whose worker is killed is repeated alone, as the other workers may have taken the
        memory that it needs.

        Args:
            work: (what is shared, task) -> result: a function of a module that raises nothing.
            tasks: By name.

        Yields:
            The name, and the result, or a ``WorkerKilledError`` where the worker is killed again.
        """
        left = dict(tasks)
        while left:
            try:
                # joblib takes the tasks of a copy, while others are done already.
                for name, result in self._parallel(work, dict(left)):
                    del left[name]
                    yield name, result
            except self.killed as error:
                log.debug("workers: %s", error)
                cut = [name for name in self._supervisor.unfinished() if name in left]
                # One that was killed before it had begun anything leaves the first in question.
                names = cut[: self.suspects] or [*left][:1]
                suspects = {name: left.pop(name) for name in sorted(names)}
                log.error(
                    "a worker process was killed, as happens where memory is short; built again, "
                    "one at a time: %s", ", ".join(suspects),
                )  # fmt: skip
                yield from self._alone(work, suspects)

    def _alone(
        self, work: Callable[[Any, T], R], suspects: Mapping[str, T]
    ) -> Generator[tuple[str, Any], None, None]:
        for name, task in suspects.items():
            try:
                yield from self._parallel(work, {name: task})
            except self.killed as error:
                reason = " ".join(str(error).partition("\n\n")[2].split()) or type(error).__name__
                killed = WorkerKilledError(
                    "the process that built it was killed, alone as well, as happens where memory "
                    f"is short ({reason}). Give the command more memory, or find what killed it"
                )
                yield name, killed

    def _parallel(
        self, work: Callable[[Any, T], R], tasks: Mapping[str, T]
    ) -> Generator[tuple[str, R], None, None]:
        with joblib.parallel_config(self.backend, n_jobs=self.workers, **self._options()):
            parallel = joblib.Parallel(return_as=self.return_as, batch_size=1)
        start = self._supervisor.start
        calls = (
            joblib.delayed(supervised)(start, name, reduction.dumps((work, task)))
            for name, task in tasks.items()
        )
        results = parallel(calls)
        try:
            yield from results
        finally:
            if isinstance(results, Generator):
                results.close()

    def _options(self) -> dict[str, Any]:
        return {}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: types.TracebackType | None,
    ) -> None:
        self._end(kill=error is not None)
        self._supervisor.close()

    def _end(self, kill: bool) -> None:
        """End the workers, or kill them."""


class _Loky(Pool):
    backend, killed = "loky", (BrokenProcessPool,)

    def __init__(self, workers: int, shared: bytes) -> None:
        # A worker that has grown by 300 MB, as caches do, is replaced, and that is no news.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        super().__init__(workers, shared)

    def _parallel(
        self, work: Callable[[Any, T], R], tasks: Mapping[str, T]
    ) -> Generator[tuple[str, R], None, None]:
        try:
            yield from super()._parallel(work, tasks)
        except self.killed:
            # The executor is broken.
            self._end(kill=True)
            raise

    def _options(self) -> dict[str, Any]:
        return {"inner_max_num_threads": self._supervisor.start.threads}

    def _end(self, kill: bool) -> None:
        get_reusable_executor(max_workers=1, reuse=False, kill_workers=kill).shutdown()


class _Ray(Pool):
    # Its backend has all results when the last one is there.
    backend, return_as = "ray", "list"
    # The others are ended only after the one that was killed.
    suspects = 1

    def __init__(self, workers: int, shared: bytes, address: str | None) -> None:
        ray = _ray()
        self._cluster: Any = None
        if not ray.is_initialized() and address is not None:
            start_ray(address=address, log_to_driver=False)
        elif not ray.is_initialized():
            start_ray(address="local", num_cpus=workers, log_to_driver=False)
            self._cluster = ray
        importlib.import_module("ray.util.joblib").register_ray()
        errors = ray.exceptions
        self.killed = (
            errors.RayActorError,
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.NodeDiedError,
        )
        super().__init__(workers, shared, ray.util.get_node_ip_address())

    def _end(self, kill: bool) -> None:
        if self._cluster is not None:
            self._cluster.shutdown()


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ImportError(
            f"runner=ray needs the package ray ({error}): pip install 'fsasd[ray]'"
        ) from error


class Workers(abc.ABC):
    """Where the sections of a run are built: in this process, or in several."""

    @abc.abstractmethod
    def pool(self, tasks: int, shared: Callable[[], bytes]) -> Pool | None:
        """Return processes for tasks; ``None`` where they are done here, one after the other.

        Args:
            tasks: How many there are at most.
            shared: Returns, pickled, what all of them need.
        """


class Serial(Workers):
    """Builds sections one after the other, in the process of the command.

    >>> Serial().pool(14, bytes) is None
    True
    """

    def pool(self, tasks: int, shared: Callable[[], bytes]) -> Pool | None:
        """Return ``None``."""
        return None


class Joblib(Workers):
    """Builds sections in processes of this machine, by joblib's backend ``loky``.

    Args:
        workers: How many at once, each with its share of the cores; by default one for each four
            cores that the command may use and eight sections, and one where there is a GPU.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers

    def pool(self, tasks: int, shared: Callable[[], bytes]) -> Pool | None:
        """Return processes, if there is more than one task and worker."""
        workers = _number(self.workers, tasks)
        return _Loky(workers, shared()) if workers > 1 else None


class Ray(Workers):
    """Builds sections in processes of a Ray cluster, by Ray's backend for joblib.

    The store must be at the same path on all its machines.

    Args:
        workers: How many at once; each takes one of the cluster's CPUs.
        address: Of the cluster; by default one is started on this machine, and ended with the
            workers.
    """

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        self.workers = workers
        self.address = address

    def pool(self, tasks: int, shared: Callable[[], bytes]) -> Pool | None:
        """Return processes, if there is more than one task and worker."""
        workers = _number(self.workers, tasks)
        return _Ray(workers, shared(), self.address) if workers > 1 else None


def _number(workers: int | None, tasks: int) -> int:
    """Return how many workers do tasks.

    A job of a sweep has one whose launcher runs others beside it on this machine.
    """
    number = min(default_workers(tasks) if workers is None else workers, tasks)
    if number > 1 and (launcher := parallel_launcher()):
        log.info(
            "sections are built one after the other, since hydra/launcher=%s runs other jobs "
            "beside this one", launcher,
        )  # fmt: skip
        return 1
    return number


def default_workers(tasks: int) -> int:
    """Return how many workers tasks are worth; one where they would share a GPU."""
    if torch.cuda.is_available():
        return 1
    return max(min(joblib.cpu_count(only_physical_cores=True) // CORES, tasks // TASKS), 1)
