"""Recordings on the report page: real normal, synthetic normal and synthetic anomalous clips."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import soundfile
from matplotlib.image import imsave

from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE, read
from fsasd.generation.prompts import first_candidate

KINDS = {
    "real": "Real, normal (training)",
    "normal": "Synthetic, normal",
    "anomaly": "Synthetic, anomaly",
}
MAX_SECONDS = 5.0
MIN_SECONDS = 3.0
BUDGET = 5_500_000
"""Bytes of all recordings of a page; figures and the rest take about 0.1 MB each."""

_BYTES_PER_SECOND = SAMPLE_RATE * 2 * 4 / 3
_PEAK = 0.9
_FRONT_END = LogMel(n_mels=64)
_RANGE_DB = 60.0


@dataclass(frozen=True)
class Scene:
    """The recordings of one caption; one that does not exist is ``None``.

    Attributes:
        caption: Of the normal clips.
        domain: Of the real clip with that caption.
        real: A real normal training clip.
        normal: A synthetic normal clip.
        anomaly: The synthetic anomalous clip of the same prompt number.
        anomaly_caption: Caption of that, where it is more than "anomaly" for "normal".
    """

    caption: str
    domain: str | None
    real: Path | None = None
    normal: Path | None = None
    anomaly: Path | None = None
    anomaly_caption: str = ""

    @property
    def recordings(self) -> dict[str, Path]:
        """The recordings that exist, by kind."""
        return {kind: path for kind in KINDS if (path := getattr(self, kind))}


@dataclass(frozen=True)
class Player:
    """One recording on the page: audio and spectrogram as data URIs, length in seconds."""

    kind: str
    title: str
    audio: str
    picture: str
    seconds: float
    share: float


@dataclass(frozen=True)
class Row:
    """The players of one scene, by kind; without those of recordings that do not exist."""

    caption: str
    domain: str | None
    players: dict[str, Player]
    anomaly_caption: str = ""


def scenes(
    manifest: pd.DataFrame, folder: Path, real: Sequence[tuple[Clip, str]], count: int
) -> list[Scene]:
    """Choose scenes that are complete, of different captions and of both domains.

    Args:
        manifest: Rows of ``synthetic/manifest.csv`` of one machine, or empty.
        folder: Of its recordings.
        real: Normal training clips of the machine with their captions.
        count: Number of scenes at most.
    """
    left = list(_synthesised(manifest, folder, real)) or [
        Scene(caption, clip.domain, clip.path) for clip, caption in real
    ]
    chosen: list[Scene] = []
    while left and len(chosen) < count:
        captions = {scene.caption for scene in chosen}
        domains = Counter(scene.domain for scene in chosen)

        def worth(
            scene: Scene, captions: set[str] = captions, domains: Counter = domains
        ) -> tuple[int, bool, int]:
            return len(scene.recordings), scene.caption not in captions, -domains[scene.domain]

        best = max(left, key=worth)
        left.remove(best)
        chosen.append(best)
    return chosen


def affordable(machines: int) -> tuple[int, float]:
    """Return the number of scenes per machine, and the seconds of each, that a page can hold.

    >>> affordable(2), affordable(7)
    ((3, 5.0), (2, 3.1))
    """
    for count in (3, 2, 1):
        seconds = BUDGET / (max(machines, 1) * count * len(KINDS) * _BYTES_PER_SECOND)
        if seconds >= MIN_SECONDS or count == 1:
            break
    return count, round(min(MAX_SECONDS, max(seconds, 0.5)), 1)


def players(chosen: Sequence[Scene], seconds: float, channel: int | str | None = None) -> list[Row]:
    """Read and draw the recordings of one machine.

    All of them share one gain, so that loudness can be compared and the loudest is near full
    scale, and one scale of colours.

    Args:
        chosen: The scenes.
        seconds: Of each recording, at most.
        channel: Channel of real recordings (see ``recording.read``).

    Raises:
        AudioError: A recording is not readable.
    """
    waveforms = {
        path: read(path, channel=channel if kind == "real" else None)[
            : round(seconds * SAMPLE_RATE)
        ]
        for scene in chosen
        for kind, path in scene.recordings.items()
    }
    peak = max((float(np.abs(waveform).max()) for waveform in waveforms.values()), default=0.0)
    gain = _PEAK / peak if peak else 1.0
    log_mels = {path: _FRONT_END(gain * waveform) for path, waveform in waveforms.items()}
    loudest = max((float(log_mel.max()) for log_mel in log_mels.values()), default=0.0)
    longest = max((len(waveform) for waveform in waveforms.values()), default=1)
    return [
        Row(
            scene.caption,
            scene.domain,
            {
                kind: Player(
                    kind,
                    KINDS[kind],
                    audio=wav(gain * waveforms[path]),
                    picture=_png(log_mels[path], loudest),
                    seconds=len(waveforms[path]) / SAMPLE_RATE,
                    share=len(waveforms[path]) / longest,
                )
                for kind, path in scene.recordings.items()
            },
            scene.anomaly_caption,
        )
        for scene in chosen
    ]


def rejected(manifest: pd.DataFrame) -> list[tuple[str, str, int]]:
    """Count the synthetic clips that were rejected: label, reason, number."""
    if manifest.empty:
        return []
    dropped = manifest[~_kept(manifest)]
    reasons = dropped["reason"].fillna("no reason given")
    counts = Counter(zip(dropped["label"], reasons, strict=True))
    return [(label, reason, count) for (label, reason), count in sorted(counts.items())]


def _synthesised(
    manifest: pd.DataFrame, folder: Path, real: Sequence[tuple[Clip, str]]
) -> Iterator[Scene]:
    if manifest.empty:
        return
    examples: dict[str, Path] = {}
    for clip, caption in real:
        examples.setdefault(caption, clip.path)
    # anomaly_0007.wav has its caption, but for what makes it one, from normal_0007.wav.
    prompts = manifest["wav"].map(first_candidate)
    twins = prompts.map(lambda wav: re.sub(r"(normal|anomaly)(?=_\d+\.wav$)", "", wav))
    for _, both in manifest.groupby(twins, sort=False):
        kept = both[_kept(both)]
        paths = {str(row.label): folder / str(row.wav) for row in kept.itertuples()}
        existing = {label: path for label, path in paths.items() if path.is_file()}
        normal = both[both["label"] == "normal"]
        first = (normal if len(normal) else both).iloc[0]
        domain = None if pd.isna(first["domain"]) else str(first["domain"])
        yield Scene(
            first["caption"],
            domain,
            examples.get(first["caption"]),
            **existing,
            anomaly_caption=_other_caption(
                first["caption"], kept[kept["label"] == "anomaly"]["caption"]
            ),
        )


def _other_caption(normal: str, anomalous: pd.Series) -> str:
    text = anomalous.iloc[0] if len(anomalous) else ""
    return "" if text == normal.replace("normal", "anomaly", 1) else text


def _kept(manifest: pd.DataFrame) -> pd.Series:
    return manifest["kept"].astype(str) == "True"


def wav(waveform: np.ndarray) -> str:
    """Return a waveform at 16 kHz as the data URI of a wav file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform.clip(-1, 1), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return _uri("audio/wav", buffer)


def _png(log_mel: np.ndarray, loudest: float) -> str:
    shade = ((log_mel - loudest) / _RANGE_DB + 1).clip(0, 1)
    colours = matplotlib.colormaps["magma"](shade)[..., :3]
    buffer = io.BytesIO()
    imsave(buffer, colours, format="png", origin="lower")
    return _uri("image/png", buffer)


def _uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
