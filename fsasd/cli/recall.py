"""The memo of a run, asked for by its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fsasd.cli.plain import resolved
from fsasd.pipeline.memo import Memo
from fsasd.store.store import Store


def memo_of(cfg: DictConfig, folder: Path) -> Memo:
    """Return the memo of a run, there or not.

    Args:
        cfg: The configuration, within a job of Hydra's.
        folder: The run's folder.
    """
    hydra_config = HydraConfig.get()
    others: dict[str, Any] = {
        "overrides": list(hydra_config.overrides.task),
        "choices": dict(hydra_config.runtime.choices),
        "configuration": OmegaConf.to_container(cfg),
    }
    return Memo(Store(cfg.store), resolved(cfg), folder, others)
