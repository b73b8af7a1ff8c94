"""The least RAM that could do, as far as single stages tell, and which tensors make it.

While node t runs for the first time, RAM holds its inputs, its output, its scratch, and every
tensor that is read later and cannot be brought back: neither paged nor, behind t, run again.
"""

from __future__ import annotations

from dataclasses import dataclass

from kilograd.planning.remat.problem import Problem


@dataclass(frozen=True)
class WorkingSet:
    """The largest: `bytes` at the first run of node `stage`, with `held` beside its own tensors."""

    bytes: int
    stage: int
    held: tuple[int, ...]


def least_working_set(problem: Problem, *, recompute: bool = True, page: bool = True) -> WorkingSet:
    """The largest working set, with running again or paging switched off where asked."""
    nodes = problem.nodes
    spans = [_held(problem, v, recompute, page) for v in range(len(nodes))]
    arrivals: list[list[int]] = [[] for _ in nodes]
    for v, span in enumerate(spans):
        if span:
            arrivals[span.start].append(v)
    given = tuple(range(problem.given_count))
    best = WorkingSet(sum(nodes[v].bytes for v in given), 0, given)
    held: set[int] = set()
    for t, node in enumerate(nodes):
        held = {v for v in held if t in spans[v]}.union(arrivals[t])
        if node.given:
            continue
        total = node.bytes + node.scratch_bytes
        total += sum(nodes[v].bytes for v in held.union(node.inputs))
        if any(u not in held for u in node.in_place):
            total -= node.bytes
        if total > best.bytes:
            best = WorkingSet(total, t, tuple(sorted(held.difference(node.inputs))))
    return best


def _held(problem: Problem, v: int, recompute: bool, page: bool) -> range:
    """The stages at whose first run v is certain to be in RAM and to stay in it."""
    node, count = problem.nodes[v], len(problem.nodes)
    if node.resident:
        return range(v + 1, count)
    last_use = max(problem.readers[v], default=v)
    if page and node.pageable:
        return range(0)
    rerun = problem.last_rerun[v] if (page if node.loads else recompute) else -1
    return range(max(v + 1, rerun), last_use)
