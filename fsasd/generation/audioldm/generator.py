"""AudioLDM (Liu et al., 2023) as a LightningModule: fine-tuned on captioned machine sounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from fsasd.data.clips import Clips
from fsasd.data.draws import Draw
from fsasd.generation.audioldm import checkpoint as checkpoints
from fsasd.generation.audioldm import clap
from fsasd.generation.audioldm.checkpoint.card import model_card
from fsasd.generation.audioldm.model import AudioLDMModel
from fsasd.generation.audioldm.recordings import WithRecordings, choose_condition
from fsasd.generation.audioldm.vocoder import GriffinLim
from fsasd.generation.diffusion.adaptation import Full
from fsasd.generation.diffusion.latent_diffusion import LatentDiffusion
from fsasd.generation.diffusion.model import Condition
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.diffusion.validation_loss import fixed_noise, fixed_timesteps


class AudioLDM(LatentDiffusion):
    """A text-to-audio latent diffusion model whose UNet is fine-tuned.

    Args:
        checkpoint: ``nano``, ``random:<size>``, a folder, a hub id or a file of the original
            project (``checkpoint.load``).
        revision: See ``LatentDiffusion``, as of ``variant``.
        tokenizer: For a file of the original, which holds none: a folder or a hub id.
        allow: Names of weights that the checkpoint may lack or have too many of.
        attention_heads: ``original`` or ``checkpoint``, where these differ (the hub's do); ``auto``
            compares how well both denoise a few of the clips and keeps the better.
        crop_seconds: See ``LatentDiffusion``, as of all that is not said here.
        train: What of the UNet is trained (``adaptation``); all by default.
        learning_rate: Reached after the warm-up, falling to 0 along a cosine.
        warmup_steps: Optimizer steps of linear warm-up.
        weight_decay: Of AdamW.
        optimizer: ``adamw`` or ``adamw_8bit``.
        condition_dropout: Share of examples trained without their condition, for guidance.
        audio_clap: All of CLAP, a folder or a hub id, to train on embeddings of recordings, too;
            one whose text branch is the checkpoint's text encoder.
        audio_share: Share of examples whose condition is the recording's embedding, not the
            caption's, where there is such a CLAP. AudioLDM's authors had 0.31.
        ema_decay: Upper bound of the weights' moving average.
        min_snr: Upper bound of the signal-to-noise ratio by which the loss is weighted.
        noise_offset: Noise that is the same all over a latent.
        whiten_captions: Spread the captions' embeddings (``clap.whiten``); for captions that are
            nearly the same to CLAP. A pre-trained UNet has to get used to it.
        gradient_checkpointing: Compute activations anew instead of keeping them.
        compile_network: ``torch.compile`` the UNet for training; on CUDA only.
        channels_last: Memory layout of the UNet; on CUDA only.
        sampler: How latents are drawn; with a strength below 1, clips are edits of real ones.
    """

    model: AudioLDMModel
    unconditional: torch.Tensor

    def __init__(
        self,
        checkpoint: str = "nano",
        *,
        revision: str | None = None,
        variant: str | None = None,
        tokenizer: str = "roberta-base",
        allow: Sequence[str] = (),
        attention_heads: Literal["auto", "original", "checkpoint"] = "auto",
        crop_seconds: float | None = 10.24,
        train: Full | None = None,
        learning_rate: float | None = None,
        warmup_steps: int = 500,
        weight_decay: float = 1e-2,
        optimizer: Literal["adamw", "adamw_8bit"] = "adamw",
        condition_dropout: float = 0.1,
        audio_clap: str | None = None,
        audio_share: float = 0.31,
        ema_decay: float = 0.9999,
        min_snr: float | None = None,
        noise_offset: float = 0.0,
        whiten_captions: bool = False,
        gradient_checkpointing: bool = False,
        compile_network: bool = False,
        channels_last: bool = False,
        sampler: Sampler | None = None,
    ) -> None:
        # What load_model reads.
        self.tokenizer = tokenizer
        super().__init__(
            checkpoint,
            revision=revision,
            variant=variant,
            allow=allow,
            crop_seconds=crop_seconds,
            train=train,
            learning_rate=learning_rate,
            warmup_steps=warmup_steps,
            weight_decay=weight_decay,
            optimizer=optimizer,
            condition_dropout=condition_dropout,
            ema_decay=ema_decay,
            min_snr=min_snr,
            noise_offset=noise_offset,
            gradient_checkpointing=gradient_checkpointing,
            compile_network=compile_network,
            channels_last=channels_last,
            sampler=sampler,
        )
        self.attention_heads = attention_heads
        if attention_heads == "original":
            checkpoints.set_heads(self.network, checkpoints.require_original_heads(self.network))
        if audio_clap is not None and whiten_captions:
            raise ValueError(
                "generator.whiten_captions moves the embeddings of captions, and those of "
                "recordings (generator.audio_clap) stay where they are: choose one of the two"
            )
        self.audio = None if audio_clap is None else clap.ClapAudio(audio_clap)
        self.audio_share = audio_share if audio_clap else 0.0
        self.whiten_captions = whiten_captions

    def load_model(self, checkpoint: str, allow: Sequence[str]) -> AudioLDMModel:
        """Load the model (see ``checkpoint.load``)."""
        return AudioLDMModel(checkpoints.load(checkpoint, allow=allow, tokenizer=self.tokenizer))

    @property
    def components(self) -> checkpoints.Components:
        """The components of the checkpoint."""
        return self.model.components

    def embed(self, captions: Sequence[str]) -> torch.Tensor:
        """Return the (n, dim) caption embeddings."""
        return self.model.condition(captions, 0.0)

    def examples(self, clips: Clips, captions: Sequence[str], *, train: bool) -> Any:
        """Turn captioned clips into training examples, with recordings' embeddings if asked to."""
        if self.audio is None:
            return super().examples(clips, captions, train=train)
        self.audio.to(self._where)
        examples = super().examples(clips, captions, train=train)
        recorded = WithRecordings(examples, self.audio, self.share_of_ranks)
        if self._trainer:
            self.trainer.strategy.barrier("recordings")
        self.audio.to("cpu")
        return recorded

    def begin_examples(self, captions: Sequence[str], train: bool) -> None:
        """Whiten captions' embeddings if asked to, and report how close they are."""
        text_branch = self.components.text_encoder, self.components.tokenizer
        if self.audio is not None:
            self.audio.require_text_space(*text_branch, captions)
        if not train:
            return
        if self.whiten_captions:
            clap.whiten(*text_branch, captions)
            self.unconditional = self.condition_without_caption()  # type: ignore[assignment]
        if self.share_of_ranks[0] == 0:
            folder = Path(self.trainer.default_root_dir) if self._trainer else None
            clap.report_closeness(clap.closeness(captions, self.embed(captions)), folder)

    def chosen_condition(self, batch: Any, uniform: torch.Tensor) -> Condition:
        """Return caption, recording or nothing, for each example of a training step."""
        return choose_condition(
            batch["embedding"], batch.get("audio"), self.unconditional_on(self.device), uniform,  # type: ignore[arg-type]
            self.condition_dropout, self.audio_share,
        )  # fmt: skip

    def on_fit_start(self) -> None:
        if self.attention_heads == "auto":
            self._choose_heads(self.trainer.datamodule.train_set)  # type: ignore[attr-defined]
        super().on_fit_start()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["attention_heads"] = checkpoints.heads_of(self.network)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        checkpoints.set_heads(self.network, checkpoint["attention_heads"])
        self.attention_heads = "checkpoint"

    def save(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the model, with the averaged weights and its card, in the diffusers layout.

        Adapters are merged into the weights, and written to ``lora`` for themselves, too.
        """
        data = getattr(self._trainer, "datamodule", None)
        card = model_card(
            self.checkpoint,
            data.captioned if data else None,
            [data.captions(clip) for clip in data.captioned] if data else [],
            self.settings(),
            self.metrics,
            pipeline=not isinstance(self.components.vocoder, GriffinLim),
        )
        with self.averaged_weights():
            components = replace(self.components, unet=self.adaptation.merged(self.network))
            checkpoints.save(components, folder, dtype, card)
            self.adaptation.save_separately(self.network, Path(folder))

    def settings(self) -> dict[str, Any]:
        """Return the settings of the training, for a model card."""
        heads = {"attention_heads": list(checkpoints.heads_of(self.network))}
        settings = super().settings() | heads
        if self.audio is not None and Path(self.audio.checkpoint).is_dir():
            settings["audio_clap"] = "a local folder"
        return settings

    @torch.no_grad()
    def _choose_heads(self, examples: Any) -> None:
        # Clips are sorted by machine: eight spread over all of them.
        indices = range(0, len(examples), -(-len(examples) // 8))
        batch = examples.collate([examples[Draw(i, i)] for i in indices])
        batch = self.transfer_batch_to_device(batch, self.device, 0)
        noise = fixed_noise(indices, self._latent_shape(batch)).to(batch["moments"])
        timesteps = fixed_timesteps(indices, self.objective.n_timesteps).to(self.device)
        checkpoints.keep_better_heads(
            self.network, lambda: float(self.loss(batch, timesteps, noise).mean())
        )
        # On all ranks alike, whatever their last bits.
        chosen = self.trainer.strategy.broadcast(checkpoints.heads_of(self.network))
        checkpoints.set_heads(self.network, chosen)
