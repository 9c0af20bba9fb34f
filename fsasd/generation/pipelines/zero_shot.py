"""Any text-to-audio pipeline of diffusers as it was published: nothing is trained."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging
from torch import nn

from fsasd.generation.base import Generator
from fsasd.generation.diffusion.weight_mismatches import CheckpointError
from fsasd.generation.hub import local
from fsasd.generation.pipelines.folder import (
    not_loaded,
    require_folder,
    require_memory,
    variant_of,
)
from fsasd.generation.prompts import Prompt
from fsasd.runtime.hub import UNREADABLE

LENGTHS = ("audio_length_in_s", "audio_end_in_s", "duration", "audio_duration")
"""How pipelines call the seconds of a clip."""


class ZeroShot(Generator):
    """A text-to-audio pipeline of diffusers, asked for the captions of machines.

    Args:
        checkpoint: A folder in the layout of a pipeline, or its id on the Hugging Face hub.
        revision: Of the hub's repository: a commit, a tag or a branch (``generation.hub.local``).
        variant: Of the hub's weights, such as ``fp16``.
        steps: Of the sampler; the pipeline's own number by default.
        guidance: Classifier-free guidance; the pipeline's own by default.
        options: Further arguments of the pipeline's call.
    """

    trained = False

    def __init__(
        self,
        checkpoint: str,
        *,
        revision: str | None = None,
        variant: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.checkpoint = str(checkpoint)
        self.pipeline: Any = load(local(self.checkpoint, revision, variant))
        self.pipeline.set_progress_bar_config(disable=True)
        self.sampling_rate = sampling_rate(self.pipeline, self.checkpoint)
        known = inspect.signature(self.pipeline.__call__).parameters
        self.length = next((name for name in LENGTHS if name in known), None)
        if self.length is None or "prompt" not in known:
            raise CheckpointError(
                f"{checkpoint}: expected a text-to-audio pipeline, whose call has a prompt and one "
                f"of {', '.join(LENGTHS)}, found {type(self.pipeline).__name__}"
            )
        chosen = {"num_inference_steps": steps, "guidance_scale": guidance}
        self.options = {k: v for k, v in chosen.items() if v is not None} | dict(options or {})
        if unknown := sorted(self.options.keys() - known.keys()):
            raise ValueError(
                f"generator.options: {type(self.pipeline).__name__} has no {', '.join(unknown)}"
            )

    @torch.no_grad()
    def generate(self, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
        """Return one waveform (samples,) per prompt, the mean of the pipeline's channels."""
        self.pipeline.to(self.device)
        return [self._draw(prompt) for prompt in prompts]

    def _draw(self, prompt: Prompt) -> torch.Tensor:
        negative = {"negative_prompt": prompt.negative} if prompt.negative else {}
        audio = self.pipeline(
            prompt=prompt.caption,
            generator=torch.Generator().manual_seed(prompt.seed),
            **{str(self.length): prompt.seconds},
            **negative,
            **self.options,
        ).audios
        waveform = torch.as_tensor(audio).float().cpu()[0]
        waveform = waveform.mean(0) if waveform.ndim == 2 else waveform
        samples = round(prompt.seconds * self.sampling_rate)
        return nn.functional.pad(waveform[:samples], (0, max(samples - len(waveform), 0)))


def load(source: str) -> DiffusionPipeline:
    """Load a pipeline of any class from its folder.

    Raises:
        CheckpointError: It cannot be loaded.
    """
    require_folder(source)
    try:
        require_memory(source)
        logging.disable_progress_bar()
        return DiffusionPipeline.from_pretrained(source, variant=_variant(source))
    except CheckpointError:
        raise
    except (*UNREADABLE, ImportError, ValueError, AttributeError) as error:
        raise not_loaded(source, error) from error


def _variant(source: str) -> str | None:
    variants = (variant_of(path) for path in sorted(Path(source).iterdir()) if path.is_dir())
    return next((variant for variant in variants if variant), None)


def sampling_rate(pipeline: Any, source: str) -> int:
    """Return the rate of a pipeline's waveforms, in Hz, from its vocoder or encoder.

    Raises:
        CheckpointError: None of them has a rate.
    """
    for name in ("vocoder", "vae"):
        config = getattr(getattr(pipeline, name, None), "config", None)
        if rate := getattr(config, "sampling_rate", None):
            return int(rate)
    raise CheckpointError(
        f"{source}: expected a vocoder or vae with a sampling_rate, found none in "
        f"{type(pipeline).__name__}: is it one of sound?"
    )
