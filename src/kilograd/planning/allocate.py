"""Offsets for the two functions of a program, which share one arena and the place of the input."""

from __future__ import annotations

from collections.abc import Sequence

from kilograd.errors import CompilerBug
from kilograd.ir import Graph
from kilograd.planning.allocation import AllocationProblem, Buffer, solve, validate
from kilograd.planning.lifetimes import ALIGNMENT_BYTES, aligned, measure
from kilograd.planning.schedule import Schedule


def allocate(graphs: Sequence[Graph]) -> tuple[Schedule, ...]:
    """Schedules of ordered graphs that take turns in one arena.

    The first input of each lies at offset 0, scalar results with the caller. The hungriest graph is
    solved first; the others need no better than its height.
    """
    plans = [(graph, measure(graph)) for graph in graphs]
    schedules: dict[int, Schedule] = {}
    target = 0
    for index in sorted(range(len(plans)), key=lambda i: -plans[i][1].peak_bytes):
        graph, lives = plans[index]
        bottom = graph.inputs[0].name
        buffers = tuple(
            Buffer(b.name, b.size_bytes, b.first, b.last, ALIGNMENT_BYTES, b.name == bottom)
            for b in lives.buffers
        )
        problem = AllocationProblem(buffers)
        allocation = solve(problem, target_bytes=target or None)
        broken = validate(problem, allocation)
        if broken:
            raise CompilerBug("the allocation breaks rules:\n" + "\n".join(broken))
        height = aligned(allocation.height_bytes)
        schedules[index] = Schedule(graph, lives, allocation.offsets, height)
        target = max(target, height)
    return tuple(schedules[index] for index in range(len(plans)))
