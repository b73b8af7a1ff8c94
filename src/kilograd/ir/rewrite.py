"""Small tools that transforms share: dead code, substitution, copying with changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kilograd.ir.graph import Graph, Node, Value


def eliminate_dead(graph: Graph, *, prune: bool = False) -> Graph:
    """Drop nodes, constants and states that reach no result; checks always stay.

    With `prune`, operators also lose the single outputs that nobody reads, such as the indices of a
    max pool that has no backward pass. Only a graph that will not be differentiated any more may be
    pruned.
    """
    live: set[Value] = set(graph.results())
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        used = [value in live for value in node.outputs]
        if not any(used) and not node.op.check:
            continue
        if prune and not all(used):
            cheaper = node.op.prune(used)
            if cheaper is not None:
                outputs = tuple(v for v, u in zip(node.outputs, used, strict=True) if u)
                node = replace(node, op=cheaper, outputs=outputs)
        kept.append(node)
        live.update(node.inputs)
    return replace(
        graph,
        nodes=tuple(reversed(kept)),
        constants={value: data for value, data in graph.constants.items() if value in live},
        state={
            value: data
            for value, data in graph.state.items()
            if value in live or value in graph.updates
        },
    )


def substitute(graph: Graph, mapping: Mapping[Value, Value]) -> Graph:
    """Read `mapping[v]` wherever `v` is read, chains followed; definitions stay."""

    def find(value: Value) -> Value:
        while value in mapping:
            value = mapping[value]
        return value

    return replace(
        graph,
        nodes=tuple(
            replace(node, inputs=tuple(map(find, node.inputs)))
            if any(value in mapping for value in node.inputs)
            else node
            for node in graph.nodes
        ),
        outputs=tuple(map(find, graph.outputs)),
        updates={state: find(value) for state, value in graph.updates.items()},
    )
