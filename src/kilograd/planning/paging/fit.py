"""From two graphs that need too much RAM to two that fit: what lies in storage, and the plans.

states in storage   none, or the largest ones first, as few or as many as cost the least
plan                the solvers of `planning.remat`, for the RAM that the states leave
offsets             an arena for the planned graph; where it needs more than the sum of what is
                    alive, the plan is made again for that much less
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kilograd.devices.costs import Cost
from kilograd.errors import CompilerBug
from kilograd.ir import Graph, Value
from kilograd.options import Planning
from kilograd.planning.allocate import allocate
from kilograd.planning.paging.apply import Trace, apply
from kilograd.planning.paging.price import Mover
from kilograd.planning.paging.problem import problem as step_problem
from kilograd.planning.paging.tasks import Step, tasks, update_groups
from kilograd.planning.remat import NoPlanError, Problem, Solution, solve
from kilograd.planning.schedule import Schedule

_log = logging.getLogger(__name__)

_ROUNDS = 12
"""How often a plan is made again for less RAM, until its arena fits."""

_CANDIDATES = 6
"""Of the choices of what lies in storage, how many are planned by the heuristic."""


@dataclass(frozen=True, eq=False)
class Planned:
    """A function that was planned: the tasks, the problem that they make, its solution, and the
    graph that does what the solution says.
    """

    step: Step
    problem: Problem
    solution: Solution
    graph: Graph
    trace: Trace


@dataclass(frozen=True, eq=False)
class Request:
    """What a function has to fit: `costs` of the graph's nodes, `seconds` a step may take.

    With `atomic`, a step that the storage fails leaves everything as before.
    """

    graph: Graph
    costs: Sequence[Cost]
    atomic: bool = True
    seconds: float | None = None


Room = Callable[[frozenset[Value]], int]
"""Bytes that an arena may have when these constants and states lie in storage."""


def fit(
    requests: Sequence[Request],
    room: Room,
    mover: Mover | None,
    settings: Planning,
    constants: frozenset[Value] = frozenset(),
) -> tuple[Planned, ...]:
    """Plans for functions that take turns in one arena and share constants and states.

    `constants` have to lie in storage. Raises NoPlanError, an InfeasibleError, where no choice of
    states leaves enough room.
    """
    mover = mover if settings.page else None
    choices = _choices(requests, room, mover, settings, constants)
    stored = (
        choices[0] if len(choices) == 1 else _cheapest(requests, room, mover, settings, choices)
    )
    limit = room(stored)
    return tuple(plan(request, stored, limit, mover, settings) for request in requests)


def plan(
    request: Request,
    stored: frozenset[Value],
    ram_bytes: int,
    mover: Mover | None,
    settings: Planning,
) -> Planned:
    """The plan of least energy whose arena has at most `ram_bytes`."""
    step, problem = pose(request, stored, mover)
    target = ram_bytes
    block_bytes = mover.storage.block_bytes if mover else 1
    for _ in range(_ROUNDS):
        solution = _solve(problem, target, request.seconds, settings)
        graph, trace = apply(step, solution.events, block_bytes)
        arena = allocate((graph,))[0].arena_bytes
        _log.info("plan for %d of %d bytes: arena %d", target, ram_bytes, arena)
        if arena <= ram_bytes:
            return Planned(step, problem, solution, graph, trace)
        target -= max(arena - ram_bytes, 4)
    raise CompilerBug(f"no plan for {ram_bytes} bytes has an arena of as few: {arena} are needed")


def pose(
    request: Request, stored: frozenset[Value], mover: Mover | None
) -> tuple[Step, Problem]:
    """The step and its problem, with these constants and states in storage."""
    graph = request.graph
    known = frozenset(v for v in stored if v in graph.constants or v in graph.state)
    step = tasks(graph, known, commit=mover is not None and request.atomic)
    return step, step_problem(step, request.costs, mover)


def _solve(problem: Problem, ram_bytes: int, seconds: float | None, settings: Planning) -> Solution:
    plain = problem.plain_seconds
    return solve(
        problem,
        ram_bytes=ram_bytes,
        deadline=seconds / plain if seconds is not None and plain else None,
        time_limit=settings.time_limit,
        gap=settings.gap,
        recompute=settings.recompute,
        page=settings.page,
        objective=settings.objective,
    )


def _choices(
    requests: Sequence[Request],
    room: Room,
    mover: Mover | None,
    settings: Planning,
    constants: frozenset[Value],
) -> list[frozenset[Value]]:
    """The sets of stored tensors under which every working set has room, fewest tensors first."""
    groups = [g for r in requests for g in update_groups(r.graph)] if mover else []
    found: list[frozenset[Value]] = []
    short: list[tuple[int, int, frozenset[Value]]] = []
    stored = constants
    for group in (frozenset[Value](), *dict.fromkeys(groups)):
        stored = stored | group
        limit = room(stored)
        problems = [pose(request, stored, mover)[1] for request in requests]
        excess = max(_least(p, settings) for p in problems) - limit
        if excess <= 0:
            found.append(stored)
        short.append((excess, len(short), stored))
    if not found:
        excess, _, stored = min(short)
        raise _too_small(requests, room, mover, settings, stored)
    if len(found) > _CANDIDATES:
        last = len(found) - 1
        found = [found[round(i * last / (_CANDIDATES - 1))] for i in range(_CANDIDATES)]
    return found


def _least(problem: Problem, settings: Planning) -> int:
    from kilograd.planning.remat.least import least_working_set

    return least_working_set(problem, recompute=settings.recompute, page=settings.page).bytes


def _too_small(
    requests: Sequence[Request],
    room: Room,
    mover: Mover | None,
    settings: Planning,
    stored: frozenset[Value],
) -> NoPlanError:
    """The error of the solver for the choice that comes closest."""
    for request in requests:
        _, problem = pose(request, stored, mover)
        try:
            _solve(problem, max(room(stored), 1), request.seconds, settings)
        except NoPlanError as error:
            return error
    raise CompilerBug("a plan was found where no working set has room")


def _cheapest(
    requests: Sequence[Request],
    room: Room,
    mover: Mover | None,
    settings: Planning,
    choices: Sequence[frozenset[Value]],
) -> frozenset[Value]:
    """The choice whose heuristic plans cost the least."""
    best: tuple[float, int] | None = None
    failed: NoPlanError | None = None
    for index, stored in enumerate(choices):
        total = 0.0
        try:
            for request in requests:
                _, problem = pose(request, stored, mover)
                total += solve(
                    problem,
                    ram_bytes=room(stored),
                    deadline=None,
                    time_limit=settings.time_limit / 10,
                    recompute=settings.recompute,
                    page=settings.page,
                    objective=settings.objective,
                    method="greedy",
                ).value
        except NoPlanError as error:
            failed = error
            continue
        if best is None or (total, index) < best:
            best = (total, index)
    if best is None:
        assert failed is not None
        raise failed
    return choices[best[1]]


def schedule(planned: Sequence[Planned]) -> tuple[Schedule, ...]:
    """The planned functions with offsets in the arena that they share."""
    return allocate([p.graph for p in planned])
