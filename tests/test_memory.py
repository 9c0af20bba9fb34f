"""Memory that a process keeps after it was freed."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# In another process: the configuration of the C library is not undone.
_FAULTS = """
import resource
import torch
from fsasd.runtime.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
keep_freed_memory()
# A block that lies between others that are used is too small for its like: some more are needed.
for _ in range(5):
    faults()
print(faults())
"""


_RESIDENT = """
import os
import torch
from fsasd.runtime.memory import return_freed_memory, keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

keep_freed_memory()
some = [torch.ones(1_000_000) for _ in range(50)]
# What lies on top is still in use.
last = some.pop()
del some
before = resident()
return_freed_memory()
print(before - resident())
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not GNU's")


@glibc
def test_freed_memory_is_kept_for_the_next_step(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    given, kept = map(int, subprocess.check_output([sys.executable, "-c", _FAULTS]).split())
    # Three times 40 MB in pages of 4 kB.
    assert given > 20_000
    assert kept < 100


@glibc
def test_kept_memory_is_returned_after_a_training(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    # 49 times 4 MB.
    assert int(subprocess.check_output([sys.executable, "-c", _RESIDENT])) > 180e6


_LOG_MELS = """
import resource
import numpy as np
from fsasd.data.log_mel import LogMel
from fsasd.runtime.threads import thread_pool

clip = np.zeros(160_000, np.float32)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        LogMel.twfr()(clip)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
with thread_pool("readers"):
    faults()
print(faults())
"""

_ALL = """
import ctypes
import types
from fsasd.runtime import malloc

calls = []
malloc._library = lambda: types.SimpleNamespace(mallopt=lambda *setting: calls.append(setting))
malloc.keep_all_blocks()
malloc.keep_small_blocks()
print(calls[-1][1])
"""


@glibc
def test_threads_that_read_keep_small_blocks():
    given, kept = map(int, subprocess.check_output([sys.executable, "-c", _LOG_MELS]).split())
    # Each log-mel has a megabyte of frames, one of spectra and one of their squares.
    assert given > 5_000
    assert kept < given / 10


def test_to_keep_small_blocks_does_not_undo_that_all_are_kept():
    assert int(subprocess.check_output([sys.executable, "-c", _ALL])) == 2**31 - 1
