"""Log-mel features: milliseconds per ten-second clip, and memory against the number of clips."""

from __future__ import annotations

import resource
import statistics
import tempfile
from pathlib import Path

from benchmarks.recordings import write_recordings
from benchmarks.timing import seconds
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip
from fsasd.data.recording import read


def main() -> None:
    """Print both."""
    front_end = LogMel.twfr()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = [Clip(path, "fan") for path in write_recordings(folder / "wav", 200)]
        waveforms = [read(clip.path) for clip in clips[:50]]
        front_end(waveforms[0])
        mel = statistics.median(seconds(front_end, w) for w in waveforms)
        wav = statistics.median(seconds(read, clip.path) for clip in clips)
        print(f"read {1e3 * wav:.2f} ms, log-mel {1e3 * mel:.2f} ms per ten-second clip")
        cached = Clips(clips, FeatureCache(folder / "features"))
        _pass(cached[:20], front_end)
        before = _peak_megabytes()
        _pass(cached, front_end)
        print(f"peak memory: {before:.0f} MB after 20 clips, {_peak_megabytes():.0f} MB after 200")


def _pass(clips: Clips, front_end: LogMel) -> None:
    for features in clips.features(front_end):
        assert features.shape == (128, 313)


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
