"""Keeps one bit an element where the backward pass reads an int8 result only for its clip mask.

%y = q_conv2d(...)            %y = q_conv2d(...)
...                     ->    %bits = pack_mask(%y)
%d = q_mask(%d_y, %y)         %d = mask_bits(%d_y, %bits)
"""

from __future__ import annotations

from dataclasses import replace

from kilograd.ir import Builder, Graph, Node, Value
from kilograd.ops.q_convert import QMask
from kilograd.ops.q_mask import MaskBits, PackMask
from kilograd.ops.shape import Slice


def pack_masks(graph: Graph) -> Graph:
    """The training graph with bits in place of the results that only masks read later."""
    readers = graph.readers()
    builder = Builder()
    builder.reserve(value.name for value in graph.values())
    bits: dict[tuple[Value, int, int], Value] = {}
    after: dict[Value, list[Node]] = {}
    for node in graph.nodes:
        if not isinstance(node.op, QMask):
            continue
        y, key = node.inputs[1], (node.inputs[1], node.op.low, node.op.high)
        if key not in bits and not _kept(y, readers):
            pack = PackMask(node.op.low, node.op.high)
            (type_,) = pack.infer(y.type)
            bits[key] = Value(builder.fresh(f"{y.name}.mask"), type_)
            after.setdefault(y, []).append(Node(pack, (y,), (bits[key],)))
    nodes: list[Node] = []
    for node in graph.nodes:
        if isinstance(node.op, QMask) and (key := _key(node)) in bits:
            node = replace(node, op=MaskBits(), inputs=(node.inputs[0], bits[key]))
        nodes.append(node)
        for value in node.outputs:
            nodes += [replace(pack, location=node.location) for pack in after.get(value, ())]
    return replace(graph, nodes=tuple(nodes))


def _key(node: Node) -> tuple[Value, int, int]:
    assert isinstance(node.op, QMask)
    return node.inputs[1], node.op.low, node.op.high


def _kept(value: Value, readers: dict[Value, list[Node]]) -> bool:
    """True when the backward pass reads the value, or a view of it, in earnest. A slice is cut
    as soon as the value exists, and kept in its place.
    """
    for node in readers[value]:
        if node.op.alias:
            if _kept(node.outputs[0], readers):
                return True
        elif node.location.backward and not isinstance(node.op, QMask | Slice):
            return True
    return False
