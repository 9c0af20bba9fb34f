"""From the configuration to the objects that stages are planned from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from fsasd.cli.plain import plain
from fsasd.pipeline.experiment import Experiment, Factory, Synthesis
from fsasd.pipeline.plan import Planner
from fsasd.runtime.workers import Workers


def experiment(cfg: DictConfig) -> Experiment:
    """Make what the configuration names.

    Args:
        cfg: The whole configuration.
    """
    synthesis = plain(cfg.synthesis)
    for name in ("prompts", "cleaning", "filters"):
        synthesis[name] = factory(synthesis[name])
    encoders = {name: factory(one) for name, one in (synthesis["encoders"] or {}).items()}
    return Experiment(
        data=_object(cfg.data),
        detector=_object(cfg.detector),
        selector=_object(cfg.selection),
        trainer=factory(plain(cfg.trainer)),
        synthesis=Synthesis(**{**synthesis, "encoders": encoders}),
        generator=factory(plain(cfg.generator)) if cfg.generator._target_ else None,
        callbacks={name: factory(plain(one)) for name, one in callbacks(cfg).items()},
        loggers={str(name): _logger(one) for name, one in (cfg.logger or {}).items()},
        false_alarm_rate=cfg.decision.false_alarm_rate,
        seed=cfg.seed,
        keep_checkpoints=cfg.keep_checkpoints,
        continue_from=cfg.continue_from,
        pretrain=plain(cfg.pretrain) if "pretrain" in cfg else {},
    )


def planners(cfg: DictConfig) -> dict[str, Planner]:
    """Return what plans each group of stages, in their order: the mapping ``pipeline``."""
    return {
        str(name): hydra.utils.instantiate(one, _partial_=True)
        for name, one in cfg.pipeline.items()
    }


def runner(cfg: DictConfig) -> Workers:
    """Make what builds the sections of a run."""
    workers: Workers = _object(cfg.runner)
    return workers


def callbacks(cfg: DictConfig) -> dict[str, DictConfig]:
    """Return the callbacks that are chosen.

    An experiment may set something of a callback that another choice of them lacks.
    """
    return {
        str(name): one for name, one in (cfg.callbacks or {}).items() if one and "_target_" in one
    }


def factory(settings: Mapping[str, Any]) -> Factory:
    """Return what makes an object of plain settings."""
    return Factory(settings, _make)


def _make(settings: Mapping[str, Any], **arguments: Any) -> Any:
    return hydra.utils.instantiate(dict(settings), _convert_="all", **arguments)


def _object(cfg: DictConfig) -> Any:
    return hydra.utils.instantiate(cfg, _convert_="all")


def _logger(cfg: DictConfig) -> Factory:
    """Return what makes a logger, which may be asked to write into the folder of the run."""

    def make(settings: Mapping[str, Any], **arguments: Any) -> Any:
        return hydra.utils.instantiate(cfg, _convert_="all", **arguments)

    keys = [str(key) for key in cfg if not OmegaConf.is_missing(cfg, key)]
    settings: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, keys))
    return Factory(settings, make)
