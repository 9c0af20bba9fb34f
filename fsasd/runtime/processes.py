"""How one of several processes behaves: what it says, and when it leaves."""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings

import diffusers
import transformers

from fsasd.runtime.ranks import rank

log = logging.getLogger(__name__)


def say_only_what_matters() -> None:
    """Leave out tips, bars for files of a few megabytes, and what the first rank says anyway."""
    if rank() > 0:
        logging.disable(logging.INFO)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    # It has a handler of its own, and would say all twice.
    logging.getLogger("huggingface_hub").propagate = False
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated")
    warnings.filterwarnings("ignore", ".* does not have many workers")
    # Steps are counted over epochs.
    warnings.filterwarnings("ignore", "The number of training batches .* is smaller than the log")


def leave_with_the_first_rank() -> None:
    """End this process, one of the others, when the one that started it is gone.

    Kernels that wait for a killed rank may wait for long: NCCL's for ten minutes.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(2)
        log.error("the first rank is gone: rank %d leaves, too", rank())
        os._exit(1)

    if rank() > 0:
        threading.Thread(target=watch, daemon=True).start()
