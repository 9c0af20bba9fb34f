"""Pre-training of the nano model in one call, resumable, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning as L
import torch

from fsasd.data.datamodule import FirstShotDataModule
from fsasd.generation.audioldm import checkpoint as checkpoints
from fsasd.generation.audioldm.nano import pretrain_components
from fsasd.generation.base import Generator
from fsasd.generation.fitting import fit_and_save


def pretrain(
    build: Callable[[Path], Generator],
    data: FirstShotDataModule,
    trainer: L.Trainer,
    folder: str | Path,
    text_steps: int,
    vae_steps: int,
    *,
    keep_checkpoints: bool = False,
) -> None:
    """Train the nano model from random weights, and save it in ``folder/model``.

    Args:
        build: Folder of the components, whose UNet is random -> the generator.
        data: What it is trained on.
        trainer: How the UNet is trained (see ``finetune``).
        folder: Gets the model.
        text_steps: Of the text encoder's training (see ``nano.pretrain_components``).
        vae_steps: Of the VAE's training.
        keep_checkpoints: See ``finetune``.

    Raises:
        KeyboardInterrupt: Training was interrupted; a checkpoint was written.
    """
    start = Path(folder) / "start"
    if not (start / "model_index.json").is_file():
        options = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
        components = pretrain_components(
            data.captions, data.captioned, text_steps, vae_steps, options
        )
        checkpoints.save(components, start)
    generator = build(start)

    def save(path: Path) -> None:
        generator.save(path)
        # Half precision halves the package; a forward pass in float32 does not notice.
        checkpoints.save(checkpoints.load(path), path, torch.float16)

    fit_and_save(generator, data, trainer, Path(folder), save, keep_checkpoints)
