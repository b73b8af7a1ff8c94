"""The schemes to try: the best sums of contributions at several limits, and two by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from kilograd.search.found import Point
from kilograd.search.points import biases_only, last_layers
from kilograd.search.resources import Measured, ResourceModel
from kilograd.search.scheme import Scheme
from kilograd.search.select import Limits, Selection, select, step_fits
from kilograd.search.table import Contributions

FRONT_POINTS = 6


def choose(
    model: ResourceModel,
    contributions: Contributions,
    limits: Sequence[Limits],
    seconds: float = 60.0,
) -> tuple[Point, ...]:
    """The scheme of the largest sum within each of the limits; each is linked and takes `seconds`
    at most.
    """
    return tuple(_point(select(contributions, model, each, seconds=seconds)) for each in limits)


def ladder(model: ResourceModel, limits: Limits, most_bytes: int, steps: int) -> tuple[Limits, ...]:
    """The limits with less SRAM: `steps`, evenly spaced from what the head alone needs, below
    `most_bytes`.
    """
    least = model.linked(Scheme(0)).sram_bytes
    return tuple(
        replace(limits, sram_bytes=least + (most_bytes - least) * step // max(steps, 1))
        for step in range(steps)
    )


def written_by_hand(
    model: ResourceModel, contributions: Contributions, limits: Limits
) -> tuple[Point, ...]:
    """The biases of as many of the last layers, and as many of the last layers whole, as fit."""
    head = Scheme(0)
    beside = model.linked(head).sram_bytes - model.static_bytes(head)
    points = []
    for kind, make in (("biases", biases_only), ("last layers", last_layers)):
        low, high = 0, len(model.layers.paths)
        while low < high:
            middle = (low + high + 1) // 2
            scheme = make(model, middle)
            needed = model.static_bytes(scheme) + beside
            if needed <= limits.sram_bytes and step_fits(scheme, model, limits):
                low = middle
            else:
                high = middle - 1
        scheme = make(model, low)
        measured = model.linked(scheme)
        if low and _fits(measured, limits):
            points.append(
                Point(
                    biases=scheme.biases,
                    weights=dict(scheme.weights),
                    gain=scheme.gain(contributions),
                    sram_bytes=measured.sram_bytes,
                    flash_bytes=measured.flash_bytes,
                    step_seconds=model.step(scheme).seconds,
                    step_joules=model.step(scheme).joules,
                    kind=kind,
                )
            )
    return tuple(points)


def _fits(measured: Measured, limits: Limits) -> bool:
    flash = limits.flash_bytes
    return measured.sram_bytes <= limits.sram_bytes and (
        flash is None or measured.flash_bytes <= flash
    )


def _point(selection: Selection) -> Point:
    assert selection.sram_bytes is not None and selection.flash_bytes is not None
    return Point(
        biases=selection.scheme.biases,
        weights=dict(selection.scheme.weights),
        gain=selection.gain,
        sram_bytes=selection.sram_bytes,
        flash_bytes=selection.flash_bytes,
        step_seconds=selection.step.seconds,
        step_joules=selection.step.joules,
        gap=0.0 if selection.proven else selection.gap,
    )


def undominated(points: Iterable[Point], gain: Callable[[Point], float]) -> tuple[Point, ...]:
    """The points by SRAM, without those that gain no more than a smaller one."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.sram_bytes, -gain(p))):
        if not kept or gain(point) > gain(kept[-1]):
            kept.append(point)
    return tuple(kept)
