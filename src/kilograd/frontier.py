"""Energy and time of a training step against the SRAM of the program, by plans that can be built.

    the leanest program           the least SRAM in which the step was found to run at all
    programs of more SRAM         at equal ratios, each planned from the ones of less
    the program as it stands      nothing is planned

SRAM is that of the linked program in all: arena, learned state, other data and stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from kilograd.compiler import Draft, draft
from kilograd.errors import InfeasibleError, InputError
from kilograd.fitting import Fitter, NoFitError, sram_bytes
from kilograd.infeasible import infeasible
from kilograd.options import Planning
from kilograd.planning.front import FrontPoint
from kilograd.planning.paging import Seeds
from kilograd.planning.remat import NoPlanError
from kilograd.program import Program

_SECONDS_FOR_A_POINT = 20.0


@dataclass(frozen=True, eq=False)
class FrontierPoint:
    """A program and what its training step takes.

    `seconds` and `joules` are estimates, None where the device has none; `gap` is the share of the
    objective that a better plan could save, at most. `page_ins` counts reads from storage (pages
    and stored weights), `page_outs` writes, `recomputations` operators that run again, and
    `stored_bytes` are weights that live in storage. `planned` is False for the program as it
    stands.
    """

    sram_bytes: int
    arena_bytes: int
    state_bytes: int
    seconds: float | None
    joules: float | None
    gap: float
    page_ins: int
    page_outs: int
    recomputations: int
    stored_bytes: int
    planned: bool
    _program: Program = field(repr=False)

    def program(self) -> Program:
        """The program of this point, which compiles without a search."""
        return self._program


@dataclass(frozen=True, eq=False)
class Frontier:
    """Points in order of SRAM; the objective falls from each to the next."""

    network: str
    device: str
    storage: str | None
    objective: str
    points: tuple[FrontierPoint, ...]

    def __iter__(self) -> Iterator[FrontierPoint]:
        """The points, leanest first."""
        return iter(self.points)

    def __len__(self) -> int:
        """How many points there are."""
        return len(self.points)

    def __getitem__(self, index: int) -> FrontierPoint:
        """A point by its place in order of SRAM."""
        return self.points[index]

    def choices(self, chosen: Program | None = None) -> tuple[FrontPoint, ...]:
        """The points as `Program.report` takes them for its `fronts`; `chosen` is the program that
        it reports on.
        """
        return tuple(
            FrontPoint(
                label=f"plan for {point.sram_bytes:,} B" if point.planned else "as it stands",
                sram_bytes=point.sram_bytes,
                seconds=point.seconds,
                joules=point.joules,
                chosen=chosen is not None and point.program() is chosen,
                note=_moved(point),
            )
            for point in self.points
        )

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        rows = []
        for point in self.points:
            row = {k: v for k, v in vars(point).items() if not k.startswith("_")}
            rows.append(row)
        return {
            "network": self.network,
            "device": self.device,
            "storage": self.storage,
            "objective": self.objective,
            "points": rows,
        }

    def __str__(self) -> str:
        """A table, a line a point; the last columns against the program as it stands."""
        where = f"pages on {self.storage}" if self.storage else "without pages"
        head = (
            f"{'SRAM, B':>11} {'of all':>7} {'mJ/step':>10} {'more':>8} {'s/step':>10} {'more':>8} "
            f"{'gap':>6} {'reads':>6} {'writes':>6} {'again':>6} {'stored, B':>10}"
        )
        plain = self.points[-1]
        lines = [f"{self.network} on {self.device}, {where}, least {self.objective}", "", head]
        lines += [_row(point, plain) for point in self.points]
        if not plain.planned:
            lines.append("The last line is the program as it stands.")
        return "\n".join(lines)


def _moved(point: FrontierPoint) -> str:
    """`12 reads from storage, 3 writes to it, 2 operators run again`."""
    parts = [
        f"{count:,} {what}"
        for count, what in (
            (point.page_ins, "reads from storage"),
            (point.page_outs, "writes to it"),
            (point.recomputations, "operators run again"),
            (point.stored_bytes, "B of weights in storage"),
        )
        if count
    ]
    return ", ".join(parts)


def _row(point: FrontierPoint, plain: FrontierPoint) -> str:
    energy = "" if point.joules is None else f"{point.joules * 1e3:.4g}"
    seconds = "" if point.seconds is None else f"{point.seconds:.4g}"
    return (
        f"{point.sram_bytes:>11,} {point.sram_bytes / plain.sram_bytes:>7.1%} {energy:>10} "
        f"{_more(point.joules, plain.joules):>8} {seconds:>10} "
        f"{_more(point.seconds, plain.seconds):>8} {point.gap:>6.1%} {point.page_ins:>6} "
        f"{point.page_outs:>6} {point.recomputations:>6} {point.stored_bytes:>10,}"
    )


def _more(value: float | None, plain: float | None) -> str:
    return f"{value / plain - 1:+.1%}" if plain and value is not None else ""


def plan_frontier(
    model: Any, example_input: Any = None, *, points: int = 8, **options: Any
) -> Frontier:
    """Energy and time of a training step against SRAM, from the least to what it needs unplanned.

    The model is imported and quantised once. Every point is planned from those of less SRAM, so the
    objective never rises with SRAM; points that gain nothing are left out.

    Args:
        model, example_input: as of `kilograd.compile`.
        points: how many limits of SRAM are tried, at equal ratios; at least 2.
        options: those of `kilograd.compile`. `planning.time_limit` is for each plan, by default
            20 s; `budget` may limit flash and the time and energy of a step, but not SRAM.

    Raises:
        InputError: an argument is not what it has to be.
        InfeasibleError: flash, or the time or energy of a step, has no room for any plan.
        UnsupportedError: as of `kilograd.compile`.
    """
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise InputError(f"points={points!r}: a frontier has at least 2, its two ends")
    budget = options.get("budget")
    if budget is not None and getattr(budget, "sram", None) is not None:
        raise InputError(
            f"budget: sram={budget.sram!r} is what a frontier varies; leave it out, or compile "
            "with it"
        )
    if options.get("planning") is None:
        options["planning"] = Planning(time_limit=_SECONDS_FOR_A_POINT)
    drafted = draft(model, example_input, **options)
    settings = drafted.network.planning
    if not (settings.recompute or settings.page):
        raise InputError(
            "planning allows neither recompute nor page, so there is but one program; allow one"
        )
    return frontier(drafted, points)


def frontier(drafted: Draft, points: int) -> Frontier:
    """The frontier of a program that is imported already."""
    program, network = drafted.program, drafted.network
    program.check_step()
    fitter = drafted.fitter(drafted.forms[0])
    try:
        constants = fitter.constants(fitter.fixed)
        lean = fitter.lean(constants)
    except NoPlanError as error:
        raise infeasible(fitter, NoFitError(None, 0, 0), network.graphs, program) from error
    leanest = fitter.built(lean)
    whole = _whole(drafted.fitter(program))
    low, high = sram_bytes(leanest), whole.sram_bytes
    found: list[FrontierPoint] = []
    latest = _point(leanest, low)
    for step in range(points - 1):
        limit = round(low * (high / low) ** (step / (points - 1)))
        if step:
            seeds: Seeds = {latest.program().train.graph.stored: _events(latest.program())}
            latest = _better(fitter.within(limit, {latest.program().storage_device: seeds}), latest)
        if not found or latest is not found[-1]:
            found.append(latest)
    if _fits_flash(fitter):
        found = [
            p for p in found if p.sram_bytes < high and _value(p, fitter) > _value(whole, fitter)
        ]
        found.append(whole)
    return Frontier(
        program.name,
        program.device.name,
        fitter.storage.name if fitter.storage else None,
        network.planning.objective,
        tuple(found),
    )


def _better(fitter: Fitter, known: FrontierPoint) -> FrontierPoint:
    """The point for the limit of a fitter, or the one known where it is no worse."""
    try:
        program = fitter.fitted()
    except (NoFitError, InfeasibleError):
        return known
    point = _point(program, sram_bytes(program))
    return point if _value(point, fitter) < _value(known, fitter) * (1 - 1e-9) else known


def _value(point: FrontierPoint, fitter: Fitter) -> float:
    """The objective of the training step, also where the device has no estimate of it."""
    energy, program = fitter.settings.objective == "energy", point.program()
    known = point.joules if energy else point.seconds
    if known is not None:
        return known
    if program.plans:
        return program.plans[-1].solution.value
    return sum(cost.joules if energy else cost.seconds for cost in fitter.costs[-1])


def _events(program: Program) -> tuple[Any, ...]:
    return tuple(plan.solution.events for plan in program.plans)


def _whole(fitter: Fitter) -> FrontierPoint:
    """The program as it stands, which need not fit its device."""
    program, beside = fitter.program, fitter.fixed.sram_bytes
    return _point(program, beside + program.arena_bytes + program.state_bytes)


def _fits_flash(fitter: Fitter) -> bool:
    return fitter.flash is None or fitter.fixed.flash_bytes <= fitter.flash


def _point(program: Program, sram: int) -> FrontierPoint:
    if program.plans:
        program = replace(program, budget=replace(program.budget, sram=sram))
    cost = program.step_cost
    told = program.plan.functions[-1] if program.plans else None
    return FrontierPoint(
        sram_bytes=sram,
        arena_bytes=program.arena_bytes,
        state_bytes=program.state_bytes,
        seconds=cost.seconds if cost else None,
        joules=cost.joules if cost else None,
        gap=told.gap if told else 0.0,
        page_ins=told.page_ins if told else 0,
        page_outs=told.page_outs if told else 0,
        recomputations=told.reruns if told else 0,
        stored_bytes=told.stored_bytes if told else 0,
        planned=told is not None,
        _program=program,
    )
