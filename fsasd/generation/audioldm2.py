"""AudioLDM 2 (Liu et al., 2024): CLAP, Flan-T5 and GPT-2 in front of a UNet on log-mels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import AudioLDM2Pipeline, AutoencoderKL
from torch.nn import functional as F
from transformers import SpeechT5HifiGan

from fsasd.generation.audioldm.mel import MelModel
from fsasd.generation.audioldm.vocoder import require_mel
from fsasd.generation.diffusion.card import Family
from fsasd.generation.diffusion.model import Condition
from fsasd.generation.pipelines.model import PipelineDiffusion, PipelineModel

TEXT_TOKENS = 128
"""Of Flan-T5 that the UNet gets; shorter captions are padded, and masked, longer ones are cut."""


class AudioLDM2Model(MelModel, PipelineModel):
    """A UNet with two cross-attentions, on latents of AudioLDM's log-mel.

    Its condition is ``generated`` (batch, 8, dim), what GPT-2 goes on with after the embeddings of
    CLAP and Flan-T5; ``text`` (batch, 128, dim) and its ``mask``, of Flan-T5.
    """

    kind, network_name = AudioLDM2Pipeline, "unet"

    def __init__(self, source: str, allow: Sequence[str] = ()) -> None:
        super().__init__(source, allow)
        require_mel(self.vocoder, source)

    @property
    def vae(self) -> AutoencoderKL:
        return self.pipeline.vae

    @property
    def vocoder(self) -> SpeechT5HifiGan:
        return self.pipeline.vocoder

    @torch.no_grad()
    def condition(self, captions: Sequence[str], seconds: float) -> Condition:
        # One by one: GPT-2 counts the padding of a batch.
        texts, masks, generated = zip(
            *(self.pipeline.encode_prompt([one], self.device, 1, False) for one in captions),
            strict=True,
        )
        return {
            "generated": torch.cat(generated).cpu(),
            "text": torch.cat([F.pad(one, (0, 0, 0, _missing(one))) for one in texts]).cpu(),
            "mask": torch.cat([F.pad(one, (0, _missing(one))) for one in masks]).cpu(),
        }

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
            timesteps,
            encoder_hidden_states=condition["generated"],
            encoder_hidden_states_1=condition["text"],
            encoder_attention_mask_1=condition["mask"],
        ).sample


class AudioLDM2(PipelineDiffusion):
    """AudioLDM 2 as a LightningModule: its UNet is fine-tuned on captioned clips."""

    model_class = AudioLDM2Model
    family = Family(
        name="AudioLDM 2",
        tag="audioldm2",
        pipeline="AudioLDM2Pipeline",
        call="caption, audio_length_in_s=10.0, guidance_scale=2.5",
        licence="cc-by-nc-sa-4.0",
        terms=(
            "The published weights of AudioLDM 2 are for non-commercial use (CC BY-NC-SA 4.0), and "
            "so is what is fine-tuned from them."
        ),
    )


def _missing(tensor: torch.Tensor) -> int:
    """Return the tokens that are missing up to the limit; below 0, those beyond it."""
    return TEXT_TOKENS - tensor.shape[1]
