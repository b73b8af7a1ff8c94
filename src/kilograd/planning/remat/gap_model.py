"""The gap formulation: one binary for each stretch of time in which a tensor could be useless.

For tensor v with points of use u_0 < u_1 < ... (uses.py):

    keep[v,g]   v stays in RAM up to its point of use u_g, from the one before (from v for g = 0)
    page_in[u,v], page_out[v]   v is read back at u; it was written right after its first run
    again[u,v]  v runs again in stage u, before the node that the stage is named after

    present(u,v) = keep + page_in + again <= 1,    = 1 at the first run of a reader
    page_in[u,v] <= page_out[v]
    keep[v,g] <= present(u_{g-1}, v)
    again[u,v] <= present(u, w)                    for every input w of v
    sum of bytes in RAM <= RAM                     at every step of a stage

A stage t is a list of steps: the nodes that may run again in it, in order, then t. At each step RAM
holds what is kept over the stage, what the stage has brought back so far, and of its inputs what a
later step could still read. Memory is in units of the greatest common divisor of all sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from kilograd.planning.remat.linear import LinearModel
from kilograd.planning.remat.problem import Problem
from kilograd.planning.remat.solution import Limits, Objective
from kilograd.planning.remat.uses import Uses

Row = dict[int, float]


@dataclass(frozen=True)
class _User:
    """A tensor that the steps first to last of a stage could read.

    `made` is the step that could run it again, -1 where none can; `later` the keep variable of the
    gap that begins here.
    """

    tensor: int
    made: int
    first: int
    last: int
    later: int | None


@dataclass
class GapModel:
    """The variables by what they mean, the rows, and the steps of each stage.

    `constant` is the part of the objective that no variable changes.
    """

    problem: Problem
    uses: Uses
    limits: Limits
    objective: Objective
    overlap: bool = False
    linear: LinearModel = field(default_factory=LinearModel)
    keep: dict[tuple[int, int], int] = field(default_factory=dict)
    page_in: dict[tuple[int, int], int] = field(default_factory=dict)
    again: dict[tuple[int, int], int] = field(default_factory=dict)
    page_out: dict[int, int] = field(default_factory=dict)
    peak: int | None = None
    steps: list[list[int]] = field(default_factory=list)
    gap_of: list[dict[int, int]] = field(default_factory=list)
    all_kept: dict[int, list[int]] = field(default_factory=dict)
    shared: dict[int, tuple[int, tuple[list[int], list[int]]]] = field(default_factory=dict)
    unit_bytes: int = 1

    @classmethod
    def of(
        cls,
        problem: Problem,
        uses: Uses,
        limits: Limits,
        objective: Objective,
        *,
        overlap: bool = False,
    ) -> GapModel:
        """Build it. With `overlap` pages and computing take time side by side, which is the best
        that DMA can do; without it one after the other, which is the worst.
        """
        model = cls(problem, uses, limits, objective, overlap)
        sizes = (size for n in problem.nodes for size in (n.bytes, n.scratch_bytes))
        model.unit_bytes = math.gcd(*sizes) or 1
        model.gap_of = [{t: g for g, t in enumerate(points)} for points in uses.points]
        model._add_variables()
        model._add_presence()
        model._add_memory()
        model._add_limits()
        return model

    @property
    def constant(self) -> float:
        """Joules or seconds of the plain step, 0 for the peak."""
        if self.objective == "peak":
            return 0.0
        return self.problem.plain_joules if self.objective == "energy" else self._plain_seconds

    @property
    def _plain_seconds(self) -> float:
        """With DMA, the time of the processor alone: a bound that overlapping pages can reach."""
        if self.overlap:
            return math.fsum(n.first_seconds for n in self.problem.nodes)
        return self.problem.plain_seconds

    def _cost(self, seconds: float, joules: float, *, paging: bool = False) -> float:
        if self.objective == "peak":
            return 0.0
        if self.objective == "energy":
            return joules
        return 0.0 if paging and self.overlap else seconds

    def _add_variables(self) -> None:
        linear, uses = self.linear, self.uses
        self.steps = [[] for _ in self.problem.nodes]
        for v, node in enumerate(self.problem.nodes):
            if node.resident:
                continue
            for g, t in enumerate(uses.points[v]):
                self.keep[v, g] = linear.binary()
                if uses.pageable[v]:
                    cost = self._cost(node.page_in_seconds, node.page_in_joules, paging=True)
                    self.page_in[t, v] = linear.binary(cost)
                if t in uses.rerun[v]:
                    self.again[t, v] = linear.binary(self._cost(node.seconds, node.joules))
                    self.steps[t].append(v)
            if uses.pageable[v] and uses.points[v] and not node.saved:
                cost = self._cost(node.page_out_seconds, node.page_out_joules, paging=True)
                self.page_out[v] = linear.binary(cost)
        for t, steps in enumerate(self.steps):
            steps.append(t)
        self._add_shared_runs()
        if self.objective == "peak":
            self.peak = linear.continuous(1.0)

    def _add_shared_runs(self) -> None:
        """What is saved where outputs of one operator run again together. In a relaxed formulation
        runs stand at later points than their own, so that any two of them may be together.
        """
        relaxed = any(self.uses.loose)
        for v, node in enumerate(self.problem.nodes):
            if not node.with_previous:
                continue
            own, previous = (
                {t: x for (t, w), x in self.again.items() if w == u} for u in (v, v - 1)
            )
            pairs = [(own, previous)]
            if not relaxed:
                pairs = [({t: own[t]}, {t: previous[t]}) for t in own.keys() & previous.keys()]
            for ours, theirs in pairs:
                if ours and theirs:
                    shared = self.linear.continuous(-self._cost(node.seconds, node.joules))
                    self.shared[shared] = v, (list(ours.values()), list(theirs.values()))
                    for runs in (ours, theirs):
                        row = dict.fromkeys(runs.values(), -1.0)
                        self.linear.row({shared: 1.0, **row}, upper=0.0)

    def present(self, t: int, v: int) -> list[int]:
        """Variables whose sum is 1 where v is in RAM when stage t uses it."""
        variables = [self.keep[v, self.gap_of[v][t]]]
        if (t, v) in self.page_in:
            variables.append(self.page_in[t, v])
        if (t, v) in self.again:
            variables.append(self.again[t, v])
        return variables

    def _add_presence(self) -> None:
        linear, nodes = self.linear, self.problem.nodes
        for v, points in enumerate(self.uses.points):
            if nodes[v].resident:
                continue
            readers = set(self.problem.readers[v])
            for g, t in enumerate(points):
                here = dict.fromkeys(self.present(t, v), 1.0)
                linear.row(here, 1.0 if t in readers else -math.inf, 1.0)
                if (t, v) in self.page_in and v in self.page_out:
                    linear.row({self.page_in[t, v]: 1.0, self.page_out[v]: -1.0}, upper=0.0)
                if g:
                    before = dict.fromkeys(self.present(points[g - 1], v), -1.0)
                    linear.row({self.keep[v, g]: 1.0, **before}, upper=0.0)
        for (t, v), again in self.again.items():
            if t in self.uses.loose[v]:
                continue
            for w in nodes[v].inputs:
                if not nodes[w].resident:
                    there = dict.fromkeys(self.present(t, w), -1.0)
                    linear.row({again: 1.0, **there}, upper=0.0)

    def _add_memory(self) -> None:
        """A row for every step but those of given nodes, which have one together."""
        nodes = self.problem.nodes
        passing, users = self._passing(), self._users()
        self._memory_row({}, sum(n.bytes for n in nodes if n.given))
        resident_bytes = 0
        for t, node in enumerate(nodes):
            if not node.given:
                for position in range(len(self.steps[t])):
                    row, constant = self._step_row(t, position, users[t])
                    for variable, size in passing[t]:
                        row[variable] = row.get(variable, 0.0) + size
                    self._memory_row(row, constant + resident_bytes)
            resident_bytes += node.bytes if node.resident else 0

    def _memory_row(self, row: Row, constant: int) -> None:
        unit, most = self.unit_bytes, self.limits.ram_bytes
        scaled = {variable: size / unit for variable, size in row.items()}
        if self.peak is not None:
            self.linear.row({**scaled, self.peak: -1.0}, upper=-constant / unit)
        elif most is not None:
            self.linear.row(scaled, upper=(most - constant) // unit)

    def _passing(self) -> list[list[tuple[int, int]]]:
        """For each stage the keep variables, with bytes, of gaps that pass over all of it."""
        nodes = self.problem.nodes
        passing: list[list[tuple[int, int]]] = [[] for _ in nodes]
        for v, points in enumerate(self.uses.points):
            if nodes[v].resident:
                continue
            previous = v
            for g, t in enumerate(points):
                for stage in range(max(previous + 1, self.problem.given_count), t):
                    passing[stage].append((self.keep[v, g], nodes[v].bytes))
                previous = t
        return passing

    def _users(self) -> list[list[_User]]:
        """For each stage the tensors that its steps could read."""
        users: list[list[_User]] = [[] for _ in self.problem.nodes]
        positions = [{v: i for i, v in enumerate(steps)} for steps in self.steps]
        for v, points in enumerate(self.uses.points):
            if self.problem.nodes[v].resident:
                continue
            for g, t in enumerate(points):
                at = [positions[t][j] for j in self.problem.readers[v] if j in positions[t]]
                made = positions[t].get(v, -1)
                if not at:
                    at = [made if made >= 0 else positions[t][t]]
                later = self.keep.get((v, g + 1))
                users[t].append(_User(v, made, min(at), max(at), later))
        return users

    def _step_row(self, t: int, position: int, users: Sequence[_User]) -> tuple[Row, int]:
        """Bytes in RAM while a step of stage t runs, but for what passes over the stage."""
        runs = self.steps[t][position]
        node = self.problem.nodes[runs]
        row: Row = {}
        constant = 0
        if runs == t:
            constant = node.bytes + node.scratch_bytes
        else:
            row[self.again[t, runs]] = float(node.bytes + node.scratch_bytes)
        dying = [u for u in users if u.tensor in node.in_place and u.last == position]
        given_up = self._given_up(row, dying, node.bytes)
        if len(dying) > 1 and given_up is None:
            constant -= node.bytes
        for user in users:
            v, size = user.tensor, float(self.problem.nodes[user.tensor].bytes)
            if v in (runs, given_up):
                continue
            if position > user.last:
                if user.later is not None:
                    row[user.later] = row.get(user.later, 0.0) + size
            elif runs == t and v in node.inputs:
                constant += self.problem.nodes[v].bytes
            else:
                row[self.keep[v, self.gap_of[v][t]]] = size
                if (t, v) in self.page_in and position >= user.first:
                    row[self.page_in[t, v]] = size
                if 0 <= user.made < position:
                    row[self.again[t, v]] = size
        return row, constant

    def _given_up(self, row: Row, dying: Sequence[_User], size: int) -> int | None:
        """Count inputs whose buffer the output may take over: one of them, if it is not kept.

        Returns the input whose bytes are accounted for here. With several candidates there is
        none: all count, less one buffer, plus one where all are kept.
        """
        for user in dying:
            if user.later is None:
                return user.tensor
        if len(dying) == 1 and dying[0].later is not None:
            row[dying[0].later] = float(size)
            return dying[0].tensor
        if dying:
            all_kept = self.linear.binary()
            kept = {user.later: -1.0 for user in dying if user.later is not None}
            self.linear.row({all_kept: 1.0, **kept}, lower=1.0 - len(dying), upper=math.inf)
            row[all_kept] = float(size)
            self.all_kept[all_kept] = list(kept)
        return None

    def _add_limits(self) -> None:
        """Seconds and joules, as far as they are limited."""
        nodes, limits = self.problem.nodes, self.limits
        runs = {x: nodes[v].seconds for (_, v), x in self.again.items()}
        runs |= {x: -nodes[v].seconds for x, (v, _) in self.shared.items()}
        moves = {x: nodes[v].page_in_seconds for (_, v), x in self.page_in.items()}
        moves |= {x: nodes[v].page_out_seconds for v, x in self.page_out.items()}
        if limits.seconds is not None:
            left = limits.seconds - self._plain_seconds
            self._limit(runs if self.overlap else runs | moves, left, self._plain_seconds)
            if self.overlap:
                saved = math.fsum(n.page_out_seconds for n in nodes if n.saved)
                self._limit(moves, limits.seconds - saved, limits.seconds)
        if limits.joules is not None:
            costs = {x: nodes[v].joules for (_, v), x in self.again.items()}
            costs |= {x: -nodes[v].joules for x, (v, _) in self.shared.items()}
            costs |= {x: nodes[v].page_in_joules for (_, v), x in self.page_in.items()}
            costs |= {x: nodes[v].page_out_joules for v, x in self.page_out.items()}
            plain = self.problem.plain_joules
            self._limit(costs, limits.joules - plain, plain)

    def _limit(self, row: Row, upper: float, scale: float) -> None:
        """In thousandths of `scale`, so that rows of any unit have coefficients of one size."""
        factor = 1000.0 / scale if scale else 1.0
        scaled = {variable: cost * factor for variable, cost in row.items() if cost}
        self.linear.row(scaled, upper=upper * factor)
