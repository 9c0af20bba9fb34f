"""Stable Audio Open (Evans et al., 2024): velocities of a waveform's latents at 44.1 kHz."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import StableAudioPipeline
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from torch.nn import functional as F

from fsasd.generation.diffusion.card import Family
from fsasd.generation.diffusion.cosine import CosineScheduler
from fsasd.generation.diffusion.model import Condition
from fsasd.generation.diffusion.weight_mismatches import CheckpointError
from fsasd.generation.pipelines.model import PipelineDiffusion
from fsasd.generation.pipelines.waveform import WaveformModel


class StableAudioOpenModel(WaveformModel):
    """A transformer on latents of the waveform, conditioned on a text, a start and an end.

    Its condition is ``text`` (batch, 130, dim), the last two tokens of which are the start, 0, and
    the end in seconds; ``seconds`` (batch, 1, 2 dim), of the same two. Without a caption ``text``
    is 0.
    """

    kind, network_name = StableAudioPipeline, "transformer"
    instead = {"CosineDPMSolverMultistepScheduler": CosineScheduler}  # noqa: RUF012
    # Random frequencies, which were never trained.
    unused = ("time_proj.weight",)

    def __init__(self, source: str, allow: Sequence[str] = ()) -> None:
        super().__init__(source, allow)
        if not isinstance(self.scheduler, CosineScheduler):
            raise CheckpointError(
                f"{source}: expected the scheduler {', '.join(self.instead)}, with whose times the "
                f"network was trained, found {type(self.scheduler).__name__}"
            )

    @property
    def hop(self) -> int:  # type: ignore[override]
        return self.pipeline.vae.hop_length

    def encode_channels(self, waveforms: torch.Tensor) -> torch.Tensor:
        return self.pipeline.vae.encode(waveforms).latent_dist.parameters

    def latent(self, encoded: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        mean, scale = encoded.chunk(2, 1)
        return mean if noise is None else mean + (F.softplus(scale) + 1e-4) * noise

    @torch.no_grad()
    def condition(self, captions: Sequence[str], seconds: float) -> Condition:
        self._require_length(seconds)
        pipeline, device = self.pipeline, self.device
        text = pipeline.encode_prompt(list(captions), device, False)
        start, end = pipeline.encode_duration(0.0, seconds, device, False, len(captions))
        text = torch.cat([text, start, end], 1)
        without = torch.tensor([not caption for caption in captions], device=device)
        return {
            "text": text.masked_fill(without[:, None, None], 0).cpu(),
            "seconds": torch.cat([start, end], 2).cpu(),
        }

    def predict(
        self,
        network: Callable[..., Any],
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        condition: Condition,
    ) -> torch.Tensor:
        assert isinstance(condition, dict)
        # One more: the network has a token for time and seconds in front.
        places = latents.shape[2] + 1
        rotary = get_1d_rotary_pos_embed(
            self.pipeline.rotary_embed_dim, places, use_real=True, repeat_interleave_real=False
        )
        return network(
            latents,
            timesteps.expand(len(latents)),
            encoder_hidden_states=condition["text"],
            global_hidden_states=condition["seconds"],
            rotary_embedding=rotary,
            return_dict=False,
        )[0]

    def latent_shape(self, frames: int) -> tuple[int, ...]:
        return self.network.config.in_channels, frames

    def _require_length(self, seconds: float) -> None:
        longest = self.network.config.sample_size * self.hop / self.sampling_rate
        if seconds > longest:
            raise ValueError(
                f"Stable Audio Open was trained on {longest:.1f} s at most, found a clip of "
                f"{seconds:g} s: lower synthesis.max_seconds and generator.crop_seconds"
            )


class StableAudioOpen(PipelineDiffusion):
    """Stable Audio Open as a LightningModule: its transformer is fine-tuned on captioned clips."""

    model_class = StableAudioOpenModel
    family = Family(
        name="Stable Audio Open",
        tag="stable-audio-open",
        pipeline="StableAudioPipeline",
        call="caption, audio_end_in_s=10.0",
        licence="other",
        terms=(
            "The published weights are under the Stability AI Community License, which holds for "
            "what is fine-tuned from them."
        ),
    )
