"""Fuses an activation that is a clamp into the operator before it: one pass over memory less."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from kilograd.ir import Graph, Node, Operator
from kilograd.ops.binary import Add
from kilograd.ops.conv import Conv2d
from kilograd.ops.depthwise import DepthwiseConv2d
from kilograd.ops.linear import Linear
from kilograd.ops.unary import Clamp, Relu

_FUSIBLE = (Add, Conv2d, DepthwiseConv2d, Linear)
"""Operators with the fields `low` and `high`."""


def fuse(graph: Graph) -> Graph:
    """ReLU and clamp join the convolution, linear layer or sum that alone feeds them.

    Works on forward and training graphs: a producer whose result before the clamp is read by nobody
    else takes the clamp over.
    """
    readers = graph.readers()
    results = set(graph.results())
    producers = graph.producers()
    fused: dict[int, Node] = {}
    gone: set[int] = set()
    for node in graph.nodes:
        bounds = _bounds(node.op)
        if bounds is None:
            continue
        source = node.inputs[0]
        producer = producers.get(source)
        if producer is None or len(readers[source]) != 1 or source in results:
            continue
        op: Any = producer.op
        if not isinstance(op, _FUSIBLE) or (op.low, op.high) != (-math.inf, math.inf):
            continue
        op = replace(op, low=bounds[0], high=bounds[1])
        fused[id(producer)] = replace(producer, op=op, outputs=node.outputs)
        gone.add(id(node))
    nodes = tuple(fused.get(id(node), node) for node in graph.nodes if id(node) not in gone)
    return replace(graph, nodes=nodes)


def _bounds(op: Operator) -> tuple[float, float] | None:
    if isinstance(op, Relu):
        return 0.0, math.inf
    if isinstance(op, Clamp):
        return op.low, op.high
    return None
