import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsasd.data.clips import Clips
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip
from fsasd.detectors.base import TooFewClipsError
from fsasd.detectors.networks.windows import Windows, windows


@given(st.integers(1, 9), st.integers(1, 6))
def test_windows_are_stretches_of_a_repeated_spectrogram(n, frames):
    spectrogram = np.arange(2 * n, dtype=np.float32).reshape(2, n)
    found = windows(spectrogram, frames)
    long = np.tile(spectrogram, -(-frames // n))
    assert found.shape == (long.shape[1] - frames + 1, frames, 2)
    for i, window in enumerate(found.numpy()):
        np.testing.assert_array_equal(window, long[:, i : i + frames].T)


# In a process of its own, whose peak is no other test's.
_PEAK = """
import re
from pathlib import Path
import numpy as np
from fsasd.detectors.networks.windows import Windows

class Made:
    def __len__(self):
        return 50

    def features(self, front_end):
        return (np.ones((100, 10_000), np.float32) for _ in range(50))

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before = peak()
examples = Windows(Made(), None, 5)
print(peak() - before, len(examples))
"""


@pytest.fixture(params=[(0.5, 0.1, 0.3), (0.1, 0.1, 0.9, 0.01, 0.4)])
def clips(request, make_wav):
    return Clips(
        [Clip(make_wav(f"{i}.wav", seconds=s), "fan") for i, s in enumerate(request.param)]
    )


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.skipif(platform.system() != "Linux", reason="other systems have no /proc")
def test_frames_are_in_memory_once(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    used, count = map(int, subprocess.check_output([sys.executable, "-c", _PEAK]).split())
    # 50 times 4 MB.
    assert used < 260e6
    assert count == 50 * 9996


def test_examples_are_the_windows_of_all_clips(clips):
    front_end = LogMel.twfr()
    examples = Windows(clips, front_end, frames=5)
    expected = torch.cat([windows(x, 5) for x in clips.features(front_end)])
    assert len(examples) == len(expected)
    torch.testing.assert_close(examples.__getitems__(range(len(examples))), expected)
    order = [7, 0, len(examples) - 1]
    torch.testing.assert_close(examples.__getitems__(order), expected[order])
    torch.testing.assert_close(examples[3], expected[3])


def test_no_clips_have_no_windows(clips):
    with pytest.raises(TooFewClipsError, match="expected at least 1 clip, found 0"):
        Windows(clips[:0], LogMel.twfr(), frames=5)
