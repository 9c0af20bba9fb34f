"""Training examples of AudioLDM: the moments of the VAE's posterior of each clip, cached.

The VAE never changes during fine-tuning, so its outputs are cached: mean and log-variance rather
than a sample, so that every step samples the posterior anew, and of the whole clip, so that every
step crops it anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
import torch
from diffusers import AutoencoderKL
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.utils.data import Dataset

from fsasd.data.clips import Clips, FrontEnd
from fsasd.data.draws import Draw
from fsasd.data.log_mel import LogMel
from fsasd.data.recording import SAMPLE_RATE

PEAK = 0.5
"""Every waveform is scaled to this peak, as in AudioLDM's training."""

AUDIOLDM_MEL = LogMel.audioldm()


class Example(TypedDict):
    """One captioned clip, ready for a training step."""

    moments: torch.Tensor
    """(2 * channels, frames, bins): mean and log-variance of the posterior."""
    embedding: torch.Tensor
    """(dim,) of the caption."""
    audio: NotRequired[torch.Tensor]
    """(dim,) of the recording, where a CLAP with an audio branch was given."""
    draw: Draw


class Batch(TypedDict):
    """Examples, stacked; all but their draws are tensors."""

    moments: torch.Tensor
    """(batch, 2 * channels, frames, bins)"""
    embedding: torch.Tensor
    """(batch, dim)"""
    audio: NotRequired[torch.Tensor]
    frames: torch.Tensor
    """(batch,) latent frames of the clip; those beyond repeat it."""
    draws: list[Draw]


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


def normalised_mel(waveform: np.ndarray) -> np.ndarray:
    """Return the (frames, 64) log-mel of a waveform that is scaled to a peak of 0.5."""
    return AUDIOLDM_MEL(normalise(waveform)[0]).T


WINDOW = 1024
"""Frames of the log-mel (10.24 s) that the VAE encodes at once: it attends to all of them."""

OVERLAP = 64
"""Frames by which two windows overlap."""


class VaeMoments:
    """The front end of AudioLDM: waveform -> moments of the VAE's posterior.

    Recordings of more than 10.24 s are encoded in windows of that length which overlap by 0.64 s,
    of which each gives one half; the level is the whole recording's.

    Args:
        vae: The frozen VAE.
        seconds: Shorter recordings are repeated up to this length, never padded with silence,
            which the model would learn to generate. ``None`` leaves them as they are.
    """

    def __init__(self, vae: AutoencoderKL, seconds: float | None) -> None:
        self.vae = vae
        self.seconds = seconds
        self._weights = fingerprint(vae)

    def __repr__(self) -> str:
        windows = f"windows of {WINDOW}, {OVERLAP} in common"
        return f"VaeMoments({self._weights}, {self.seconds}, {AUDIOLDM_MEL}, {windows})"

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return (2 * channels, frames, bins) float16 of a (samples,) waveform."""
        short = round((self.seconds or 0) * SAMPLE_RATE) - len(waveform)
        if short > 0:
            waveform = np.pad(waveform, (0, short), mode="wrap")
        return encode(self.vae, normalised_mel(waveform)).to("cpu", torch.float16).numpy()


@torch.no_grad()
def encode(vae: AutoencoderKL, mel: np.ndarray) -> torch.Tensor:
    """Return (2 * channels, frames, bins) moments of the posterior of a (frames, 64) log-mel.

    More than 10.24 s are encoded in windows (see ``VaeMoments``).
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


class CachedFrontEnd:
    """A stand-in for a front end whose features are all cached: the same key, no computation.

    Training reads features in worker processes, which need no VAE. Where a recording is altered
    meanwhile, its features are no longer in the cache, and this raises an error.
    """

    def __init__(self, front_end: FrontEnd) -> None:
        self.name = repr(front_end)

    def __repr__(self) -> str:
        return self.name

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        raise RuntimeError(
            "a recording was altered, or the cache emptied, after training had begun: its latents "
            "are no longer those of the recording. Start the run again"
        )


class LatentExamples(Dataset[Example]):
    """Captioned clips as training examples: a crop of the moments and the caption's embedding.

    The moments are computed now, or read from the clips' cache. Where that cache has a folder,
    none stay in memory: each is read when it is drawn (131 kB for ten seconds).

    Args:
        clips: The recordings.
        captions: One per clip.
        embeddings: Of each distinct caption.
        moments: The front end.
        frames: Latent frames per example; ``None`` for whole clips.
        random_crop: Crop anywhere (training) or in the middle (validation).
        audio: Front end of CLAP's audio branch, where there is one.
        share: (rank, ranks) that compute the features together, each a part of them.
    """

    def __init__(
        self,
        clips: Clips,
        captions: Sequence[str],
        embeddings: dict[str, torch.Tensor],
        moments: VaeMoments,
        frames: int | None,
        random_crop: bool,
        audio: FrontEnd | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        fill_cache(clips, moments, "VAE moments", share)
        if audio is not None:
            fill_cache(clips, audio, "CLAP embeddings", share)
        self.clips = clips
        self.captions = list(captions)
        self.embeddings = embeddings
        self.moments = CachedFrontEnd(moments)
        self.frames = frames
        self.random_crop = random_crop
        self.audio = None if audio is None else CachedFrontEnd(audio)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, draw: Draw) -> Example:
        clip = self.clips[draw.clip]
        moments = torch.from_numpy(self.clips.cache.get(self.moments, clip))
        room = 0 if self.frames is None else moments.shape[1] - self.frames
        start = room // 2
        if self.random_crop and room:
            # Another generator than the noise's, lest crop and noise go together.
            generator = torch.Generator().manual_seed(draw.seed + 1)
            start = int(torch.randint(room + 1, (), generator=generator))
        stop = None if self.frames is None else start + self.frames
        example = Example(
            moments=moments[:, start:stop].float(),
            embedding=self.embeddings[self.captions[draw.clip]],
            draw=draw,
        )
        if self.audio is not None:
            example["audio"] = torch.from_numpy(self.clips.cache.get(self.audio, clip))
        return example

    @staticmethod
    def collate(examples: Sequence[Example]) -> Batch:
        """Stack examples; shorter ones are repeated up to the longest (see ``Batch.frames``)."""
        lengths = [example["moments"].shape[1] for example in examples]
        repeated = [
            example["moments"].repeat(1, -(-max(lengths) // length), 1)[:, : max(lengths)]
            for example, length in zip(examples, lengths, strict=True)
        ]
        batch = Batch(
            moments=torch.stack(repeated),
            embedding=torch.stack([example["embedding"] for example in examples]),
            frames=torch.tensor(lengths),
            draws=[example["draw"] for example in examples],
        )
        if "audio" in examples[0]:
            batch["audio"] = torch.stack([example["audio"] for example in examples])
        return batch


def fill_cache(
    clips: Clips, front_end: FrontEnd, title: str, share: tuple[int, int] = (0, 1)
) -> None:
    """Compute the clips' features that are missing in their cache, each process a part of them.

    Without a folder to share, each process computes all of them for itself.
    """
    rank, ranks = share if clips.cache.folder is not None else (0, 1)
    part = clips[rank::ranks]
    missing = part[[not clips.cache.holds(front_end, clip) for clip in part]]
    features = missing.features(front_end)
    console = Console(stderr=True)
    for _ in track(
        features, title, len(missing), console=console, transient=True, disable=not len(missing)
    ):
        pass


def fingerprint(module: nn.Module) -> str:
    """Return a hash of a module's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
