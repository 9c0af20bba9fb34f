"""What AudioLDM is trained on, computed once: VAE moments of clips and embeddings of captions.

The VAE and the text encoder never change during fine-tuning, so their outputs are kept: the mean
and log-variance rather than a sample, so that the posterior is still sampled anew in every step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from diffusers import AutoencoderKL
from rich.progress import track
from torch import nn
from torch.utils.data import Dataset
from transformers import ClapTextModelWithProjection, RobertaTokenizer

from fsasd.data.audio import SAMPLE_RATE, Clips, LogMel

PEAK = 0.5
"""AudioLDM hears every waveform scaled to this peak."""

AUDIOLDM_MEL = LogMel.audioldm()


class Example(TypedDict):
    """One captioned clip, ready for a training step."""

    moments: torch.Tensor
    """(2 * channels, frames, bins): mean and log-variance of the posterior."""
    embedding: torch.Tensor
    """(dim,)"""
    index: int


def normalise(waveform: np.ndarray) -> tuple[np.ndarray, float]:
    """Remove the mean and scale the peak to 0.5, as AudioLDM was trained.

    Returns:
        The waveform and the gain that was applied; dividing by it restores the level.

    >>> normalise(np.array([0.0, 0.2], np.float32))[1].round(3)
    np.float64(5.0)
    """
    waveform = waveform - waveform.mean()
    gain = PEAK / max(float(np.abs(waveform).max()), 1e-8)
    return (waveform * gain).astype(np.float32), np.float64(gain)


def heard_mel(waveform: np.ndarray) -> np.ndarray:
    """Return the (frames, 64) log-mel of a waveform as AudioLDM hears it, its peak at 0.5."""
    return AUDIOLDM_MEL(normalise(waveform)[0]).T


class VaeMoments:
    """The front end of AudioLDM: waveform -> moments of the VAE's posterior.

    Args:
        vae: The frozen VAE.
        seconds: Shorter recordings are repeated up to this length, never padded with silence,
            which the model would learn and the detector would hear.
    """

    def __init__(self, vae: AutoencoderKL, seconds: float) -> None:
        self.vae = vae
        self.seconds = seconds
        self._weights = fingerprint(vae)

    def __repr__(self) -> str:
        return f"VaeMoments({self._weights}, {self.seconds}, {AUDIOLDM_MEL})"

    @torch.no_grad()
    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return (2 * channels, frames, bins) float16 of a (samples,) waveform."""
        short = round(self.seconds * SAMPLE_RATE) - len(waveform)
        if short > 0:
            waveform = np.pad(waveform, (0, short), mode="wrap")
        mel = torch.from_numpy(heard_mel(waveform))[None, None]
        step = 2 ** (len(self.vae.config.block_out_channels) - 1)
        mel = mel[:, :, : mel.shape[2] // step * step]
        encoded = self.vae.encode(mel.to(self.vae.device, self.vae.dtype)).latent_dist
        return encoded.parameters[0].to("cpu", torch.float16).numpy()


class LatentExamples(Dataset[Example]):
    """Captioned clips as training examples: a crop of the moments and the caption's embedding.

    Args:
        clips: The recordings; their moments are computed now, or found in the clips' cache.
        embeddings: (n, dim), one per clip.
        moments: The front end.
        frames: Latent frames per example.
        random_crop: Crop anywhere (training) or in the middle (validation).
    """

    def __init__(
        self,
        clips: Clips,
        embeddings: torch.Tensor,
        moments: VaeMoments,
        frames: int,
        random_crop: bool,
    ) -> None:
        computed = track(clips.features(moments), "VAE moments", len(clips), transient=True)
        # Float16 moments of a ten-second clip take 131 kB in AudioLDM-S: 1000 clips, 131 MB.
        self.moments = [torch.from_numpy(features) for features in computed]
        self.embeddings = embeddings
        self.frames = frames
        self.random_crop = random_crop

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, index: int) -> Example:
        moments = self.moments[index]
        room = moments.shape[1] - self.frames
        start = int(torch.randint(room + 1, ())) if self.random_crop else room // 2
        return Example(
            moments=moments[:, start : start + self.frames].float(),
            embedding=self.embeddings[index],
            index=index,
        )


@torch.no_grad()
def embed_captions(
    text_encoder: ClapTextModelWithProjection,
    tokenizer: RobertaTokenizer,
    captions: Sequence[str],
    batch: int = 64,
) -> torch.Tensor:
    """Return the (n, dim) L2-normalised CLAP embeddings of captions.

    Each distinct caption is computed once, and padded to the longest of its batch only: the result
    is that of padding to the tokenizer's limit.
    """
    distinct = sorted(set(captions), key=len)
    found: dict[str, torch.Tensor] = {}
    for start in range(0, len(distinct), batch):
        texts = distinct[start : start + batch]
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        states = text_encoder(**tokens.to(text_encoder.device)).text_embeds
        found |= dict(zip(texts, nn.functional.normalize(states, dim=-1).cpu(), strict=True))
    return torch.stack([found[caption] for caption in captions])


def fingerprint(module: nn.Module) -> str:
    """Return a hash of a module's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
