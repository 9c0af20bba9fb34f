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
from hydra.types import RunMode
from omegaconf import DictConfig

from fsasd.cli import launching, resolvers
from fsasd.cli.failures import is_expected, reason
from fsasd.cli.hydra_errors import print_in_one_line
from fsasd.cli.paths import keep_paths
from fsasd.cli.sweep import note_interruption
from fsasd.runtime.signals import end_interrupted, raise_on_signals

log = logging.getLogger(__name__)

INCOMPLETE = 3
"""Exit code of a run that went on without some recordings or sections."""

print_in_one_line()


@hydra.main(config_path="pkg://fsasd.conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Run fsasd.

    Returns:
        What ``objective`` names, for sweepers that optimise; NaN where a section failed.
    """
    resolvers.register()
    raise_on_signals()
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    keep_paths(cfg, hydra_config.runtime.cwd)
    try:
        # A wrong option, and --cfg, are answered before this.
        from fsasd.cli.recall import memo_of
        from fsasd.report.console import console

        memo = memo_of(cfg, folder)
        if memo is not None and memo.recall():
            console(folder)
            return None
        with launching.job(cfg, hydra_config):
            # CUDA starts with torch.
            from fsasd.cli.run import run_command

            score, complete = run_command(cfg, folder, memo)
        if not complete and hydra_config.mode != RunMode.MULTIRUN:
            sys.exit(INCOMPLETE)
        return score
    except KeyboardInterrupt as error:
        note_interruption(folder)
        end_interrupted(error, cfg.store)
    except Exception as error:
        # A sweep notes it, and goes on with its other jobs (cli/sweep.py).
        in_sweep = hydra_config.mode == RunMode.MULTIRUN
        if in_sweep or os.environ.get("HYDRA_FULL_ERROR") or not is_expected(error):
            raise
        log.error("%s (HYDRA_FULL_ERROR=1 shows where)", reason(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
