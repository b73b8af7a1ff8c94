"""A plan at once, for thousands of nodes: run the step and, when RAM is short, send away what is
cheapest to have back and longest unused.

    score(v) = cost to bring v back / (bytes(v) * (next use of v - now) ** distance)

The tensor of the lowest score leaves. It is written to storage first where reading it back is
cheaper than to run again v and all of its inputs that are away (Dynamic Tensor Rematerialization,
Kirisame et al., ICLR 2021, with the future known and with paging). Several exponents and ways to
weigh time are tried; the validator chooses.
"""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kilograd.planning.remat.problem import Problem
from kilograd.planning.remat.solution import Event, Limits, Objective
from kilograd.planning.remat.uses import Freedom
from kilograd.planning.remat.validate import Replay, replay

# Running again may pull in this many nodes before its cost is no longer followed up.
_FOLLOWED = 64


@dataclass(frozen=True)
class Plan:
    """Events that the validator has accepted, and what they cost."""

    events: tuple[Event, ...]
    figures: Replay

    def value(self, objective: Objective) -> float:
        """The objective: joules, seconds or bytes."""
        if objective == "peak":
            return self.figures.peak_bytes
        return self.figures.joules if objective == "energy" else self.figures.seconds


@dataclass(frozen=True)
class Guide:
    """What a formulation would do: stages over which tensors stay in RAM, and what is written.

    `kept[v]` holds (first stage, stage behind the last), in order.
    """

    kept: tuple[tuple[tuple[int, int], ...], ...]
    written: frozenset[int]

    def keeps(self, v: int, stage: int) -> bool:
        """Whether v is to stay in RAM behind a stage."""
        place = bisect.bisect_right(self.kept[v], (stage, len(self.kept)))
        return place > 0 and stage < self.kept[v][place - 1][1]


class _NoRoomError(Exception):
    """What the running node needs does not fit, whatever leaves."""


def greedy(
    problem: Problem,
    limits: Limits,
    objective: Objective,
    freedom: Freedom,
    *,
    end: float = math.inf,
) -> Plan | None:
    """The best valid plan of all variants, or of those that end before the time `end` of the
    monotonic clock, at least one; None where none is valid.
    """
    best: Plan | None = None
    for distance, seconds_weight, rule in _variants(objective, freedom):
        if best and time.monotonic() > end:
            break
        try:
            events = _Greedy(problem, limits, rule, distance, seconds_weight).plan()
        except _NoRoomError:
            continue
        plan = accepted(problem, tidied(problem, events), limits)
        if plan and (best is None or plan.value(objective) < best.value(objective)):
            best = plan
        if best and best.value(objective) <= _floor(problem, objective):
            break
    return best


def guided(
    problem: Problem, limits: Limits, freedom: Freedom, guide: Guide
) -> Iterator[list[Event]]:
    """Events that follow a guide as far as there is room, in some variants."""
    for distance, seconds_weight in ((1.0, 0.0), (0.0, 0.0), (1.0, 0.5)):
        try:
            events = _Greedy(problem, limits, freedom, distance, seconds_weight, guide).plan()
        except _NoRoomError:
            continue
        yield tidied(problem, events)


def accepted(problem: Problem, events: list[Event], limits: Limits) -> Plan | None:
    """The events as a plan if the validator finds nothing wrong."""
    figures = replay(problem, events, limits)
    return None if figures.broken else Plan(tuple(events), figures)


def _floor(problem: Problem, objective: Objective) -> float:
    if objective == "peak":
        return problem.least_bytes
    return problem.plain_joules if objective == "energy" else problem.plain_seconds


def _variants(objective: Objective, freedom: Freedom) -> Iterator[tuple[float, float, Freedom]]:
    """(exponent of the distance, weight of seconds against joules, what it may do)."""
    weights = (1.0,) if objective == "time" else (0.0, 0.5, 1.0)
    rules = [freedom]
    if freedom.page and freedom.recompute:
        rules += [Freedom(page=False), Freedom(recompute=False)]
    for weight in weights:
        for distance in (1.0, 0.5, 0.0):
            for rule in rules:
                yield distance, weight, rule


