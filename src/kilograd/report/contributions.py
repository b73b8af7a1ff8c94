"""The plots of a search, as SVG files: contributions, and gain against SRAM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kilograd.errors import InputError
from kilograd.planning.facts import Kind
from kilograd.report.palette import KINDS
from kilograd.search.found import Found
from kilograd.search.table import Contributions

Spec = dict[str, Any]

_WIDTH = 560
_BIAS, _WEIGHT = KINDS[Kind.COTANGENT], KINDS[Kind.SAVED]
_ROW_HEIGHT = 15


def write_charts(found: Found, directory: Path) -> list[Path]:
    """Write contributions.svg and front.svg; nothing where the libraries of `kilograd[report]` are
    missing. Returns what was written; raises InputError where it cannot.
    """
    try:
        import altair  # noqa: F401
        import vl_convert
    except ImportError:
        return []
    specs = {"contributions.svg": contributions(found.contributions), "front.svg": front(found)}
    written = []
    for name, spec in specs.items():
        path, partial = directory / name, directory / f".{name}.partial"
        try:
            partial.write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error}") from error
        written.append(path)
    return written


def contributions(found: Contributions) -> Spec:
    """Above, the gain of the biases of the last k layers with its spread; below, a row a layer and
    a column a ratio, the gain of that part of its weight in points.
    """
    alt = _altair()
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
    """The sum of contributions of the best schemes against the SRAM of their programs, hollow where
    a better one is not excluded; and what they gain when they are trained, with the spread.
    """
    alt = _altair()
    rows = [
        {
            "sram": point.sram_bytes / 1024,
            "gain": 100 * point.gain,
            "told": "proven best" if point.proven else "with a gap",
        }
        for point in found.front
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("sram:Q", title="SRAM of the program, KB", scale=alt.Scale(zero=False)),
        y=alt.Y("gain:Q", title="points over the head alone"),
    )
    line = base.mark_line(interpolate="step-after", color=_WEIGHT)
    points = base.mark_point(size=60, color=_WEIGHT, strokeWidth=1.5).encode(
        fill=alt.condition("datum.told == 'proven best'", alt.value(_WEIGHT), alt.value("white"))
    )
    real = [
        {
            "sram": point.sram_bytes / 1024,
            "gain": 100 * point.realised.mean,
            "low": 100 * (point.realised.mean - point.realised.spread),
            "high": 100 * (point.realised.mean + point.realised.spread),
        }
        for point in found.front
        if point.realised is not None
    ]
    trained = alt.Chart(alt.Data(values=real)).encode(x="sram:Q")
    bars = trained.mark_rule(color=_BIAS).encode(y="low:Q", y2="high:Q")
    dots = trained.mark_point(size=60, filled=True, color=_BIAS, shape="square").encode(y="gain:Q")
    layers = [line, points, *([bars, dots] if real else [])]
    title = "blue: sum of contributions; orange: trained"
    return _spec(alt.layer(*layers).properties(width=_WIDTH, height=260, title=title))


def _altair() -> Any:
    # An extra: only plots need it.
    import altair

    return altair


def _spec(chart: Any) -> Spec:
    spec: Spec = chart.configure_view(strokeWidth=0).to_dict()
    return spec
