"""Disks without file locks are refused, and leave no lock that nobody holds."""

import errno
import fcntl
import os

import pytest
from filelock import Timeout

from fsasd.store.key import Description
from fsasd.store.locks import file_lock
from fsasd.store.provenance import StoreError
from fsasd.store.store import Store

CODES = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP]


def disk_without_locks(monkeypatch, code):
    def flock(fd, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("code", CODES)
def test_a_store_on_a_disk_without_locks_is_refused_before_anything_is_built(
    tmp_path, monkeypatch, code
):
    disk_without_locks(monkeypatch, code)
    built = []
    store, wanted = Store(tmp_path), Description("compute", 1, {})
    with pytest.raises(StoreError, match=r"has no file locks .*store=FOLDER") as refused:
        store.build(wanted, built.append)
    assert not built
    assert "\n" not in str(refused.value)
    assert str(store.path(wanted).parent) in str(refused.value)
    monkeypatch.undo()
    # What stands for a lock would block the next job where there are locks.
    store.build(wanted, lambda folder: built.append(folder))
    assert len(built) == 1


def test_other_errors_are_left_as_they_are(tmp_path, monkeypatch):
    disk_without_locks(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error") as raised:
        file_lock(tmp_path / "a.lock").acquire()
    assert raised.value.errno == errno.EIO
    assert not isinstance(raised.value, StoreError)


def test_who_does_not_wait_learns_that_it_is_held(tmp_path):
    with file_lock(tmp_path / "a.lock"), pytest.raises(Timeout):
        file_lock(tmp_path / "a.lock", timeout=0).acquire()
