"""Stable Audio 3 (arXiv:2605.17991): rectified flow on latents of a waveform at 44.1 kHz."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import StableAudio3Pipeline
from diffusers.pipelines.stable_audio_3.pipeline_stable_audio_3 import logsnr_sigma_schedule

from fsasd.generation.diffusion.card import Family
from fsasd.generation.diffusion.model import Condition
from fsasd.generation.pipelines.model import PipelineDiffusion
from fsasd.generation.pipelines.waveform import WaveformModel

LOG_SNR = (-6.2, 2.0)
"""Of the pipeline's noise levels, from the most noise to the least."""


CHUNK = 16
"""Captions that the text encoder gets at a time."""


class StableAudio3Model(WaveformModel):
    """A transformer on latents of the waveform, conditioned on a text and a duration.

    Its condition is ``text`` (batch, 257, dim), 0 beyond the text, with the duration as its last
    token; ``mask`` (batch, 257), 0 beyond the text; ``seconds`` (batch, dim); with inpainting
    ``rest`` (batch, 1 + channels, frames), the mask and the latent outside of the region.
    """

    kind, network_name = StableAudio3Pipeline, "transformer"
    # For inpainting, which is not trained.
    unused = ("*.to_local_embed.*",)

    @property
    def hop(self) -> int:  # type: ignore[override]
        return self.pipeline.vae.downsampling_ratio

    def encode_channels(self, waveforms: torch.Tensor) -> torch.Tensor:
        return self.pipeline.vae.encode(waveforms).latents

    @torch.no_grad()
    def condition(self, captions: Sequence[str], seconds: float) -> Condition:
        pipeline, device = self.pipeline, self.device
        chunks = [list(captions[i : i + CHUNK]) for i in range(0, len(captions), CHUNK)]
        encoded = [pipeline.encode_prompt(chunk, device, 1) for chunk in chunks]
        text, mask = (torch.cat(tensors) for tensors in zip(*encoded, strict=True))
        duration = pipeline.encode_duration(seconds, device, 1, len(captions))
        # The network puts an embedding of its own there, so that the padding need not be kept.
        text = text * mask.unsqueeze(-1)
        text, mask = pipeline.prepare_cross_attention(text, mask, duration)
        return {"text": text.cpu(), "mask": mask.cpu(), "seconds": duration.cpu()}

    def predict(
        self,
        network: Callable[..., Any],
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        condition: Condition,
    ) -> torch.Tensor:
        assert isinstance(condition, dict)
        return network(
            latents,
            timesteps.expand(len(latents)),
            encoder_hidden_states=condition["text"],
            global_hidden_states=condition["seconds"],
            encoder_attention_mask=condition["mask"],
            local_add_cond=condition.get("rest"),
        ).sample

    @property
    def inpaints(self) -> bool:  # type: ignore[override]
        config = self.network.config
        fits = config.local_add_cond_dim == 1 + config.io_channels and config.patch_size == 1
        # What was never trained adds nothing: the rest of the clip would not be heard.
        last = [block.to_local_embed[-1].weight for block in self.network.transformer_blocks]
        return fits and any(bool(weight.any()) for weight in last)

    def with_rest(
        self, condition: Condition, latents: torch.Tensor, kept: torch.Tensor
    ) -> Condition:
        assert isinstance(condition, dict)
        return {**condition, "rest": torch.cat([kept, kept * latents], 1)}

    def latent_shape(self, frames: int) -> tuple[int, ...]:
        return self.pipeline.vae.config.latent_dim, frames

    def levels(self, steps: int, start: float) -> list[float]:
        return logsnr_sigma_schedule(steps, *LOG_SNR, sigma_max=start)


class StableAudio3(PipelineDiffusion):
    """Stable Audio 3 as a LightningModule: its transformer is fine-tuned on captioned clips."""

    model_class = StableAudio3Model
    family = Family(
        name="Stable Audio 3",
        tag="stable-audio-3",
        pipeline="StableAudio3Pipeline",
        call="caption, duration=10.0",
        licence="other",
        terms=(
            "The published weights are under the Stability AI Community License, their text "
            "encoder under the Gemma Terms of Use; both hold for what is fine-tuned from them."
        ),
    )
