"""Writing what Lightning predicts: a callback for ``trainer.predict``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
from lightning.pytorch.callbacks import BasePredictionWriter

from fsasd.generation.base import Generator
from fsasd.generation.cleaning import Cleaning
from fsasd.generation.prompts import Prompt
from fsasd.generation.synthesis import SynthesisFolder


class SynthesisWriter(BasePredictionWriter):
    """Write what ``trainer.predict`` generates, from every rank, into one folder.

    Args:
        folder: Gets the wavs and ``manifest.csv``.
        prompts: All that is to be synthesised, in the manifest's order, as the generator's
            ``prepare`` returned them.
        cleaning: What is done to each clip.
        judge: Which of all clips are kept (``SynthesisFolder.close``).

    Raises:
        ValueError: The generator makes clips of their source's audio, and the prompts do not say
            so.
    """

    def __init__(
        self,
        folder: str | Path,
        prompts: Sequence[Prompt],
        cleaning: Cleaning | None = None,
        judge: Callable[[pd.DataFrame, Path], pd.DataFrame] | None = None,
    ) -> None:
        super().__init__("batch")
        self.folder = Path(folder)
        self.prompts = prompts
        self.cleaning = cleaning
        self.judge = judge

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that nothing will be listed as something else than it is."""
        derived = isinstance(pl_module, Generator) and pl_module.derived
        if any(prompt.derived != derived for prompt in self.prompts):
            raise ValueError(
                f"prompts were not prepared for {type(pl_module).__name__}: pass what its "
                "prepare(prompts) returns"
            )

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the clips of a batch."""
        folder = SynthesisFolder(self.folder, trainer.global_rank, self.cleaning)
        for prompt, waveform in zip(batch, prediction, strict=True):
            folder.write(prompt, waveform.numpy())

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the manifest once every rank is done."""
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            SynthesisFolder(self.folder).close(self.prompts, self.judge)
        trainer.strategy.barrier()
