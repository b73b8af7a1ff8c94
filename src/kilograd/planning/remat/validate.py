"""Replays a plan against the problem alone, in exact integers of bytes; knows of no solver."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from kilograd.planning.remat.problem import Problem
from kilograd.planning.remat.solution import KINDS, Event, Limits, Solution

# Sums of a few thousand floats, added in another order, differ by less.
_TOLERANCE = 1e-9

Rule = Literal[
    "known", "order", "complete", "given", "input", "absent", "present", "rerun", "state",
    "pageable", "stored", "written", "resident", "saved", "in_place", "ram", "deadline", "energy",
    "figures", "bound",
]  # fmt: skip


@dataclass(frozen=True)
class Broken:
    """A rule that a plan breaks, at which event (None: at the end), in one sentence."""

    rule: Rule
    event: int | None
    text: str

    def __str__(self) -> str:
        """The sentence with its place and its rule."""
        place = "at the end" if self.event is None else f"event {self.event}"
        return f"[{self.rule}] {place}: {self.text}"


@dataclass
class Replay:
    """What happened: the rules broken, and what the plan costs."""

    broken: list[Broken] = field(default_factory=list)
    joules: float = 0.0
    seconds: float = 0.0
    peak_bytes: int = 0


def validate(problem: Problem, solution: Solution) -> list[Broken]:
    """Every rule that the plan breaks; empty when it is right."""
    replayed = replay(problem, solution.events, solution.limits)
    broken = replayed.broken
    figures = [
        ("joules", solution.joules, replayed.joules),
        ("seconds", solution.seconds, replayed.seconds),
        ("peak_bytes", solution.peak_bytes, replayed.peak_bytes),
    ]
    for name, said, true in figures:
        if abs(said - true) > _TOLERANCE * abs(true):
            broken.append(Broken("figures", None, f"{name} is said to be {said}, it is {true}"))
    if solution.bound > solution.value * (1 + _TOLERANCE):
        text = f"the bound of {solution.bound} is above the value of {solution.value}"
        broken.append(Broken("bound", None, text))
    return broken


def replay(problem: Problem, events: Sequence[Event], limits: Limits | None = None) -> Replay:
    """Run the events and note every rule that they break and what they cost."""
    machine = _Machine(problem, limits or Limits())
    for index, event in enumerate(events):
        machine.run(index, event)
    return machine.finish()


class _Machine:
    """RAM, storage, state and clocks of a device that obeys and takes notes.

    With DMA there are two clocks: the processor's and that of the one channel that moves pages. A
    page starts to move when it is asked for and the channel is free. The processor waits for a page
    that it reads, and before it drops a tensor that is still moving out.
    """

    def __init__(self, problem: Problem, limits: Limits) -> None:
        self.problem, self.limits = problem, limits
        self.result = Replay()
        self.index: int | None = 0
        self.ram = {v for v, node in enumerate(problem.nodes) if node.given}
        self.ram_bytes = sum(problem.nodes[v].bytes for v in self.ram)
        self.stored: set[int] = set()
        self.next = problem.given_count
        self.versions: dict[str, int] = {}
        self.computed_from: dict[int, tuple[int, ...]] = {}
        self.joules: list[float] = []
        self.seconds: list[float] = []
        self.clock = self.channel = 0.0
        self.last = -1
        self.moved: dict[int, float] = {}
        self.arrives: dict[int, float] = {}
        self.note_peak(0)

    def breaks(self, rule: Rule, text: str) -> None:
        self.result.broken.append(Broken(rule, self.index, text))

    def name(self, v: int) -> str:
        return f"'{self.problem.nodes[v].name}'"

    def run(self, index: int, event: Event) -> None:
        self.index = index
        if event.kind not in KINDS or not 0 <= event.node < len(self.problem.nodes):
            self.breaks("known", f"there is no event {event.kind} {event.node}")
            return
        if event.kind == "compute":
            self.compute(event.node, event.over)
        elif event.kind == "page_out":
            self.page_out(event.node)
        elif event.kind == "page_in":
            self.page_in(event.node)
        else:
            self.drop(event.node)

    def compute(self, v: int, over: int | None) -> None:
        node = self.problem.nodes[v]
        if node.given:
            self.breaks("given", f"{self.name(v)} is given and never computed")
            return
        free = node.with_previous and self.last == v - 1
        self.last = v
        self.check_turn(v)
        for u in node.inputs:
            if u not in self.ram:
                self.breaks("input", f"{self.name(v)} reads {self.name(u)}, which is not in RAM")
        if v in self.ram:
            self.breaks("present", f"{self.name(v)} is in RAM already")
        if over is not None:
            self.take_over(v, over)
        self.put(v, node.scratch_bytes)
        for state in node.writes_state:
            self.versions[state] = self.versions.get(state, 0) + 1
        seconds = 0.0 if free else node.seconds
        self.joules.append(0.0 if free else node.joules)
        self.seconds.append(seconds)
        self.clock = max(self.clock, *(self.arrives.get(u, 0.0) for u in (*node.inputs, v)))
        self.clock += seconds

    def check_turn(self, v: int) -> None:
        """A first computation in its turn, or a repetition that gives the same tensor."""
        node = self.problem.nodes[v]
        read = tuple(self.versions.get(state, 0) for state in node.reads_state)
        if v in self.computed_from:
            if node.writes_state or not node.recomputable:
                self.breaks("rerun", f"{self.name(v)} may not run again")
            if self.computed_from[v] != read:
                self.breaks(
                    "state",
                    f"{self.name(v)} was computed from version {self.computed_from[v]} of "
                    f"{node.reads_state}, and runs again on version {read}",
                )
            return
        if v != self.next:
            expected = self.name(self.next) if self.next < len(self.problem.nodes) else "none"
            self.breaks("order", f"{self.name(v)} runs for the first time, the next is {expected}")
        self.computed_from[v] = read
        self.next = max(self.next, v + 1)

    def take_over(self, v: int, over: int) -> None:
        if over not in self.problem.nodes[v].in_place:
            self.breaks("in_place", f"{self.name(v)} cannot run in place over node {over}")
        elif over in self.ram:
            self.leave(over)

    def put(self, v: int, scratch_bytes: int = 0) -> None:
        if v not in self.ram:
            self.ram.add(v)
            self.ram_bytes += self.problem.nodes[v].bytes
        self.note_peak(scratch_bytes)

    def note_peak(self, scratch_bytes: int) -> None:
        used, most = self.ram_bytes + scratch_bytes, self.limits.ram_bytes
        self.result.peak_bytes = max(self.result.peak_bytes, used)
        if most is not None and used > most:
            self.breaks("ram", f"{used} bytes in RAM, {used - most} above the limit of {most}")

    def page_out(self, v: int) -> None:
        node = self.problem.nodes[v]
        if not node.pageable:
            self.breaks("pageable", f"{self.name(v)} may not be paged")
        if v not in self.ram:
            self.breaks("absent", f"{self.name(v)} is paged out and not in RAM")
        if v in self.stored:
            self.breaks("written", f"{self.name(v)} is in storage already")
        self.stored.add(v)
        self.move(v, node.page_out_seconds, node.page_out_joules)

    def page_in(self, v: int) -> None:
        node = self.problem.nodes[v]
        if v not in self.stored:
            self.breaks("stored", f"{self.name(v)} is paged in and not in storage")
        if v in self.ram:
            self.breaks("present", f"{self.name(v)} is in RAM already")
        self.put(v)
        self.move(v, node.page_in_seconds, node.page_in_joules)
        self.arrives[v] = self.channel

    def move(self, v: int, seconds: float, joules: float) -> None:
        self.joules.append(joules)
        self.seconds.append(seconds)
        self.channel = max(self.channel, self.clock) + seconds
        self.moved[v] = self.channel
        if not self.problem.dma:
            self.clock = self.channel

    def drop(self, v: int) -> None:
        if v not in self.ram:
            self.breaks("absent", f"{self.name(v)} is dropped and not in RAM")
            return
        self.leave(v)

    def leave(self, v: int) -> None:
        if self.problem.nodes[v].resident:
            self.breaks("resident", f"{self.name(v)} has to stay in RAM to the end")
        self.clock = max(self.clock, self.moved.get(v, 0.0))
        self.ram.discard(v)
        self.ram_bytes -= self.problem.nodes[v].bytes

    def finish(self) -> Replay:
        self.index = None
        nodes = self.problem.nodes
        missing = [v for v, n in enumerate(nodes) if not n.given and v not in self.computed_from]
        if missing:
            names = ", ".join(map(self.name, missing[:5]))
            self.breaks("complete", f"{len(missing)} nodes never run: {names}")
        for v, node in enumerate(nodes):
            if node.saved and v not in self.stored:
                self.breaks("saved", f"{self.name(v)} is not in storage")
        result = self.result
        result.joules = math.fsum(self.joules)
        result.seconds = (
            max(self.clock, self.channel) if self.problem.dma else math.fsum(self.seconds)
        )
        most = self.limits.seconds
        if most is not None and result.seconds > most * (1 + _TOLERANCE):
            self.breaks("deadline", f"{result.seconds} s, more than the {most} s allowed")
        most = self.limits.joules
        if most is not None and result.joules > most * (1 + _TOLERANCE):
            self.breaks("energy", f"{result.joules} J, more than the {most} J allowed")
        return result
