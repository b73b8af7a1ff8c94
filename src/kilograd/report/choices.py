"""Choices among programs as a chart: what they need against what they cost or give."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from kilograd.planning.facts import Kind
from kilograd.planning.front import FrontPoint, Measure, efficient, measure_of
from kilograd.report.drawing import (
    FONT,
    Spec,
    altair_module,
    color_of,
    finish,
)
from kilograd.report.palette import FRONT, KINDS, USES

_MEASURES = {
    Measure.GAIN: ("expected gain", ".3~g"),
    Measure.JOULES: ("energy of a training step", ".3~s"),
    Measure.SECONDS: ("time of a training step", ".3~s"),
}
_SHAPES = (
    "diamond", "circle", "cross", "square", "triangle-up", "triangle-down", "triangle-right",
)  # fmt: skip
"""More than colours, and prime to them, so that no two of a few dozen kinds look alike."""
_KINDS = [
    KINDS[k] for k in (Kind.COTANGENT, Kind.SAVED, Kind.GRADIENT, Kind.ACTIVATION, Kind.SCRATCH)
]
_TOLD = {"time": "time", "energy": "energy", "gain": "expected gain", "note": "how"}
_UNITS = {Measure.GAIN: "", Measure.JOULES: "J", Measure.SECONDS: "s"}


def front(
    points: Sequence[FrontPoint],
    limit_bytes: int | None = None,
    measure: Measure | None = None,
    *,
    beside: Sequence[FrontPoint] = (),
    gain: str = "expected gain",
    by_kind: bool = False,
) -> Spec:
    """Choices by SRAM and by what they cost or give, the Pareto front as a line.

    The vertical axis is `measure`, by default the gain where all points have one, else the energy,
    else the time. `limit_bytes` is the SRAM that there is, drawn where it is not far to the right.
    Choices that are `beside` them have marks, and no part in the front. `gain` is what the gain is
    called. Marks differ by whether a choice is the chosen one, on the
    front or beaten; with `by_kind` by the kinds of the points, which a legend above explains.
    Raises InputError where there are no points, or no measure that all of them have.
    """
    alt = altair_module()
    measure = measure or measure_of(points)
    title, number = _MEASURES[measure]
    title = gain if measure is Measure.GAIN else title
    unit = _UNITS[measure]
    on_front = [*efficient(points, measure), *[False] * len(beside)]
    points = [*points, *beside]
    largest = max(point.sram_bytes for point in points)
    rows = [
        {
            "label": point.label,
            "sram": point.sram_bytes,
            "kilobytes": point.sram_bytes / 1024,
            "value": getattr(point, measure.value),
            "time": quantity(point.seconds, "s"),
            "energy": quantity(point.joules, "J"),
            "gain": "" if point.gain is None else f"{point.gain:.4g}",
            "note": point.note,
            "low": (point.gain or 0.0) - (point.spread or 0.0),
            "high": (point.gain or 0.0) + (point.spread or 0.0),
            "area": 210 if point.chosen else 80 if efficient_ else 60,
            "what": "chosen" if point.chosen else "on the front" if efficient_ else "beaten",
            "kind": point.kind,
        }
        for point, efficient_ in zip(points, on_front, strict=True)
    ]
    kinds = [point.kind for point in points]
    looks = kind_marks(kinds) if by_kind else _marks("what", FRONT, None)
    y = alt.Y(
        "value:Q",
        title=title,
        scale=alt.Scale(zero=False, padding=14),
        axis=alt.Axis(tickCount=5, labelExpr=_label(number, unit)),
    )
    x = alt.X(
        "kilobytes:Q",
        title="SRAM, KB",
        scale=alt.Scale(zero=False, padding=14),
        axis=alt.Axis(tickCount=6),
    )
    tooltip = [
        alt.Tooltip("label:N", title="choice"),
        alt.Tooltip("kind:N" if by_kind else "what:N"),
        alt.Tooltip("sram:Q", title="SRAM, bytes", format=","),
        *(
            alt.Tooltip(f"{name}:N", title=title)
            for name, title in {**_TOLD, "gain": gain}.items()
            if any(row[name] for row in rows)
        ),
    ]
    step = "step-after"
    line = (
        alt.Chart(alt.Data(values=[row for row, best in zip(rows, on_front, strict=True) if best]))
        .mark_line(strokeWidth=2, interpolate=step, color=USES["arena"], opacity=0.7)
        .encode(x=x, y=y, order="sram:Q")
    )
    marks = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(filled=True, opacity=1, stroke="rgba(255,255,255,0.7)", strokeWidth=0.8)
        .encode(
            x=x,
            y=y,
            size=alt.Size("area:Q", scale=None, legend=None),
            tooltip=tooltip,
            **looks,
        )
    )
    label = (
        alt.Chart(alt.Data(values=[row for row in rows if row["what"] == "chosen"]))
        .mark_text(**_beside(points, measure), fontSize=11.5, fontWeight="bold", font=FONT)
        .encode(x=x, y=y, text="label:N", color=alt.value("currentColor"))
    )
    layers = [line, marks, label]
    if measure is Measure.GAIN and any(point.spread for point in points):
        layers.insert(
            1,
            alt.Chart(alt.Data(values=rows))
            .transform_filter("datum.high > datum.low")
            .mark_rule()
            .encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=looks["color"]),
        )
    if limit_bytes is not None and limit_bytes <= 1.25 * largest:
        layers.append(
            alt.Chart(alt.Data(values=[{"sram": limit_bytes, "kilobytes": limit_bytes / 1024}]))
            .mark_rule(color="currentColor", strokeDash=[4, 3], strokeWidth=1.2)
            .encode(x=x, tooltip=[alt.Tooltip("sram:Q", title="SRAM there is", format=",")])
        )
    return finish(alt.layer(*layers), 260)


def kind_marks(kinds: Sequence[str]) -> dict[str, Any]:
    """The channels that tell the kinds of marks apart by colour and shape, with a legend."""
    legend = altair_module().Legend(orient="top", title=None, labelColor="currentColor")
    names = list(dict.fromkeys(kinds))
    return _marks("kind", dict(zip(names, itertools.cycle(_KINDS), strict=False)), legend)


def _marks(field: str, colors: Mapping[str, str], legend: Any) -> dict[str, Any]:
    alt = altair_module()
    shapes = dict(zip(colors, itertools.cycle(_SHAPES), strict=False))
    scale = alt.Scale(domain=list(shapes), range=list(shapes.values()))
    return {
        "color": color_of(field, colors, list(colors), legend),
        "shape": alt.Shape(f"{field}:N", title=None, scale=scale, legend=legend),
    }


def _label(number: str, unit: str) -> str:
    """The expression for `6 mJ`, where the format alone gives `6m`."""
    if not unit:
        return f"format(datum.value, '{number}')"
    return f"replace(format(datum.value, '{number}'), /([^0-9.]?)$/, ' $1{unit}')"


def _beside(points: Sequence[FrontPoint], measure: Measure) -> dict[str, Any]:
    """Where the name of the chosen point has room: on the side where the line is not."""
    sizes = [point.sram_bytes for point in points]
    chosen = next((point.sram_bytes for point in points if point.chosen), sizes[0])
    right = chosen > (min(sizes) + max(sizes)) / 2
    above = measure.more_is_better == right
    return {
        "align": "right" if right else "left",
        "dx": -9 if right else 9,
        "dy": -13 if above else 15,
    }


def quantity(amount: float | None, unit: str) -> str:
    """A number of seconds or joules with four digits and a fitting prefix; empty for None."""
    if amount is None:
        return ""
    for factor, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "µ")):
        if amount >= factor or prefix == "µ":
            return f"{amount / factor:.4g} {prefix}{unit}"
    return ""
