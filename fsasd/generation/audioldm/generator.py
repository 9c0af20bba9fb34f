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
from fsasd.generation.audioldm.model import AudioLDMModel
from fsasd.generation.audioldm.recordings import WithRecordings, choose_condition
from fsasd.generation.audioldm.vocoder import GriffinLim
from fsasd.generation.diffusion.card import Family
from fsasd.generation.diffusion.latent_diffusion import LatentDiffusion
from fsasd.generation.diffusion.model import Condition
from fsasd.generation.diffusion.validation_loss import fixed_noise, fixed_timesteps

FAMILY = Family(
    name="AudioLDM",
    tag="audioldm",
    pipeline="AudioLDMPipeline",
    call="caption, audio_length_in_s=10.0, guidance_scale=2.5",
    licence="cc-by-nc-sa-4.0",
    terms=(
        "The published weights of AudioLDM are for non-commercial use (CC BY-NC-SA 4.0), and so is "
        "what is fine-tuned from them."
    ),
)


class AudioLDM(LatentDiffusion):
    """A text-to-audio latent diffusion model whose UNet is fine-tuned.

    Args:
        checkpoint: ``nano``, ``random:<size>``, a folder, a hub id or a file of the original
            project (``checkpoint.load``).
        tokenizer: For a file of the original, which holds none: a folder or a hub id.
        tokenizer_revision: Of its repository on the hub; the main branch by default.
        attention_heads: ``original`` or ``checkpoint``, where these differ (the hub's do); ``auto``
            compares how well both denoise a few of the clips and keeps the better.
        audio_clap: All of CLAP, a folder or a hub id, to train on embeddings of recordings, too;
            one whose text branch is the checkpoint's text encoder.
        audio_clap_revision: Of its repository on the hub; the main branch by default.
        audio_share: Share of examples whose condition is the recording's embedding, not the
            caption's, where there is such a CLAP. AudioLDM's authors had 0.31.
        whiten_captions: Spread the captions' embeddings (``clap.whiten``); for captions that are
            nearly the same to CLAP. A pre-trained UNet has to get used to it.
        settings: All other arguments of ``LatentDiffusion``.
    """

    model: AudioLDMModel
    unconditional: torch.Tensor

    def __init__(
        self,
        checkpoint: str = "nano",
        *,
        tokenizer: str = "FacebookAI/roberta-base",
        tokenizer_revision: str | None = None,
        attention_heads: Literal["auto", "original", "checkpoint"] = "auto",
        audio_clap: str | None = None,
        audio_clap_revision: str | None = None,
        audio_share: float = 0.31,
        whiten_captions: bool = False,
        **settings: Any,
    ) -> None:
        # What load_model reads.
        self.tokenizer, self.tokenizer_revision = tokenizer, tokenizer_revision
        super().__init__(checkpoint, **settings)
        self.attention_heads = attention_heads
        if attention_heads == "original":
            checkpoints.set_heads(self.network, checkpoints.require_original_heads(self.network))
        if audio_clap is not None and whiten_captions:
            raise ValueError(
                "generator.whiten_captions moves the embeddings of captions, and those of "
                "recordings (generator.audio_clap) stay where they are: choose one of the two"
            )
        if audio_clap is None and audio_clap_revision is not None:
            raise ValueError(
                f"generator.audio_clap_revision={audio_clap_revision}: expected a hub id as "
                "generator.audio_clap, found none: give it, or leave the revision out"
            )
        self.audio = None if audio_clap is None else clap.ClapAudio(audio_clap, audio_clap_revision)
        self.audio_share = audio_share if audio_clap else 0.0
        self.whiten_captions = whiten_captions

    def load_model(self, checkpoint: str, allow: Sequence[str]) -> AudioLDMModel:
        """Load the model (see ``checkpoint.load``)."""
        components = checkpoints.load(
            checkpoint,
            allow=allow,
            tokenizer=self.tokenizer,
            tokenizer_revision=self.tokenizer_revision,
        )
        return AudioLDMModel(components)

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

    @property
    def family(self) -> Family:
        """AudioLDM's; of Griffin-Lim in the place of a vocoder, diffusers knows nothing."""
        if isinstance(self.components.vocoder, GriffinLim):
            return replace(FAMILY, pipeline=None)
        return FAMILY

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
