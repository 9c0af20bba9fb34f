"""Which launcher runs the jobs of this sweep, and whether it runs several of them at once."""

from __future__ import annotations

_parallel = ""


def begin_job(parallel: str) -> None:
    """Note what runs the job that begins in this process; a worker may run several, one by one.

    Args:
        parallel: Name of a launcher that runs several jobs at once on this machine; empty for a run
            that is no job of a sweep, or whose launcher leaves it a machine, or its share, alone.
    """
    global _parallel
    _parallel = parallel


def parallel_launcher() -> str:
    """Return the launcher that runs other jobs beside this one on this machine; empty if none does.

    A job that shares its machine starts no workers of its own: the launcher keeps all cores busy.

    >>> begin_job("joblib"), parallel_launcher()
    (None, 'joblib')
    >>> begin_job(""), parallel_launcher()
    (None, '')
    """
    return _parallel
