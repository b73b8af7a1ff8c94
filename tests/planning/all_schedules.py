"""Random tiny problems, and every schedule of one by Dijkstra over (next node, tensors in RAM, in
storage, last run).
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

from kilograd.planning.remat import Limits, Node, Objective, Problem

State = tuple[int, int, int, int]


def best_value(
    problem: Problem,
    limits: Limits,
    objective: Objective,
    *,
    recompute: bool = True,
    page: bool = True,
) -> float | None:
    """The least joules or seconds of any schedule within the limits; None where there is none.

    Sets of tensors are bit masks. States are left in order of cost; with a limit on the other
    quantity a state is entered again when that is lower than before.
    """
    nodes = problem.nodes
    full = limits.ram_bytes if limits.ram_bytes is not None else sum(n.bytes for n in nodes) * 9
    given = sum(1 << v for v, n in enumerate(nodes) if n.given)
    other_limit = limits.seconds if objective == "energy" else limits.joules
    if used(problem, given) > full:
        return None
    order = itertools.count()
    queue: list[tuple[float, float, int, State]] = [
        (0.0, 0.0, next(order), (problem.given_count, given, 0, -1))
    ]
    lowest_other: dict[State, float] = {}
    while queue:
        cost, other, _, state = heapq.heappop(queue)
        if state in lowest_other and other >= lowest_other[state]:
            continue
        lowest_other[state] = other if other_limit is not None else -1.0
        if finished(problem, state):
            return cost
        for joules, seconds, after in moves(problem, state, full, recompute, page):
            if objective == "energy":
                new, new_other = cost + joules, other + seconds
            else:
                new, new_other = cost + seconds, other + joules
            if other_limit is not None and new_other > other_limit * (1 + 1e-9):
                continue
            if new_other < lowest_other.get(after, float("inf")):
                heapq.heappush(queue, (new, new_other, next(order), after))
    return None


def finished(problem: Problem, state: State) -> bool:
    saved = sum(1 << v for v, n in enumerate(problem.nodes) if n.saved)
    return state[0] == len(problem.nodes) and state[2] & saved == saved


def used(problem: Problem, ram: int) -> int:
    return sum(n.bytes for v, n in enumerate(problem.nodes) if ram >> v & 1)


def moves(
    problem: Problem, state: State, full: int, recompute: bool, page: bool
) -> Iterator[tuple[float, float, State]]:
    following, ram, stored, last = state
    for v, node in enumerate(problem.nodes[: following + 1]):
        bit = 1 << v
        here, kept = ram & bit, stored & bit
        if here and not node.resident:
            yield 0.0, 0.0, (following, ram & ~bit, stored, last)
        if here and not kept and node.pageable and (page or node.saved):
            after = (following, ram, stored | bit, last)
            yield node.page_out_joules, node.page_out_seconds, after
        if kept and not here and used(problem, ram | bit) <= full and page:
            after = (following, ram | bit, stored, last)
            yield node.page_in_joules, node.page_in_seconds, after
        if here or not all(ram >> u & 1 for u in node.inputs):
            continue
        if v < following and not (recompute and following <= problem.last_rerun[v]):
            continue
        over = [u for u in node.in_place if not problem.nodes[u].resident]
        for gone in (0, *(1 << u for u in over)):
            then = ram & ~gone | bit
            if used(problem, then) + node.scratch_bytes <= full:
                free = last == v - 1 and node.with_previous
                joules, seconds = (0.0, 0.0) if free else (node.joules, node.seconds)
                yield joules, seconds, (max(following, v + 1), then, stored, v)


def least_peak(
    problem: Problem, limits: Limits, *, recompute: bool = True, page: bool = True
) -> int | None:
    """The least RAM within which a schedule keeps the other limits."""
    most = sum(node.bytes + node.scratch_bytes for node in problem.nodes)
    for ram_bytes in range(problem.least_bytes, most + 1):
        within = Limits(ram_bytes, limits.seconds, limits.joules)
        if best_value(problem, within, "energy", recompute=recompute, page=page) is not None:
            return ram_bytes
    return None


def random_problem(seed: int, count: int, *, rules: bool) -> tuple[Problem, Limits]:
    """A problem and limits, the same for the same seed."""
    return any_problem(random.Random(seed).randint, count, rules=rules)


def any_problem(
    integer: Callable[[int, int], int], count: int, *, rules: bool
) -> tuple[Problem, Limits]:
    """A problem of `count` nodes and limits, drawn with `integer(least, most)`.

    `rules` draws what a node may not do: given, not recomputable, state, in place and so on.
    """
    nodes: list[Node] = []
    for v in range(count):
        inputs = {integer(0, v - 1) for _ in range(integer(1, 3))} if v else set()
        nodes.append(_node(integer, nodes, tuple(sorted(inputs)), rules=rules))
    problem = Problem(tuple(nodes))
    most = max(problem.plain_peak_bytes, problem.least_bytes)
    ram_bytes = integer(problem.least_bytes, most)
    factor = (None, 1.1, 1.3, 2.0)[integer(0, 3)]
    return problem, Limits(ram_bytes, factor and factor * problem.plain_seconds)


def _node(
    integer: Callable[[int, int], int], before: list[Node], inputs: tuple[int, ...], *, rules: bool
) -> Node:
    size = integer(1, 6)
    more: dict[str, Any] = {}
    if rules and integer(0, 6) == 0 and all(node.given for node in before):
        more["given"], inputs = True, ()
    elif rules:
        whole = bool(before) and not before[-1].given
        more["with_previous"] = whole and integer(0, 3) == 0
        inputs = before[-1].inputs if more["with_previous"] else inputs
        more["recomputable"] = integer(0, 6) != 0
        more["reads_state"] = ("w",) if integer(0, 4) == 0 else ()
        more["writes_state"] = ("w",) if integer(0, 6) == 0 else ()
        if inputs and integer(0, 2) == 0:
            size = before[inputs[0]].bytes
            more["in_place"] = tuple(u for u in inputs if before[u].bytes == size)
        more["scratch_bytes"] = integer(1, 3) if integer(0, 3) == 0 else 0
    if rules:
        more["pageable"] = integer(0, 4) != 0
        more["resident"] = integer(0, 11) == 0
        more["saved"] = more["pageable"] and integer(0, 9) == 0
    seconds, joules = float(integer(1, 9)), float(integer(1, 9))
    if more.get("with_previous"):
        seconds, joules = before[-1].seconds, before[-1].joules
    return Node(
        name=f"n{len(before)}",
        bytes=size,
        seconds=seconds,
        joules=joules,
        inputs=inputs,
        page_in_seconds=float(integer(0, 4)),
        page_in_joules=float(integer(1, 6)),
        page_out_seconds=float(integer(0, 4)),
        page_out_joules=float(integer(1, 6)),
        **more,
    )
