"""``Presence``: which commands are at work in a run's folder, and which of them is the last."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from types import TracebackType

from fsasd.runtime.ranks import rank

LOCK = ".commands"
"""Name of the file in a run's folder that commands at work in it have locked."""


class Presence:
    """A command's presence in a run's folder, where equal commands may share one.

    The first of them writes into it as sections are done, and the last one, once it has built or
    found everything, what is of all sections. Each holds a shared lock, which the system takes
    back from a process that is killed. A folder without locks is taken for the command's own.

    Of several ranks of one command, the first is there for all.

    Args:
        folder: The run's folder; it is made where it is not there.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with Presence(folder) as one:
    ...     with Presence(folder) as other:
    ...         print(one.first, other.first, other.is_last())
    ...     print(one.is_last())
    True False False
    True
    """

    first = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: int | None = None

    def __enter__(self) -> Presence:
        if rank() > 0:
            self.first = False
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(ImportError):
            import fcntl

            self._file = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o664)
            self.first = self._lock(fcntl.LOCK_EX)
            # One that is about to write its tables holds it alone; after it this may be the first.
            while not self._lock(fcntl.LOCK_SH):
                time.sleep(0.2)
                self.first = self._lock(fcntl.LOCK_EX)
        return self

    def is_last(self) -> bool:
        """Return whether no other command is at work in the folder; from now on this one is not."""
        if self._file is None:
            return True
        import fcntl

        self._lock(fcntl.LOCK_UN)
        return self._lock(fcntl.LOCK_EX)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lock(self, how: int) -> bool:
        """Return whether the lock is taken so; true where the file system has none."""
        import fcntl

        assert self._file is not None
        try:
            fcntl.flock(self._file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True
