"""The interface of generators: prompts -> waveforms, on any number of ranks."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
from torch.utils.data import Dataset

from fsasd.data.audio_files import path_of
from fsasd.data.clips import Clips
from fsasd.data.recording import SAMPLE_RATE, read
from fsasd.generation.prompts import Prompt


class Generator(L.LightningModule, abc.ABC):
    """A source of synthetic clips.

    A subclass implements ``generate``. It becomes ``generator=<name>`` by a file ``<name>.yaml`` in
    the config group ``generator``; ``fsasd.testing.check_generator`` checks it. One that is
    trained has a training step, and implements ``examples`` and ``save``, too.

    Attributes:
        trained: Whether it is fine-tuned before it generates: of the class, or of one generator
            whose ``train`` is ``Untrained``. One that is must take the folder that
            ``save`` wrote as its constructor's argument ``checkpoint``; one that is not is built
            from its configuration alone, and the stage ``finetune`` is skipped.
        sampling_rate: Of its waveforms and of the clips that are written, in Hz. Settings of a
            detector that reads recordings at a higher one are not chosen on them.
        validation_passes: Passes of a validation over the clips; ``validation_step`` gets the
            number of the pass as the data loader's index.
        derived: Whether its clips are derived from the audio of their source: of the class, or of
            one generator with its settings. Then the choice of settings scores them with fits that
            did not include the source.
        uses_references: Whether it makes clips of what is known of reference machines. Then it must
            take them as its constructor's argument ``references``: the clips, anomalies among them,
            of all reference machines but the prompts' one, and those of its type where it is a
            reference itself. The constructor raises if they do not suffice.
    """

    trained: bool = True
    sampling_rate: int = SAMPLE_RATE
    derived: bool = False
    uses_references: ClassVar[bool] = False
    validation_passes: ClassVar[int] = 1

    @abc.abstractmethod
    def generate(self, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
        """Return one waveform (samples,) per prompt, float32 on the CPU.

        A waveform lasts ``prompt.seconds``. Its level is that of the source multiplied by
        ``prompt.gain``, at which the source's peak is 0.5; it depends on its prompt and on nothing
        else, not on the other prompts and not on PyTorch's global random state.
        """

    def prepare(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts as they are generated and listed in the manifest; called once."""
        return [prompt._replace(derived=self.derived) for prompt in prompts]

    def predict_step(self, batch: Sequence[Prompt], batch_idx: int) -> list[torch.Tensor]:
        return self.generate(batch)

    def examples(self, clips: Clips, captions: Sequence[str], *, train: bool) -> Dataset[Any]:
        """Turn captioned clips into the examples that ``training_step`` gets in batches.

        The data set is indexed by ``Draw``: the number of a clip, and the seed of the example's
        random numbers.
        """
        raise NotImplementedError(f"{type(self).__name__} is trained: it must implement 'examples'")

    def save(self, folder: str | Path) -> None:
        """Write the model, for the constructor's argument ``checkpoint``."""
        raise NotImplementedError(f"{type(self).__name__} is trained: it must implement 'save'")

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Use the average of the weights, by which clips are generated, during a context."""
        return contextlib.nullcontext()


def read_source(
    prompt: Prompt, channel: int | str | None = None, sampling_rate: int = SAMPLE_RATE
) -> np.ndarray:
    """Read the recording that a derived clip is made of, as (samples,) float32.

    Args:
        prompt: Of the clip.
        channel: What to take of recordings with several channels (see ``recording.read``).
        sampling_rate: Of the waveform, in Hz.

    Raises:
        ValueError: The prompt has no source.
    """
    if prompt.source is None:
        raise ValueError(f"{prompt.wav}: expected a prompt with a source to derive a clip from")
    return read(path_of(prompt.source), channel=channel, sampling_rate=sampling_rate)


def source_waveform(
    prompt: Prompt, channel: int | str | None = None, sampling_rate: int = SAMPLE_RATE
) -> np.ndarray:
    """Return the waveform that a derived clip begins with: its source, normalised.

    Args:
        prompt: Of the clip.
        channel: What to take of recordings with several channels (see ``recording.read``).
        sampling_rate: Of the waveform, in Hz.

    Returns:
        (samples,) float32, ``prompt.seconds`` at most, with ``prompt.gain``.

    Raises:
        ValueError: The prompt has no source.
    """
    waveform = read_source(prompt, channel, sampling_rate)
    return waveform[: round(prompt.seconds * sampling_rate)] * np.float32(prompt.gain)
