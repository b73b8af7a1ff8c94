"""The problem as a constraint program, solved by OR-Tools CP-SAT: it closes gaps and proves bounds.

Variables are the offsets in units of the grid. Every buffer is a rectangle, lifetime by bytes, and
rectangles do not overlap; in every section the byte intervals are disjoint, which adds the strong
reasoning of one machine; the height is minimised. Equal buffers keep their order.
"""

from __future__ import annotations

import math
import time

import numpy as np
from ortools.sat.python import cp_model

from kilograd.errors import CompilerBug
from kilograd.planning.allocation.grid import Grid
from kilograd.planning.allocation.problem import height_bytes
from kilograd.planning.allocation.progress import Progress
from kilograd.planning.allocation.timeline import Timeline


def improve(
    timeline: Timeline,
    start: Progress,
    target_bytes: int,
    deadline: float,
    deterministic_seconds: float | None = None,
) -> Progress:
    """Let CP-SAT lower the height to `target_bytes` or raise the bound, until the deadline.

    The arguments are those of the search. `deterministic_seconds` limits CP-SAT's own measure of
    work, which does not depend on the machine; the deadline alone makes a cut-off run depend on it.
    """
    remaining_seconds = deadline - time.monotonic()
    if remaining_seconds <= 0 or start.reaches(target_bytes):
        return start
    grid = Grid.of(timeline)
    goal_bytes = max(target_bytes, start.lower_bound_bytes)
    model, offsets = _model(grid, start, goal_bytes)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = remaining_seconds
    if deterministic_seconds is not None:
        solver.parameters.max_deterministic_time = deterministic_seconds
    solver.parameters.random_seed = 1
    # Several strategies that take turns in a fixed order: what they find depends on no race.
    solver.parameters.num_workers = 8
    solver.parameters.interleave_search = True
    status = solver.solve(model)
    if status == cp_model.INFEASIBLE:
        # The model asks for less than the height at the start.
        return start.with_bound(start.height_bytes)
    if status == cp_model.MODEL_INVALID:
        raise CompilerBug(f"CP-SAT rejects the allocation model: {model.validate()}")
    progress = start
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        found = grid.offsets_bytes(np.array([solver.value(o) for o in offsets], np.int64))
        progress = progress.with_offsets(found, height_bytes(timeline.buffers, found), "cp-sat")
    bound_bytes = math.ceil(solver.best_objective_bound - 1e-6)
    if bound_bytes > goal_bytes:
        progress = progress.with_bound(grid.height_above(bound_bytes - 1))
    return progress


def _model(
    grid: Grid, start: Progress, goal_bytes: int
) -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    """The model of heights from the goal to one below the start's, and its offset variables."""
    timeline, unit = grid.timeline, grid.unit_bytes
    most_bytes = grid.height_at_most(start.height_bytes - 1)
    model = cp_model.CpModel()
    height = model.new_int_var(goal_bytes, most_bytes, "height_bytes")
    offsets, extents, lifetimes = [], [], []
    for index, highest in enumerate(grid.highest(most_bytes).tolist()):
        offset = _offset_variable(model, highest, int(grid.alignment[index]), f"offset{index}")
        model.add(height >= offset * unit + int(timeline.size_bytes[index]))
        hint = start.offsets[timeline.buffers[index].name] // unit
        model.add_hint(offset, min(hint, max(highest, 0)))
        offsets.append(offset)
        extents.append(
            model.new_fixed_size_interval_var(offset, int(grid.size[index]), f"bytes{index}")
        )
        first, last = int(timeline.first[index]), int(timeline.last[index])
        lifetimes.append(model.new_fixed_size_interval_var(first, last - first, f"life{index}"))
    model.add_no_overlap_2d(lifetimes, extents)
    for section in _largest_sections(timeline):
        model.add_no_overlap([extents[index] for index in section])
    for index, twin in enumerate(grid.twins(np.arange(len(offsets))).tolist()):
        if twin >= 0:
            model.add(offsets[twin] < offsets[index])
    # Without a strategy of its own, some versions of CP-SAT fail a check of theirs and abort.
    model.add_decision_strategy(offsets, cp_model.CHOOSE_LOWEST_MIN, cp_model.SELECT_MIN_VALUE)
    model.minimize(height)
    return model, offsets


def _offset_variable(
    model: cp_model.CpModel, highest: int, alignment: int, name: str
) -> cp_model.IntVar:
    """A multiple of `alignment` in [0, highest]; no value where `highest` is negative."""
    if highest < 0:
        model.add_bool_or([])
        highest = 0
    offset = model.new_int_var(0, highest, name)
    if alignment > 1:
        model.add_modulo_equality(0, offset, alignment)
    return offset


def _largest_sections(timeline: Timeline) -> list[list[int]]:
    """The live sets of the sections, but those that the next or the one before contains."""
    live: list[set[int]] = [set() for _ in range(timeline.sections)]
    for index, (first, last) in enumerate(zip(timeline.first, timeline.last, strict=True)):
        for section in range(first, last):
            live[section].add(index)
    kept: list[set[int]] = []
    for here in live:
        if kept and here <= kept[-1]:
            continue
        if kept and kept[-1] <= here:
            kept.pop()
        kept.append(here)
    return [sorted(section) for section in kept if len(section) > 1]
