"""A latent diffusion model as a LightningModule: fine-tuned on captioned clips, then sampled."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.trainer.states import TrainerFn

from fsasd.data.clips import Clips
from fsasd.data.recording import SAMPLE_RATE
from fsasd.generation.diffusion.adaptation import Full, Untrained
from fsasd.generation.diffusion.card import Family, model_card
from fsasd.generation.diffusion.editing import Sources, put_into, with_strengths
from fsasd.generation.diffusion.finetuning import FineTuning
from fsasd.generation.diffusion.finite import TrainingError
from fsasd.generation.diffusion.inpainting import insert, kept_frames, region, with_regions
from fsasd.generation.diffusion.latents import (
    LatentExamples,
    LatentFrontEnd,
    stacked,
    unstacked,
)
from fsasd.generation.diffusion.model import Condition, Model, map_condition
from fsasd.generation.diffusion.objective import Objective
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.hub import local
from fsasd.generation.prompts import Prompt
from fsasd.generation.rates import resample
from fsasd.generation.threads import map_in_chunks, one_thread

_NOT_SAVED = ["checkpoint", "revision", "variant", "allow", "train", "sampler"]
_NOT_SAVED += ["tokenizer", "tokenizer_revision"]

WHOLE_SECONDS = 10.24
"""Length that whole clips are taken to have where one is needed before they are read."""


class LatentDiffusion(FineTuning):
    """A text-to-audio latent diffusion model whose network is fine-tuned.

    A subclass is one family of models: it implements ``load_model``. Only the network is a
    submodule. What is frozen stays out of the optimizer, the checkpoints and, during training, the
    accelerator's memory.

    Args:
        checkpoint: What ``load_model`` loads, or the hub id of it.
        revision: Of the hub's repository: a commit, a tag or a branch (``generation.hub.local``).
        variant: Of the hub's weights, such as ``fp16``.
        allow: Names of weights that the checkpoint may lack or have too many of.
        crop_seconds: Length of a training example; shorter clips are repeated up to it. ``None``
            trains on whole clips: in a batch, what is beyond a clip's end does not count.
        train: What of the network is trained (``adaptation``); all by default.
        learning_rate: Reached after the warm-up, falling to 0 along a cosine; that of ``train`` by
            default.
        warmup_steps: Optimizer steps of linear warm-up.
        weight_decay: Of AdamW.
        optimizer: ``adamw``, or ``adamw_8bit``, which needs the extra ``8bit``.
        condition_dropout: Share of examples trained without their condition, for guidance.
        ema_decay: Upper bound of the weights' moving average, min(decay, (1 + n) / (10 + n)).
        min_snr: Upper bound of the signal-to-noise ratio by which the loss is weighted (Hang et
            al., 2023: 5); ``None`` is the plain loss.
        noise_offset: Noise that is the same all over a latent, added with this standard deviation.
        gradient_checkpointing: Compute activations anew instead of keeping them: less memory for a
            third more time.
        compile_network: ``torch.compile`` it for training; on CUDA only.
        channels_last: Memory layout of the network; on CUDA only.
        sampler: How latents are drawn; with a strength below 1, or regions, clips are edits of real
            ones.
    """

    def __init__(
        self,
        checkpoint: str,
        *,
        revision: str | None = None,
        variant: str | None = None,
        allow: Sequence[str] = (),
        crop_seconds: float | None = 10.24,
        train: Full | None = None,
        learning_rate: float | None = None,
        warmup_steps: int = 500,
        weight_decay: float = 1e-2,
        optimizer: Literal["adamw", "adamw_8bit"] = "adamw",
        condition_dropout: float = 0.1,
        ema_decay: float = 0.9999,
        min_snr: float | None = None,
        noise_offset: float = 0.0,
        gradient_checkpointing: bool = False,
        compile_network: bool = False,
        channels_last: bool = False,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=_NOT_SAVED)
        self.checkpoint = str(checkpoint)
        self.model = self.load_model(local(self.checkpoint, revision, variant), allow)
        self.sampling_rate = self.model.sampling_rate
        self.network = self.model.network.train()
        self.objective = Objective(self.model.scheduler)
        self.crop_seconds = crop_seconds
        if self.example_frames < 1:
            shortest = self.model.hop / self.sampling_rate
            raise ValueError(f"crop_seconds must be {shortest:.2g} or more, found {crop_seconds}")
        self.adaptation = train or Full()
        self.trained = not isinstance(self.adaptation, Untrained)
        self.learning_rate = (
            self.adaptation.learning_rate if learning_rate is None else learning_rate
        )
        self.warmup_steps = warmup_steps
        self.weight_decay = weight_decay
        self.optimizer_name = optimizer
        self.condition_dropout = condition_dropout
        self.ema_decay = ema_decay
        self.min_snr = min_snr
        self.noise_offset = noise_offset
        self.gradient_checkpointing = gradient_checkpointing
        self.compile_network = compile_network
        self.channels_last = channels_last
        flow = self.objective.kind == "flow"
        self.sampler = sampler or Sampler(scheduler="euler" if flow else "dpm++")
        if self.sampler.inpaints and not self.model.inpaints:
            raise ValueError(
                f"sampler.region_seconds: {self.checkpoint} has no trained input for the rest of a "
                "clip, as Stable Audio 3 has: choose generator/sampler=edit, for whole clips"
            )
        self.sampler.check_schedule(self.model.scheduler)
        for module in self.model.frozen():
            module.requires_grad_(False).eval()
        self.unconditional = self.condition_without_caption()

    @abc.abstractmethod
    def load_model(self, checkpoint: str, allow: Sequence[str]) -> Model:
        """Load the model, as ``save`` writes it or as it was published.

        Args:
            checkpoint: The constructor's, or the folder that this hub id was downloaded to.
            allow: The constructor's.

        Raises:
            ValueError: It cannot be loaded, or weights differ that are not allowed to.
        """

    def condition_without_caption(self) -> Condition:
        """Return the condition of an empty caption, without the axis of the batch."""
        with one_thread():
            return unstacked(self.model.condition([""], self._example_seconds))[0]

    def examples(self, clips: Clips, captions: Sequence[str], *, train: bool) -> Any:
        """Turn captioned clips into training examples: cached latents, and captions' conditions."""
        share = self.share_of_ranks
        for module in self.model.frozen():
            module.to(self._where)
        texts = sorted(set(captions))
        self.begin_examples(texts, train)
        conditions = unstacked(self.model.condition(texts, self._example_seconds))
        examples = LatentExamples(
            clips,
            captions,
            dict(zip(texts, conditions, strict=True)),
            LatentFrontEnd(self.model, self.crop_seconds),
            frames=None if self.crop_seconds is None else self.example_frames,
            random_crop=train,
            share=share,
        )
        if self._trainer:
            # Each process reads what any of them has computed.
            self.trainer.strategy.barrier("latents")
        for module in self.model.frozen():
            module.to("cpu")
        return examples

    def begin_examples(self, captions: Sequence[str], train: bool) -> None:
        """Do what has to be done before captions are turned into conditions."""

    @property
    def share_of_ranks(self) -> tuple[int, int]:
        """This process and the number of processes, which compute latents together."""
        return (self.trainer.global_rank, self.trainer.world_size) if self._trainer else (0, 1)

    @property
    def example_frames(self) -> int:
        """Latent frames of a training example; of whole clips, of 10.24 s of them."""
        return round(self._example_seconds * self.sampling_rate) // self.model.hop

    @property
    def _frame_seconds(self) -> float:
        return self.model.hop / self.sampling_rate

    @property
    def _example_seconds(self) -> float:
        return WHOLE_SECONDS if self.crop_seconds is None else self.crop_seconds

    # Synthesis.

    @property
    def derived(self) -> bool:  # type: ignore[override]
        """Whether clips are edits of real ones (``Sampler.derived``)."""
        return self.sampler.derived

    def prepare(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Give the prompts of edits their strengths, or their regions."""
        prepared = super().prepare(prompts)
        if self.sampler.inpaints:
            shortest, longest = self.sampler.region_seconds  # type: ignore[misc]
            return with_regions(prepared, (shortest, longest), self._frame_seconds)
        return with_strengths(prepared, self.sampler.strengths) if self.derived else prepared

    @torch.no_grad()
    def generate(self, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
        """Return one waveform (samples,) per prompt, at the level of the normalised training clips.

        Prompts of one length and strength are drawn together. The weights are those in place: see
        ``averaged_weights``. A negative prompt takes the place of the empty caption that guidance
        leads away from.

        Raises:
            ValueError: There is a negative prompt, but no guidance through which it could act, or
                a prompt of an edit lacks its strength, its region or its source.
            TrainingError: The weights are divided among processes, of which all had to take part.
        """
        if self.sharded:
            raise TrainingError(
                "trainer=fsdp divides the weights among processes, so that one of them alone "
                "cannot generate while training goes on: use '~callbacks.evaluation' and "
                "callbacks.monitor.samples_every_n_steps=0, or trainer=ddp"
            )
        for module in self.model.frozen():
            module.to(self.device)
        waveforms: dict[str, torch.Tensor] = {}
        groups: dict[tuple[float, float], list[Prompt]] = {}
        for prompt in prompts:
            groups.setdefault((prompt.seconds, self._strength(prompt)), []).append(prompt)
        for _, group in sorted(groups.items()):
            # Not in the threads, of which only one at a time could use the tokenizer.
            with one_thread():
                conditions = self._conditions([p.caption for p in group], group[0].seconds)
                given = list(zip(group, conditions, self._negatives(group), strict=True))
            on_cpu = self.device.type == "cpu"
            drawn = map_in_chunks(self._draw, given) if on_cpu else self._draw(given)
            waveforms |= zip((prompt.wav for prompt in group), drawn, strict=True)
        if self._trainer and self.trainer.state.fn == TrainerFn.FITTING:
            # While training goes on, the accelerator's memory is the network's.
            for module in self.model.frozen():
                module.to("cpu")
        return [waveforms[prompt.wav] for prompt in prompts]

    def save(self, folder: str | Path) -> None:
        """Write the model, with the averaged weights, in the layout of its family, and its card.

        Adapters are merged into the weights, and written to ``lora`` for themselves, too.
        """
        folder = Path(folder)
        with self.averaged_weights():
            self.model.save(self.adaptation.merged(self.network), folder)
            self.adaptation.save_separately(self.network, folder)
        (folder / "README.md").write_text(self.card(), encoding="utf-8")

    def card(self) -> str:
        """Return the text of the model card: data and settings of the training."""
        data = getattr(self._trainer, "datamodule", None)
        clips = data.captioned if data else None
        captions = [data.captions(clip) for clip in data.captioned] if data else []
        return model_card(
            self.family, self.checkpoint, clips, captions, self.settings(), self.metrics
        )

    @property
    def family(self) -> Family:
        """What the model card says of its family."""
        return Family(type(self).__name__)

    def settings(self) -> dict[str, Any]:
        """Return the settings of the training, for a model card."""
        settings = {
            **self.hparams,
            "learning_rate": self.learning_rate,
            "train": {type(self.adaptation).__name__.lower(): vars(self.adaptation)},
        }
        if self._trainer and self.ema is not None:
            settings |= {
                "steps": self.total_steps,
                "batch_size": self.examples_per_step,
                "precision": self.trainer.precision,
                "gradient_clip_val": self.trainer.gradient_clip_val,
                "seed": self.trainer.datamodule.seed,  # type: ignore[attr-defined]
            }
        return settings

    def _draw(self, given: Sequence[tuple[Prompt, Condition, Condition]]) -> list[torch.Tensor]:
        prompts = [prompt for prompt, _, _ in given]
        samples = round(prompts[0].seconds * self.sampling_rate)
        frames = math.ceil(samples / self.model.hop)
        strength = self._strength(prompts[0])
        condition = stacked([condition for _, condition, _ in given])
        unconditional = stacked([negative for _, _, negative in given])
        sources = begin = None
        if self.sampler.inpaints or strength < 1:
            with torch.autocast(self.device.type, enabled=False):
                whole = frames * self.model.hop
                sources = Sources(prompts, self.model, whole, self.sampler.channel)
            begin = sources.latents[sources.places]
        if begin is not None and self.sampler.inpaints:
            rest = begin.to(self.device)
            kept = kept_frames(prompts, frames, self._frame_seconds).to(self.device)
            condition = self.model.with_rest(condition, rest, kept)
            unconditional = self.model.with_rest(unconditional, rest, kept)
            begin = None
        latents = self.sampler(
            self.denoise,
            self.model.scheduler,
            condition,
            unconditional,
            self.model.latent_shape(frames),
            [prompt.seed for prompt in prompts],
            begin,
            strength,
            self.model.levels,
        )
        if sources is None:
            return list(self._decode(latents, samples))
        # As many at a time as there are sources: rounding depends on it, and an edit that changes
        # nothing is to be its source's round trip.
        parts = latents.split(len(sources.latents))
        edits = torch.cat([self._decode(part, samples) for part in parts])
        return self._put_into_sources(prompts, sources, edits)

    def _decode(self, latents: torch.Tensor, samples: int) -> torch.Tensor:
        # Half precision is for the network: in a waveform its rounding is audible.
        with torch.autocast(self.device.type, enabled=False):
            return self.model.decode(latents.float())[:, :samples].cpu()

    def _put_into_sources(
        self, prompts: Sequence[Prompt], sources: Sources, edits: torch.Tensor
    ) -> list[torch.Tensor]:
        # At the recordings' rate: a faster model knows nothing of what is above.
        rate, samples = self.sampling_rate, edits.shape[1]
        edited = [resample(edit.numpy(), rate, SAMPLE_RATE) for edit in edits]
        length = len(edited[0])
        recordings = [sources.recordings[place][:length] for place in sources.places]
        if self.sampler.inpaints:
            waveforms = [
                insert(recording, edit, region(prompt, SAMPLE_RATE), SAMPLE_RATE)
                for prompt, recording, edit in zip(prompts, recordings, edited, strict=True)
            ]
        else:
            round_trips = [
                resample(one.numpy(), rate, SAMPLE_RATE)
                for one in self._decode(sources.latents, samples)
            ]
            waveforms = [
                put_into(recording, edit, round_trips[place])
                for place, recording, edit in zip(sources.places, recordings, edited, strict=True)
            ]
        return [torch.from_numpy(resample(one, SAMPLE_RATE, rate)[:samples]) for one in waveforms]

    def _strength(self, prompt: Prompt) -> float:
        if not self.derived or self.sampler.inpaints:
            return 1.0
        if prompt.strength is None:
            raise ValueError(f"{prompt.wav}: expected an edit's strength: call 'prepare' first")
        return prompt.strength

    def _conditions(self, captions: Sequence[str], seconds: float) -> list[Condition]:
        condition = self.model.condition(captions, seconds)
        return unstacked(map_condition(lambda tensor: tensor.to(self.device), condition))

    def _negatives(self, prompts: Sequence[Prompt]) -> list[Condition]:
        seconds = prompts[0].seconds
        empty = self._conditions([""], seconds)[0]
        if not any(prompt.negative for prompt in prompts):
            return [empty] * len(prompts)
        if self.sampler.guidance == 1.0:
            raise ValueError(
                "negative prompts act through guidance, and a sampler with guidance 1 has none: "
                "raise generator.sampler.guidance, or choose prompts without negative ones"
            )
        negatives = self._conditions([prompt.negative for prompt in prompts], seconds)
        return [
            negative if prompt.negative else empty
            for prompt, negative in zip(prompts, negatives, strict=True)
        ]
