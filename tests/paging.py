"""Moves chosen tensors of a compiled program to secondary storage, with no planner's help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from kilograd.devices import Storage
from kilograd.ir import Graph, Node, Value, verify
from kilograd.ops.page import PageIn, PageOut
from kilograd.planning.allocate import allocate
from kilograd.planning.storage import place
from kilograd.planning.stored_steps import step_in_chunks
from kilograd.program import Program


class Geometry(Storage):
    """A storage of these blocks, whose transfers take no time."""

    name: str = "test"
    title: str = "a storage of tests"
    kind: Literal["sd", "nor_flash", "psram", "file"] = "file"
    size_bytes: int = 1 << 24
    read_seconds: float = 0.0
    read_bytes_per_second: float = 1e6
    write_seconds: float = 0.0
    write_bytes_per_second: float = 1e6
    watts: float = 0.0


_PLAIN = Geometry()
Choice = Callable[[Value], bool]


def paged(
    program: Program,
    *,
    pages: Choice = lambda value: False,
    stored: Choice = lambda value: False,
    geometry: Geometry = _PLAIN,
    storage_first: bool = True,
    chunk_bytes: int | None = None,
) -> Program:
    """The program with the chosen computed values paged out as soon as they exist and in before
    each node that reads them, and the chosen constants and states in storage. `storage_first` moves
    what changes SRAM behind everything that may fail. With `chunk_bytes`, steps of stored states
    are taken in chunks.
    """
    both = (program.predict.graph, program.train.graph)
    kept = _kept(both, stored)
    graphs = [_paged(graph, pages, kept, geometry.block_bytes) for graph in both]
    if storage_first:
        graphs = [verify(replace(g, nodes=tuple(_storage_first(g)))) for g in graphs]
    if chunk_bytes is not None:
        block = geometry.block_bytes
        graphs = [verify(step_in_chunks(graph, block, chunk_bytes)) for graph in graphs]
    predict, train = allocate(graphs)
    plan = place(graphs, geometry)
    return replace(program, predict=predict, train=train, storage=plan, storage_device=geometry)


def _kept(graphs: tuple[Graph, Graph], stored: Choice) -> set[Value]:
    """The constants and states that lie in storage, for both functions."""
    values = {v for graph in graphs for v in (*graph.constants, *graph.state)}
    kept = {v for v in values if stored(v) and v.type.bytes > 4}
    for states in _together(graphs[1]):
        if not states.isdisjoint(kept):
            kept |= states
    return kept


def _paged(graph: Graph, pages: Choice, wanted: set[Value], block_bytes: int) -> Graph:
    kept = {v for v in (*graph.constants, *graph.state) if v in wanted}
    results = set(graph.results())
    away: dict[Value, Value] = {v: v for v in kept}
    nodes: list[Node] = []
    updates = dict(graph.updates)
    state_of = {successor: state for state, successor in graph.updates.items()}
    aliased = {node.inputs[0] for node in graph.nodes if node.op.alias}
    count = 0
    for node in graph.nodes:
        inputs = []
        for value in node.inputs:
            if value in away:
                copy = Value(f"{value.name}.in{count}", value.type)
                count += 1
                nodes.append(Node(PageIn(block_bytes), (away[value],), (copy,), node.location))
                value = copy
            inputs.append(value)
        nodes.append(replace(node, inputs=tuple(inputs)))
        for value in node.outputs:
            state = state_of.get(value)
            chosen = state is None and pages(value) and value not in results
            chosen = chosen and not node.location.layer.startswith("update of")
            if state in kept or (chosen and value.type.rank and value not in aliased):
                page = Value(f"{value.name}.page", value.type)
                nodes.append(Node(PageOut(block_bytes), (value,), (page,), node.location))
                away[value] = page
                if state in kept:
                    updates[state] = page
    result = replace(graph, nodes=tuple(nodes), updates=updates, stored=frozenset(kept))
    return verify(result)


def _together(graph: Graph) -> list[set[Value]]:
    """The states that are in one memory: those that one node updates, or a node whose other outputs
    the next values of others come from.
    """
    producer = graph.producers()
    state_of = {successor: state for state, successor in graph.updates.items()}
    groups = []
    for successor in state_of:
        pending, found = [successor], set()
        while pending:
            node = producer[pending.pop()]
            found |= {state_of[v] for v in node.outputs if v in state_of}
            pending += [v for v in node.inputs if v in producer and _steps(producer[v], state_of)]
        groups.append(found)
    return groups


def _steps(node: Node, state_of: dict[Value, Value]) -> bool:
    return node.location.layer.startswith("update of") and bool(state_of.keys() & {*node.outputs})


def _storage_first(graph: Graph) -> list[Node]:
    """Everything that page nodes need, and they themselves, before the first change of SRAM."""
    successors = {v for state, v in graph.updates.items() if state not in graph.stored}
    changes = [i for i, node in enumerate(graph.nodes) if not successors.isdisjoint(node.outputs)]
    if not changes:
        return list(graph.nodes)
    head, tail = graph.nodes[: changes[0]], graph.nodes[changes[0] :]
    needed: set[Value] = set()
    early: list[Node] = []
    for node in reversed(tail):
        wanted = isinstance(node.op, PageOut | PageIn) or not needed.isdisjoint(node.outputs)
        if wanted and successors.isdisjoint(node.outputs):
            needed.update(node.inputs)
            early.insert(0, node)
    late = [node for node in tail if not any(node is other for other in early)]
    return [*head, *early, *late]
