"""Fuses an activation that is a clamp into the operator before it: one pass over memory less."""

from __future__ import annotations

import math
from dataclasses import replace

from kilograd.ir import Graph, Node, Operator
from kilograd.ops.unary import Clamp, Relu


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
        if getattr(producer.op, "low", None) != -math.inf or producer.op.high != math.inf:  # type: ignore[attr-defined]
            continue
        op = replace(producer.op, low=bounds[0], high=bounds[1])  # type: ignore[call-arg]
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
