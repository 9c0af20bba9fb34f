"""The ONNX file of a detector: nodes, constants, and metadata in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsasd import __version__
from fsasd.detectors.saved import SETTINGS
from fsasd.detectors.scoring.scorers import Scorer
from fsasd.evaluation.calibration import Calibration
from fsasd.export import outliers
from fsasd.export.decision import anomalous, p_value
from fsasd.export.graph import OPSET, Graph, Node, Value, require_extra
from fsasd.export.recording import INPUT, Recording
from fsasd.export.scores import scored
from fsasd.settings.files import read_json

FORMAT = 1
"""Of the metadata, raised when what it holds changes."""

OUTPUTS = {"score": "DOUBLE", "p_value": "DOUBLE", "anomalous": "BOOL"}
"""What an exported detector returns of a waveform, one number each."""

# Its import makes scikit-learn's models known to ``scored``.
_REGISTERED = outliers

_IR_VERSION = 10
"""Of the file: onnxruntime 1.18 and later read it."""


@dataclass(frozen=True, eq=False)
class Exported:
    """A detector as ONNX.

    Attributes:
        content: Of the file.
        metadata: Texts by their names, which the file holds, too.
    """

    content: bytes
    metadata: Mapping[str, str]


def export(
    detector: Scorer,
    calibration: Calibration,
    channel: int | str | None = None,
    about: Mapping[str, str] | None = None,
) -> Exported:
    """Write a fitted detector as ONNX.

    Its input ``waveform`` is (samples,) float32 at the detector's sampling rate, of any length;
    (2, samples), near and far, of a detector that takes both channels. Its outputs are ``OUTPUTS``.

    Args:
        detector: Fitted.
        calibration: Its threshold and p-values.
        channel: Channel that it takes of recordings with several (see ``recording.read``).
        about: Further metadata.

    Raises:
        NotExportableError: The detector, or a part of it, cannot be exported.
        ModuleNotFoundError: The extra ``export`` is not installed.
    """
    require_extra("onnx")
    graph = Graph()
    recording = Recording(graph)
    score = scored(detector, recording)
    outputs = (score, p_value(graph, score, calibration), anomalous(graph, score, calibration))
    metadata = {**_metadata(calibration, recording, channel), **(about or {})}
    return Exported(_content(graph, outputs, bool(recording.both), metadata), metadata)


def described(folder: Path) -> dict[str, str]:
    """Return metadata of a saved detector: of which machine, its settings, and its files.

    Args:
        folder: ``models/<machine>/section_<nn>/`` or ``models/<machine>/``.
    """
    settings = read_json(folder / SETTINGS)
    names = folder.absolute().parts
    is_section = names[-1].startswith("section_") and len(names) > 1
    files = sorted(path for path in folder.iterdir() if path.is_file())
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {
        "machine": names[-2] if is_section else names[-1],
        "section": names[-1].removeprefix("section_") if is_section else "",
        "detector": json.dumps({key: settings[key] for key in ("class", "params")}),
        "provenance": json.dumps({"fsasd": __version__, "sha256": hashes}),
    }


def _metadata(
    calibration: Calibration, recording: Recording, channel: int | str | None
) -> dict[str, str]:
    gamma = calibration.gamma
    return {
        "fsasd.format": str(FORMAT),
        "sampling_rate": str(recording.sampling_rate),
        "seconds": "" if recording.longest is None else repr(recording.longest),
        "channels": "2" if recording.both else "1",
        "channel": "both" if recording.both else "" if channel is None else str(channel),
        "threshold": repr(calibration.threshold),
        "false_alarm_rate": repr(calibration.false_alarm_rate),
        "calibration": json.dumps(
            {
                "normal_clips": len(calibration.normal),
                "gamma": None if gamma is None else gamma._asdict(),
                "normal_scores": np.sort(calibration.normal).tolist(),
            }
        ),
    }


def _content(
    graph: Graph, outputs: tuple[Value, ...], both: bool, metadata: Mapping[str, str]
) -> bytes:
    onnx = require_extra("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    shape = [2, "samples"] if both else ["samples"]
    ends = [
        helper.make_node("Identity", [value], [name])
        for value, name in zip(outputs, OUTPUTS, strict=True)
    ]
    model = helper.make_model(
        helper.make_graph(
            [*(_proto(helper, node) for node in graph.nodes), *ends],
            "fsasd",
            [helper.make_tensor_value_info(INPUT, types.FLOAT, shape)],
            [
                helper.make_tensor_value_info(name, getattr(types, kind), [])
                for name, kind in OUTPUTS.items()
            ],
            [onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
        ),
        producer_name="fsasd",
        producer_version=__version__,
        opset_imports=[
            helper.make_opsetid("", OPSET),
            *(helper.make_opsetid(domain, version) for domain, version in graph.domains.items()),
        ],
        ir_version=_IR_VERSION,
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _proto(helper: Any, node: Node) -> Any:
    if node.proto is not None:
        return node.proto
    return helper.make_node(
        node.op, list(node.inputs), list(node.outputs), domain=node.domain, **node.attributes
    )
