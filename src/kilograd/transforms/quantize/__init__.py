"""Post-training quantisation: a float graph and calibration data to a graph of int8 operators.

    range    what every value holds on the calibration data (`observe`), and how much of that int8
             should cover (`ranges`)
    walk     node by node, the rule of its operator builds the int8 one (`rules`); a value is
             converted where it is first needed in the other form, so that no conversion is undone
    report   what stays float32, between Dequantize and Quantize, and why

Inputs and outputs stay float32. The arithmetic is that of Jacob et al., "Quantization and Training
of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, with one scale an
output channel for weights.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.graph import Graph, Node, Value
from kilograd.ir.rewrite import eliminate_dead, substitute
from kilograd.ops.conv import Conv2d
from kilograd.ops.conv_transpose import ConvTranspose2d
from kilograd.ops.depthwise import DepthwiseConv2d
from kilograd.ops.linear import Linear
from kilograd.ops.q_convert import Quantize
from kilograd.transforms.fuse import fuse
from kilograd.transforms.ports import Ports
from kilograd.transforms.quantize.judge import compare, labelled
from kilograd.transforms.quantize.observe import observe
from kilograd.transforms.quantize.quantizer import Quantizer, Report
from kilograd.transforms.quantize.ranges import RANGES
from kilograd.transforms.quantize.rules import rule_for

__all__ = ["RANGES", "Report", "compare", "integer_input", "labelled", "quantize"]

MAX_HEADROOM = 64
"""With more, hardly a level of int8 would be in use."""

LAYERS = (Conv2d, ConvTranspose2d, DepthwiseConv2d, Linear)


def quantize(
    graph: Graph,
    ports: Ports,
    calibration: np.ndarray | Sequence[np.ndarray],
    *,
    ranges: str = "min_max",
    head: str = "float32",
    headroom: float = 1.0,
) -> tuple[Graph, Report]:
    """The int8 form of a float32 forward graph, after layout and folding.

    `calibration` is a batch [N, ...] of inputs in the user's layout (a list of batches where there
    are several inputs), as the network will see them: a hundred samples of every kind are plenty.
    `ranges` is "min_max", "percentile" or "mse" (docs/decisions.md compares them). With head
    "float32" the last layer, where it is fully connected or a convolution of one pixel, and what
    follows it stay float32; with "int8" only what has no int8 kernel does. `headroom`, 1 or more,
    makes the ranges of weights and results that much longer than what is there now.

    Raises InputError for calibration data that do not fit or are not finite.
    """
    if ranges not in RANGES:
        raise InputError(f"ranges={ranges!r} is unknown; there are {', '.join(RANGES)}")
    if head not in ("float32", "int8"):
        raise InputError(f"head={head!r} is unknown; there are float32 and int8")
    if not isinstance(headroom, numbers.Real) or not 1 <= headroom <= MAX_HEADROOM:
        raise InputError(f"headroom={headroom!r} must be a number from 1 to {MAX_HEADROOM}")
    fused = fuse(graph)
    feeds = _feeds(fused, ports, calibration)
    head_node = _head(fused) if head == "float32" else None
    walk = Quantizer(fused, feeds, observe(fused, feeds), ranges, head_node, headroom)
    for node in fused.nodes:
        with walk.builder.at(node.location):
            _visit(walk, node)
    outputs = [walk.real(value) for value in fused.outputs]
    walk.report.settings.update(head=head, ranges=ranges, headroom=headroom)
    return eliminate_dead(walk.builder.finish(outputs)), walk.report


def integer_input(graph: Graph) -> Graph:
    """The graph with int8 inputs where an input is quantised and nothing else is done with it.

    A network then takes a quarter of the memory for what its sensor gives.
    """
    readers, results = graph.readers(), set(graph.results())
    renamed: dict[Value, Value] = {}
    inputs: list[Value] = []
    for value in graph.inputs:
        nodes = readers[value]
        if len(nodes) == 1 and isinstance(nodes[0].op, Quantize) and value not in results:
            (quantized,) = nodes[0].outputs
            renamed[quantized] = Value(value.name, quantized.type)
            value = renamed[quantized]
        inputs.append(value)
    nodes_left = tuple(node for node in graph.nodes if node.outputs[0] not in renamed)
    return substitute(replace(graph, inputs=tuple(inputs), nodes=nodes_left), renamed)


def _visit(walk: Quantizer, node: Node) -> None:
    if node is walk.head:
        walk.keep_float(node, "it is the head; head='int8' quantises it, too")
        return
    rule = rule_for(node.op)
    try:
        reason = rule(walk, node) if rule else "there is no int8 kernel for it"
    except InputError as error:  # the int8 operator's own limits
        reason = str(error)
    if reason is not None:
        walk.keep_float(node, reason)


def _head(graph: Graph) -> Node | None:
    """The last layer, if it looks at everything at once."""
    layers = [node for node in graph.nodes if isinstance(node.op, LAYERS)]
    if not layers:
        return None
    shape = layers[-1].outputs[0].type.shape
    whole = isinstance(layers[-1].op, Linear) or (len(shape) == 4 and shape[1:3] == (1, 1))
    return layers[-1] if whole else None


def _feeds(
    graph: Graph, ports: Ports, calibration: np.ndarray | Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """The calibration data by input name, in the program's layout."""
    batches = [calibration] if isinstance(calibration, np.ndarray) else list(calibration)
    if len(batches) != len(ports.inputs):
        raise InputError(
            f"the network has {len(ports.inputs)} inputs, there are calibration data for "
            f"{len(batches)}; give a list of one batch [N, ...] an input"
        )
    feeds = {}
    for value, port, batch in zip(graph.inputs, ports.inputs, batches, strict=True):
        array = port.to_program(np.asarray(batch, value.type.dtype.numpy))
        array = array[np.newaxis] if array.ndim < len(port.shape) else array
        if len(array) == 0:
            raise InputError(f"there are no calibration data for {port.name}; give some samples")
        feeds[value.name] = array
    if len({len(array) for array in feeds.values()}) > 1:
        counts = ", ".join(f"{len(array)} of {name}" for name, array in feeds.items())
        raise InputError(f"the inputs have unequal numbers of calibration samples: {counts}")
    return feeds
