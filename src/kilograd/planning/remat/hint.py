"""A plan as values of a gap formulation's variables, to start a solver from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kilograd.planning.remat.gap_model import GapModel
from kilograd.planning.remat.linear import FloatArray
from kilograd.planning.remat.solution import Event


def hint(model: GapModel, events: Sequence[Event]) -> FloatArray | None:
    """The values; None where the rows do not allow the plan, as they may where it recomputes
    deeper or earlier than the model does.
    """
    values = np.zeros(len(model.linear.cost))
    for v, how, reads in _stays(model, events):
        points = model.uses.points[v]
        if how == "page_in":
            start = model.page_in.get((reads[0], v))
        else:
            start = model.again.get((reads[0], v))
        if how != "first":
            if start is None:
                return None
            values[start] = 1.0
            if how == "page_in" and v in model.page_out:
                values[model.page_out[v]] = 1.0
        for g, t in enumerate(points):
            if (how == "first" or t > reads[0]) and t <= reads[-1]:
                values[model.keep[v, g]] = 1.0
    for variable, (_, runs) in model.shared.items():
        values[variable] = min(sum(values[x] for x in together) for together in runs)
    for variable, kept in model.all_kept.items():
        values[variable] = float(all(values[x] for x in kept))
    return _checked(model, values)


def _stays(model: GapModel, events: Sequence[Event]) -> list[tuple[int, str, list[int]]]:
    """(tensor, how it came to RAM, stages that read it) for each stay in RAM that is read."""
    nodes = model.problem.nodes
    open_stays: dict[int, tuple[str, list[int]]] = {
        v: ("first", []) for v, node in enumerate(nodes) if node.given
    }
    closed: list[tuple[int, str, list[int]]] = []
    stage, done = model.problem.given_count, set[int]()
    for event in events:
        v = event.node
        if event.kind == "compute":
            for u in nodes[v].inputs:
                open_stays[u][1].append(stage)
            if event.over is not None:
                closed.append((event.over, *open_stays.pop(event.over)))
            first = v not in done
            done.add(v)
            open_stays[v] = ("first" if first else "again", [])
            stage += first
        elif event.kind == "page_in":
            open_stays[v] = ("page_in", [])
        elif event.kind == "drop":
            closed.append((v, *open_stays.pop(v)))
    closed += [(v, *stay) for v, stay in open_stays.items()]
    return [stay for stay in closed if stay[2] and not nodes[stay[0]].resident]


def _checked(model: GapModel, values: FloatArray) -> FloatArray | None:
    """The values if all rows hold; the peak is set to what the memory rows ask for."""
    linear = model.linear
    columns, starts = np.array(linear.columns), np.array(linear.starts)
    products = np.array(linear.coefficients) * values[columns]
    sums = np.concatenate([[0.0], np.cumsum(products)])
    activity = sums[starts[1:]] - sums[starts[:-1]]
    excess = activity - np.array(linear.upper)
    if model.peak is not None:
        rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))[columns == model.peak]
        values[model.peak] = max(0.0, float(excess[rows].max()))
        excess[rows] -= values[model.peak]
    lack = np.array(linear.lower) - activity
    return values if max(excess.max(), lack.max()) < 1e-6 else None
