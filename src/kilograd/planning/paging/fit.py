"""From two graphs that need too much RAM to two that fit: what lies in storage, and the plans.

states in storage   none, or the largest ones first, as few or as many as cost the least
plans               of each function, for the RAM that the states leave (`function`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from kilograd.devices.costs import Cost
from kilograd.errors import CompilerBug
from kilograd.ir import Graph, Value
from kilograd.options import Planning
from kilograd.planning.allocate import allocate
from kilograd.planning.paging.apply import apply
from kilograd.planning.paging.function import (
    Planned,
    Request,
    TooCostlyError,
    as_seeded,
    block_bytes,
    plan,
    pose,
    solve_step,
    working_set_bytes,
)
from kilograd.planning.paging.price import Mover
from kilograd.planning.paging.tasks import Step, update_groups
from kilograd.planning.remat import Event, NoPlanError, Problem, solve

_CANDIDATES = 6
"""Of the choices of what lies in storage, how many are planned by the heuristic."""

_LEANEST_TRIES = 3
"""Of the choices of what lies in storage, for how many the smallest arena is searched."""


Room = Callable[[frozenset[Value]], int]
"""Bytes that an arena may have when these constants and states lie in storage."""

Seeds = Mapping[frozenset[Value], Sequence[Sequence[Event]]]
"""Plans to start from, one for each function, by what lies in storage."""


@dataclass(frozen=True, eq=False)
class Leanest:
    """The leanest plans that were found: an arena of `arena_bytes` with `stored` in storage.

    `excess_bytes` are missing to it, negative where there is room; no plan misses less than
    `bound_bytes`, whatever lies in storage.
    """

    stored: frozenset[Value]
    arena_bytes: int
    seeds: tuple[tuple[Event, ...], ...]
    excess_bytes: int
    bound_bytes: int


def fit(
    requests: Sequence[Request],
    room: Room,
    mover: Mover | None,
    settings: Planning,
    constants: frozenset[Value] = frozenset(),
    seeds: Seeds | None = None,
) -> tuple[Planned, ...]:
    """Plans for functions that take turns in one arena and share constants and states.

    `constants` have to lie in storage. Raises NoPlanError, an InfeasibleError, where no choice of
    states leaves enough room.
    """
    mover = mover if settings.page else None
    seeds = seeds or {}
    choices = _choices(requests, room, mover, settings, constants)
    failure: NoPlanError | None = None
    for stored in _ranked(requests, room, mover, settings, choices):
        known = seeds.get(stored) or [()] * len(requests)
        try:
            return tuple(
                plan(request, stored, room(stored), mover, settings, seed)
                for request, seed in zip(requests, known, strict=True)
            )
        except NoPlanError as error:  # such as where offsets take more than the sum of bytes
            failure = failure or error
    assert failure is not None
    raise failure


def leanest(
    requests: Sequence[Request],
    room: Room,
    mover: Mover | None,
    settings: Planning,
    constants: frozenset[Value] = frozenset(),
    known: Leanest | None = None,
) -> Leanest:
    """The plans of the smallest arena beside what does not lie in storage; `known` ones, of another
    mover, where none are leaner.

    Raises NoPlanError where time or energy alone forbids every plan: TooCostlyError where each
    choice of what lies in storage takes too much already where everything runs once, with the least
    of each quantity that any of them takes.
    """
    mover = mover if settings.page else None
    rows: list[tuple[int, int, frozenset[Value], list[tuple[Step, Problem]]]] = []
    for stored in _stored_sets(requests, mover, constants):
        posed = [pose(request, stored, mover) for request in requests]
        least = max(working_set_bytes(problem, settings) for _, problem in posed)
        rows.append((least - room(stored), len(rows), stored, posed))
    rows.sort(key=lambda row: row[:2])
    least = rows[0][0] if known is None else min(rows[0][0], known.bound_bytes)
    best = known and replace(known, bound_bytes=least)
    failure: NoPlanError | None = None
    tries = 0
    for bound, _, stored, posed in rows:
        if tries == _LEANEST_TRIES or (best is not None and best.excess_bytes <= bound):
            break
        try:
            found = _leanest(requests, posed, mover, settings)
        except TooCostlyError as error:
            failure = cheapest(failure, error)
            continue
        except NoPlanError as error:
            failure = cheapest(failure, error)
            tries += 1
            continue
        tries += 1
        arena, seeds = found
        excess = arena - room(stored)
        if best is None or excess < best.excess_bytes:
            best = Leanest(stored, arena, seeds, excess, least)
    if best is None:
        assert failure is not None
        raise failure
    return best


def cheapest(known: NoPlanError | None, error: NoPlanError) -> NoPlanError:
    """One failure for two: where both are of the cost, with the least of each quantity."""
    if not isinstance(error, TooCostlyError) or known is None:
        return error
    if not isinstance(known, TooCostlyError):
        return known
    return TooCostlyError(known.cost.least(error.cost))


def leanest_plans(
    requests: Sequence[Request], found: Leanest, mover: Mover | None, settings: Planning
) -> tuple[Planned, ...]:
    """The plans of the smallest arena as they were found, without a search for cheaper ones."""
    mover = mover if settings.page else None
    plans = []
    for request, seed in zip(requests, found.seeds, strict=True):
        step, problem = pose(request, found.stored, mover)
        known = as_seeded(request, step, problem, seed, mover, settings, found.arena_bytes)
        if known is None:
            raise CompilerBug("the leanest plan does not fit the arena that was found for it")
        plans.append(known)
    return tuple(plans)


def _leanest(
    requests: Sequence[Request],
    posed: Sequence[tuple[Step, Problem]],
    mover: Mover | None,
    settings: Planning,
) -> tuple[int, tuple[tuple[Event, ...], ...]]:
    """The smallest arena that was found for one choice of what lies in storage, and its plans."""
    arena, seeds = 0, []
    for request, (step, problem) in zip(requests, posed, strict=True):
        solution = solve_step(problem, None, request, settings, objective="peak")
        graph, _ = apply(step, solution.events, block_bytes(mover))
        arena = max(arena, allocate((graph,))[0].arena_bytes)
        seeds.append(solution.events)
    return arena, tuple(seeds)


def _choices(
    requests: Sequence[Request],
    room: Room,
    mover: Mover | None,
    settings: Planning,
    constants: frozenset[Value],
) -> list[frozenset[Value]]:
    """The sets of stored tensors under which every working set has room, fewest tensors first."""
    found: list[frozenset[Value]] = []
    short: list[tuple[int, int, frozenset[Value]]] = []
    for stored in _stored_sets(requests, mover, constants):
        limit = room(stored)
        problems = [pose(request, stored, mover)[1] for request in requests]
        excess = max(working_set_bytes(p, settings) for p in problems) - limit
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


def _stored_sets(
    requests: Sequence[Request], mover: Mover | None, constants: frozenset[Value]
) -> list[frozenset[Value]]:
    """What may lie in storage: the constants that have to, then more and more states."""
    groups = [g for r in requests for g in update_groups(r.graph)] if mover else []
    sets = [constants]
    for group in dict.fromkeys(groups):
        sets.append(sets[-1] | group)
    return sets


def least_bytes(
    graph: Graph, costs: Sequence[Cost], stored: frozenset[Value], mover: Mover, atomic: bool
) -> int:
    """Bytes of arena that no plan of a function does without, with this in storage."""
    _, problem = pose(Request(graph, costs, atomic), stored, mover)
    return problem.least_bytes


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
        least = working_set_bytes(problem, settings)
        if least > room(stored):
            return NoPlanError(f"at least {least} bytes of arena are needed", least, None)
    raise CompilerBug("a plan was found where no working set has room")


def _ranked(
    requests: Sequence[Request],
    room: Room,
    mover: Mover | None,
    settings: Planning,
    choices: Sequence[frozenset[Value]],
) -> list[frozenset[Value]]:
    """The choices that the heuristic has plans for, those first that cost the least by it."""
    if len(choices) == 1:
        return list(choices)
    costs: list[tuple[float, int]] = []
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
                    diagnose=False,
                ).value
        except NoPlanError as error:
            failed = error
            continue
        costs.append((total, index))
    if not costs:
        assert failed is not None
        raise failed
    return [choices[index] for _, index in sorted(costs)]
