"""Recordings and prompts that generators are checked with; hums with a little noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from fsasd.data.clips import Clips
from fsasd.data.metadata import Clip
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.prompts import Prompt, make_prompts


def example_prompts(folder: Path) -> list[Prompt]:
    """Return prompts of both labels, two machines and two lengths, whose sources are written."""
    clips, captions = [], []
    for machine, number, seconds in (("fan", 0, 0.6), ("valve", 1, 0.8)):
        clips.append(_example_clip(folder, machine, number, seconds, label="normal"))
        captions.append(f"This is the normal sound of a {machine} with speed {number}.")
    return make_prompts(Clips(clips), captions, clips_per_label=1)


def extreme_prompts(folder: Path) -> list[Prompt]:
    """Return prompts of both labels, of sources without sound and at extreme levels and lengths."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE // 2)
    sources = {
        "silence": np.zeros_like(noise),
        "constant": np.full_like(noise, 0.5),
        "click": np.eye(1, len(noise), 500)[0],
        "faint": noise * 1e-30,
        "loud": noise * (2.0**31 / np.abs(noise).max()),
        "10 ms": noise[: SAMPLE_RATE // 100],
    }
    clips = []
    for name, waveform in sources.items():
        path = folder / f"{name}.wav"
        soundfile.write(path, waveform, SAMPLE_RATE, subtype="FLOAT")
        clips.append(Clip(path, "fan", section="00", domain="source", label="normal"))
    captions = ["This is the normal sound of a fan with speed 0."] * len(clips)
    return make_prompts(Clips(clips), captions, clips_per_label=len(clips))


def example_recordings(folder: Path) -> list[Clip]:
    """Write and return clips to train on: a reference's of both labels, a target's normal ones."""
    kinds = (
        ("fan", "reference", "normal"),
        ("fan", "reference", "anomaly"),
        ("valve", "target", "normal"),
    )
    return [
        _example_clip(folder, machine, number, 0.6, role=role, split="train", label=label)
        for machine, role, label in kinds
        for number in range(2)
    ]


def example_references(folder: Path) -> Clips:
    """Write and return normal clips and anomalies of two reference machines."""
    kinds = (("train", "normal"), ("test", "normal"), ("test", "anomaly"))
    return Clips(
        _example_clip(folder, machine, number, 0.7, role="reference", split=split, label=label)
        for machine, base in (("pump", 10), ("slider", 20))
        for place, (split, label) in enumerate(kinds, 1)
        for number in range(base * place, base * place + 3)
    )


def _example_clip(folder: Path, machine: str, number: int, seconds: float, **known: str) -> Clip:
    rng = np.random.default_rng(number)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    hum = 0.05 * np.sin(2 * np.pi * 100 * (number + 1) * time)
    path = folder / f"{machine}_{known['label']}_{number}.wav"
    noise = 0.01 * rng.standard_normal(len(time))
    soundfile.write(path, hum + noise, SAMPLE_RATE, subtype="PCM_16")
    return Clip(path, machine, section="00", domain="source", **known)  # type: ignore[arg-type]
