"""How a process of a run behaves: what it says, what memory it keeps, when it leaves."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import threading
import time
import warnings

import diffusers
import torch
import transformers

from fsasd.store import rank

log = logging.getLogger(__name__)

# Of the GNU C library's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def say_only_what_matters() -> None:
    """Leave out tips, bars for files of a few megabytes, and what the first rank says anyway."""
    if rank() > 0:
        logging.disable(logging.INFO)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated")
    warnings.filterwarnings("ignore", ".* does not have many workers")


def keep_freed_memory() -> None:
    """Where a CPU trains, let the C library keep what one step frees for the next.

    It gives large blocks back to the system and gets them anew, each page set to zero: up to half
    of the time of a step and more. What it keeps is up to half of the peak more (docs/speed.md).
    Other C libraries than GNU's are left as they are.
    """
    if platform.libc_ver()[0] == "glibc" and not torch.cuda.is_available():
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_memory() -> None:
    """Give the system what ``keep_freed_memory`` had kept: to be called when a training is done.

    The next one divides it otherwise, and would be kept beside it.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


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
