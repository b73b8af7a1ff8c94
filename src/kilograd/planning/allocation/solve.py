"""Offsets for a problem: heuristics, then search, then CP-SAT, as far as each is needed.

    problem -> components in time -> [ heuristic -> search -> CP-SAT ] -> offsets

Buffers that never live together are separate problems in one arena, and only what makes the arena
higher than its target is worked on.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Literal

from kilograd.errors import InputError
from kilograd.planning.allocation import isolated, search
from kilograd.planning.allocation.bounds import lower_bound_bytes
from kilograd.planning.allocation.grid import Grid
from kilograd.planning.allocation.heuristics import best_heuristic
from kilograd.planning.allocation.native import NativeSearchError
from kilograd.planning.allocation.problem import (
    Allocation,
    AllocationProblem,
    height_bytes,
)
from kilograd.planning.allocation.progress import Progress
from kilograd.planning.allocation.timeline import Timeline, components

Method = Literal["auto", "heuristic", "search", "cp-sat"]

MOST_PLACEMENTS = 2_000_000
"""Of the search, where no time limit is given: seconds for some hundred buffers."""

_LONGEST_SECONDS = 600.0
_WITHOUT_SEARCH_SECONDS = 5.0
_SEARCH_SHARE = 0.8
# More take CP-SAT longer to read than a step of a compiler should last.
_MOST_BUFFERS_CP_SAT = 2000
_METHODS = ("auto", "heuristic", "search", "cp-sat")

_log = logging.getLogger(__name__)


def solve(
    problem: AllocationProblem,
    *,
    time_limit_seconds: float | None = None,
    target_bytes: int | None = None,
    method: Method = "auto",
) -> Allocation:
    """Place the buffers as low as can be found; always an answer, the best that was met.

    The answer obeys every rule but the capacity: where nothing lower was found its height is above
    it, and `lower_bound_bytes` says whether that is certain. The same problem gives the same answer
    unless a time limit ends the work, which then is cut at a point that depends on the machine.

    Args:
        problem: the buffers.
        time_limit_seconds: for search and CP-SAT together; the heuristics are not limited. None
            is for search alone, and MOST_PLACEMENTS of it on any machine.
        target_bytes: a height that is good enough; None for the lowest. Lower heights than the
            target are welcome but not looked for.
        method: "auto" starts with the heuristics and goes on until the target is met or proven out
            of reach; the others stop after the solver they name.

    Raises `InputError` for an unknown method or a negative time limit, `NativeSearchError` for
    method "search" where the C search cannot be built ("auto" does without it then).
    """
    if method not in _METHODS:
        raise InputError(f"method {method!r} is none of {', '.join(_METHODS)}")
    if time_limit_seconds is not None and not time_limit_seconds >= 0:
        raise InputError(f"the time limit is {time_limit_seconds} s; it cannot be negative")
    if time_limit_seconds is None:
        effort = _Effort(time.monotonic() + _LONGEST_SECONDS, MOST_PLACEMENTS)
    else:
        effort = _Effort(time.monotonic() + time_limit_seconds)
    timelines = [Timeline.of(part) for part in components(problem.buffers)]
    if not timelines:
        return Allocation({}, 0, 0, "none")
    bounds = [_lower_bound_bytes(timeline) for timeline in timelines]
    least = max(bounds)
    parts = [
        _heuristic(timeline, bound, max(least, target_bytes or 0))
        for timeline, bound in zip(timelines, bounds, strict=True)
    ]
    if method != "heuristic":
        for goal in _goals(problem.capacity_bytes, target_bytes):
            parts = _improve_all(timelines, parts, goal, effort, method)
    highest = max(parts, key=lambda part: part.height_bytes)
    return Allocation(
        {name: offset for part in parts for name, offset in part.offsets.items()},
        highest.height_bytes,
        max(part.lower_bound_bytes for part in parts),
        highest.method,
    )


@dataclass
class _Effort:
    """How long to go on: until a value of `time.monotonic()`, and for so many placements, of which
    what is tried is taken.
    """

    deadline: float
    placements: int | None = None

    def until(self, share: float) -> float:
        """When so much of the time is over."""
        now = time.monotonic()
        return now + share * (self.deadline - now)

    def take(self, tried: int) -> None:
        """So many placements were tried."""
        if self.placements is not None:
            self.placements = max(self.placements - tried, 0)


def _lower_bound_bytes(timeline: Timeline) -> int:
    return Grid.of(timeline).height_above(lower_bound_bytes(timeline.buffers) - 1)


def _heuristic(timeline: Timeline, bound_bytes: int, target_bytes: int) -> Progress:
    offsets = best_heuristic(timeline, target_bytes)
    return Progress(offsets, height_bytes(timeline.buffers, offsets), bound_bytes, "heuristic")


def _goals(capacity_bytes: int | None, target_bytes: int | None) -> list[int]:
    """Heights to reach one after the other: what has to fit comes before what would be nice."""
    if target_bytes is not None:
        return [target_bytes]
    return [0] if capacity_bytes is None else [capacity_bytes, 0]


def _improve_all(
    timelines: list[Timeline],
    parts: list[Progress],
    goal_bytes: int,
    effort: _Effort,
    method: Method,
) -> list[Progress]:
    """Lower the highest part, then the next; the arena is as high as the worst that remains."""
    parts = list(parts)
    order = sorted(range(len(parts)), key=lambda k: -parts[k].height_bytes)
    goal_bytes = max(goal_bytes, *(part.lower_bound_bytes for part in parts))
    for done, k in enumerate(order):
        above = sum(parts[later].height_bytes > goal_bytes for later in order[done:])
        if parts[k].height_bytes <= goal_bytes:
            continue
        parts[k] = _improve(timelines[k], parts[k], goal_bytes, effort, 1 / above, method)
        goal_bytes = max(goal_bytes, parts[k].height_bytes)
    return parts


def _improve(
    timeline: Timeline,
    part: Progress,
    goal_bytes: int,
    effort: _Effort,
    share: float,
    method: Method,
) -> Progress:
    """Go on with a share of the effort."""
    deadline, counted = effort.until(share), effort.placements is not None
    if method == "search" or (method == "auto" and len(timeline.buffers) <= search.MOST_BUFFERS):
        until = effort.until(share * (1.0 if method == "search" else _SEARCH_SHARE))
        most = int(share * effort.placements) if effort.placements is not None else None
        try:
            part, tried = search.improve(timeline, part, goal_bytes, until, most)
        except NativeSearchError as error:
            if method == "search":
                raise
            _log.warning("%s", error)
        else:
            effort.take(tried)
            if method == "search" or counted:
                return part
    elif method == "auto" and counted:
        return part
    if part.reaches(goal_bytes) or len(timeline.buffers) > _MOST_BUFFERS_CP_SAT:
        return part
    if counted:
        deadline = min(deadline, time.monotonic() + _WITHOUT_SEARCH_SECONDS)
    return isolated.improve(timeline, part, goal_bytes, deadline)
