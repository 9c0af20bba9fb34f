"""What the fine-tuning of a run led to: losses, steps, time and the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsasd.generation.training import Training
from fsasd.report.training import VAL_LOSS, read_log
from fsasd.settings.files import read_json
from fsasd.store.provenance import PROVENANCE

FINETUNED = (
    "val_loss", "val_loss_last", "best_step", "steps", "finetuning_seconds", "model",
)  # fmt: skip
"""``val_loss``, of the weights that are kept, at optimizer step ``best_step``; ``val_loss_last``,
at the end, and ``steps`` of training, both from the log of ``logger=csv``; ``finetuning_seconds``;
``model``, the key of the artifact."""


def finetuned(run: Path) -> dict[str, Any]:
    """Return what a run's fine-tuning led to, as in ``FINETUNED``; nothing if it had none.

    Args:
        run: Folder of the run, which links the model in the store as ``model``.
    """
    artifact = (run / "model").resolve().parent
    if not (artifact / PROVENANCE).is_file():
        return {}
    provenance = read_json(artifact / PROVENANCE)
    measured = {"finetuning_seconds": provenance["seconds"], "model": provenance["key"]}
    measured |= _losses(artifact / "log")
    # Only logger=csv leaves the course of the losses.
    kept = Training.read(run)
    if kept is not None and kept.loss is not None:
        measured |= {"val_loss": kept.loss, "best_step": kept.step}
    return measured


def _losses(folder: Path) -> dict[str, Any]:
    log = read_log(folder)
    if log.empty:
        return {}
    measured: dict[str, Any] = {"steps": int(log["step"].max())}
    if VAL_LOSS in log and len(losses := log.dropna(subset=[VAL_LOSS])):
        best = losses.iloc[int(losses[VAL_LOSS].argmin())]
        measured |= {
            "val_loss": float(best[VAL_LOSS]),
            "val_loss_last": float(losses[VAL_LOSS].iloc[-1]),
            "best_step": int(best["step"]),
        }
    return measured
