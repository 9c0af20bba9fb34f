"""The configuration as plain values."""

from __future__ import annotations

import contextlib
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def plain(cfg: Any) -> Any:
    """Return a group of the configuration as plain values."""
    return OmegaConf.to_container(cfg, resolve=True)


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Return the configuration, but what names a value that is only known later."""
    values = {}
    for key in cfg:
        # Of a value that is not there whoever asks for it says more.
        with contextlib.suppress(OmegaConfBaseException):
            value = cfg._get_node(key)
            values[str(key)] = (
                OmegaConf.to_container(value, resolve=True)
                if isinstance(value, (DictConfig, ListConfig))
                else cfg[key]
            )
    return values
