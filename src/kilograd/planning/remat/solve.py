"""Plans for a problem under limits: greedy first, then the gap formulation in growing depth.

    greedy -> relaxed gap formulation of depth 2 -> 4 -> 8 -> exact -> the best plan and a bound
                       |                |
                     bound    values -> greedy executor, guided by them -> plan -> validator

A relaxed formulation lets chains of the given depth end without their inputs (uses.py). It is
small, its optimum is a bound, and what it keeps in RAM and writes to storage guides the greedy
executor, which runs the rest of the chain. A formulation that is cut off at a depth instead has
plans for values, for where the executor's are poor. Every formulation starts from the best plan so
far.

The bound is over plans of the exact formulation: in a stage nodes run again in order, at most once,
where a reader could need them (anywhere, in small graphs). Plans outside it are taken when met and
not looked for. For tiny graphs every schedule is searched instead.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kilograd.errors import InputError
from kilograd.planning.remat import highs
from kilograd.planning.remat.explain import RuledOut, infeasible, too_small
from kilograd.planning.remat.gap_model import GapModel
from kilograd.planning.remat.greedy import Plan, accepted, greedy, guided
from kilograd.planning.remat.hint import hint
from kilograd.planning.remat.least import least_working_set
from kilograd.planning.remat.linear import FloatArray
from kilograd.planning.remat.prefetch import prefetched
from kilograd.planning.remat.problem import Problem
from kilograd.planning.remat.read_plan import read_guide, read_plan
from kilograd.planning.remat.search import MOST_NODES
from kilograd.planning.remat.search import search as search_all
from kilograd.planning.remat.solution import Event, Limits, Objective, Solution
from kilograd.planning.remat.uses import Freedom, Uses

Method = Literal["auto", "greedy", "gap"]

DEFAULT_TIME_LIMIT_SECONDS = 60.0
_OBJECTIVES = ("energy", "time", "peak")
# (depth, whether relaxed, the share of the time limit at whose end it stops). Depth 0 is for graphs
# that are too large for 2.
_STAGES: tuple[tuple[int | None, bool, float], ...] = (
    (2, True, 0.3),
    (4, True, 0.5),
    (4, False, 0.8),
    (8, True, 0.9),
    (None, True, 1.0),
    (0, True, 1.0),
)
# Larger models take longer to write down than to give up.
_MOST_COEFFICIENTS = 8_000_000
_MOST_POINTS = 1_000_000
_MOST_NODES = 1500
# Up to as many nodes every stage is a point of use of every tensor.
_SMALL = 16
# What the heuristic may take of the time limit; its first variant always ends.
_GREEDY_SHARE = 0.4
# The solver stops at a part of the gap, because a plan may lose something to its values.
_SHARE_OF_GAP = 0.3
# The plain step's joules or seconds in the objective of the solver.
_SCALE = 1e5
_log = logging.getLogger(__name__)


def solve(
    problem: Problem,
    *,
    ram_bytes: int | None = None,
    deadline: float | None = 1.3,
    energy: float | None = None,
    time_limit: float = DEFAULT_TIME_LIMIT_SECONDS,
    gap: float = 0.01,
    recompute: bool = True,
    page: bool = True,
    objective: Objective = "energy",
    method: Method = "auto",
    seeds: Sequence[Sequence[Event]] = (),
    diagnose: bool = True,
) -> Solution:
    """The best plan that is found in the time limit, with its gap.

    Args:
        problem: the step.
        ram_bytes: the most bytes in RAM at any time; None for no limit.
        deadline: the most time, as a multiple of the plain step's; None for no limit.
        energy: the most energy, as a multiple of the plain step's; None for no limit.
        time_limit: seconds for all solvers together.
        gap: stop when the plan is proven to be within this share of the optimum.
        recompute, page: False forbids to run nodes again, or to page.
        objective: what to minimise: "energy", "time" or "peak" (the most bytes in RAM).
        method: "greedy" stops after the heuristic, "gap" solves the formulation for tiny graphs
            as well.
        seeds: plans to start from, such as those for less RAM; invalid ones are passed over.
        diagnose: False leaves out the search for the least RAM where no plan is found.

    Raises `InputError` for options that make no sense, and `NoPlanError`, an `InfeasibleError`,
    where no plan was found: it tells the least RAM that would do, or between which bounds it is.
    """
    _check(ram_bytes, deadline, energy, time_limit, gap, objective, method)
    limits = Limits(
        ram_bytes,
        None if deadline is None else deadline * problem.plain_seconds,
        None if energy is None else energy * problem.plain_joules,
    )
    end = time.monotonic() + time_limit
    freedom = Freedom(recompute, page)
    least = least_working_set(problem, recompute=recompute, page=page)
    search = _Search(problem, limits, objective, freedom, gap, end, time_limit)
    if ram_bytes is not None and ram_bytes < least.bytes:
        above = _above(problem, limits, freedom, time_limit if diagnose else None)
        raise too_small(problem, ram_bytes, freedom, least, above)
    for events in seeds:
        search.offer(list(events), "seed")
    search.offer_plan(_greedy(search), "greedy")
    if method == "auto":
        search.all_schedules()
    if method != "greedy" and not search.settled:
        search.deepen()
    if search.best is None:
        above = _above(problem, limits, freedom, time_limit if diagnose else None)
        raise infeasible(problem, limits, freedom, search.ruled_out, above)
    return search.solution()


def _check(
    ram_bytes: int | None,
    deadline: float | None,
    energy: float | None,
    time_limit: float,
    gap: float,
    objective: str,
    method: str,
) -> None:
    if objective not in _OBJECTIVES:
        raise InputError(f"objective {objective!r} is none of {', '.join(_OBJECTIVES)}")
    if method not in ("auto", "greedy", "gap"):
        raise InputError(f"method {method!r} is none of auto, greedy, gap")
    if ram_bytes is not None and ram_bytes <= 0:
        raise InputError(f"ram_bytes is {ram_bytes}; it has to be positive")
    for name, factor in (("deadline", deadline), ("energy", energy)):
        if factor is not None and not factor >= 1:
            raise InputError(
                f"{name} is {factor} times the plain step's; no step does with less than 1"
            )
    if not (time_limit >= 0 and 0 <= gap < math.inf):
        raise InputError(f"time_limit is {time_limit} s and gap {gap}; neither can be negative")


@dataclass
class _Search:
    """The best plan so far and what is known of better ones."""

    problem: Problem
    limits: Limits
    objective: Objective
    freedom: Freedom
    gap: float
    end: float
    seconds: float
    best: Plan | None = None
    method: str = "none"
    bound: float = 0.0
    proven_infeasible: bool = False
    settled: bool = False

    def __post_init__(self) -> None:
        """Begin with the bound of the plain step."""
        if self.objective == "peak":
            freedom = self.freedom
            least = least_working_set(self.problem, recompute=freedom.recompute, page=freedom.page)
            self.bound = least.bytes
        elif self.objective == "energy":
            self.bound = self.problem.plain_joules
        elif self.problem.dma:
            self.bound = math.fsum(node.first_seconds for node in self.problem.nodes)
        else:
            self.bound = self.problem.plain_seconds

    def offer(self, events: list[Event], method: str) -> bool:
        """Take a plan if it is valid and better; whether it is valid."""
        plan = accepted(self.problem, events, self.limits)
        self.offer_plan(plan, method)
        if self.problem.dma and (plan is None or self.objective == "time"):
            ahead = prefetched(self.problem, events, self.limits.ram_bytes)
            sooner = accepted(self.problem, ahead, self.limits)
            self.offer_plan(sooner, method)
            plan = plan or sooner
        return plan is not None

    def offer_plan(self, plan: Plan | None, method: str) -> None:
        objective = self.objective
        if plan and (self.best is None or plan.value(objective) < self.best.value(objective)):
            self.best, self.method = plan, method

    @property
    def ruled_out(self) -> RuledOut:
        """Among what a plan is known not to exist."""
        if not self.proven_infeasible:
            return "nothing"
        return "every schedule" if self.settled else "the formulation"

    @property
    def done(self) -> bool:
        """Whether the plan is good enough."""
        if self.best is None:
            return False
        value = self.best.value(self.objective)
        return value - self.bound <= max(self.gap, 1e-9) * value

    def all_schedules(self) -> None:
        """Search them, in a tiny graph whose time is the sum of its events'."""
        overlaps = self.problem.dma and (
            self.objective == "time" or self.limits.seconds is not None
        )
        if self.done or overlaps or len(self.problem.nodes) > MOST_NODES:
            return
        outcome, events = search_all(
            self.problem, self.limits, self.objective, self.freedom, end=self.end
        )
        if outcome == "cut off":
            return
        self.settled = True
        if outcome == "none":
            self.proven_infeasible = True
            return
        self.offer(events, "search")
        if self.best is not None:
            self.bound = max(self.bound, self.best.value(self.objective))

    def deepen(self) -> None:
        """Relaxed formulations of growing depth until the plan is good enough or time is up."""
        start = self.end - self.seconds
        freedom = replace(
            self.freedom,
            joules=self.objective == "energy" or self.limits.joules is not None,
            seconds=self.objective == "time" or self.limits.seconds is not None,
            anywhere=len(self.problem.nodes) <= _SMALL,
        )
        if len(self.problem.nodes) > _MOST_NODES:
            return
        begun = False
        for depth, relaxed, share in ((None, True, 1.0),) if freedom.anywhere else _STAGES:
            if self.done or (depth == 0 and begun):
                return
            uses = Uses.of(
                self.problem, replace(freedom, depth=depth), most=_MOST_POINTS, relaxed=relaxed
            )
            if uses is None or _coefficients(self.problem, uses) > _MOST_COEFFICIENTS:
                continue
            begun = True
            exact = relaxed and not any(uses.loose)
            until = self.end if exact else start + share * self.seconds
            name = "gap" if exact else f"gap, depth {depth}"
            if self.problem.dma and self.limits.seconds is not None and not self.done:
                half = (time.monotonic() + until) / 2
                self.run(uses, until=half, name=name, overlap=False, bounds=False)
            self.run(uses, until=until, name=name, overlap=self.problem.dma, bounds=relaxed)
            if exact or self.proven_infeasible:
                return

    def run(self, uses: Uses, *, until: float, name: str, overlap: bool, bounds: bool) -> None:
        """Solve one formulation and make plans, and where it `bounds` a bound, of its answer."""
        model = GapModel.of(self.problem, uses, self.limits, self.objective, overlap=overlap)
        scale = self.scale(model)
        start = None if self.best is None else hint(model, self.best.events)
        model.linear.cost = [cost * scale for cost in model.linear.cost]
        answer = highs.minimise(
            model.linear,
            seconds=until - time.monotonic(),
            absolute_gap=max(_SHARE_OF_GAP * self.gap * self.bound * scale, 1e-4),
            hint=start,
        )
        if answer.values is not None:
            self.read(model, answer.values, name)
        if bounds and answer.status == "infeasible":
            self.proven_infeasible = self.best is None
        if bounds and math.isfinite(answer.bound):
            self.raise_bound(model, answer.bound, scale)
        _log.info(
            "%s: %d columns, %d rows, %s, start %s, best %s, bound %s",
            name,
            len(model.linear.cost),
            len(model.linear.lower),
            answer.status,
            "given" if start is not None else "none",
            self.best and self.best.value(self.objective),
            self.bound,
        )

    def read(self, model: GapModel, values: FloatArray, name: str) -> None:
        """Offer what the values say, and what the greedy executor makes of it."""
        if not any(model.uses.loose):
            self.offer(read_plan(model, values), name)
        guide = read_guide(model, values)
        for events in guided(self.problem, self.limits, self.freedom, guide):
            if self.done:
                return
            self.offer(events, name)

    def raise_bound(self, model: GapModel, bound: float, scale: float) -> None:
        """Take a bound of the solver; a plan outside the formulation may be better than it."""
        if self.objective == "peak":
            value: float = math.ceil(bound - 1e-3) * model.unit_bytes
        else:
            value = bound / scale + model.constant
        if self.best is not None:
            value = min(value, self.best.value(self.objective))
        self.bound = max(self.bound, value)

    def scale(self, model: GapModel) -> float:
        """From joules or seconds to what the solver sees; bytes it sees in units."""
        if self.objective == "peak":
            return 1.0
        return _SCALE / model.constant if model.constant else 1.0

    def solution(self) -> Solution:
        assert self.best is not None
        figures = self.best.figures
        return Solution(
            self.best.events,
            figures.joules,
            figures.seconds,
            figures.peak_bytes,
            min(self.bound, self.best.value(self.objective)),
            self.limits,
            self.objective,
            self.method,
        )


