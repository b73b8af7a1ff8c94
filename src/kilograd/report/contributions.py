"""The plots of a search, as SVG files: contributions, and gain against SRAM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kilograd.errors import InputError
from kilograd.planning.facts import Kind
from kilograd.report import choices
from kilograd.report.drawing import Spec, altair_module, finish, svg
from kilograd.report.palette import KINDS
from kilograd.report.runtime import require_charts
from kilograd.saving import write_file
from kilograd.search.found import Found
from kilograd.search.table import Contributions

_WIDTH = 560
_BIAS, _WEIGHT = KINDS[Kind.COTANGENT], KINDS[Kind.SAVED]
_ROW_HEIGHT = 15


def write_charts(found: Found, directory: Path) -> list[Path]:
    """Write contributions.svg and front.svg; nothing where the libraries of `kilograd[report]` are
    missing. Returns what was written; raises InputError where it cannot.
    """
    try:
        require_charts()
    except InputError:
        return []
    specs = {"contributions.svg": contributions(found.contributions), "front.svg": front(found)}
    written = []
    for name, spec in specs.items():
        write_file(directory / name, svg(spec).encode(), "the plot")
        written.append(directory / name)
    return written


def contributions(found: Contributions) -> Spec:
    """Above, the gain of the biases of the last k layers with its spread; below, a row a layer and
    a column a ratio, the gain of that part of its weight in points.
    """
    alt = altair_module()
    rows = [
        {
            "k": k,
            "gain": 100 * gain.mean,
            "low": 100 * (gain.mean - gain.spread),
            "high": 100 * (gain.mean + gain.spread),
        }
        for k, gain in sorted(found.biases.items())
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "k:Q", title="biases of the last k layers", axis=alt.Axis(tickMinStep=1, format="d")
        ),
    )
    band = base.mark_area(opacity=0.2, color=_BIAS).encode(
        y=alt.Y("low:Q", title="points over the head alone"), y2="high:Q"
    )
    line = base.mark_line(color=_BIAS, point=alt.OverlayMarkDef(color=_BIAS)).encode(y="gain:Q")
    above = alt.layer(band, line).properties(width=_WIDTH, height=180)
    cells = [
        {
            "layer": path,
            "ratio": str(ratio),
            "order": float(ratio),
            "gain": 100 * found.weights[path, ratio].mean,
        }
        for path in found.layers
        for ratio in found.ratios(path)
    ]
    if not cells:
        return _spec(above)
    most = 100 * max(abs(gain.mean) for gain in found.weights.values()) or 1.0
    grid = alt.Chart(alt.Data(values=cells)).encode(
        x=alt.X(
            "ratio:N",
            sort=alt.EncodingSortField("order"),
            title="ratio of the weight",
            axis=alt.Axis(labelAngle=0),
        ),
        y=alt.Y("layer:N", sort=list(found.layers), title=None),
    )
    fill = grid.mark_rect().encode(
        color=alt.Color(
            "gain:Q",
            scale=alt.Scale(domain=[-most, 0, most], range=[_BIAS, "#ffffff", _WEIGHT]),
            legend=alt.Legend(title="points"),
        )
    )
    text = grid.mark_text(fontSize=9).encode(
        text=alt.Text("gain:Q", format="+.1f"),
        color=alt.condition(
            f"abs(datum.gain) > {0.6 * most}", alt.value("white"), alt.value("black")
        ),
    )
    below = alt.layer(fill, text).properties(
        width=_WIDTH - 200, height=_ROW_HEIGHT * len(found.layers)
    )
    return _spec(alt.vconcat(above, below).resolve_scale(color="independent"))


def front(found: Found) -> Spec:
    """The sum of contributions of the best schemes against the SRAM of their programs, with another
    mark where a better one is not excluded; and what they gain when they are trained.
    """
    return choices.front(
        found.choices(), beside=found.realised(), gain="points over the head alone", by_kind=True
    )


def additivity(points: Sequence[Mapping[str, Any]]) -> Spec:
    """Realised against predicted gain; on the line the sum of contributions is what happens.

    Each point has `name`, `kind`, `predicted` and `realised`, fractions.
    """
    alt = altair_module()
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
    x = alt.X("predicted:Q", title="predicted gain, points")
    y = alt.Y("realised:Q", title="realised gain, points")
    line = (
        alt.Chart(alt.Data(values=diagonal))
        .mark_line(strokeDash=[4, 4], color="currentColor", opacity=0.6)
        .encode(x=x, y=y)
    )
    marks = choices.kind_marks([str(row["kind"]) for row in rows])
    tooltip = [
        alt.Tooltip("name:N"),
        alt.Tooltip("predicted:Q", format=".2f"),
        alt.Tooltip("realised:Q", format=".2f"),
    ]
    dots = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(size=70, filled=True, opacity=1)
        .encode(x=x, y=y, tooltip=tooltip, **marks)
    )
    return finish(alt.layer(line, dots), 360)


def _spec(chart: Any) -> Spec:
    spec: Spec = chart.configure_view(strokeWidth=0).to_dict()
    return spec
