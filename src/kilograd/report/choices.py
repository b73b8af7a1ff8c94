"""Choices among programs as a chart: what they need against what they cost or give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kilograd.planning.front import FrontPoint, Measure, efficient, measure_of
from kilograd.report.drawing import (
    FONT,
    Spec,
    altair_module,
    color_of,
    finish,
)
from kilograd.report.palette import FRONT, USES

_MEASURES = {
    Measure.GAIN: ("expected gain", ".3~g"),
    Measure.JOULES: ("energy of a training step", ".3~s"),
    Measure.SECONDS: ("time of a training step", ".3~s"),
}
_UNITS = {Measure.GAIN: "", Measure.JOULES: "J", Measure.SECONDS: "s"}


def front(points: Sequence[FrontPoint], limit_bytes: int | None = None) -> Spec:
    """Choices by SRAM and by what they cost or give, the Pareto front as a line.

    The vertical axis is the gain where all points have one, else the energy, else the time.
    `limit_bytes` is the SRAM that there is, drawn where it is not far to the right. Raises
    InputError where there are no points, or no measure that all of them have.
    """
    alt = altair_module()
    measure = measure_of(points)
    title, number = _MEASURES[measure]
    unit = _UNITS[measure]
    on_front = efficient(points, measure)
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
            "area": 210 if point.chosen else 80 if efficient_ else 60,
            "what": "chosen" if point.chosen else "on the front" if efficient_ else "beaten",
        }
        for point, efficient_ in zip(points, on_front, strict=True)
    ]
    whats = ["chosen", "on the front", "beaten"]
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
        alt.Tooltip("what:N"),
        alt.Tooltip("sram:Q", title="SRAM, bytes", format=","),
        *(
            alt.Tooltip(f"{name}:N", title=title)
            for name, title in (("time", "time"), ("energy", "energy"), ("gain", "expected gain"))
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
            color=color_of("what", FRONT, whats),
            shape=alt.Shape(
                "what:N",
                scale=alt.Scale(domain=whats, range=["diamond", "circle", "cross"]),
                legend=None,
            ),
            size=alt.Size("area:Q", scale=None, legend=None),
            tooltip=tooltip,
        )
    )
    label = (
        alt.Chart(alt.Data(values=[row for row in rows if row["what"] == "chosen"]))
        .mark_text(**_beside(points, measure), fontSize=11.5, fontWeight="bold", font=FONT)
        .encode(x=x, y=y, text="label:N", color=alt.value("currentColor"))
    )
    layers = [line, marks, label]
    if limit_bytes is not None and limit_bytes <= 1.25 * largest:
        layers.append(
            alt.Chart(alt.Data(values=[{"sram": limit_bytes, "kilobytes": limit_bytes / 1024}]))
            .mark_rule(color="currentColor", strokeDash=[4, 3], strokeWidth=1.2)
            .encode(x=x, tooltip=[alt.Tooltip("sram:Q", title="SRAM there is", format=",")])
        )
    return finish(alt.layer(*layers), 260)


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
