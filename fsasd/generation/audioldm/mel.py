"""AudioLDM's log-mel, and the moments of the VAE's posterior of one."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL

from fsasd.data.log_mel import LogMel
from fsasd.generation.level import normalise

AUDIOLDM_MEL = LogMel.audioldm()

WINDOW = 1024
"""Frames of the log-mel (10.24 s) that the VAE encodes at once: it attends to all of them."""

OVERLAP = 64
"""Frames by which two windows overlap."""


def normalised_mel(waveform: np.ndarray) -> np.ndarray:
    """Return the (frames, 64) log-mel of a waveform that is scaled to a peak of 0.5."""
    return AUDIOLDM_MEL(normalise(waveform)[0]).T


@torch.no_grad()
def encode(vae: AutoencoderKL, mel: np.ndarray) -> torch.Tensor:
    """Return (2 * channels, frames, bins) moments of the posterior of a (frames, 64) log-mel.

    More than 10.24 s are encoded in windows of that length which overlap by 0.64 s, of which each
    gives one half.
    """
    batch = torch.from_numpy(mel)[None, None].to(vae.device, vae.dtype)
    step = 2 ** (len(vae.config.block_out_channels) - 1)
    frames = len(mel) // step * step
    moments = []
    for begin, end in windows(frames):
        encoded = vae.encode(batch[:, :, begin:end]).latent_dist.parameters[0]
        first = OVERLAP // 2 // step if begin else 0
        last = encoded.shape[1] - (OVERLAP // 2 // step if end < frames else 0)
        moments.append(encoded[:, first:last])
    return torch.cat(moments, dim=1)


def windows(frames: int) -> list[tuple[int, int]]:
    """Return where windows over so many frames begin and end; the last is as long as is left.

    >>> windows(1024), windows(2000)
    ([(0, 1024)], [(0, 1024), (960, 1984), (1920, 2000)])
    """
    hop = WINDOW - OVERLAP
    count = max(-(-(frames - OVERLAP) // hop), 1)
    return [(i * hop, min(i * hop + WINDOW, frames)) for i in range(count)]
