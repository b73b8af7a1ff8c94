"""What all charts of a report have in common: fonts, axes, colours, and how a chart is finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]

GRID = "rgba(128,128,128,0.22)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
AXIS = {
    "labelColor": "currentColor",
    "titleColor": "currentColor",
    "gridColor": GRID,
    "domainColor": GRID,
    "tickColor": GRID,
    "labelFontSize": 11,
    "titleFontSize": 11,
    "titleFontWeight": "normal",
    "labelFont": FONT,
    "titleFont": FONT,
}


def altair_module() -> Any:
    """The library that makes the specifications."""
    # An extra: only reports need it.
    import altair

    return altair


def byte_ticks(limit: int) -> list[int]:
    """Round addresses, powers of two apart, at most eight."""
    step = 16
    while limit // step > 8:
        step *= 2
    return list(range(0, limit + 1, step))


def kilobytes(limit: int) -> str:
    """The expression that labels addresses up to `limit`: in bytes where there are few."""
    small = limit < 8 * 1024
    return "datum.value + ' B'" if small else "format(datum.value / 1024, ',') + ' KB'"


def color_of(
    field: str, colors: Mapping[str, str], names: Sequence[str], legend: Any = None
) -> Any:
    """A nominal field by its colours; without a legend of its own the page has one."""
    alt = altair_module()
    scale = alt.Scale(domain=list(names), range=[colors[name] for name in names])
    return alt.Color(f"{field}:N", scale=scale, legend=legend)


def finish(chart: Any, height: int) -> Spec:
    """The chart as a dictionary, as wide as its place."""
    chart = chart.properties(
        width="container",
        height=height,
        background="transparent",
        autosize={"type": "fit", "contains": "padding"},
        padding={"left": 4, "right": 12, "top": 8, "bottom": 4},
    )
    chart = chart.configure_view(strokeWidth=0).configure_axis(**AXIS)
    spec: Spec = chart.to_dict()
    return spec


def svg(spec: Spec, width: int = 560) -> str:
    """A chart as a picture of its own, `width` pixels wide, on white."""
    # An extra: only pictures need it.
    import vl_convert

    picture = {**spec, "background": "white"}
    if picture.get("width") == "container":
        picture["width"] = width
    text: str = vl_convert.vegalite_to_svg(picture)
    return text
