"""One function of a program: as a problem, and planned so that its arena fits.

plan        the solvers of `planning.remat`, for the RAM that there is
offsets     an arena for the planned graph; where it needs more than the sum of what is alive, the
            plan is made again for that much less
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from kilograd.devices.costs import Cost
from kilograd.ir import Graph, Value
from kilograd.options import Planning
from kilograd.planning.allocate import allocate
from kilograd.planning.paging.apply import Trace, apply
from kilograd.planning.paging.price import Mover
from kilograd.planning.paging.problem import problem as step_problem
from kilograd.planning.paging.tasks import Kind, Step, in_chunks, tasks
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
            solution = solve_step(problem, target, request, settings, seed=seed)
        except NoPlanError as error:
            failure = error
            break
        graph, trace = apply(step, solution.events, block_bytes(mover))
        (placed,) = allocate((graph,))
        arena = placed.arena_bytes
        _log.info("plan for %d of %d bytes: arena %d", target, ram_bytes, arena)
        if arena <= ram_bytes:
            return Planned(step, problem, solution, placed, trace)
        target -= max(arena - ram_bytes, 4)
    # The seed may be of the step with other updates in chunks, as that of the smallest arena is.
    for its_step, its_problem in ((step, problem), pose(request, stored, mover)):
        known = as_seeded(request, its_step, its_problem, seed, mover, settings, ram_bytes)
        if known is not None:
            return known
    raise failure or NoPlanError(
        f"no plan was found whose arena has {ram_bytes} bytes: {arena} are needed",
        working_set_bytes(problem, settings),
        None,
    )


def as_seeded(
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
    graph, trace = apply(step, seed, block_bytes(mover))
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


def block_bytes(mover: Mover | None) -> int:
    """Bytes of a block of the storage, 1 without one."""
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


def solve_step(
    problem: Problem,
    ram_bytes: int | None,
    request: Request,
    settings: Planning,
    *,
    objective: Objective | None = None,
    seed: Sequence[Event] = (),
) -> Solution:
    """The solution of least energy or time, as the settings say, or of another objective.

    Raises TooCostlyError where the step as it stands takes too long or too much, and NoPlanError
    where no plan is found.
    """
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


def working_set_bytes(problem: Problem, settings: Planning) -> int:
    """A bound that no plan is below, with what the settings allow."""
    return least_working_set(problem, recompute=settings.recompute, page=settings.page).bytes
