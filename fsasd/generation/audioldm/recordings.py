"""Recordings as conditions: CLAP's embedding of the recording beside that of the caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from fsasd.data.draws import Draw
from fsasd.data.front_ends import FrontEnd
from fsasd.generation.diffusion.latents import CachedFrontEnd, LatentExamples, fill_cache


class WithRecordings(Dataset[Any]):
    """Training examples with ``audio``, the (dim,) embedding of the recording.

    Args:
        examples: Without it.
        audio: The front end, CLAP's audio branch.
        share: (rank, ranks) that compute the embeddings together, each a part of them.
    """

    def __init__(
        self, examples: LatentExamples, audio: FrontEnd, share: tuple[int, int] = (0, 1)
    ) -> None:
        fill_cache(examples.clips, audio, "CLAP embeddings", share)
        self.examples = examples
        self.audio = CachedFrontEnd(audio)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        clips = self.examples.clips
        embedding = clips.cache.get(self.audio, clips[draw.clip])
        return {**self.examples[draw], "audio": torch.from_numpy(embedding)}

    @staticmethod
    def collate(examples: Sequence[Any]) -> dict[str, Any]:
        """Stack examples (see ``LatentExamples.collate``)."""
        batch = LatentExamples.collate(examples)
        return {**batch, "audio": torch.stack([example["audio"] for example in examples])}


def choose_condition(
    captions: torch.Tensor,
    recordings: torch.Tensor | None,
    unconditional: torch.Tensor,
    uniform: torch.Tensor,
    dropout: float,
    audio_share: float,
) -> torch.Tensor:
    """Return the (batch, dim) condition of each example: caption, recording or nothing.

    Args:
        captions: (batch, dim) embeddings.
        recordings: (batch, dim) embeddings, where there are any.
        unconditional: (dim,) of the empty caption.
        uniform: (batch, 2) in [0, 1): dropout; recording or caption.
        dropout: Share of examples without a condition, for guidance.
        audio_share: Share of the others that are conditioned on their recording.
    """
    dropped, from_recording = (uniform < uniform.new_tensor([dropout, audio_share])).T
    if recordings is not None:
        captions = torch.where(from_recording[:, None], recordings, captions)
    return torch.where(dropped[:, None], unconditional, captions)
