"""AudioLDM (Liu et al., 2023) as a LightningModule: fine-tuned on captioned machine sounds."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.training_utils import EMAModel
from lightning.pytorch.trainer.states import TrainerFn
from transformers import get_cosine_schedule_with_warmup

from fsasd.data.audio import SAMPLE_RATE, Clips
from fsasd.data.draws import Draw
from fsasd.generation import checkpoint as checkpoints
from fsasd.generation import clap
from fsasd.generation.adaptation import Full
from fsasd.generation.base import Generator
from fsasd.generation.checkpoint.card import model_card
from fsasd.generation.denoising import Chance, denoising_loss, min_snr_weight, sample_posterior
from fsasd.generation.latents import Batch, LatentExamples, VaeMoments
from fsasd.generation.optimizing import build_optimizer, optimizer_steps
from fsasd.generation.prompts import Prompt
from fsasd.generation.sampling import Sampler
from fsasd.generation.sharding import divided_like, shard, whole
from fsasd.generation.threads import in_pieces, one_thread
from fsasd.generation.validation import SplitLosses, fixed_noise, fixed_timesteps

log = logging.getLogger(__name__)

MEL_HOP = 160
LATENT_BINS = 16
"""64 mels, halved twice by the VAE."""


class TrainingError(ValueError):
    """Training cannot go on; the message says with what it stopped."""


class AudioLDM(Generator):
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
        learning_rate: Reached after the warm-up, falling to 0 along a cosine.
        warmup_steps: Optimizer steps of linear warm-up.
        weight_decay: Of AdamW.
        optimizer: ``adamw``, or ``adamw_8bit``, which needs the extra ``8bit``.
        condition_dropout: Share of examples trained without their condition, for guidance.
        audio_clap: All of CLAP, a folder or a hub id, to train on embeddings of recordings, too.
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
        sampler: How latents are drawn.
    """

    unconditional: torch.Tensor

    def __init__(
        self,
        checkpoint: str = "nano",
        *,
        tokenizer: str = "roberta-base",
        allow: Sequence[str] = (),
        attention_heads: Literal["auto", "original", "checkpoint"] = "auto",
        crop_seconds: float | None = 10.24,
        train: Full | None = None,
        learning_rate: float = 3e-5,
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
        self.parts = checkpoints.load(checkpoint, allow=allow, tokenizer=tokenizer)
        self.unet = self.parts.unet.train()
        self.attention_heads = attention_heads
        if attention_heads == "original":
            checkpoints.set_heads(self.unet, checkpoints.require_original_heads(self.unet))
        self.crop_seconds = crop_seconds
        self.train_what = train or Full()
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.weight_decay = weight_decay
        self.optimizer_name = optimizer
        self.condition_dropout = condition_dropout
        self.audio = None if audio_clap is None else clap.ClapAudio(audio_clap)
        self.audio_share = audio_share if audio_clap else 0.0
        self.ema_decay = ema_decay
        self.ema: EMAModel | None = None
        self.min_snr = min_snr
        self.noise_offset = noise_offset
        self.whiten_captions = whiten_captions
        self.gradient_checkpointing = gradient_checkpointing
        self.compile_unet = compile_unet
        self.channels_last = channels_last
        self.sampler = sampler or Sampler()
        self.metrics: dict[str, float] = {}
        self.divided = False
        """Whether the weights are divided among processes: then none alone can generate."""
        self._unchecked: list[tuple[torch.Tensor, list[Draw]]] = []
        for module in self.parts.frozen():
            module.requires_grad_(False).eval()
        self.register_buffer("unconditional", self._embed_nothing(), persistent=False)

    # What the data module asks for.

    def embed(self, captions: Sequence[str]) -> torch.Tensor:
        """Return the (n, dim) caption embeddings."""
        return clap.embed_captions(self.parts.text_encoder, self.parts.tokenizer, captions)

    def examples(self, clips: Clips, captions: Sequence[str], *, train: bool) -> LatentExamples:
        """Turn captioned clips into training examples: cached latents, embedded captions."""
        # Asked for before Lightning moves the module to where it trains.
        device = self.trainer.strategy.root_device if self._trainer else self.device
        share = (self.trainer.global_rank, self.trainer.world_size) if self._trainer else (0, 1)
        frozen = self.parts.vae, self.parts.text_encoder
        for module in frozen:
            module.to(device)
        texts = sorted(set(captions))
        if train and self.whiten_captions:
            clap.whiten(self.parts.text_encoder, self.parts.tokenizer, texts)
            self.unconditional.copy_(self._embed_nothing())
        embeddings = self.embed(texts)
        if train:
            clap.report_closeness(clap.closeness(texts, embeddings))
        found = LatentExamples(
            clips,
            captions,
            dict(zip(texts, embeddings, strict=True)),
            VaeMoments(self.parts.vae, self.crop_seconds),
            frames=None if self.crop_seconds is None else self._frames(self.crop_seconds),
            random_crop=train,
            audio=self.audio,
            share=share,
        )
        if self._trainer:
            # Each process reads what any of them has computed.
            self.trainer.strategy.barrier("latents")
        for module in frozen:
            module.to("cpu")
        return found

    # Training.

    def denoise(
        self, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        """Return what the UNet finds in latents (batch, channels, frames, bins): their noise."""
        # Compiled for one shape, that of training; each other would be compiled for anew.
        unet = self.unet if self.training or not self.compile_unet else self.unet.forward
        return unet(latents, timesteps, encoder_hidden_states=None, class_labels=embeddings).sample

    def loss(
        self,
        batch: Batch,
        timesteps: torch.Tensor,
        noise: torch.Tensor,
        posterior_noise: torch.Tensor | None = None,
        embeddings: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the (batch,) squared errors of what is predicted (see ``denoising_loss``).

        Args:
            batch: Examples.
            timesteps: (batch,) of the 1000 of the schedule.
            noise: Added to the latents.
            posterior_noise: Of the VAE's posterior; its mean is used without.
            embeddings: (batch, dim) of the condition; the captions' by default.
        """
        latents = sample_posterior(batch["moments"], posterior_noise)
        return denoising_loss(
            self.denoise,
            self.parts.scheduler,
            latents * self.parts.vae.config.scaling_factor,
            batch["embedding"] if embeddings is None else embeddings,
            timesteps,
            noise,
            batch["frames"],
        )

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        chance = Chance.draw(
            batch["draws"], self._latent_shape(batch), self._n_timesteps, self.device
        )
        losses = self.loss(
            batch,
            chance.timesteps,
            chance.noise + self.noise_offset * chance.offset,
            chance.posterior,
            self.condition(batch, chance.uniform),
        )
        loss = losses.mean()
        self._unchecked.append((loss.detach(), batch["draws"]))
        # To look at a loss waits for the accelerator, so it is done for several at once.
        if self.device.type == "cpu" or len(self._unchecked) >= 16:
            self.check_finite()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(losses), sync_dist=True)
        if self.min_snr is not None:
            losses = losses * min_snr_weight(self.parts.scheduler, chance.timesteps, self.min_snr)
        return losses.mean()

    def condition(self, batch: Batch, uniform: torch.Tensor) -> torch.Tensor:
        """Return the (batch, dim) condition of each example: caption, recording or nothing.

        Args:
            batch: Examples.
            uniform: (batch, 2) in [0, 1), by which it is decided.
        """
        dropped, heard = (
            uniform < uniform.new_tensor([self.condition_dropout, self.audio_share])
        ).T
        embeddings = batch["embedding"]
        if "audio" in batch:
            embeddings = torch.where(heard[:, None], batch["audio"], embeddings)
        return torch.where(dropped[:, None], self.unconditional, embeddings)

    def check_finite(self) -> None:
        """Look at the losses of the last steps.

        Raises:
            TrainingError: One is not a number; names the clips of its batch.
        """
        pending, self._unchecked = self._unchecked, []
        if not pending:
            return
        finite = torch.isfinite(torch.stack([loss for loss, _ in pending])).tolist()
        if all(finite):
            return
        loss, draws = pending[finite.index(False)]
        clips = self.trainer.datamodule.train_clips  # type: ignore[attr-defined]
        kept = getattr(self.trainer.checkpoint_callback, "last_model_path", "") or "none yet"
        raise TrainingError(
            f"the loss became {float(loss)} with the batch of "
            f"{', '.join(str(clips[draw.clip].path) for draw in draws)}. Training stopped; the "
            f"last good checkpoint: {kept}. Lower generator.learning_rate or trainer."
            "gradient_clip_val; with 16-mixed precision use bf16-mixed; look at these recordings"
        )

    def on_validation_start(self) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self._split = SplitLosses(data.val_clips, ["val", "val_raw"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Find the loss at fixed noise and timesteps, with and without the weights' average."""
        indices = [draw.clip for draw in batch["draws"]]
        noise = fixed_noise(indices, self._latent_shape(batch)).to(batch["moments"])
        timesteps = fixed_timesteps(indices, self._n_timesteps).to(self.device)
        raw = self.loss(batch, timesteps, noise)
        with self.averaged_weights():
            averaged = self.loss(batch, timesteps, noise)
        self._split.add(indices, torch.stack([averaged, raw]))

    def on_validation_epoch_end(self) -> None:
        """Log val/loss, and val/<machine, label, role>/...; val_raw/... without the average."""
        found = self._split.sums.to(self.device)
        self._split.sums = self.trainer.strategy.reduce(found, reduce_op="sum").cpu()
        means = self._split.means()
        total = means.pop("val/loss", None)
        if total is not None:
            # All ranks know the same numbers, of which sync_dist takes the mean.
            self.log("val/loss", total, prog_bar=True, sync_dist=True)
            self.log_dict(means, sync_dist=True)

    def configure_model(self) -> None:
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.begin_training()

    def begin_training(self) -> None:
        """Choose the weights that are trained, divide them if need be, and begin their average."""
        if self.ema is not None:
            return
        self.train_what.apply(self.unet)
        if self.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        if self.device_mesh is not None:
            shard(self.unet, self.device_mesh["data_parallel"])
            self.divided = True
            # What is frozen is not in the checkpoints, and so far Lightning asks for all.
            self.strict_loading = False
        # Divided tensors cannot be copied for many at once.
        self.ema = EMAModel(self.trained_weights(), decay=self.ema_decay, foreach=not self.divided)

    def on_fit_start(self) -> None:
        self._average.to(self.device)
        if self.attention_heads == "auto":
            self._choose_heads(self.trainer.datamodule.train_set)  # type: ignore[attr-defined]
        if self.device.type != "cuda":
            if self.compile_unet or self.channels_last:
                log.info("compile_unet and channels_last are for CUDA, and not used on a CPU")
            return
        if self.channels_last:
            self.unet.to(memory_format=torch.channels_last)
        if self.compile_unet:
            # In place: the weights keep their names.
            self.unet.compile()

    @property
    def example_frames(self) -> int:
        """Latent frames of a training example; of whole clips, of 10.24 s of them."""
        return self._frames(self.crop_seconds or 10.24)

    def trained_weights(self) -> list[torch.nn.Parameter]:
        """Return the weights that are trained."""
        return [parameter for parameter in self.unet.parameters() if parameter.requires_grad]

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(
            self.optimizer_name, self.trained_weights(), self.learning_rate, self.weight_decay
        )
        self.total_steps = steps = optimizer_steps(self.trainer)
        schedule = get_cosine_schedule_with_warmup(
            optimizer, min(self.warmup_steps, steps // 2), steps
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self._average.step(self.trained_weights())

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Use the moving average of the weights; without a training step there is none."""
        if self.ema is None or not self.ema.optimization_step:
            yield
            return
        self.ema.store(self.trained_weights())
        self.ema.copy_to(self.trained_weights())
        try:
            yield
        finally:
            self.ema.restore(self.trained_weights())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was learnt: not the frozen weights, and nothing that is not finite."""
        self.check_finite()
        frozen = self._frozen_weights()
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: state[key] for key in state if key not in frozen}
        average = self._average.state_dict()
        checkpoint["ema"] = {**average, "shadow_params": [*map(whole, average["shadow_params"])]}
        checkpoint["attention_heads"] = checkpoints.heads_of(self.unet)
        numbers = self.trainer.callback_metrics.items()
        checkpoint["metrics"] = {name: float(number) for name, number in numbers}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Where weights are divided, Lightning has loaded them by now.
        if "state_dict" in checkpoint:
            checkpoint["state_dict"] = {**self._frozen_weights(), **checkpoint["state_dict"]}
        average = checkpoint["ema"]
        shadows = zip(average["shadow_params"], self.trained_weights(), strict=True)
        placed = [divided_like(shadow, weight) for shadow, weight in shadows]
        self._average.load_state_dict({**average, "shadow_params": placed})
        checkpoints.set_heads(self.unet, checkpoint["attention_heads"])
        self.attention_heads = "checkpoint"
        self.metrics = checkpoint["metrics"]

    def on_fit_end(self) -> None:
        """Put together what was divided among processes."""
        if not self.divided:
            return
        state = {name: whole(weight) for name, weight in self.unet.state_dict().items()}
        self._average.shadow_params = [*map(whole, self._average.shadow_params)]
        self.unet = type(self.parts.unet).from_config(self.unet.config)
        self.train_what.apply(self.unet)
        self.unet.load_state_dict(state)
        self.divided = False

    # Synthesis.

    @torch.no_grad()
    def generate(self, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
        """Return one waveform (samples,) per prompt, as loud as the training clips were heard.

        Prompts of one length are drawn together. The weights are those in place: see
        ``averaged_weights``. A negative prompt takes the place of the empty caption that guidance
        leads away from.

        Raises:
            ValueError: There is a negative prompt, but no guidance through which it could act.
            TrainingError: The weights are divided among processes, of which all had to take part.
        """
        if self.divided:
            raise TrainingError(
                "trainer=fsdp divides the weights among processes, so that one of them alone "
                "cannot generate while training goes on: use '~callbacks.evaluation' and "
                "callbacks.monitor.samples_every_n_steps=0, or trainer=ddp"
            )
        for module in self.parts.frozen():
            module.to(self.device)
        waveforms: dict[str, torch.Tensor] = {}
        for seconds in sorted({prompt.seconds for prompt in prompts}):
            group = [prompt for prompt in prompts if prompt.seconds == seconds]
            # Not in the threads, of which only one at a time could use the tokenizer.
            with one_thread():
                embeddings = self.embed([prompt.caption for prompt in group]).to(self.device)
                given = list(zip(group, embeddings, self._led_away_from(group), strict=True))
            on_cpu = self.device.type == "cpu"
            found = in_pieces(self._draw, given) if on_cpu else self._draw(given)
            waveforms |= zip((prompt.wav for prompt in group), found, strict=True)
        if self._trainer and self.trainer.state.fn == TrainerFn.FITTING:
            # While training goes on, the accelerator's memory is the UNet's.
            for module in self.parts.frozen():
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
        )
        with self.averaged_weights():
            unet = self.train_what.merged(self.unet)
            checkpoints.save(replace(self.parts, unet=unet), folder, dtype, card)
            self.train_what.save_alone(self.unet, Path(folder))

    def _settings(self) -> dict[str, Any]:
        return {
            **self.hparams,
            "attention_heads": list(checkpoints.heads_of(self.unet)),
            "train": {type(self.train_what).__name__.lower(): vars(self.train_what)},
        }

    def _draw(
        self, given: Sequence[tuple[Prompt, torch.Tensor, torch.Tensor]]
    ) -> list[torch.Tensor]:
        prompts, vae = [prompt for prompt, _, _ in given], self.parts.vae
        samples = round(prompts[0].seconds * SAMPLE_RATE)
        latents = self.sampler(
            self.denoise,
            self.parts.scheduler,
            torch.stack([embedding for _, embedding, _ in given]),
            torch.stack([away for _, _, away in given]),
            (self.unet.config.in_channels, self._frames(prompts[0].seconds), LATENT_BINS),
            [prompt.seed for prompt in prompts],
        )
        mel = vae.decode(latents / vae.config.scaling_factor).sample
        # HiFi-GAN gives back 32 samples more than frames * hop.
        return list(self.parts.vocoder(mel[:, 0])[:, :samples].float().cpu())

    @torch.no_grad()
    def _choose_heads(self, examples: LatentExamples) -> None:
        indices = range(min(8, len(examples)))
        batch = examples.collate([examples[Draw(i, i)] for i in indices])
        batch = self.transfer_batch_to_device(batch, self.device, 0)
        noise = fixed_noise(indices, self._latent_shape(batch)).to(batch["moments"])
        timesteps = fixed_timesteps(indices, self._n_timesteps).to(self.device)
        checkpoints.keep_better_heads(
            self.unet, lambda: float(self.loss(batch, timesteps, noise).mean())
        )
        # On all ranks alike, whatever their last bits.
        chosen = self.trainer.strategy.broadcast(checkpoints.heads_of(self.unet))
        checkpoints.set_heads(self.unet, chosen)

    def _embed_nothing(self) -> torch.Tensor:
        with one_thread():
            return self.embed([""])[0]

    def _frozen_weights(self) -> dict[str, torch.Tensor]:
        return {
            f"unet.{name}": parameter.detach()
            for name, parameter in self.unet.named_parameters()
            if not parameter.requires_grad
        }

    def _led_away_from(self, prompts: Sequence[Prompt]) -> torch.Tensor:
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
    def _average(self) -> EMAModel:
        if self.ema is None:
            raise RuntimeError("the weights' average exists from the start of fitting on")
        return self.ema

    def _frames(self, seconds: float) -> int:
        step = MEL_HOP * 2 ** (len(self.parts.vae.config.block_out_channels) - 1)
        return math.ceil(round(seconds * SAMPLE_RATE) / step)

    @staticmethod
    def _latent_shape(batch: Batch) -> tuple[int, int, int]:
        channels, frames, bins = batch["moments"].shape[1:]
        return channels // 2, frames, bins

    @property
    def _n_timesteps(self) -> int:
        return self.parts.scheduler.config.num_train_timesteps
