"""The memo of a run, asked for by its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fsasd.cli.plain import resolved
from fsasd.pipeline.memo import Memo
from fsasd.store.store import Store


def memo_of(cfg: DictConfig, folder: Path) -> Memo | None:
    """Return the memo of a run, there or not.

    The configuration is checked only where a run begins, since that imports what takes seconds. One
    whose store or stages are of another type has no memo, and the check says what was expected.

    Args:
        cfg: The configuration, within a job of Hydra's.
        folder: The run's folder.
    """
    settings = resolved(cfg)
    store, stages = settings.get("store"), settings.get("stages")
    if not isinstance(store, str) or not isinstance(stages, list):
        return None
    if not all(isinstance(stage, str) for stage in stages):
        return None
    hydra_config = HydraConfig.get()
    others: dict[str, Any] = {
        "overrides": list(hydra_config.overrides.task),
        "choices": dict(hydra_config.runtime.choices),
        "configuration": OmegaConf.to_container(cfg),
    }
    return Memo(Store(store), settings, folder, others)
