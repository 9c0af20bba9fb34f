"""Networks that ``Estimator.prepare`` trains, in a folder: ``networks.json`` and ``shared/``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.numpy import load_file

from fsasd.detectors.saved import SHARED, write_network
from fsasd.settings.files import read_json

NETWORKS = "networks.json"
"""Lists the networks of a folder that are trained; replaced whenever one is complete."""

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrainedNetworks:
    """Networks of one estimator that are trained, in a folder.

    Their files are those to which saved detectors refer (see ``saved``).

    Attributes:
        folder: Of ``networks.json`` and ``shared/``.
        spec: What they depend on (``Estimator.network_spec``).
        classes: Names of the classes that they distinguish, if they are classifiers.
        files: Names in ``shared/``, in the order of the ensemble.
    """

    folder: Path
    spec: Mapping[str, Any]
    classes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return those of a folder; ``None`` if none is complete."""
        path = folder / NETWORKS
        if not path.is_file():
            return None
        about = read_json(path)
        return cls(folder, about["spec"], tuple(about["classes"]), tuple(about["files"]))

    def with_network(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Write one more network, and drop the checkpoints of its training."""
        files = (*self.files, write_network(arrays, [self.folder / SHARED]))
        about = {"spec": self.spec, "classes": self.classes, "files": files}
        partial = self.folder / f"{NETWORKS}.partial"
        partial.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        partial.replace(self.folder / NETWORKS)
        # Three times the size of the network; none if training ended at once.
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)
        return replace(self, files=files)

    def require_spec(self, spec: Mapping[str, Any], changed: bool = False) -> None:
        """Raise if they were trained by another spec.

        Args:
            spec: Of the estimator as it is now.
            changed: The estimator was prepared with them, and its settings were changed since.

        Raises:
            ValueError: Names the settings that differ, and both values.
        """
        if not (what := _differences(self.spec, spec)):
            return
        advice = "use another folder"
        if changed:
            advice = (
                "what networks are trained with cannot be chosen once it is prepared. "
                "Leave it out of the grid, or prepare it again, in another folder"
            )
        raise ValueError(f"{self.folder}: its networks were trained with {what}: {advice}")


@dataclass(frozen=True, eq=False)
class KeptNetworks:
    """Networks of a fitted estimator, which other fits of it take in place of trained ones.

    Attributes:
        spec: What they depend on (``Estimator.network_spec``).
        networks: Number to network (see ``Estimator.fitted_networks``).
        classes: Number to (classes,) booleans: those of the machine, where a detector noted them.
    """

    spec: Mapping[str, Any]
    networks: Mapping[int, Any]
    classes: Mapping[int, np.ndarray]

    def of(self, spec: Mapping[str, Any]) -> Mapping[int, Any]:
        """Return the networks.

        Args:
            spec: Of the estimator as it is now.

        Raises:
            ValueError: Its settings were changed since.
        """
        if what := _differences(self.spec, spec):
            raise ValueError(f"its networks are kept, which were trained with {what}")
        return self.networks


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return ", ".join(f"{k}={old.get(k)!r} instead of {new.get(k)!r}" for k in names)


def require_trained(folder: Path, spec: Mapping[str, Any]) -> TrainedNetworks:
    """Return the networks that an estimator was prepared with.

    Raises:
        FileNotFoundError: They are not there any more.
        ValueError: Its settings were changed since.
    """
    trained = TrainedNetworks.read(folder)
    if trained is None:
        raise FileNotFoundError(
            f"{folder / NETWORKS} is missing: it lists the networks that were trained for "
            "all machines. Prepare the detector again"
        )
    trained.require_spec(spec, changed=True)
    return trained


def load_networks(folder: Path, files: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Return the arrays of each network of a folder."""
    return [load_file(folder / SHARED / name) for name in files]
