"""From two graphs that need too much RAM to two that fit: what lies in storage, and the plans.

states in storage   none, or the largest ones first, as few or as many as cost the least
plan                the solvers of `planning.remat`, for the RAM that the states leave
offsets             an arena for the planned graph; where it needs more than the sum of what is
                    alive, the plan is made again for that much less
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from kilograd.devices.costs import Cost
from kilograd.errors import CompilerBug
from kilograd.ir import Graph, Value
from kilograd.options import Planning
from kilograd.planning.allocate import allocate
from kilograd.planning.paging.apply import Trace, apply
from kilograd.planning.paging.price import Mover
from kilograd.planning.paging.problem import problem as step_problem
from kilograd.planning.paging.tasks import Kind, Step, in_chunks, tasks, update_groups
from kilograd.planning.remat import (
    Event,
    Limits,
    NoPlanError,
    Objective,
    Problem,
    Solution,
    replay,
    solve,
)
from kilograd.planning.remat.least import least_working_set
from kilograd.planning.schedule import Schedule

_log = logging.getLogger(__name__)

_CROWDED = 0.75
"""Of the RAM, what an update may fill before it is taken in chunks."""

_ROUNDS = 12
"""How often a plan is made again for less RAM, until its arena fits."""

_CANDIDATES = 6
"""Of the choices of what lies in storage, how many are planned by the heuristic."""

_LEANEST_TRIES = 3
"""Of the choices of what lies in storage, for how many the smallest arena is searched."""


@dataclass(frozen=True, eq=False)
class Planned:
    """A function that was planned: the tasks, the problem that they make, its solution, and the
    graph that does what the solution says, with offsets.
    """

    step: Step
    problem: Problem
    solution: Solution
    schedule: Schedule
    trace: Trace

    @property
    def graph(self) -> Graph:
        """The planned graph."""
        return self.schedule.graph


@dataclass(frozen=True, eq=False)
class Request:
    """What a function has to fit: `costs` of the graph's nodes, `seconds` and `joules` that a step
    may take.

    With `atomic`, a step that the storage fails leaves everything as before.
    """

    graph: Graph
    costs: Sequence[Cost]
    atomic: bool = True
    seconds: float | None = None
    joules: float | None = None


Room = Callable[[frozenset[Value]], int]
"""Bytes that an arena may have when these constants and states lie in storage."""

Seeds = Mapping[frozenset[Value], Sequence[Sequence[Event]]]
"""Plans to start from, one for each function, by what lies in storage."""


class TooCostlyError(NoPlanError):
    """The function takes `cost` where everything runs once, which is too much already."""

    def __init__(self, cost: Cost) -> None:
        """Time and energy of the function as it stands."""
        super().__init__(
            f"the step takes {cost.seconds:.3g} s and {cost.joules:.3g} J where everything runs "
            "once",
            0,
            None,
        )
        self.cost = cost


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

    Raises NoPlanError where time or energy alone forbids every plan.
    """
    mover = mover if settings.page else None
    rows: list[tuple[int, int, frozenset[Value], list[tuple[Step, Problem]]]] = []
    for stored in _stored_sets(requests, mover, constants):
        posed = [pose(request, stored, mover) for request in requests]
        least = max(_least(problem, settings) for _, problem in posed)
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
            failure = failure or error
            continue
        except NoPlanError as error:
            failure = error
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


def leanest_plans(
    requests: Sequence[Request], found: Leanest, mover: Mover | None, settings: Planning
) -> tuple[Planned, ...]:
    """The plans of the smallest arena as they were found, without a search for cheaper ones."""
    mover = mover if settings.page else None
    plans = []
    for request, seed in zip(requests, found.seeds, strict=True):
        step, problem = pose(request, found.stored, mover)
        known = _as_seeded(request, step, problem, seed, mover, settings, found.arena_bytes)
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
        solution = _solve(problem, None, request, settings, objective="peak")
        graph, _ = apply(step, solution.events, _block_bytes(mover))
        arena = max(arena, allocate((graph,))[0].arena_bytes)
        seeds.append(solution.events)
    return arena, tuple(seeds)


