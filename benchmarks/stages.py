"""Build stages of a run, for measurements that need their artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_module

from fsasd.cli import configure, resolvers
from fsasd.pipeline.execute import build, ready
from fsasd.pipeline.experiment import Experiment
from fsasd.pipeline.outcome import Outcome
from fsasd.pipeline.plan import Lookup
from fsasd.pipeline.presence import Presence
from fsasd.store.store import Store


def build_stages(
    overrides: Sequence[str], names: Sequence[str], folder: Path
) -> tuple[Experiment, Outcome]:
    """Build the named stages of a configuration in ``folder/store``.

    Args:
        overrides: Of fsasd's configuration.
        names: Of stages, or of groups of them.
        folder: Of the run.
    """
    resolvers.register()
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        cfg = compose("config", [*overrides, f"store={folder / 'store'}",
                                 "trainer.enable_progress_bar=false"])  # fmt: skip
    run = configure.experiment(cfg)
    asked, unreadable = ready(run, configure.planners(cfg), names, folder)
    with Presence(folder) as commands:
        return run, build(run, asked, Lookup(Store(cfg.store)), commands, unreadable)
