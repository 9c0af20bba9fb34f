"""Whether the Hugging Face hub can be reached: asked once, not for half a minute by every file."""

from __future__ import annotations

import functools
import logging
import threading

import huggingface_hub
from huggingface_hub import constants

log = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds that the hub has to answer; a name server that is silent takes longer on its own."""


@functools.cache
def go_offline_without_hub() -> None:
    """Use only what was downloaded before, for the rest of the process, if the hub is out of reach.

    Its libraries would try six times for each of a model's files. Once a process, and only before
    something is loaded by its id.
    """
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
