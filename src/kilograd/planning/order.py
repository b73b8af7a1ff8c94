"""Chooses the order of execution that needs the least memory.

An order must respect data, and the memory that steps overwrite: a weight is updated behind its last
reader; with an atomic step, behind every check. Several orders are made and measured by the peak of
their lifetimes; ties keep the earlier one, and the first is the order in which autodiff built the
program.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import replace

from kilograd.ir import Graph, Node, Value
from kilograd.ops.shape import Slice
from kilograd.planning.late_updates import late_updates
from kilograd.planning.lifetimes import measure
from kilograd.planning.stream import narrow

Priority = Callable[[int], tuple[int, ...]]


def order(graph: Graph, *variants: Graph, atomic: bool) -> Graph:
    """The program in the measured best order; `atomic` puts every update behind every check.

    `variants` are other forms of the same program, taken where one of their orders needs less
    memory. Chains that can be streamed count as if they were.
    """
    graphs = [ordered for form in (graph, *variants) for ordered in _orders(form, atomic)]

    def need(candidate: Graph) -> tuple[int, int]:
        lives = measure(narrow(candidate))
        area = sum(b.size_bytes * (b.last - b.first) for b in lives.buffers)
        return lives.peak_bytes, area

    return min(graphs, key=need)


def _orders(graph: Graph, atomic: bool) -> list[Graph]:
    predecessors = predecessors_of(graph, atomic)
    natural, updates, slices = _in_order, _early_updates(graph), _early_slices(graph)
    candidates = [_list_schedule(predecessors, p) for p in (natural, updates, slices)]
    candidates.append(_greedy(graph, predecessors))
    if atomic:
        place = {index: i for i, index in enumerate(late_updates(graph, _early_slices(graph)))}
        candidates.append(_list_schedule(predecessors, lambda index: (place[index],)))
    return [replace(graph, nodes=tuple(graph.nodes[i] for i in c)) for c in candidates]


def _in_order(index: int) -> tuple[int, ...]:
    return (index,)


def _early_slices(graph: Graph) -> Priority:
    """The given order, but what the backward pass takes a slice of is cut as soon as it exists."""
    position = {value: i for i, node in enumerate(graph.nodes) for value in node.outputs}
    early = {
        index: position.get(node.inputs[0], -1)
        for index, node in enumerate(graph.nodes)
        if isinstance(node.op, Slice) and node.location.backward
    }
    return lambda index: (early.get(index, index), index)


def predecessors_of(graph: Graph, atomic: bool) -> list[set[int]]:
    """For every node the nodes that have to run before it: by data, and because steps overwrite."""
    producer = {value: i for i, node in enumerate(graph.nodes) for value in node.outputs}
    readers: dict[Value, list[int]] = {}
    owner: dict[Value, Value] = {}  # of a state's memory under another shape
    for index, node in enumerate(graph.nodes):
        for value in node.inputs:
            readers.setdefault(owner.get(value, value), []).append(index)
        if node.op.alias:
            source = node.inputs[0]
            owner[node.outputs[0]] = owner.get(source, source)
    result = [
        {producer[value] for value in node.inputs if value in producer} for node in graph.nodes
    ]
    steps = {producer[successor] for successor in graph.updates.values()}
    for state, successor in graph.updates.items():
        step = producer[successor]
        result[step].update(reader for reader in readers.get(state, []) if reader != step)
    checks = {index for index, node in enumerate(graph.nodes) if node.op.check}
    first_check = min(checks, default=None)
    failing = {index for index, node in enumerate(graph.nodes) if node.op.may_fail}
    for step in steps:
        if atomic:
            result[step] |= checks | failing
        elif first_check is not None:
            result[step].add(first_check)
    return result


def _early_updates(graph: Graph) -> Priority:
    """Weight gradients, checks and updates as soon as possible, everything else in the given
    order.
    """
    final = {value for value in graph.updates.values()}
    feeds_step: set[int] = set()
    wanted = set(final)
    for index in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[index]
        if node.op.check or any(value in final for value in node.outputs):
            feeds_step.add(index)
            if not node.op.may_fail:  # which reads no gradient of a weight, but makes one
                wanted.update(node.inputs)
        elif any(value in wanted for value in node.outputs) and node.location.backward:
            feeds_step.add(index)
    return lambda index: (0 if index in feeds_step else 1, index)


def _list_schedule(predecessors: list[set[int]], priority: Priority) -> list[int]:
    """The topological order that always takes the ready node of the smallest priority."""
    missing = [len(p) for p in predecessors]
    successors: list[list[int]] = [[] for _ in predecessors]
    for index, before in enumerate(predecessors):
        for other in before:
            successors[other].append(index)
    ready = [(priority(i), i) for i, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    result = []
    while ready:
        _, index = heapq.heappop(ready)
        result.append(index)
        for successor in successors[index]:
            missing[successor] -= 1
            if missing[successor] == 0:
                heapq.heappush(ready, (priority(successor), successor))
    return result


def _greedy(graph: Graph, predecessors: list[set[int]]) -> list[int]:
    """The topological order that always takes the ready node that leaves the fewest live bytes."""
    remaining: dict[Value, int] = {}
    for node in graph.nodes:
        for value in dict.fromkeys(node.inputs):
            remaining[value] = remaining.get(value, 0) + 1
    for value in graph.results():
        remaining[value] = remaining.get(value, 0) + 1
    stored = {*graph.state, *graph.constants, *graph.updates.values()}

    def growth(node: Node) -> int:
        added = 0 if node.op.alias else sum(v.type.bytes for v in node.outputs if v not in stored)
        freed = sum(
            v.type.bytes
            for v in dict.fromkeys(node.inputs)
            if v not in stored and remaining[v] == 1
        )
        return added - freed

    missing = [len(p) for p in predecessors]
    successors: list[list[int]] = [[] for _ in predecessors]
    for index, before in enumerate(predecessors):
        for other in before:
            successors[other].append(index)
    ready = [i for i, count in enumerate(missing) if count == 0]
    result = []
    while ready:
        best = min(ready, key=lambda i: (growth(graph.nodes[i]), i))
        ready.remove(best)
        result.append(best)
        for value in dict.fromkeys(graph.nodes[best].inputs):
            remaining[value] -= 1
        for successor in successors[best]:
            missing[successor] -= 1
            if missing[successor] == 0:
                ready.append(successor)
    return result
