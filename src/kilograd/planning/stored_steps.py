"""Updates of stored states a chunk at a time, in place of a load, a step and a store of the whole.

%w.in = page_in(%w)                              %w.next.page = stored_sgd_step(%d_w, rate, %w)
sgd_check(%w.in, %d_w, ...)
%w.next = sgd_step(%w.in, %d_w, ...)        =>
%w.next.page = page_out(%w.next)
"""

from __future__ import annotations

from dataclasses import replace

from kilograd.ir import Graph, Node, Value
from kilograd.ops.optimizer import SgdCheck, SgdStep
from kilograd.ops.page import PageIn, PageOut
from kilograd.ops.stored_step import CHUNK_BYTES, StoredSgdStep


def step_in_chunks(graph: Graph, block_bytes: int, chunk_bytes: int = CHUNK_BYTES) -> Graph:
    """The graph with every SGD step whose weight, velocity and accumulator are all stored states
    taken in chunks, where nothing but `page_out` reads what the step makes.

    The check before such a step goes: the step itself fails where something is not finite, and has
    then changed nothing that counts.
    """
    loaded = {n.outputs[0]: n.inputs[0] for n in graph.nodes if isinstance(n.op, PageIn)}
    stored = {n.inputs[0]: n.outputs[0] for n in graph.nodes if isinstance(n.op, PageOut)}
    readers = graph.readers()
    results = set(graph.results())
    replaced: dict[int, Node] = {}
    gone: set[Value] = set()
    stepped: set[Value] = set()
    for index, node in enumerate(graph.nodes):
        if not isinstance(node.op, SgdStep) or isinstance(node.op, SgdCheck):
            continue
        w, gradient, rate, step, *extra = node.inputs
        states = [loaded.get(value) for value in (w, *extra)]
        pages = [stored.get(value) for value in node.outputs]
        if not all(
            state in graph.stored and graph.updates.get(state) == page
            for state, page in zip(states, pages, strict=True)
            if state is not None
        ) or None in (*states, *pages):
            continue
        if any(len(readers[value]) > 1 or value in results for value in node.outputs):
            continue
        inputs = (gradient, rate, step, *(state for state in states if state is not None))
        outputs = tuple(page for page in pages if page is not None)
        op = StoredSgdStep.of(node.op, block_bytes, chunk_bytes)
        replaced[index] = Node(op, inputs, outputs, node.location)
        gone.update(outputs)
        stepped.update(state for state in states if state is not None)
    nodes = []
    for index, node in enumerate(graph.nodes):
        if isinstance(node.op, PageOut) and node.outputs[0] in gone:
            continue
        if isinstance(node.op, SgdCheck) and loaded.get(node.inputs[0]) in stepped:
            continue
        nodes.append(replaced.get(index, node))
    return replace(graph, nodes=_without_idle_loads(nodes))


def _without_idle_loads(nodes: list[Node]) -> tuple[Node, ...]:
    read = {value for node in nodes for value in node.inputs}
    return tuple(n for n in nodes if not isinstance(n.op, PageIn) or n.outputs[0] in read)