class _Greedy:
    """One run through the step."""

    def __init__(
        self,
        problem: Problem,
        limits: Limits,
        freedom: Freedom,
        distance: float,
        seconds_weight: float,
        guide: Guide | None = None,
    ) -> None:
        self.guide = guide
        self.problem, self.nodes, self.distance = problem, problem.nodes, distance
        count = len(self.nodes)
        self.free = math.inf if limits.ram_bytes is None else limits.ram_bytes
        joules = (1 - seconds_weight) / (problem.plain_joules or 1.0)
        seconds = seconds_weight / (problem.plain_seconds or 1.0)
        # A little of both, so that ties go to what is cheap in the other.
        joules, seconds = joules + 1e-6 * seconds, seconds + 1e-6 * joules
        self.run_cost = [n.joules * joules + n.seconds * seconds for n in self.nodes]
        self.in_cost = [n.page_in_joules * joules + n.page_in_seconds * seconds for n in self.nodes]
        self.out_cost = [
            0.0 if n.saved else n.page_out_joules * joules + n.page_out_seconds * seconds
            for n in self.nodes
        ]
        self.pageable = [freedom.page and n.pageable for n in self.nodes]
        self.last_rerun = [
            last if freedom.may_rerun(node) else -1
            for node, last in zip(self.nodes, problem.last_rerun, strict=True)
        ]
        self.bytes = np.array([max(n.bytes, 1) for n in self.nodes], np.float64)
        self.in_ram = np.zeros(count, np.bool_)
        self.stored = [False] * count
        self.rerun_cost = list(self.run_cost)
        self.back = np.zeros(count)
        self.next_use = np.array(
            [readers[0] if readers else count for readers in problem.readers], np.int64
        )
        self.reader = [0] * count
        self.events: list[Event] = []
        self.stage = 0
        self.locked: set[int] = set()

    def plan(self) -> list[Event]:
        """The events; raises `_NoRoomError`."""
        for v, node in enumerate(self.nodes):
            self.back[v] = self.cost_back(v)
            if node.given:
                self.enter(v)
        if self.free < 0:
            raise _NoRoomError
        for t, node in enumerate(self.nodes):
            self.stage = t
            if node.given:
                self.save(t)
                continue
            self.locked = set(node.inputs)
            for u in node.inputs:
                if not self.in_ram[u]:
                    self.bring_back(u)
            self.advance(t)
            self.run(t)
            self.save(t)
            for u in (*node.inputs, t):
                if self.in_ram[u] and self.next_use[u] >= len(self.nodes):
                    self.drop(u)
        return self.events

    def advance(self, t: int) -> None:
        """Behind stage t, its inputs are used next by their next reader, if there is one."""
        for u in self.nodes[t].inputs:
            self.reader[u] += 1
            readers = self.problem.readers[u]
            ended = self.reader[u] >= len(readers)
            self.next_use[u] = len(self.nodes) if ended else readers[self.reader[u]]

    def save(self, v: int) -> None:
        if self.nodes[v].saved:
            self.page_out(v)

    def run(self, v: int) -> None:
        node = self.nodes[v]
        # Only a first run may end the stay of an input: its last use is known.
        dying = [
            u
            for u in node.in_place
            if self.in_ram[u]
            and not self.nodes[u].resident
            and (v == self.stage and self.next_use[u] >= len(self.nodes))
        ]
        over = dying[0] if dying else None
        self.make_room(node.bytes + node.scratch_bytes - (node.bytes if dying else 0))
        if over is not None:
            self.leave(over)
        self.events.append(Event("compute", v, over))
        self.enter(v)

    def bring_back(self, wanted: int) -> None:
        """Page in what is stored and run again what is not, inputs first."""
        chain = self.chain(wanted)
        waiting = {u: 0 for v in chain for u in self.nodes[v].inputs}
        for v in chain:
            if not self.stored[v]:
                for u in self.nodes[v].inputs:
                    waiting[u] += 1
        outer = self.locked
        for v in chain:
            needed = {u for u, readers in waiting.items() if readers}
            self.locked = outer | needed
            if self.stored[v]:
                self.make_room(self.nodes[v].bytes)
                self.events.append(Event("page_in", v))
                self.enter(v)
                continue
            self.run(v)
            for u in self.nodes[v].inputs:
                waiting[u] -= 1
                if not waiting[u] and u not in outer and self.next_use[u] >= len(self.nodes):
                    self.drop(u)
        self.locked = outer

    def chain(self, wanted: int) -> list[int]:
        """`wanted` and all that is away and has to come back for it, inputs before readers."""
        found: set[int] = set()
        pending = [wanted]
        while pending:
            v = pending.pop()
            if v in found:
                continue
            found.add(v)
            if self.stored[v]:
                continue
            if self.last_rerun[v] < self.stage:
                raise _NoRoomError
            pending.extend(u for u in self.nodes[v].inputs if not self.in_ram[u])
        return sorted(found)

    def make_room(self, needed: int) -> None:
        """Send away the lowest scores until `needed` bytes are free."""
        if self.free >= needed:
            return
        here = np.flatnonzero(self.in_ram)
        ahead = np.maximum(self.next_use[here] - self.stage, 1).astype(np.float64)
        scores = self.back[here] / (self.bytes[here] * ahead**self.distance)
        if self.guide:
            kept = [self.guide.keeps(v, self.stage) for v in here.tolist()]
            scores[kept] += scores.sum() + 1.0
        for v in here[np.argsort(scores, kind="stable")].tolist():
            if v in self.locked or not self.may_leave(v):
                continue
            if not self.stored[v] and self.must_be_written(v):
                self.page_out(v)
            self.drop(v)
            if self.free >= needed:
                return
        raise _NoRoomError

    def may_leave(self, v: int) -> bool:
        if self.nodes[v].resident:
            return False
        unused = self.next_use[v] >= len(self.nodes)
        return unused or self.pageable[v] or bool(self.last_rerun[v] >= self.next_use[v])

    def must_be_written(self, v: int) -> bool:
        if self.nodes[v].saved:
            return False
        if self.next_use[v] >= len(self.nodes) or not self.pageable[v]:
            return False
        if self.last_rerun[v] < self.next_use[v]:
            return True
        if self.guide:
            return v in self.guide.written
        return self.in_cost[v] + self.out_cost[v] <= self.rerun_cost[v]

    def page_out(self, v: int) -> None:
        self.stored[v] = self.pageable[v]
        self.events.append(Event("page_out", v))

    def drop(self, v: int) -> None:
        if self.nodes[v].resident:
            return
        self.events.append(Event("drop", v))
        self.leave(v)

    def enter(self, v: int) -> None:
        self.in_ram[v] = True
        self.free -= self.nodes[v].bytes
        self.follow_up(v)

    def leave(self, v: int) -> None:
        self.in_ram[v] = False
        self.free += self.nodes[v].bytes
        self.follow_up(v)

    def cost_back(self, v: int) -> float:
        page = math.inf
        if self.stored[v]:
            return self.in_cost[v]
        if self.pageable[v]:
            page = self.in_cost[v] + self.out_cost[v]
        return min(page, self.rerun_cost[v]) if self.last_rerun[v] >= 0 else page

    def follow_up(self, changed: int) -> None:
        """What it costs to run the readers of `changed` again depends on where that is."""
        pending, followed = [changed], 0
        while pending and followed < _FOLLOWED:
            for w in self.problem.readers[pending.pop()]:
                if w > self.stage:
                    break
                away = (u for u in self.nodes[w].inputs if not self.in_ram[u])
                cost = self.run_cost[w] + sum(float(self.back[u]) for u in away)
                if cost != self.rerun_cost[w]:
                    self.rerun_cost[w] = cost
                    back = self.cost_back(w)
                    if back != self.back[w]:
                        self.back[w] = back
                        if not self.in_ram[w]:
                            pending.append(w)
                followed += 1


def tidied(problem: Problem, events: list[Event]) -> list[Event]:
    """Without what nothing follows from: tensors brought back and not read, pages never read."""
    while True:
        useless = _unread(problem, events)
        if not useless:
            return events
        events = [event for index, event in enumerate(events) if index not in useless]


def _unread(problem: Problem, events: list[Event]) -> set[int]:
    begun: dict[int, int] = {}
    first: set[int] = set()
    read: set[int] = set()
    useless: set[int] = set()
    paged_in = {event.node for event in events if event.kind == "page_in"}
    for index, event in enumerate(events):
        v = event.node
        if event.kind == "compute":
            for u in problem.nodes[v].inputs:
                read.add(begun.get(u, -1))
            if event.over is not None:
                begun.pop(event.over, None)
            if v in first and event.over is None:
                begun[v] = index
            first.add(v)
        elif event.kind == "page_in":
            begun[v] = index
        elif event.kind == "drop":
            start = begun.pop(v, None)
            if start is not None and start not in read:
                useless |= {start, index}
        else:
            read.add(begun.get(v, -1))
            if v not in paged_in and not problem.nodes[v].saved:
                useless.add(index)
    return useless
