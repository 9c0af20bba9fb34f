"""AudioLDM (Liu et al., 2023) as a LightningModule: fine-tuned on captioned machine sounds."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch.nn import functional as F
from transformers import get_cosine_schedule_with_warmup

from fsasd.data.audio import SAMPLE_RATE, Clips
from fsasd.generation import checkpoint as checkpoints
from fsasd.generation.base import Generator
from fsasd.generation.latents import Example, LatentExamples, VaeMoments, embed_captions
from fsasd.generation.prompts import Prompt
from fsasd.generation.sampling import Sampler

MEL_HOP = 160
LATENT_BINS = 16
"""64 mels, halved twice by the VAE."""


class AudioLDM(Generator):
    """A text-to-audio latent diffusion model whose UNet is fine-tuned.

    Only the UNet is a submodule. VAE, text encoder and vocoder are never trained: they stay out of
    the optimizer, the checkpoints and, during training, the accelerator's memory.

    Args:
        checkpoint: ``nano``, ``random:<size>``, a folder or a hub id (``checkpoint.load``).
        crop_seconds: Length of a training example; shorter clips are repeated up to it.
        learning_rate: Of AdamW, reached after the warm-up, falling to 0 along a cosine.
        warmup_steps: Optimizer steps of linear warm-up.
        weight_decay: Of AdamW.
        condition_dropout: Share of examples trained without their caption, for guidance.
        ema_decay: Upper bound of the weights' moving average, min(decay, (1 + n) / (10 + n)).
        sampler: How latents are drawn.
    """

    unconditional: torch.Tensor

    def __init__(
        self,
        checkpoint: str = "nano",
        *,
        crop_seconds: float = 10.24,
        learning_rate: float = 3e-5,
        warmup_steps: int = 500,
        weight_decay: float = 1e-2,
        condition_dropout: float = 0.1,
        ema_decay: float = 0.9999,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__()
        self.parts = checkpoints.load(checkpoint)
        self.unet = self.parts.unet.train()
        self.crop_seconds = crop_seconds
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.weight_decay = weight_decay
        self.condition_dropout = condition_dropout
        self.ema_decay = ema_decay
        self.ema: EMAModel | None = None
        self.sampler = sampler or Sampler()
        for module in self.parts.frozen():
            module.requires_grad_(False).eval()
        self.register_buffer("unconditional", self.embed([""])[0], persistent=False)

    # What the data module asks for.

    def embed(self, captions: Sequence[str]) -> torch.Tensor:
        """Return the (n, dim) caption embeddings."""
        return embed_captions(self.parts.text_encoder, self.parts.tokenizer, captions)

    def examples(self, clips: Clips, captions: Sequence[str], *, train: bool) -> LatentExamples:
        """Turn captioned clips into training examples: cached latents, embedded captions."""
        # Asked for before Lightning moves the module to where it trains.
        device = self.trainer.strategy.root_device if self._trainer else self.device
        frozen = self.parts.vae, self.parts.text_encoder
        for module in frozen:
            module.to(device)
        found = LatentExamples(
            clips,
            self.embed(captions),
            VaeMoments(self.parts.vae, self.crop_seconds),
            frames=round(self.crop_seconds * SAMPLE_RATE) // self._latent_samples,
            random_crop=train,
        )
        for module in frozen:
            module.to("cpu")
        return found

    # Training.

    def denoise(
        self, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        """Return what the UNet finds in latents (batch, channels, frames, bins): their noise."""
        return self.unet(
            latents, timesteps, encoder_hidden_states=None, class_labels=embeddings
        ).sample

    def loss(
        self,
        batch: Example,
        timesteps: torch.Tensor,
        noise: torch.Tensor,
        posterior_noise: torch.Tensor | None = None,
        keep_condition: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the (batch,) squared errors of the predicted noise (AudioLDM, equation 4).

        A checkpoint whose scheduler says so predicts the velocity instead, as the nano model does.

        Args:
            batch: Examples.
            timesteps: (batch,) of the 1000 of the schedule.
            noise: Added to the latents.
            posterior_noise: Of the VAE's posterior; its mean is used without.
            keep_condition: (batch,) False where the caption is left out.
        """
        mean, log_variance = batch["moments"].chunk(2, dim=1)
        latents = mean
        if posterior_noise is not None:
            spread = torch.exp(0.5 * log_variance.clamp(-30, 20))
            latents = mean + spread * posterior_noise
        latents = latents * self.parts.vae.config.scaling_factor
        scheduler = self.parts.scheduler
        noisy = scheduler.add_noise(latents, noise, timesteps)
        target = noise
        if scheduler.config.prediction_type == "v_prediction":
            target = scheduler.get_velocity(latents, noise, timesteps)
        embeddings = batch["embedding"]
        if keep_condition is not None:
            embeddings = torch.where(keep_condition[:, None], embeddings, self.unconditional)
        predicted = self.denoise(noisy, timesteps, embeddings)
        return F.mse_loss(predicted.float(), target.float(), reduction="none").mean((1, 2, 3))

    def training_step(self, batch: Example, batch_idx: int) -> torch.Tensor:
        mean = batch["moments"].chunk(2, dim=1)[0]
        timesteps = torch.randint(self._n_timesteps, (len(mean),), device=self.device)
        loss = self.loss(
            batch,
            timesteps=timesteps,
            noise=torch.randn_like(mean),
            posterior_noise=torch.randn_like(mean),
            keep_condition=torch.rand(len(mean), device=self.device) >= self.condition_dropout,
        ).mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(mean))
        return loss

    def validation_step(self, batch: Example, batch_idx: int) -> None:
        """Log the loss at fixed noise and timesteps, so that two epochs can be compared."""
        mean = batch["moments"].chunk(2, dim=1)[0]
        indices = torch.as_tensor(batch["index"]).tolist()
        noise = torch.stack(
            [
                torch.randn(mean.shape[1:], generator=torch.Generator().manual_seed(i))
                for i in indices
            ]
        )
        # The golden ratio spreads any number of examples evenly over the schedule.
        phase = [(i * (math.sqrt(5) - 1) / 2 + 0.5) % 1 for i in indices]
        timesteps = torch.tensor([int(p * self._n_timesteps) for p in phase])
        with self.averaged_weights():
            losses = self.loss(batch, timesteps.to(self.device), noise.to(mean))
        self.log("val/loss", losses.mean(), prog_bar=True, batch_size=len(indices), sync_dist=True)

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.ema is None:
            self.ema = EMAModel(self.unet.parameters(), decay=self.ema_decay)

    def on_fit_start(self) -> None:
        self._average.to(self.device)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.unet.parameters(), self.learning_rate, weight_decay=self.weight_decay
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = get_cosine_schedule_with_warmup(
            optimizer, min(self.warmup_steps, steps // 2), steps
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self._average.step(self.unet.parameters())

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Use the moving average of the weights; without a training step there is none."""
        if self.ema is None or not self.ema.optimization_step:
            yield
            return
        self.ema.store(self.unet.parameters())
        self.ema.copy_to(self.unet.parameters())
        try:
            yield
        finally:
            self.ema.restore(self.unet.parameters())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ema"] = self._average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._average.load_state_dict(checkpoint["ema"])

    # Synthesis.

    @torch.no_grad()
    def generate(self, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
        """Return one waveform (samples,) per prompt, as loud as the training clips were heard.

        Prompts of one length are drawn together. The weights are those in place: see
        ``averaged_weights``. A negative prompt takes the place of the empty caption that guidance
        leads away from.

        Raises:
            ValueError: There is a negative prompt, but no guidance through which it could act.
        """
        waveforms: dict[str, torch.Tensor] = {}
        for seconds in sorted({prompt.seconds for prompt in prompts}):
            group = [prompt for prompt in prompts if prompt.seconds == seconds]
            for prompt, waveform in zip(group, self._generate(group, seconds), strict=True):
                waveforms[prompt.wav] = waveform
        return [waveforms[prompt.wav] for prompt in prompts]

    def save(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the model, with the averaged weights, in the diffusers layout."""
        with self.averaged_weights():
            checkpoints.save(replace(self.parts, unet=self.unet), folder, dtype)

    def _generate(self, prompts: Sequence[Prompt], seconds: float) -> torch.Tensor:
        vae, vocoder = self.parts.vae.to(self.device), self.parts.vocoder.to(self.device)
        samples = round(seconds * SAMPLE_RATE)
        frames = math.ceil(samples / self._latent_samples)
        latents = self.sampler(
            self.denoise,
            self.parts.scheduler,
            self.embed([prompt.caption for prompt in prompts]).to(self.device),
            self._led_away_from(prompts),
            (self.unet.config.in_channels, frames, LATENT_BINS),
            [prompt.seed for prompt in prompts],
        )
        mel = vae.decode(latents / vae.config.scaling_factor).sample
        # The vocoder gives back a few samples more than frames * hop.
        return vocoder(mel[:, 0])[:, :samples].float().cpu()

    def _led_away_from(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        if not any(prompt.negative for prompt in prompts):
            return self.unconditional
        if self.sampler.guidance == 1.0:
            raise ValueError(
                "negative prompts act through guidance, and a sampler with guidance 1 has none: "
                "raise generator.sampler.guidance, or choose prompts without negative ones"
            )
        return torch.stack(
            [
                embedding if prompt.negative else self.unconditional
                for prompt, embedding in zip(
                    prompts,
                    self.embed([prompt.negative for prompt in prompts]).to(self.device),
                    strict=True,
                )
            ]
        )

    @property
    def _average(self) -> EMAModel:
        if self.ema is None:
            raise RuntimeError("the weights' average exists from the start of fitting on")
        return self.ema

    @property
    def _latent_samples(self) -> int:
        return MEL_HOP * 2 ** (len(self.parts.vae.config.block_out_channels) - 1)

    @property
    def _n_timesteps(self) -> int:
        return self.parts.scheduler.config.num_train_timesteps
