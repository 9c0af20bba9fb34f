"""What memory a process of a run keeps."""

import platform
import subprocess
import sys

import pytest

# In a process of its own: what it does to the C library is not undone.
_FAULTS = """
import resource
import torch
from fsasd.processes import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not GNU's")
def test_memory_that_is_freed_is_not_asked_for_again(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    given, kept = map(int, subprocess.check_output([sys.executable, "-c", _FAULTS]).split())
    # Three times 40 MB in pages of 4 kB.
    assert given > 20_000
    assert kept < 100
