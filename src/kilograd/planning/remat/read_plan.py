"""The values of the gap formulation's variables as events.

Within a stage everything happens as late as it can and ends as early as it can, so the replay needs
no more RAM than the rows of the model allow.
"""

from __future__ import annotations

import bisect

from kilograd.planning.remat.gap_model import GapModel
from kilograd.planning.remat.greedy import Guide
from kilograd.planning.remat.linear import FloatArray
from kilograd.planning.remat.solution import Event


def read_plan(model: GapModel, values: FloatArray) -> list[Event]:
    """The events of a plan; whether it is valid is for the validator to say."""
    chosen = values > 0.5
    reader = _Reader(model, {x for x in range(len(chosen)) if chosen[x]})
    for t, node in enumerate(model.problem.nodes):
        reader.given(t) if node.given else reader.stage(t)
    return reader.events


def read_guide(model: GapModel, values: FloatArray) -> Guide:
    """What the values keep in RAM and write, for a formulation whose values may be no plan."""
    chosen = values > 0.5
    kept = []
    for v, points in enumerate(model.uses.points):
        spans = []
        previous = v
        for g, t in enumerate(points):
            if (v, g) in model.keep and chosen[model.keep[v, g]]:
                spans.append((previous, t))
            previous = t
        kept.append(tuple(spans))
    written = frozenset(v for v, x in model.page_out.items() if chosen[x])
    return Guide(tuple(kept), written)


class _Reader:
    def __init__(self, model: GapModel, chosen: set[int]) -> None:
        self.model, self.chosen = model, chosen
        self.nodes = model.problem.nodes
        self.events: list[Event] = []
        self.ram = {v for v, node in enumerate(self.nodes) if node.given}

    def kept(self, v: int, stage: int) -> bool:
        """Whether v stays in RAM behind a stage."""
        if self.nodes[v].resident:
            return True
        gap = bisect.bisect_right(self.model.uses.points[v], stage)
        return self.model.keep.get((v, gap), -1) in self.chosen

    def given(self, v: int) -> None:
        self.write(v)
        if v + 1 == self.model.problem.given_count:
            for u in range(v + 1):
                if not self.kept(u, v):
                    self.drop(u)

    def stage(self, t: int) -> None:
        again = self.model.again
        steps = [v for v in self.model.steps[t] if v == t or again[t, v] in self.chosen]
        steps = self.needed(t, steps)
        for position, v in enumerate(steps):
            later = {u for step in steps[position + 1 :] for u in self.nodes[step].inputs}
            reads = self.nodes[v].inputs
            for u in sorted(self.ram):
                if u not in later and u not in reads and not self.kept(u, t):
                    self.drop(u)
            for u in reads:
                if u not in self.ram:
                    self.events.append(Event("page_in", u))
                    self.ram.add(u)
            self.run(v, later, t)
            if v == t:
                self.write(v)
        for u in sorted(self.ram):
            if not self.kept(u, t):
                self.drop(u)

    def needed(self, t: int, steps: list[int]) -> list[int]:
        """The steps without those whose output is in RAM, or that no later step or gap needs."""
        wanted = set(self.nodes[t].inputs)
        result = [t]
        for v in reversed(steps[:-1]):
            if v not in self.ram and (v in wanted or self.kept(v, t)):
                result.append(v)
                wanted.update(self.nodes[v].inputs)
        return result[::-1]

    def run(self, v: int, later: set[int], t: int) -> None:
        dying = [u for u in self.nodes[v].in_place if u not in later and not self.kept(u, t)]
        over = dying[0] if dying else None
        self.events.append(Event("compute", v, over))
        if over is not None:
            self.ram.discard(over)
        self.ram.add(v)

    def write(self, v: int) -> None:
        model = self.model
        if self.nodes[v].saved or model.page_out.get(v, -1) in self.chosen:
            self.events.append(Event("page_out", v))

    def drop(self, v: int) -> None:
        self.events.append(Event("drop", v))
        self.ram.discard(v)