def plan(
    request: Request,
    stored: frozenset[Value],
    ram_bytes: int,
    mover: Mover | None,
    settings: Planning,
    seed: Sequence[Event] = (),
) -> Planned:
    """The plan of least energy whose arena has at most `ram_bytes`; `seed` is one to start from.

    Raises NoPlanError where none is found.
    """
    step, problem = pose(request, stored, mover, ram_bytes)
    target, failure = ram_bytes, None
    for _ in range(_ROUNDS):
        try:
            solution = _solve(problem, target, request, settings, seed=seed)
        except NoPlanError as error:
            failure = error
            break
        graph, trace = apply(step, solution.events, _block_bytes(mover))
        (placed,) = allocate((graph,))
        arena = placed.arena_bytes
        _log.info("plan for %d of %d bytes: arena %d", target, ram_bytes, arena)
        if arena <= ram_bytes:
            return Planned(step, problem, solution, placed, trace)
        target -= max(arena - ram_bytes, 4)
    # The seed may be of the step with other updates in chunks, as that of the smallest arena is.
    for its_step, its_problem in ((step, problem), pose(request, stored, mover)):
        known = _as_seeded(request, its_step, its_problem, seed, mover, settings, ram_bytes)
        if known is not None:
            return known
    raise failure or NoPlanError(
        f"no plan was found whose arena has {ram_bytes} bytes: {arena} are needed",
        _least(problem, settings),
        None,
    )


def _as_seeded(
    request: Request,
    step: Step,
    problem: Problem,
    seed: Sequence[Event],
    mover: Mover | None,
    settings: Planning,
    ram_bytes: int,
) -> Planned | None:
    """The plan of the seed where its arena fits; tensors of other plans lie less densely."""
    # Tasks count all that they may need at once, of which the arena may need less.
    found = replay(problem, seed, Limits(None, request.seconds, request.joules)) if seed else None
    if found is None or found.broken:
        return None
    graph, trace = apply(step, seed, _block_bytes(mover))
    (placed,) = allocate((graph,))
    if placed.arena_bytes > ram_bytes:
        return None
    plain = problem.plain_joules if settings.objective == "energy" else problem.plain_seconds
    value = found.joules if settings.objective == "energy" else found.seconds
    solution = Solution(
        tuple(seed),
        found.joules,
        found.seconds,
        found.peak_bytes,
        min(plain, value),
        Limits(max(ram_bytes, found.peak_bytes), request.seconds, request.joules),
        settings.objective,
        "seed",
    )
    return Planned(step, problem, solution, placed, trace)


def _block_bytes(mover: Mover | None) -> int:
    return mover.storage.block_bytes if mover else 1


def pose(
    request: Request,
    stored: frozenset[Value],
    mover: Mover | None,
    ram_bytes: int | None = None,
) -> tuple[Step, Problem]:
    """The step and its problem, with these constants and states in storage.

    Updates in storage are taken in chunks where they would crowd the RAM; without a figure for
    that, where nothing else needs as much.
    """
    graph = request.graph
    known = frozenset(v for v in stored if v in graph.constants or v in graph.state)
    step = tasks(graph, known, commit=mover is not None and request.atomic)
    whole = step_problem(step, request.costs, mover)
    updates = [i for i, task in enumerate(step.tasks) if task.kind is Kind.UPDATE]
    needs = [n.bytes + n.scratch_bytes for n in whole.nodes]
    for index, node in enumerate(whole.nodes):
        needs[index] += sum(whole.nodes[u].bytes for u in node.inputs)
    others = max((n for i, n in enumerate(needs) if i not in updates), default=0)
    most = others if ram_bytes is None else ram_bytes * _CROWDED
    large = [i for i in updates if needs[i] > most]
    if not large:
        return step, whole
    step = in_chunks(step, large)
    return step, step_problem(step, request.costs, mover)


def _solve(
    problem: Problem,
    ram_bytes: int | None,
    request: Request,
    settings: Planning,
    *,
    objective: Objective | None = None,
    seed: Sequence[Event] = (),
) -> Solution:
    plain = Cost(problem.plain_seconds, problem.plain_joules)
    pairs = ((request.seconds, plain.seconds), (request.joules, plain.joules))
    if any(most is not None and most < least for most, least in pairs):
        raise TooCostlyError(plain)
    deadline, energy = (
        most / least if most is not None and least else None for most, least in pairs
    )
    return solve(
        problem,
        ram_bytes=ram_bytes,
        deadline=deadline,
        energy=energy,
        time_limit=settings.time_limit,
        gap=0.0 if objective == "peak" else settings.gap,
        recompute=settings.recompute,
        page=settings.page,
        objective=objective or settings.objective,
        seeds=[seed] if seed else (),
        diagnose=False,
    )


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


def _least(problem: Problem, settings: Planning) -> int:
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
        least = _least(problem, settings)
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
