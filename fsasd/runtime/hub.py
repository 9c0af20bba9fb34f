"""Weights of others: whether the Hugging Face hub can be reached, and what cannot be read."""

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
"""What libraries raise for weights that are not there, damaged, or pickles of more than tensors."""

_PATIENCE = 5.0
"""Seconds that the hub has to answer; a name server that is silent takes longer on its own."""


def go_offline_without_hub(source: str) -> None:
    """Use only what was downloaded before, from now on, if the hub is out of reach.

    Its libraries would try six times for each of a model's files. It is asked once a process.

    Args:
        source: Of what is going to be loaded: nothing is asked for a file or a folder.
    """
    if re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", source) and not Path(source).exists():
        _ask_once()


@functools.cache
def _ask_once() -> None:
    if constants.HF_HUB_OFFLINE or _answers():
        return
    constants.HF_HUB_OFFLINE = True
    log.warning(
        "%s does not answer: only what was downloaded before is used (HF_HUB_OFFLINE=1 says so at "
        "once)",
        constants.ENDPOINT,
    )


def _answers() -> bool:
    answered = threading.Event()

    def ask() -> None:
        try:
            huggingface_hub.get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
        except Exception as error:
            log.debug("the hub: %s", error)
        else:
            answered.set()
        finally:
            done.set()

    done = threading.Event()
    # Looking up its name has no time limit of its own.
    threading.Thread(target=ask, daemon=True).start()
    done.wait(_PATIENCE + 1)
    return answered.is_set()
