"""A graph of ONNX operators, written node by node; the package onnx is not needed to write it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NewType

import numpy as np

OPSET = 20
"""Version of the operators; that of DFT and of what torch's exporter writes."""

Value = NewType("Value", str)
"""Name of what a node computes."""

Operand = Value | np.ndarray | np.generic | int | Sequence[int]
"""An input of a node: a value, or a constant; integers are int64."""


class NotExportableError(ValueError):
    """A detector, or a part of it, cannot be written as ONNX; the message says which can."""


@dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        op: Its name.
        inputs: Names of values and constants.
        outputs: Names of what it computes.
        domain: Of the operator; empty for ONNX's own.
        attributes: As ``onnx.helper.make_node`` takes them.
        proto: The ``NodeProto`` of a node that another program wrote, in place of the attributes.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    domain: str
    attributes: dict[str, Any]
    proto: Any = None


class Graph:
    """Nodes in the order of computation, and constants.

    Equal nodes are one: a spectrogram that two detectors of an ensemble ask for is computed once.

    >>> graph = Graph()
    >>> total = graph("Add", graph("Exp", Value("x")), np.float32(1))
    >>> graph("Add", graph("Exp", Value("x")), np.float32(1)) == total
    True
    >>> [node.op for node in graph.nodes]
    ['Exp', 'Add']
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.domains: dict[str, int] = {}
        """Version of the operators of each domain but ONNX's own."""
        self.networks: dict[tuple[Any, ...], tuple[Any, list[Value]]] = {}
        """Networks that were written, with their outputs."""
        self._known: dict[tuple[Any, ...], list[Value]] = {}

    def __call__(self, op: str, *inputs: Operand, domain: str = "", **attributes: Any) -> Value:
        """Add a node with one output, and return it."""
        return self.several(op, 1, *inputs, domain=domain, **attributes)[0]

    def several(
        self, op: str, outputs: int, *inputs: Operand, domain: str = "", **attributes: Any
    ) -> list[Value]:
        """Add a node, and return its outputs."""
        names = tuple(self.operand(operand) for operand in inputs)
        key = (op, domain, outputs, names, repr(sorted(attributes.items())))
        if key not in self._known:
            number = len(self.nodes)
            values = [Value(f"{op}_{number}_{output}") for output in range(outputs)]
            self.nodes.append(Node(op, names, tuple(values), domain, attributes))
            self._known[key] = values
        return self._known[key]

    def operand(self, value: Operand) -> Value:
        """Return the name of an input; a constant is added, equal ones once."""
        if isinstance(value, str):
            return value
        is_array = isinstance(value, (np.ndarray, np.generic))
        array = np.asarray(value, dtype=None if is_array else np.int64, order="C")
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            name = Value(f"constant_{len(self.constants)}")
            self.constants[name] = array
            self._known[key] = [name]
        return self._known[key][0]

    def cast(self, value: Operand, dtype: str) -> Value:
        """Return a value as ``float32``, ``float64`` or ``int64``."""
        return self("Cast", value, to=_TYPES[dtype])

    def slice(self, value: Value, start: Operand, stop: Operand, axis: int) -> Value:
        """Return ``value[start:stop]`` along an axis; start and stop have shape (1,)."""
        return self("Slice", value, start, stop, [axis])

    def total(self, value: Value, axis: int) -> Value:
        """Return the sum along an axis, which is dropped."""
        return self("ReduceSum", value, [axis], keepdims=0)

    def mean(self, value: Value, axis: int) -> Value:
        """Return the mean along an axis, which is dropped."""
        return self("ReduceMean", value, [axis], keepdims=0)

    def highest(self, value: Value, axis: int) -> Value:
        """Return the maximum along an axis, which is dropped."""
        return self("ReduceMax", value, [axis], keepdims=0)

    def lowest(self, value: Value, axis: int) -> Value:
        """Return the minimum along an axis, which is dropped."""
        return self("ReduceMin", value, [axis], keepdims=0)

    def stacked(self, values: Sequence[Value], axis: int = 0) -> Value:
        """Return values of one shape along a new axis."""
        return self("Concat", *(self("Unsqueeze", value, [axis]) for value in values), axis=axis)

    def size(self, value: Value, axis: int) -> Value:
        """Return the length of an axis: (1,) int64."""
        return self("Slice", self("Shape", value), [axis], [axis + 1], [0])

    def matrix(self, array: np.ndarray) -> Value:
        """Return a constant that is mostly zeros, of which the file holds the others alone."""
        places = np.argwhere(array)
        zeros = self("Expand", array.dtype.type(0), list(array.shape))
        return self("ScatterND", zeros, places, array[tuple(places.T)])


_TYPES = {"float32": 1, "int32": 6, "int64": 7, "float64": 11}
"""ONNX's numbers of types (``onnx.TensorProto``)."""


def require_extra(name: str) -> ModuleType:
    """Import a package of the extra ``export``.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the package {error.name} is missing, which writes and runs ONNX: "
            "pip install 'fsasd[export]'"
        ) from error
