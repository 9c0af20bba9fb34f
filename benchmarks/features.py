"""Log-mel features: time per ten-second clip, torchaudio's beside it, and memory against clips."""

from __future__ import annotations

import resource
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
import torchaudio

from benchmarks.recordings import write_recordings
from benchmarks.timing import seconds
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE, read


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
        for of, own in (("TWFR-GMM", front_end), ("AudioLDM", LogMel.audioldm())):
            print(
                f"{of}'s log-mel against torchaudio's on one core: {_ratio(own, waveforms):.2f} x"
            )
        cached = Clips(clips, FeatureCache(folder / "features"))
        _pass(cached[:20], front_end)
        before = _peak_megabytes()
        _pass(cached, front_end)
        print(f"peak memory: {before:.0f} MB after 20 clips, {_peak_megabytes():.0f} MB after 200")


def _pass(clips: Clips, front_end: LogMel) -> None:
    for features in clips.features(front_end):
        assert features.shape == (128, 313)


def _ratio(front_end: LogMel, waveforms: list[np.ndarray]) -> float:
    """Return the time of a log-mel in that of torchaudio's, one after the other on each clip."""
    mel = torchaudio.transforms.MelSpectrogram(
        SAMPLE_RATE,
        n_fft=front_end.n_fft,
        hop_length=front_end.hop,
        n_mels=front_end.n_mels,
        power=front_end.power,
        norm=front_end.norm,
        mel_scale=front_end.scale,
    )

    def theirs(waveform: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            return mel(torch.from_numpy(waveform)).clamp(min=front_end.floor).log10()

    torch.set_num_threads(1)
    front_end(waveforms[0]), theirs(waveforms[0])
    pairs = [(seconds(front_end, w), seconds(theirs, w)) for w in waveforms]
    return statistics.median(own / other for own, other in pairs)


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
