"""Training examples of latent diffusion: the latent of each clip, cached, and its condition.

The encoder never changes during fine-tuning, so its outputs are cached: the moments of a
distribution rather than a sample, so that every step samples anew, and of the whole clip, so that
every step crops it anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch.utils.data import Dataset

from fsasd.data.clips import Clips
from fsasd.data.draws import Draw
from fsasd.data.front_ends import FrontEnd
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.diffusion.kept_conditions import KeptCondition
from fsasd.generation.diffusion.model import Condition, Model, map_condition, tensor_of
from fsasd.generation.level import normalise
from fsasd.generation.rates import resample


class Example(TypedDict):
    """One captioned clip, ready for a training step."""

    moments: torch.Tensor
    """(channels, frames, ...), as ``Model.encode`` returns it."""
    embedding: Condition
    """Of the caption, without the axis of the batch."""
    draw: Draw


class Batch(TypedDict):
    """Examples, stacked; all but their draws are tensors."""

    moments: torch.Tensor
    """(batch, channels, frames, ...)"""
    embedding: Condition
    """(batch, ...)"""
    frames: torch.Tensor
    """(batch,) latent frames of the clip; those beyond repeat it."""
    draws: list[Draw]


class LatentFrontEnd:
    """The front end of a latent diffusion model: waveform -> what its ``encode`` returns.

    Args:
        model: Its encoder is frozen.
        seconds: Shorter recordings are repeated up to this length, never padded with silence,
            which the model would learn to generate. ``None`` leaves them as they are.
    """

    def __init__(self, model: Model, seconds: float | None) -> None:
        self.model = model
        self.seconds = seconds
        self._name = f"LatentFrontEnd({model.fingerprint()}, {seconds})"

    def __repr__(self) -> str:
        return self._name

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return (channels, frames, ...) float16 of a (samples,) waveform."""
        short = round((self.seconds or 0) * SAMPLE_RATE) - len(waveform)
        if short > 0:
            waveform = np.pad(waveform, (0, short), mode="wrap")
        waveform = resample(normalise(waveform)[0], SAMPLE_RATE, self.model.sampling_rate)
        return self.model.encode(waveform).to("cpu", torch.float16).numpy()


class CachedFrontEnd:
    """A stand-in for a front end whose features are all cached: the same key, no computation.

    Training reads features in worker processes, which need no encoder. Where a recording is altered
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
    """Captioned clips as training examples: a crop of what is encoded, and the caption's condition.

    Latents are computed now, or read from the clips' cache. Where that cache has a folder,
    none stay in memory: each is read when it is drawn (131 kB for ten seconds).

    Args:
        clips: The recordings.
        captions: One per clip.
        conditions: Of each distinct caption.
        front_end: Gives the latents.
        frames: Latent frames per example; ``None`` for whole clips.
        random_crop: Crop anywhere (training) or in the middle (validation).
        share: (rank, ranks) that compute the features together, each a part of them.
    """

    def __init__(
        self,
        clips: Clips,
        captions: Sequence[str],
        conditions: dict[str, Condition],
        front_end: LatentFrontEnd,
        frames: int | None,
        random_crop: bool,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        fill_cache(clips, front_end, "latents", share)
        self.clips = clips
        self.captions = list(captions)
        self.conditions = {text: KeptCondition(one) for text, one in conditions.items()}
        self.front_end = CachedFrontEnd(front_end)
        self.frames = frames
        self.random_crop = random_crop

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, draw: Draw) -> Example:
        clip = self.clips[draw.clip]
        moments = torch.from_numpy(self.clips.cache.get(self.front_end, clip))
        room = 0 if self.frames is None else moments.shape[1] - self.frames
        start = room // 2
        if self.random_crop and room:
            # Another generator than the noise's, lest crop and noise go together.
            generator = torch.Generator().manual_seed(draw.seed + 1)
            start = int(torch.randint(room + 1, (), generator=generator))
        stop = None if self.frames is None else start + self.frames
        return Example(
            moments=moments[:, start:stop].float(),
            embedding=self.conditions[self.captions[draw.clip]].condition(),
            draw=draw,
        )

    @staticmethod
    def collate(examples: Sequence[Example]) -> Batch:
        """Stack examples; shorter ones are repeated up to the longest (see ``Batch.frames``)."""
        lengths = [example["moments"].shape[1] for example in examples]
        repeated = [_repeated(example["moments"], max(lengths)) for example in examples]
        return Batch(
            moments=torch.stack(repeated),
            embedding=stacked([example["embedding"] for example in examples]),
            frames=torch.tensor(lengths),
            draws=[example["draw"] for example in examples],
        )


def stacked(conditions: Sequence[Condition]) -> Condition:
    """Stack conditions of one example each to that of a batch."""
    return map_condition(lambda *tensors: torch.stack(tensors), *conditions)


def unstacked(condition: Condition) -> list[Condition]:
    """Return the conditions of a batch one by one.

    >>> [one["text"].tolist() for one in unstacked({"text": torch.eye(2)})]
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return [
        map_condition(lambda tensor, i=i: tensor[i], condition)
        for i in range(len(tensor_of(condition)))
    ]


def _repeated(latent: torch.Tensor, frames: int) -> torch.Tensor:
    times = -(-frames // latent.shape[1])
    return latent.repeat(1, times, *[1] * (latent.ndim - 2))[:, :frames]


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