def _coefficients(problem: Problem, uses: Uses) -> int:
    """About how many coefficients the memory rows have."""
    count = len(problem.nodes)
    change = [0] * (count + 1)
    steps = [1] * count
    for v, points in enumerate(uses.points):
        if points:
            change[v] += 1
            change[points[-1]] -= 1
        for t in uses.rerun[v]:
            steps[t] += 1
    total = live = 0
    for t in range(count):
        live += change[t]
        total += steps[t] * live
    return total


def _greedy(search: _Search) -> Plan | None:
    problem, limits, freedom = search.problem, search.limits, search.freedom
    end = search.end - (1 - _GREEDY_SHARE) * search.seconds
    if search.objective != "peak":
        plan = greedy(problem, limits, search.objective, freedom, end=end)
        if plan is None and limits.ram_bytes is not None:
            # With less room it may take another way, which does for this room as well.
            plan = _least_greedy(problem, limits, freedom, problem.least_bytes, end)
        if problem.dma and (limits.seconds is not None or search.objective == "time"):
            _greedy_with_room(search)
        return plan
    return _least_greedy(problem, limits, freedom, int(search.bound), end)


def _greedy_with_room(search: _Search) -> None:
    """Plans for less RAM, so that there is room to read pages ahead of their use."""
    most = search.limits.ram_bytes or search.problem.plain_peak_bytes
    largest = max((node.bytes for node in search.problem.nodes), default=0)
    for ram_bytes in (most, most - largest, most - 2 * largest):
        limits = Limits(ram_bytes, None, search.limits.joules)
        plan = greedy(search.problem, limits, search.objective, search.freedom, end=search.end)
        if plan:
            search.offer(list(plan.events), "greedy")


