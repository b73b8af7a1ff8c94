"""Every schedule of a tiny problem: shortest paths over (next node, tensors in RAM, in storage, the
node that would be part of the last run).

Sets of tensors are bit masks. A label is (value, joules, seconds) of a way to a state; ways that
another one of the state beats or equals in the value and in all that is limited are given up.
Tensors are written right after their first run, which is never worse than later.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kilograd.planning.remat.problem import Problem
from kilograd.planning.remat.solution import Event, Limits, Objective
from kilograd.planning.remat.uses import Freedom

MOST_NODES = 8
State = tuple[int, int, int, int]
Outcome = Literal["found", "none", "cut off"]


@dataclass(frozen=True)
class _Label:
    """A way to a state: what it costs, its last events, and the way before them."""

    value: float
    joules: float
    seconds: float
    state: State
    events: tuple[Event, ...] = ()
    before: _Label | None = None


def search(
    problem: Problem, limits: Limits, objective: Objective, freedom: Freedom, *, end: float
) -> tuple[Outcome, list[Event]]:
    """The best schedule within the limits, if there is one; "cut off" at the time `end`."""
    searcher = _Searcher(problem, limits, objective, freedom)
    order = itertools.count()
    queue = [(label.value, next(order), label) for label in searcher.starts()]
    heapq.heapify(queue)
    settled: dict[State, list[_Label]] = {}
    while queue:
        _, _, label = heapq.heappop(queue)
        known = settled.setdefault(label.state, [])
        if any(searcher.no_worse(other, label) for other in known):
            continue
        known.append(label)
        if label.state[0] == len(problem.nodes):
            return "found", _events(label)
        if time.monotonic() > end:
            return "cut off", []
        for after in searcher.moves(label):
            queue_entry = (after.value, next(order), after)
            heapq.heappush(queue, queue_entry)
    return "none", []


def _events(label: _Label | None) -> list[Event]:
    parts = []
    while label is not None:
        parts.append(label.events)
        label = label.before
    return [event for part in reversed(parts) for event in part]


class _Searcher:
    def __init__(
        self, problem: Problem, limits: Limits, objective: Objective, freedom: Freedom
    ) -> None:
        self.problem, self.nodes, self.objective = problem, problem.nodes, objective
        self.limits, self.freedom = limits, freedom
        self.ram = math.inf if limits.ram_bytes is None else limits.ram_bytes
        self.joules = math.inf if limits.joules is None else limits.joules * (1 + 1e-12)
        self.seconds = math.inf if limits.seconds is None else limits.seconds * (1 + 1e-12)

    def no_worse(self, one: _Label, other: _Label) -> bool:
        return (
            one.value <= other.value
            and (self.joules == math.inf or one.joules <= other.joules)
            and (self.seconds == math.inf or one.seconds <= other.seconds)
        )

    def used(self, ram: int) -> int:
        return sum(node.bytes for v, node in enumerate(self.nodes) if ram >> v & 1)

    def starts(self) -> list[_Label]:
        """One label for each set of given tensors that is written at once."""
        given = range(self.problem.given_count)
        ram = sum(1 << v for v in given)
        if self.used(ram) > self.ram:
            return []
        value = float(self.used(ram)) if self.objective == "peak" else 0.0
        labels = [_Label(value, 0.0, 0.0, (len(given), ram, 0, -1))]
        for v in given:
            written = [w for label in labels for w in self.write(label, v)]
            labels = written if self.nodes[v].saved else labels + written
        return labels

    def write(self, label: _Label, v: int) -> Iterator[_Label]:
        node = self.nodes[v]
        if node.pageable and (self.freedom.page or node.saved):
            following, ram, stored, free = label.state
            state = (following, ram, stored | 1 << v, free)
            event = Event("page_out", v)
            yield from self.step(
                label, state, node.page_out_joules, node.page_out_seconds, 0, event
            )

    def step(
        self,
        label: _Label,
        state: State,
        joules: float,
        seconds: float,
        used: int,
        event: Event,
    ) -> Iterator[_Label]:
        joules, seconds = label.joules + joules, label.seconds + seconds
        if used > self.ram or joules > self.joules or seconds > self.seconds:
            return
        values = {"energy": joules, "time": seconds, "peak": max(label.value, float(used))}
        yield _Label(values[self.objective], joules, seconds, state, (event,), label)

    def moves(self, label: _Label) -> Iterator[_Label]:
        following, ram, stored, free = label.state
        for v, node in enumerate(self.nodes[: following + 1]):
            bit = 1 << v
            if ram & bit:
                if not node.resident:
                    state = (following, ram & ~bit, stored, free)
                    yield from self.step(label, state, 0.0, 0.0, 0, Event("drop", v))
                continue
            if stored & bit and self.freedom.page:
                state, used = (following, ram | bit, stored, free), self.used(ram | bit)
                yield from self.step(
                    label, state, node.page_in_joules, node.page_in_seconds, used,
                    Event("page_in", v),
                )  # fmt: skip
            if all(ram >> u & 1 for u in node.inputs):
                yield from self.run(label, v)

    def part_of(self, v: int) -> int:
        """The node whose run right behind one of v is part of it, -1 for none."""
        following = self.nodes[v + 1 : v + 2]
        return v + 1 if following and following[0].with_previous else -1

    def run(self, label: _Label, v: int) -> Iterator[_Label]:
        following, ram, stored, free = label.state
        node, first = self.nodes[v], v == following
        if not first and not (
            self.freedom.may_rerun(node) and following <= self.problem.last_rerun[v]
        ):
            return
        over = [u for u in node.in_place if not self.nodes[u].resident]
        for gone in (None, *over):
            after = ram | 1 << v
            if gone is not None:
                after &= ~(1 << gone)
            state = (max(following, v + 1), after, stored, self.part_of(v))
            used = self.used(after) + node.scratch_bytes
            event = Event("compute", v, gone)
            joules, seconds = (0.0, 0.0) if v == free else (node.joules, node.seconds)
            for ran in self.step(label, state, joules, seconds, used, event):
                if not first or not node.saved:
                    yield ran
                if first:
                    yield from self.write(ran, v)
