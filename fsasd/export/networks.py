"""Networks of torch, written into the graph of an exported detector."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from fsasd.export.graph import OPSET, Graph, Node, NotExportableError, Value, require_extra


def network(
    graph: Graph,
    module: nn.Module,
    inputs: Sequence[Value],
    examples: Sequence[torch.Tensor],
    *,
    batches: bool = False,
) -> list[Value]:
    """Write a network, and return what it returns.

    Args:
        graph: Gets its nodes and weights.
        module: Of which a copy in evaluation mode is written.
        inputs: Values of the graph.
        examples: Tensors of their shapes and types, which are fixed.
        batches: Whether the length of their first axis is free.

    Raises:
        NotExportableError: torch's exporter cannot write it.
    """
    known = ("network", id(module), tuple(inputs))
    if known in graph.networks:
        return graph.networks[known][1]
    outputs = _written(graph, _proto(module, examples, batches), inputs)
    # The module is kept, so that no other gets its identity.
    graph.networks[known] = (module, outputs)
    return outputs


def _proto(module: nn.Module, examples: Sequence[torch.Tensor], batches: bool) -> Any:
    onnx = require_extra("onnx")
    require_extra("onnxscript")
    module = copy.deepcopy(module).cpu().eval().requires_grad_(False)
    first = {0: torch.export.Dim("batch", min=1, max=1 << 24)} if batches else None
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # Of the exporter and of torch.export, about themselves.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                tuple(examples),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=tuple(first for _ in examples) if batches else None,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, NotImplementedError) as error:
        why = str(error.__cause__ or error).strip().splitlines()[0]
        raise NotExportableError(
            f"the network {type(module).__name__} cannot be exported: expected one of operators "
            f"that torch's exporter knows, found: {why}"
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    assert program is not None
    model = program.model_proto
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _written(graph: Graph, model: Any, inputs: Sequence[Value]) -> list[Value]:
    onnx = require_extra("onnx")
    prefix = f"network_{len(graph.networks)}/"
    model = onnx.compose.add_prefix(model, prefix)
    body = model.graph
    for given, put in zip(inputs, body.input, strict=True):
        graph.nodes.append(Node("Identity", (given,), (put.name,), "", {}))
    for weight in body.initializer:
        graph.constants[weight.name] = np.array(onnx.numpy_helper.to_array(weight))
    for node in body.node:
        names = tuple(node.input), tuple(node.output)
        graph.nodes.append(Node(node.op_type, *names, node.domain, {}, node))
    for opset in model.opset_import:
        if opset.domain:
            graph.domains[opset.domain] = opset.version
    return [Value(output.name) for output in body.output]
