"""First-shot unsupervised anomalous sound detection."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsasd.deployment.model import Model

__version__ = version("fsasd")

# peft imports bitsandbytes where it is installed, which then warns of kernels that 8-bit Adam, for
# which one has it, does not use.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def load(path: str | Path, trust: Sequence[str] = ()) -> Model:
    """Read the saved detector of a section, with its threshold.

    Neither Hydra nor Lightning is imported, torch and scikit-learn only for detectors that score
    with them (TWFR-GMM and k-NN do not).

    Args:
        path: ``models/<machine>/section_<nn>/`` of a run's folder, or ``models/<machine>/`` of a
            machine that has one section; or ``hub:owner/name``, a repository of the Hugging Face
            hub (``hub:owner/name@revision``), which is downloaded.
        trust: Packages whose classes it may name, beside those of fsasd and scikit-learn; importing
            them runs their code.

    Raises:
        FileNotFoundError: There is no detector in the folder.
        HubError: The hub has no such repository, or does not answer.
        ValueError: The folder holds several detectors.
        NotAModelError: A file is damaged, or of another version of fsasd.
    """
    # What it needs takes longer to import than ``fsasd --help`` may take.
    from fsasd.deployment.model import load

    return load(path, trust)
