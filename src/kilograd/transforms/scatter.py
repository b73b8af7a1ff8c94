"""Gradients that are mostly zeros are not made.

* The gradient of a looked-up table has the size of the table. Plain SGD does without it: the rows
  of d_y go straight to the rows that were read (`EmbeddingStep`).
* A tensor that is read in slices gets one cotangent a slice, each between zeros of the size of the
  whole, and their sum. Slices that together are the whole are concatenated instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kilograd.ir import Graph, Node, Value, eliminate_dead
from kilograd.ops.binary import Add
from kilograd.ops.embedding import EmbeddingCheck, EmbeddingGrad, EmbeddingStep
from kilograd.ops.optimizer import SgdCheck, SgdStep
from kilograd.ops.shape import Concat, SliceGrad

Readers = Mapping[Value, Sequence[Node]]


def scatter(graph: Graph) -> Graph:
    """The same training step with fewer zeros."""
    readers, producers = graph.readers(), graph.producers()
    replaced: dict[int, Node] = {}
    for node in graph.nodes:
        better = _row_step(node, producers, readers) or _joined(node, producers, readers)
        if better is not None:
            replaced[id(node)] = better
    if not replaced:
        return graph
    nodes = tuple(replaced.get(id(node), node) for node in graph.nodes)
    return eliminate_dead(replace(graph, nodes=nodes))


def _row_step(node: Node, producers: Mapping[Value, Node], readers: Readers) -> Node | None:
    """A plain step, or its check, with the gradient of a table that nothing else reads."""
    if not isinstance(node.op, SgdStep) or node.op not in (SgdStep(), SgdCheck()):
        return None
    table, gradient, rate, _ = node.inputs
    source = producers.get(gradient)
    if source is None or not isinstance(source.op, EmbeddingGrad):
        return None
    if not all(isinstance(reader.op, SgdStep) for reader in readers[gradient]):
        return None
    kind = EmbeddingCheck if node.op.check else EmbeddingStep
    return replace(node, op=kind(source.op.padding), inputs=(table, *source.inputs, rate))


def _joined(node: Node, producers: Mapping[Value, Node], readers: Readers) -> Node | None:
    """A sum of slices between zeros that together are the whole, as their concatenation."""
    if not isinstance(node.op, Add) or (node.op.low, node.op.high) != (-math.inf, math.inf):
        return None
    (total,) = node.outputs
    found = [_slices(value, producers, readers) for value in node.inputs]
    leaves = sorted((leaf for part in found for leaf in part), key=_start)
    if not all(found) or len(set(map(_axis, leaves))) != 1:
        return None
    axis, end = _axis(leaves[0]), 0
    for leaf in leaves:
        if _start(leaf) != end:
            return None
        end += leaf.inputs[0].type.shape[axis]
    if end != total.type.shape[axis]:
        return None
    return replace(node, op=Concat(axis), inputs=tuple(leaf.inputs[0] for leaf in leaves))


def _slices(value: Value, producers: Mapping[Value, Node], readers: Readers) -> list[Node]:
    """The nodes whose sum a value is, if each is a slice between zeros; else nothing."""
    node = producers.get(value)
    if node is None or len(readers[value]) != 1:
        return []
    if isinstance(node.op, SliceGrad):
        return [node] if node.op.step == 1 else []
    if not isinstance(node.op, Add) or (node.op.low, node.op.high) != (-math.inf, math.inf):
        return []
    parts = [_slices(term, producers, readers) for term in node.inputs]
    return [leaf for part in parts for leaf in part] if all(parts) else []


def _axis(leaf: Node) -> int:
    assert isinstance(leaf.op, SliceGrad)
    return leaf.op.axis % leaf.outputs[0].type.rank


def _start(leaf: Node) -> int:
    assert isinstance(leaf.op, SliceGrad)
    return leaf.op.start
