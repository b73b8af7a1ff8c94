"""Energy and time against RAM, from the least in which the step can run to the plain peak."""

from __future__ import annotations

from kilograd.errors import InputError
from kilograd.planning.remat.problem import Problem
from kilograd.planning.remat.solution import Event, Objective, Solution
from kilograd.planning.remat.solve import solve


def frontier(
    problem: Problem,
    *,
    points: int = 8,
    deadline: float | None = 1.3,
    time_limit: float = 20.0,
    gap: float = 0.01,
    recompute: bool = True,
    page: bool = True,
    objective: Objective = "energy",
) -> list[Solution]:
    """Plans in order of RAM, at equal ratios between the least and the plain peak.

    Every plan starts from the one for less RAM, so the objective never rises with RAM. Plans that
    gain nothing over one of less RAM are left out. `time_limit` is for each point; the others are
    those of `solve`. Raises `InputError` for fewer than two points or the objective "peak".
    """
    if points < 2 or objective == "peak":
        raise InputError(
            f"a frontier has at least 2 points, not {points}, and an objective of energy or time"
        )
    options = {
        "deadline": deadline,
        "time_limit": time_limit,
        "recompute": recompute,
        "page": page,
    }
    leanest = solve(problem, objective="peak", gap=0.0, **options)  # type: ignore[arg-type]
    low, high = leanest.peak_bytes, max(problem.plain_peak_bytes, leanest.peak_bytes)
    found: list[Solution] = []
    seeds: list[tuple[Event, ...]] = [leanest.events]
    for point in range(points):
        ram_bytes = round(low * (high / low) ** (point / (points - 1)))
        plan = solve(
            problem,
            ram_bytes=ram_bytes,
            objective=objective,
            gap=gap,
            seeds=seeds,
            **options,  # type: ignore[arg-type]
        )
        seeds = [plan.events]
        if not found or plan.value < found[-1].value:
            found.append(plan)
    return found
