"""Charts of a scheme search, as Vega-Lite by Altair: points in, specifications out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kilograd.planning.facts import Kind
from kilograd.report.charts import _altair
from kilograd.report.palette import KINDS

Spec = dict[str, Any]

_COLORS = {
    "found": KINDS[Kind.SAVED],
    "published": KINDS[Kind.COTANGENT],
    "last layers": KINDS[Kind.GRADIENT],
    "biases": KINDS[Kind.ACTIVATION],
    "head": KINDS[Kind.SCRATCH],
}
_SHAPES = ["circle", "diamond", "square", "triangle-up", "cross"]


def front(
    points: Sequence[Mapping[str, Any]], *, value: str = "gain", title: str = "gain, points"
) -> Spec:
    """Gain (or another `value`, a fraction) against SRAM: found schemes as a line, others as marks.

    Each point has `name`, `kind`, `sram_bytes` and the value, and may have `spread`, the standard
    deviation of the value.
    """
    alt: Any = _altair()

    rows = [
        {
            "name": point["name"],
            "kind": point["kind"],
            "kilobytes": point["sram_bytes"] / 1024,
            "percent": 100 * point[value],
            "low": 100 * (point[value] - point.get("spread", 0.0)),
            "high": 100 * (point[value] + point.get("spread", 0.0)),
        }
        for point in points
    ]
    kinds = [kind for kind in _COLORS if any(row["kind"] == kind for row in rows)]
    color = alt.Color(
        "kind:N",
        title=None,
        scale=alt.Scale(domain=kinds, range=[_COLORS[kind] for kind in kinds]),
        legend=alt.Legend(orient="top"),
    )
    shape = alt.Shape("kind:N", title=None, scale=alt.Scale(domain=kinds, range=_SHAPES))
    x = alt.X("kilobytes:Q", title="SRAM, KB", scale=alt.Scale(zero=False))
    y = alt.Y("percent:Q", title=title, scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("name:N", title="scheme"),
        alt.Tooltip("kind:N"),
        alt.Tooltip("kilobytes:Q", title="SRAM, KB", format=".1f"),
        alt.Tooltip("percent:Q", title=title, format=".2f"),
    ]
    base = alt.Chart(alt.Data(values=rows))
    line = (
        base.transform_filter("datum.kind == 'found'")
        .mark_line(interpolate="step-after", strokeWidth=1.5)
        .encode(x=x, y=y, color=color)
    )
    marks = base.mark_point(size=70, filled=True, opacity=1).encode(
        x=x, y=y, color=color, shape=shape, tooltip=tooltip
    )
    spread = (
        base.transform_filter("datum.high > datum.low")
        .mark_rule()
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=color)
    )
    spec: Spec = (line + spread + marks).properties(width=560, height=320).to_dict()
    return spec


def additivity(points: Sequence[Mapping[str, Any]]) -> Spec:
    """Realised against predicted gain; on the line the sum of contributions is what happens.

    Each point has `name`, `kind`, `predicted` and `realised`, fractions.
    """
    alt: Any = _altair()

    rows = [
        {
            "name": point["name"],
            "kind": point["kind"],
            "predicted": 100 * point["predicted"],
            "realised": 100 * point["realised"],
        }
        for point in points
    ]
    ends = [row[key] for row in rows for key in ("predicted", "realised")] or [0.0]
    diagonal = [{"predicted": end, "realised": end} for end in (min(ends), max(ends))]
    kinds = [kind for kind in _COLORS if any(row["kind"] == kind for row in rows)]
    x = alt.X("predicted:Q", title="predicted gain, points")
    y = alt.Y("realised:Q", title="realised gain, points")
    line = alt.Chart(alt.Data(values=diagonal)).mark_line(strokeDash=[4, 4], color="gray")
    marks = alt.Chart(alt.Data(values=rows)).mark_point(size=70, filled=True, opacity=1)
    color = alt.Color(
        "kind:N",
        title=None,
        scale=alt.Scale(domain=kinds, range=[_COLORS[kind] for kind in kinds]),
        legend=alt.Legend(orient="top"),
    )
    tooltip = ["name:N", alt.Tooltip("predicted:Q", format=".2f"), alt.Tooltip("realised:Q")]
    chart = line.encode(x=x, y=y) + marks.encode(x=x, y=y, color=color, tooltip=tooltip)
    spec: Spec = chart.properties(width=360, height=360).to_dict()
    return spec


def write_svg(spec: Spec, path: str | Path) -> None:
    """Write a chart as SVG."""
    import vl_convert

    Path(path).write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
