"""POET's own formulation, as a reference: R, S_ram, S_sd, M_in, M_out over (stage, tensor).

Stage t ends with the first run of node t. R[t,v]: v runs in stage t; S[t,v], D[t,v]: v is in RAM,
in storage, when stage t begins; I[t,v], O[t,v]: v is paged in, out in stage t. RAM is accounted for
as in Checkmate (Jain et al., MLSys 2020): U[t,k] bytes while node k of stage t runs, F[t,k,u] = 1
where u can be dropped behind k.
"""

from __future__ import annotations

from ortools.linear_solver import pywraplp

from kilograd.planning.remat import Event, Problem

SOLVERS = ("CBC", "HIGHS")


def solve_poet(
    problem: Problem, ram_bytes: int, deadline: float, solver_name: str, seconds: float
) -> list[Event] | None:
    """The events of the best schedule found in the time limit; None where there is none."""
    model = _Poet(problem, ram_bytes, deadline, solver_name)
    model.solver.SetTimeLimit(int(seconds * 1000))
    status = model.solver.Solve()
    if status not in (pywraplp.Solver.OPTIMAL, pywraplp.Solver.FEASIBLE):
        return None
    return model.events()


class _Poet:
    def __init__(self, problem: Problem, ram_bytes: int, deadline: float, solver_name: str) -> None:
        self.problem, self.nodes = problem, problem.nodes
        self.count = len(problem.nodes)
        self.solver = pywraplp.Solver.CreateSolver(solver_name)
        binary = self.solver.BoolVar
        self.run, self.ram, self.store, self.page_in, self.page_out = (
            {(t, v): binary("") for t in range(self.count) for v in range(t + 1)} for _ in range(5)
        )
        self.add_rows()
        self.add_memory(ram_bytes)
        self.add_objective(deadline)

    def add_rows(self) -> None:
        add = self.solver.Add
        for t in range(self.count):
            add(self.run[t, t] == 1)
            for name in (self.ram, self.store, self.page_in):
                add(name[t, t] == 0)
            for v in range(t + 1):
                for u in self.nodes[v].inputs:
                    add(self.run[t, v] <= self.run[t, u] + self.ram[t, u] + self.page_in[t, u])
                add(self.page_out[t, v] <= self.run[t, v] + self.ram[t, v])
                if v < t:
                    before = t - 1
                    there = self.run[before, v] + self.ram[before, v] + self.page_in[before, v]
                    add(self.ram[t, v] <= there)
                    add(self.store[t, v] <= self.store[before, v] + self.page_out[before, v])
                    add(self.page_in[t, v] <= self.store[t, v])

    def add_memory(self, ram_bytes: int) -> None:
        """Memory in units of 1024 bytes."""
        add, nodes = self.solver.Add, self.nodes
        readers = self.problem.readers
        self.free: dict[tuple[int, int, int], pywraplp.Variable] = {}
        for t in range(self.count):
            used = sum(
                nodes[v].bytes / 1024 * (self.ram[t, v] + self.page_in[t, v]) for v in range(t)
            )
            for k in range(t + 1):
                here = self.solver.NumVar(0, ram_bytes / 1024, "")
                add(here == used + nodes[k].bytes / 1024 * self.run[t, k])
                used = here
                for u in (*nodes[k].inputs, k):
                    used = used - nodes[u].bytes / 1024 * self.freed(t, k, u, readers[u])

    def freed(self, t: int, k: int, u: int, readers: tuple[int, ...]) -> pywraplp.Variable:
        """1 where step k of stage t ran and u is needed by no later step and not kept."""
        free = self.free[t, k, u] = self.solver.BoolVar("")
        later = [self.run[t, w] for w in readers if k < w <= t]
        kept = [self.ram[t + 1, u]] if t + 1 < self.count else []
        blockers = [*later, *kept]
        self.solver.Add(free <= self.run[t, k])
        for blocker in blockers:
            self.solver.Add(free <= 1 - blocker)
        return free

    def add_objective(self, deadline: float) -> None:
        nodes, solver = self.nodes, self.solver
        scale = 1e5 / self.problem.plain_joules
        solver.Minimize(
            sum(nodes[v].joules * scale * x for (_, v), x in self.run.items())
            + sum(nodes[v].page_in_joules * scale * x for (_, v), x in self.page_in.items())
            + sum(nodes[v].page_out_joules * scale * x for (_, v), x in self.page_out.items())
        )
        seconds = sum(nodes[v].seconds * x for (_, v), x in self.run.items())
        solver.Add(seconds <= deadline * self.problem.plain_seconds)

    def events(self) -> list[Event]:
        """Within a stage as late as possible; what is not kept goes as soon as it may."""

        def chosen(variables: dict[tuple[int, int], pywraplp.Variable], t: int, v: int) -> bool:
            return (t, v) in variables and variables[t, v].solution_value() > 0.5

        events: list[Event] = []
        ram: set[int] = set()
        stored: set[int] = set()
        for t in range(self.count):
            steps = [k for k in range(t + 1) if chosen(self.run, t, k)]
            for position, k in enumerate(steps):
                later = {u for step in steps[position + 1 :] for u in self.nodes[step].inputs}
                for u in self.nodes[k].inputs:
                    if u not in ram:
                        events.append(Event("page_in", u))
                        ram.add(u)
                if k not in ram:
                    events.append(Event("compute", k))
                    ram.add(k)
                for u in sorted(ram):
                    if chosen(self.page_out, t, u) and u not in stored:
                        events.append(Event("page_out", u))
                        stored.add(u)
                    if u not in later and not chosen(self.ram, t + 1, u):
                        events.append(Event("drop", u))
                        ram.discard(u)
        return events
