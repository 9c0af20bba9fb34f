"""The picture of an explanation: the spectrogram, and what its bands and moments contribute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fsasd.data.log_mel import LogMel, mel_corners
from fsasd.data.recording import AudioError, read
from fsasd.deployment.explanation.explanation import Explanation
from fsasd.deployment.results import Result, p_in_words

MORE, LESS, MUTED = "#96307a", "#0b69b0", "#666e76"
_RANGE_DB = 60.0
_TICKS = (125, 250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000)


def draw(
    explanation: Explanation,
    result: Result,
    recording: Path,
    channel: int | str | None = None,
    nearest: Path | None = None,
    *,
    heading: bool = True,
) -> Figure:
    """Draw an explanation.

    Args:
        explanation: Of the recording's score.
        result: The score.
        recording: Its file.
        channel: Which of several the model takes.
        nearest: File of the nearest training clip, drawn beside it, if it is at hand.
        heading: Begin with the recording's name and score.

    Returns:
        A figure to be saved.
    """
    figure = Figure(figsize=(9.5, 5.4 if heading else 4.4), layout="constrained")
    if heading:
        _heading(figure, explanation, result)
    grid = figure.add_gridspec(2, 2 if nearest is None else 3, height_ratios=(4, 1.3),
                               width_ratios=(4, 1) if nearest is None else (3, 1, 3))  # fmt: skip
    axis = figure.add_subplot(grid[0, 0])
    top = float(explanation.hertz.max())
    levels = _spectrogram(axis, recording, channel, top, "this recording")
    bands = figure.add_subplot(grid[0, 1])
    _bands(bands, explanation, top)
    moments = figure.add_subplot(grid[1, 0], sharex=axis)
    _moments(moments, explanation)
    axis.tick_params(labelbottom=False)
    if nearest is not None:
        other = figure.add_subplot(grid[0, 2])
        try:
            _spectrogram(other, nearest, channel, top, "the nearest normal training clip", levels)
        except (AudioError, OSError):
            other.set_axis_off()
        other.tick_params(labelleft=False)
        other.set_ylabel("")
        other.set_xlabel(_shortened(nearest.name, 60), fontsize=8, color=MUTED, parse_math=False)
    return figure


def _heading(figure: Figure, explanation: Explanation, result: Result) -> None:
    kind = "anomalous" if result.decision else "normal"
    title = f"{_shortened(Path(result.file).name, 90)}: {kind}\n"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, parse_math=False)
    figure.text(
        0.01, 0.925, f"{result.model}, score {result.score:.4g}, threshold {result.threshold:.4g}, "
        f"{p_in_words(result.p_value)}. {in_words(explanation)}",
        fontsize=9, color=MUTED, parse_math=False,
    )  # fmt: skip


def in_words(explanation: Explanation) -> str:
    """Return which band and moment contribute most."""
    low, high = explanation.strongest_band()
    start, end = explanation.strongest_moment()
    when = "the whole time" if explanation.is_steady else f"{start:.2f} to {end:.2f} s"
    return f"Largest share: {low:.0f} to {high:.0f} Hz, {when}."


def _shortened(name: str, length: int) -> str:
    """Leave out the middle of a long name."""
    half = (length - 1) // 2
    return name if len(name) <= length else f"{name[:half]}…{name[-half:]}"


def _spectrogram(
    axis: Axes,
    path: Path,
    channel: int | str | None,
    top: float,
    title: str,
    levels: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """Draw a log-mel spectrogram; return its lowest and highest level, to draw another alike."""
    rate = 16_000 if top <= 8_000 else round(2 * top)
    waveform = np.atleast_2d(read(path, channel=channel, sampling_rate=rate))[0]
    front_end = LogMel.twfr(max_seconds=None, sampling_rate=rate)
    log_mel = front_end(waveform)
    lowest, highest = levels or (float(log_mel.max()) - _RANGE_DB, float(log_mel.max()))
    # Bands are even in mels: edges half way between centres.
    corners = mel_corners(front_end).astype(float)
    edges = _mel((corners[:-1] + corners[1:]) / 2)
    times = (np.arange(log_mel.shape[1] + 1) - 0.5) * front_end.hop / rate
    axis.pcolormesh(times, edges, log_mel, vmin=lowest, vmax=highest, cmap="magma", rasterized=True)
    axis.set_xlim(0, len(waveform) / rate)
    _hertz_axis(axis, top)
    axis.set_title(title, loc="left", fontsize=9, color=MUTED, parse_math=False)
    return lowest, highest


def _bands(axis: Axes, explanation: Explanation, top: float) -> None:
    edges = _mel(explanation.hertz)
    gap = 0.05 * np.diff(edges, axis=1)
    _bars(axis, edges + gap * [1, -1], explanation.bands, horizontal=True)
    axis.axvline(0, color=MUTED, linewidth=0.8)
    _hertz_axis(axis, top)
    axis.set_ylabel("")
    axis.tick_params(labelleft=False)
    axis.set_title("share of each band", loc="left", fontsize=9, color=MUTED)
    # More labels than these touch each other.
    axis.xaxis.set_major_locator(MaxNLocator(3))
    _plain(axis)


def _moments(axis: Axes, explanation: Explanation) -> None:
    _bars(axis, explanation.seconds, explanation.moments)
    axis.axhline(0, color=MUTED, linewidth=0.8)
    axis.set_xlabel("seconds")
    axis.set_title("share of each moment", loc="left", fontsize=9, color=MUTED)
    _plain(axis)


def _bars(
    axis: Axes, spans: NDArray[Any], values: NDArray[Any], *, horizontal: bool = False
) -> None:
    """Draw bars from 0 as one artist: ``Axes.bar`` lays out and draws each on its own."""
    (start, end), zero = spans.T, np.zeros(len(values))
    along = np.stack([start, end, end, start], axis=1)
    across = np.stack([zero, zero, values, values], axis=1)
    corners = np.stack([across, along] if horizontal else [along, across], axis=2)
    colours = np.where(values >= 0, MORE, LESS)
    bars = PolyCollection(list(corners), facecolors=colours)
    sticky = bars.sticky_edges.x if horizontal else bars.sticky_edges.y
    sticky.append(0)
    axis.add_collection(bars)
    axis.autoscale_view()


def _hertz_axis(axis: Axes, top: float) -> None:
    ticks = [tick for tick in _TICKS if tick <= top]
    axis.set_ylim(0, float(_mel(np.array(top))))
    axis.tick_params(labelsize=8)
    axis.set_yticks(_mel(np.array(ticks, dtype=float)), [f"{t / 1000:g}" for t in ticks])
    axis.set_ylabel("kHz")


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def _mel(hertz: NDArray[Any]) -> NDArray[Any]:
    return 2595 * np.log10(1 + hertz / 700)
