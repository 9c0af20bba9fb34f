"""What is known of a training once it is done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fsasd.settings.files import read_json
from fsasd.store.atomic import write_text

TRAINING = "training.json"
"""Name of the file beside the model that holds it."""


@dataclass(frozen=True)
class Training:
    """The weights that a training has kept.

    Attributes:
        step: After which optimizer step they were kept.
        loss: Their ``val/loss``; ``None`` where no clip was kept back for validation.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Training(400, 0.5).write(Path(folder))
    ...     Training.read(Path(folder))
    Training(step=400, loss=0.5)
    """

    step: int
    loss: float | None

    def write(self, folder: Path) -> None:
        """Write ``training.json``."""
        content = {"step": self.step, "val/loss": self.loss}
        write_text(folder / TRAINING, json.dumps(content) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Training | None:
        """Read ``training.json``; ``None`` where there is none."""
        path = folder / TRAINING
        if not path.is_file():
            return None
        content = read_json(path)
        return cls(content["step"], content["val/loss"])