def _least_greedy(
    problem: Problem, limits: Limits, freedom: Freedom, least_bytes: int, end: float
) -> Plan | None:
    """The greedy plan of least peak, by bisection between the bound and the plain peak."""
    best: Plan | None = None
    low, high = least_bytes, max(problem.plain_peak_bytes, least_bytes)
    if limits.ram_bytes is not None:
        high = min(high, limits.ram_bytes)
    middle = low
    while low <= high:
        plan = greedy(problem, replace(limits, ram_bytes=middle), "peak", freedom, end=end)
        if plan:
            best, high = plan, plan.figures.peak_bytes - 1
        else:
            low = middle + 1
        middle = (low + high) // 2
        if time.monotonic() > end and best:
            break
    return best and accepted(problem, list(best.events), limits)


def _above(
    problem: Problem, limits: Limits, freedom: Freedom, seconds: float | None
) -> tuple[int, int | None]:
    """`least_ram` in so many seconds; without them, only what bounds it."""
    if seconds is not None:
        return least_ram(problem, limits, freedom, time.monotonic() + seconds)
    return least_working_set(problem, recompute=freedom.recompute, page=freedom.page).bytes, None


def least_ram(
    problem: Problem, limits: Limits, freedom: Freedom, end: float
) -> tuple[int, int | None]:
    """(bytes that no schedule does with less than, bytes of the leanest plan found or None)."""
    limits = replace(limits, ram_bytes=None)
    seconds = end - time.monotonic()
    search = _Search(problem, limits, "peak", freedom, 0.0, end, seconds)
    floor = int(search.bound)
    search.offer_plan(_greedy(search), "greedy")
    search.all_schedules()
    if not search.settled:
        search.deepen()
    found = None if search.best is None else search.best.figures.peak_bytes
    # The bound of the formulation is none for every schedule.
    return int(search.bound) if search.settled else floor, found
