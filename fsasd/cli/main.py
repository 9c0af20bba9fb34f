"""The command ``fsasd``: the configuration of a run, its exit code, and its errors in one line.

What only a run needs is imported where it begins: torch and its kind take seconds.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig

from fsasd.cli import launching, resolvers
from fsasd.cli.hydra_errors import print_in_one_line
from fsasd.cli.paths import keep_paths
from fsasd.runtime.errors import message
from fsasd.runtime.launchers import begin_job
from fsasd.runtime.ranks import rank

log = logging.getLogger(__name__)

INCOMPLETE = 3
"""Exit code of a run that went on without some recordings or sections."""

print_in_one_line()


@hydra.main(config_path="pkg://fsasd.conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Run fsasd.

    Returns:
        The official score, for sweepers that optimise; ``None`` where labels are not known, NaN
        where a section failed.
    """
    resolvers.register()
    hydra_config = HydraConfig.get()
    begin_job(launching.parallel(hydra_config))
    folder = Path(hydra_config.runtime.output_dir)
    keep_paths(cfg, hydra_config.runtime.cwd)
    # A wrong option, and --cfg, are answered before this.
    from fsasd.cli.sweep import mark_failed, unmark

    if rank() == 0:
        unmark(folder)
    try:
        from fsasd.cli.run import run_command

        score, complete = run_command(cfg, folder)
        if not complete and hydra_config.mode != RunMode.MULTIRUN:
            sys.exit(INCOMPLETE)
        return score
    except KeyboardInterrupt:
        if rank() == 0:
            log.error("interrupted: the same command goes on from what %s holds", cfg.store)
        sys.exit(130)
    except Exception as error:
        # What a constructor says is clearer than that Hydra called it.
        if isinstance(error, InstantiationException) and error.__cause__ is not None:
            reason = str(error.__cause__)
        else:
            reason = message(error)
        if hydra_config.mode == RunMode.MULTIRUN:
            mark_failed(folder, reason)
            raise
        expected = isinstance(error, (ValueError, OSError, ImportError, InstantiationException))
        if os.environ.get("HYDRA_FULL_ERROR") or not expected:
            raise
        log.error("%s (HYDRA_FULL_ERROR=1 shows where)", reason)
        sys.exit(1)


if __name__ == "__main__":
    main()
