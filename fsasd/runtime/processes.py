"""What a process of a run logs, and when it ends because of the other ranks."""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
import warnings

import transformers

from fsasd.runtime.ranks import Failure, failure, rank

log = logging.getLogger(__name__)


def limit_messages() -> None:
    """Disable libraries' tips and progress bars for small files, and messages of ranks above 0."""
    if rank() > 0:
        logging.disable(logging.INFO)
    # Where the disk is full, a traceback for every message of the log would hide the reason.
    logging.raiseExceptions = False
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    saving = "lightning.pytorch.trainer.connectors.checkpoint_connector"
    logging.getLogger(saving).setLevel(logging.WARNING)
    # It has a handler, and every message would appear twice.
    logging.getLogger("huggingface_hub").propagate = False
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated")
    warnings.filterwarnings("ignore", ".* does not have many workers")
    # fsasd counts steps over epochs.
    warnings.filterwarnings("ignore", "The number of training batches .* is smaller than the log")


@functools.cache
def end_with_other_ranks() -> None:
    """End this process when rank 0 is gone, or when another rank has ended without the others.

    A kernel that waits for a rank that was killed may wait for long: NCCL's for ten minutes. The
    jobs of a sweep that run in one process share the thread that watches.
    """
    parent = os.getppid()

    def watch() -> None:
        while not (failed := failure()):
            if rank() > 0 and os.getppid() != parent:
                failed = Failure("the process that started it is gone")
                break
            time.sleep(2)
        log.error("rank %d ends: %s", rank(), failed.reason)
        os._exit(failed.code)

    threading.Thread(target=watch, daemon=True).start()
