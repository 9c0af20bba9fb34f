"""AudioLDM (Liu et al., 2023) as a LightningModule: fine-tuned on captioned machine sounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.trainer.states import TrainerFn
from transformers import ClapTextModelWithProjection, RobertaTokenizer

from fsasd.data.clips import Clips
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.audioldm import checkpoint as checkpoints
from fsasd.generation.audioldm import clap
from fsasd.generation.audioldm.checkpoint.card import model_card
from fsasd.generation.audioldm.finetuning import FineTuned
from fsasd.generation.audioldm.vocoder import GriffinLim
from fsasd.generation.diffusion.adaptation import Full
from fsasd.generation.diffusion.editing import (
    edited_recording,
    put_into,
    source_latent,
    with_strengths,
)
from fsasd.generation.diffusion.finite import TrainingError
from fsasd.generation.diffusion.latents import LatentExamples, VaeMoments
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.prompts import Prompt
from fsasd.generation.threads import map_in_chunks, one_thread

MEL_HOP = 160
LATENT_BINS = 16
"""64 mels, halved twice by the VAE."""


class AudioLDM(FineTuned):
    """A text-to-audio latent diffusion model whose UNet is fine-tuned.

    Only the UNet is a submodule. VAE, text encoder and vocoder are never trained: they stay out of
    the optimizer, the checkpoints and, during training, the accelerator's memory.

    Args:
        checkpoint: ``nano``, ``random:<size>``, a folder, a hub id or a file of the original
            project (``checkpoint.load``).
        tokenizer: For a file of the original, which holds none: a folder or a hub id.
        allow: Names of weights that the checkpoint may lack or have too many of.
        attention_heads: ``original`` or ``checkpoint``, where these differ (the hub's do); ``auto``
            compares how well both denoise a few of the clips and keeps the better.
        crop_seconds: Length of a training example; shorter clips are repeated up to it. ``None``
            trains on whole clips: in a batch, what is beyond a clip's end does not count.
        train: What of the UNet is trained (``adaptation``); all by default.
        learning_rate: Reached after the warm-up, falling to 0 along a cosine; that of ``train`` by
            default.
        warmup_steps: Optimizer steps of linear warm-up.
        weight_decay: Of AdamW.
        optimizer: ``adamw``, or ``adamw_8bit``, which needs the extra ``8bit``.
        condition_dropout: Share of examples trained without their condition, for guidance.
        audio_clap: All of CLAP, a folder or a hub id, to train on embeddings of recordings, too;
            one whose text branch is the checkpoint's text encoder.
        audio_share: Share of examples whose condition is the recording's embedding, not the
            caption's, where there is such a CLAP. AudioLDM's authors had 0.31.
        ema_decay: Upper bound of the weights' moving average, min(decay, (1 + n) / (10 + n)).
        min_snr: Upper bound of the signal-to-noise ratio by which the loss is weighted (Hang et
            al., 2023: 5); ``None`` is AudioLDM's plain loss.
        noise_offset: Noise that is the same all over a latent, added with this standard deviation.
        whiten_captions: Spread the captions' embeddings (``clap.whiten``); for captions that are
            nearly the same to CLAP. A pre-trained UNet has to get used to it.
        gradient_checkpointing: Compute activations anew instead of keeping them: less memory for a
            third more time.
        compile_unet: ``torch.compile`` it for training; on CUDA only.
        channels_last: Memory layout of the UNet; on CUDA only.
        sampler: How latents are drawn; with a strength below 1, clips are edits of real ones.
    """

    def __init__(
        self,
        checkpoint: str = "nano",
        *,
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
        compile_unet: bool = False,
        channels_last: bool = False,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["checkpoint", "tokenizer", "allow", "train", "sampler"])
        self.checkpoint = str(checkpoint)
        self.components = checkpoints.load(checkpoint, allow=allow, tokenizer=tokenizer)
        self.unet = self.components.unet.train()
        self.attention_heads = attention_heads
        if attention_heads == "original":
            checkpoints.set_heads(self.unet, checkpoints.require_original_heads(self.unet))
        self.crop_seconds = crop_seconds
        if self.example_frames < 1:
            raise ValueError(f"crop_seconds must be 0.04 or more, found {crop_seconds}")
        self.adaptation = train or Full()
        self.learning_rate = (
            self.adaptation.learning_rate if learning_rate is None else learning_rate
        )
        self.warmup_steps = warmup_steps
        self.weight_decay = weight_decay
        self.optimizer_name = optimizer
        self.condition_dropout = condition_dropout
        if audio_clap is not None and whiten_captions:
            raise ValueError(
                "generator.whiten_captions moves the embeddings of captions, and those of "
                "recordings (generator.audio_clap) stay where they are: choose one of the two"
            )
        self.audio = None if audio_clap is None else clap.ClapAudio(audio_clap)
        self.audio_share = audio_share if audio_clap else 0.0
        self.ema_decay = ema_decay
        self.min_snr = min_snr
        self.noise_offset = noise_offset
        self.whiten_captions = whiten_captions
        self.gradient_checkpointing = gradient_checkpointing
        self.compile_unet = compile_unet
        self.channels_last = channels_last
        self.sampler = sampler or Sampler()
        for module in self.components.frozen():
            module.requires_grad_(False).eval()
        self.register_buffer("unconditional", self._embed_empty_caption(), persistent=False)

    def embed(self, captions: Sequence[str]) -> torch.Tensor:
        """Return the (n, dim) caption embeddings."""
        return clap.embed_captions(*self._text_branch, captions)

    def examples(self, clips: Clips, captions: Sequence[str], *, train: bool) -> LatentExamples:
        """Turn captioned clips into training examples: cached latents, embedded captions."""
        device = self._where
        share = (self.trainer.global_rank, self.trainer.world_size) if self._trainer else (0, 1)
        used = [self.components.vae, self.components.text_encoder]
        used += [self.audio] if self.audio else []
        for component in used:
            component.to(device)
        texts = sorted(set(captions))
        if self.audio is not None:
            self.audio.require_text_space(*self._text_branch, texts)
        if train and self.whiten_captions:
            clap.whiten(*self._text_branch, texts)
            self.unconditional.copy_(self._embed_empty_caption())
        embeddings = self.embed(texts)
        if train and share[0] == 0:
            folder = Path(self.trainer.default_root_dir) if self._trainer else None
            clap.report_closeness(clap.closeness(texts, embeddings), folder)
        examples = LatentExamples(
            clips,
            captions,
            dict(zip(texts, embeddings, strict=True)),
            VaeMoments(self.components.vae, self.crop_seconds),
            frames=None if self.crop_seconds is None else self.example_frames,
            random_crop=train,
            audio=self.audio,
            share=share,
        )
        if self._trainer:
            # Each process reads what any of them has computed.
            self.trainer.strategy.barrier("latents")
        for component in used:
            component.to("cpu")
        return examples

    @property
    def example_frames(self) -> int:
        """Latent frames of a training example; of whole clips, of 10.24 s of them."""
        return round((self.crop_seconds or 10.24) * SAMPLE_RATE) // self._latent_samples

    # Synthesis.

    @property
    def derived(self) -> bool:  # type: ignore[override]
        """Whether clips are edits of real ones (``Sampler.strength``)."""
        return self.sampler.derived

    def prepare(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Give the prompts of edits their strengths."""
        prepared = super().prepare(prompts)
        return with_strengths(prepared, self.sampler.strengths) if self.derived else prepared

    @torch.no_grad()
    def generate(self, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
        """Return one waveform (samples,) per prompt, at the level of the normalised training clips.

        Prompts of one length and strength are drawn together. The weights are those in place: see
        ``averaged_weights``. A negative prompt takes the place of the empty caption that guidance
        leads away from.

        Raises:
            ValueError: There is a negative prompt, but no guidance through which it could act, or
                a prompt of an edit lacks its strength or its source.
            TrainingError: The weights are divided among processes, of which all had to take part.
        """
        if self.sharded:
            raise TrainingError(
                "trainer=fsdp divides the weights among processes, so that one of them alone "
                "cannot generate while training goes on: use '~callbacks.evaluation' and "
                "callbacks.monitor.samples_every_n_steps=0, or trainer=ddp"
            )
        for module in self.components.frozen():
            module.to(self.device)
        waveforms: dict[str, torch.Tensor] = {}
        groups: dict[tuple[float, float], list[Prompt]] = {}
        for prompt in prompts:
            groups.setdefault((prompt.seconds, self._strength(prompt)), []).append(prompt)
        for _, group in sorted(groups.items()):
            # Not in the threads, of which only one at a time could use the tokenizer.
            with one_thread():
                embeddings = self.embed([prompt.caption for prompt in group]).to(self.device)
                given = list(zip(group, embeddings, self._negative_embeddings(group), strict=True))
            on_cpu = self.device.type == "cpu"
            drawn = map_in_chunks(self._draw, given) if on_cpu else self._draw(given)
            waveforms |= zip((prompt.wav for prompt in group), drawn, strict=True)
        if self._trainer and self.trainer.state.fn == TrainerFn.FITTING:
            # While training goes on, the accelerator's memory is the UNet's.
            for module in self.components.frozen():
                module.to("cpu")
        return [waveforms[prompt.wav] for prompt in prompts]

    def save(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the model, with the averaged weights, in the diffusers layout.

        Adapters are merged into the weights, and written to ``lora`` for themselves, too.
        """
        data = getattr(self._trainer, "datamodule", None)
        card = model_card(
            self.checkpoint,
            data.captioned if data else None,
            [data.captions(clip) for clip in data.captioned] if data else [],
            self._settings(),
            self.metrics,
            pipeline=not isinstance(self.components.vocoder, GriffinLim),
        )
        with self.averaged_weights():
            unet = self.adaptation.merged(self.unet)
            checkpoints.save(replace(self.components, unet=unet), folder, dtype, card)
            self.adaptation.save_separately(self.unet, Path(folder))

    def _settings(self) -> dict[str, Any]:
        settings = {
            **self.hparams,
            "attention_heads": list(checkpoints.heads_of(self.unet)),
            "learning_rate": self.learning_rate,
            "train": {type(self.adaptation).__name__.lower(): vars(self.adaptation)},
        }
        if self.audio is not None and Path(self.audio.checkpoint).is_dir():
            settings["audio_clap"] = "a local folder"
        if self._trainer and self.ema is not None:
            settings |= {
                "steps": self.total_steps,
                "batch_size": self.examples_per_step,
                "precision": self.trainer.precision,
                "gradient_clip_val": self.trainer.gradient_clip_val,
                "seed": self.trainer.datamodule.seed,  # type: ignore[attr-defined]
            }
        return settings

    def _draw(
        self, given: Sequence[tuple[Prompt, torch.Tensor, torch.Tensor]]
    ) -> list[torch.Tensor]:
        prompts = [prompt for prompt, _, _ in given]
        samples = round(prompts[0].seconds * SAMPLE_RATE)
        frames = math.ceil(samples / self._latent_samples)
        strength = self._strength(prompts[0])
        sources = None if strength == 1 else self._sources(prompts, frames)
        latents = self.sampler(
            self.denoise,
            self.components.scheduler,
            torch.stack([embedding for _, embedding, _ in given]),
            torch.stack([negative for _, _, negative in given]),
            (self.unet.config.in_channels, frames, LATENT_BINS),
            [prompt.seed for prompt in prompts],
            sources,
            strength,
        )
        waveforms = self._decode(latents, samples)
        if sources is None:
            return list(waveforms)
        triples = zip(prompts, waveforms, self._decode(sources, samples), strict=True)
        return [self._put_into_source(prompt, *pair) for prompt, *pair in triples]

    def _decode(self, latents: torch.Tensor, samples: int) -> torch.Tensor:
        vae = self.components.vae
        # Half precision is for the UNet: in a waveform its rounding is audible.
        with torch.autocast(self.device.type, enabled=False):
            mel = vae.decode(latents.float() / vae.config.scaling_factor).sample
            # HiFi-GAN gives back 32 samples more than frames * hop.
            return self.components.vocoder(mel[:, 0])[:, :samples].cpu()

    def _put_into_source(
        self, prompt: Prompt, edit: torch.Tensor, round_trip: torch.Tensor
    ) -> torch.Tensor:
        recording = edited_recording(prompt, len(edit), self.sampler.channel)
        return torch.from_numpy(put_into(recording, edit.numpy(), round_trip.numpy()))

    def _sources(self, prompts: Sequence[Prompt], frames: int) -> torch.Tensor:
        vae, samples = self.components.vae, frames * self._latent_samples
        with torch.autocast(self.device.type, enabled=False):
            return torch.stack(
                [source_latent(one, vae, samples, self.sampler.channel) for one in prompts]
            )

    def _strength(self, prompt: Prompt) -> float:
        if not self.derived:
            return 1.0
        if prompt.strength is None:
            raise ValueError(f"{prompt.wav}: expected an edit's strength: call 'prepare' first")
        return prompt.strength

    def _embed_empty_caption(self) -> torch.Tensor:
        with one_thread():
            return self.embed([""])[0]

    def _negative_embeddings(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        if not any(prompt.negative for prompt in prompts):
            return self.unconditional.expand(len(prompts), -1)
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
    def _text_branch(self) -> tuple[ClapTextModelWithProjection, RobertaTokenizer]:
        return self.components.text_encoder, self.components.tokenizer

    @property
    def _latent_samples(self) -> int:
        return MEL_HOP * 2 ** (len(self.components.vae.config.block_out_channels) - 1)
