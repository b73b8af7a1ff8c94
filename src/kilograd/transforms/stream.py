"""Joins chains of int8 convolutions into operators that make a few rows at a time.

%a = q_conv2d(%x, ...)
%b = q_depthwise_conv2d(%a, ...)   ->   %y = q_stream{q_conv2d > q_depthwise_conv2d > ...}(%x, ...)
%y = q_conv2d(%b, ...)

Which chains, and how many rows, is decided in `planning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from kilograd.ir import Graph, Location, Node
from kilograd.ops.q_stream import QStream, Stage, streamable


def chains(graph: Graph) -> list[range]:
    """The longest chains, as ranges of node indices: neighbours of which each reads the result of
    the one before, and nobody else does.
    """
    readers, results = graph.readers(), set(graph.results())
    able = [
        streamable(node.op, *(value.type for value in node.inputs)) and not node.location.backward
        for node in graph.nodes
    ]
    found: list[range] = []
    begin = 0
    for i, (node, following) in enumerate(pairwise(graph.nodes)):
        linked = (
            able[i]
            and able[i + 1]
            and readers[node.outputs[0]] == [following]
            and following.inputs.count(node.outputs[0]) == 1
            and following.inputs[0] == node.outputs[0]
            and node.outputs[0] not in results
        )
        if not linked:
            found.append(range(begin, i + 1))
            begin = i + 1
    found.append(range(begin, len(graph.nodes)))
    return [chain for chain in found if len(chain) > 1]


def joined(nodes: Sequence[Node], rows: int) -> Node:
    """One node for a chain, `rows` rows of its result at a time."""
    stages = tuple(node.op for node in nodes if isinstance(node.op, Stage))
    op = QStream(stages, rows)
    inputs = (nodes[0].inputs[0], *(value for node in nodes for value in node.inputs[1:]))
    first, last = nodes[0].location, nodes[-1].location
    place = Location(f"{first.layer} to {last.layer}", last.source)
    return Node(op, inputs, nodes[-1].outputs, place)


def join(graph: Graph, chosen: Sequence[tuple[range, int]]) -> Graph:
    """The program with each of the chosen chains, parts of `chains`, in one node with so many
    rows.
    """
    nodes: list[Node] = []
    at = 0
    for chain, rows in sorted(chosen, key=lambda item: item[0].start):
        nodes += graph.nodes[at : chain.start]
        nodes.append(joined(graph.nodes[chain.start : chain.stop], rows))
        at = chain.stop
    return replace(graph, nodes=(*nodes, *graph.nodes[at:]))
