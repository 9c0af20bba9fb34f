"""The Hugging Face hub: whether it can be reached, and errors of weights that cannot be read."""

from __future__ import annotations

import functools
import logging
import re
import threading
from pathlib import Path
from pickle import UnpicklingError

import huggingface_hub
from huggingface_hub import constants
from safetensors import SafetensorError

log = logging.getLogger(__name__)

UNREADABLE = (OSError, SafetensorError, UnpicklingError, EOFError, RuntimeError)
"""Errors of libraries for weights that are missing, damaged, or pickles of more than tensors."""

_PATIENCE = 5.0
"""Seconds that the hub has to answer. The look-up of its address has no time limit."""


def go_offline_without_hub(source: str) -> None:
    """Set the hub's libraries to offline mode for this process if the hub does not answer.

    They would try six times for each file of a model. The hub is asked once in a process.

    Args:
        source: What is to be loaded. For a file or a folder the hub is not asked.
    """
    if re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", source) and not Path(source).exists():
        _check_once()


@functools.cache
def _check_once() -> None:
    if constants.HF_HUB_OFFLINE or _is_reachable():
        return
    constants.HF_HUB_OFFLINE = True
    log.warning(
        "%s does not answer: only files that were downloaded before are used (HF_HUB_OFFLINE=1 "
        "skips the attempt)",
        constants.ENDPOINT,
    )


def _is_reachable() -> bool:
    answered = threading.Event()

    def request() -> None:
        try:
            huggingface_hub.get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
        except Exception as error:
            log.debug("the hub: %s", error)
        else:
            answered.set()
        finally:
            done.set()

    done = threading.Event()
    # The look-up of its address has no time limit.
    threading.Thread(target=request, daemon=True).start()
    done.wait(_PATIENCE + 1)
    return answered.is_set()
