"""What the fine-tuning of a run led to: losses, steps, time and the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from fsasd.generation.training import Training
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
    provenance = json.loads((artifact / PROVENANCE).read_text(encoding="utf-8"))
    measured = {"finetuning_seconds": provenance["seconds"], "model": provenance["key"]}
    measured |= _losses(artifact / "log")
    # Only logger=csv leaves the course of the losses.
    kept = Training.read(run)
    if kept is not None and kept.loss is not None:
        measured |= {"val_loss": kept.loss, "best_step": kept.step}
    return measured


def _losses(log: Path) -> dict[str, Any]:
    # A training that was resumed has a folder for each time it ran.
    parts = sorted(log.rglob("metrics.csv"), key=lambda path: (len(path.parent.name), path))
    if not parts:
        return {}
    table = pd.concat([pd.read_csv(part) for part in parts], ignore_index=True)
    measured: dict[str, Any] = {"steps": int(table["step"].max()) + 1}
    if "val/loss" in table and len(losses := table.dropna(subset=["val/loss"])):
        # A step that was logged before and after an interruption counts once.
        losses = losses.drop_duplicates("step", keep="last").sort_values("step")
        best = losses.iloc[int(losses["val/loss"].argmin())]
        measured |= {
            "val_loss": float(best["val/loss"]),
            "val_loss_last": float(losses["val/loss"].iloc[-1]),
            "best_step": int(best["step"]) + 1,
        }
    return measured
