"""A folder of explanations: a picture and a JSON file for each recording and model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from fsasd.data.audio_files import path_of, recordings_below
from fsasd.deployment.explanation.explain import explain
from fsasd.deployment.explanation.figure import draw
from fsasd.deployment.model import Model
from fsasd.deployment.results import Result


class ExplanationFolder:
    """Gets an explanation of each result that is added.

    Args:
        folder: Is created if it does not exist.
        models: By name.
        normal: Folders with the training recordings, of which the nearest is drawn.

    Raises:
        FileExistsError: The folder is a file.
    """

    def __init__(self, folder: Path, models: Iterable[Model], normal: Iterable[Path] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._models = {model.name: model for model in models}
        self._normal: Mapping[str, Path] = {
            path.name: path for place in normal for path in recordings_below(place)
        }

    def add(self, result: Result) -> Path:
        """Explain a result; return the picture's path.

        Raises:
            AudioError: The recording cannot be used any more.
        """
        model, recording = self._models[result.model], path_of(result.file)
        explanation = explain(model, recording)
        near = explanation.nearest
        nearest = self._normal.get(Path(near.file).name) if near else None
        name = self._name(result, recording)
        explanation.write(self._folder / f"{name}.json", asdict(result))
        picture = self._folder / f"{name}.png"
        draw(explanation, result, recording, model.channel, nearest).savefig(picture, dpi=130)
        return picture

    def _name(self, result: Result, recording: Path) -> str:
        """Return a name that no other recording or model has."""
        parts = [recording.stem]
        if len(self._models) > 1:
            parts.insert(0, result.model.replace("/", "_"))
        path = hashlib.sha256(result.file.encode()).hexdigest()[:6]
        return "_".join([*parts, path])
