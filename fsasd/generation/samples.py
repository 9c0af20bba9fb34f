"""Samples of a generator in loggers: audio, spectrogram and caption."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import soundfile
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib import image

from fsasd.data.log_mel import LogMel
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.prompts import Prompt
from fsasd.generation.rates import resample


def log_samples(
    logger: Any,
    prompts: Sequence[Prompt],
    waveforms: Sequence[np.ndarray],
    rate: int,
    step: int,
) -> None:
    """Log samples, their spectrograms and captions.

    Args:
        logger: Of Lightning.
        prompts: One per waveform.
        waveforms: (samples,) each.
        rate: Of the waveforms, in Hz.
        step: Of the optimizer.
    """
    pictures = [spectrogram(waveform, rate) for waveform in waveforms]
    captions = [prompt.caption for prompt in prompts]
    if isinstance(logger, WandbLogger):
        rates = [rate] * len(captions)
        logger.log_audio(
            "samples", list(waveforms), step, sample_rate=rates, caption=list(captions)
        )
        logger.log_image("spectrograms", pictures, step, caption=captions)
    elif isinstance(logger, TensorBoardLogger):
        for prompt, waveform, picture in zip(prompts, waveforms, pictures, strict=True):
            name = f"samples/{prompt.wav.removesuffix('.wav')}"
            sound = torch.from_numpy(waveform)[None]
            logger.experiment.add_audio(name, sound, step, rate)
            logger.experiment.add_image(name, picture, step, dataformats="HWC")
            logger.experiment.add_text(name, prompt.caption, step)
    elif logger.log_dir:
        _write_samples(Path(logger.log_dir) / "samples" / f"{step:06d}", prompts, waveforms, rate)


def spectrogram(waveform: np.ndarray, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Return an image (64, frames, 3) of a waveform's log-mel, high frequencies on top.

    >>> spectrogram(np.sin(np.arange(16_000) / 5).astype(np.float32)).shape
    (64, 100, 3)
    """
    mel = LogMel.audioldm()(resample(waveform.astype(np.float32), rate, SAMPLE_RATE))[::-1]
    scaled = (mel - mel.min()) / max(float(np.ptp(mel)), 1e-6)
    return (mpl.colormaps["magma"](scaled)[..., :3] * 255).astype(np.uint8)


def _write_samples(
    folder: Path, prompts: Sequence[Prompt], waveforms: Sequence[np.ndarray], rate: int
) -> None:
    for prompt, waveform in zip(prompts, waveforms, strict=True):
        path = folder / prompt.wav
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, waveform, rate, subtype="PCM_16")
        image.imsave(path.with_suffix(".png"), spectrogram(waveform, rate))
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["wav", "caption"])
        writer.writerows([prompt.wav, prompt.caption] for prompt in prompts)
