"""Locks of files, by which processes know what another one builds."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from fsasd.store.provenance import StoreError

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What disks without locks answer: NFS without its lock daemon, Lustre without ``flock`` ..."""


def file_lock(path: str | Path, **options: Any) -> FileLock:
    """Return the lock of a file, which the system releases when its process ends, however it ends.

    Args:
        path: The file; created when it is locked.
        options: Of ``filelock.FileLock``: ``timeout``, ``mode``.

    >>> import tempfile
    >>> with file_lock(Path(tempfile.mkdtemp()) / "a.lock") as held:
    ...     held.is_locked
    True
    """
    # A file that stands for a lock would outlive a process that is killed.
    return _Lock(path, fallback_to_soft=False, **options)


def require_locks(folder: Path) -> None:
    """Check that the disk of a folder has locks; the folder is made if there is none.

    Args:
        folder: Where it cannot be written, nothing is known, and nothing said.

    Raises:
        StoreError: It has none.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(tempfile.NamedTemporaryFile(dir=folder))
        except OSError:
            return
        stack.enter_context(file_lock(file.name))


class _Lock(FileLock):
    def acquire(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().acquire(*args, **kwargs)
        except (OSError, NotImplementedError) as error:
            number = getattr(error, "errno", None)
            if number not in _NO_LOCKS and not isinstance(error, NotImplementedError):
                raise
            raise StoreError(
                f"{Path(self.lock_file).parent}: its disk has no file locks ({error}), without "
                "which two jobs may build one artifact at once. Expected a folder on another disk "
                "(store=FOLDER, or FSASD_STORE), or a mount with locks (NFS: with lockd and "
                "without nolock; Lustre: with flock)"
            ) from error
