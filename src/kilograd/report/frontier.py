"""A frontier as one HTML page: the curve, and its table."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from kilograd.planning.facts import Kind
from kilograd.report.palette import KINDS
from kilograd.report.runtime import chart_runtime, require_charts
from kilograd.saving import write_file

Spec = dict[str, Any]


class Frontier(Protocol):
    """What the page tells of: `kilograd.Frontier`."""

    @property
    def network(self) -> str:
        """The name of the network."""

    @property
    def device(self) -> str:
        """The name of the device."""

    @property
    def points(self) -> Sequence[Any]:
        """Of `kilograd.FrontierPoint`."""


_MEASURES = (
    ("joules", "mJ a training step", 1e3, KINDS[Kind.SAVED]),
    ("seconds", "ms a training step", 1e3, KINDS[Kind.COTANGENT]),
)

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' \
'unsafe-eval'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1.5rem; }}
.chart {{ width: 100%; }}
pre {{ overflow-x: auto; font-size: 13px; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>Each point is a program that can be built, by the SRAM that it uses in all. The rightmost one
keeps everything in SRAM; those to its left read pages from storage or run operators again.</p>
{places}
<pre>{table}</pre>
<script>{runtime}</script>
<script>
(function () {{
  var specs = {specs};
  var options = {{actions: false, renderer: "svg"}};
  Object.keys(specs).forEach(function (name) {{
    vegaEmbed(document.getElementById(name), specs[name], options);
  }});
}})();
</script>
</body>
</html>
"""


def write_frontier(frontier: Frontier, path: str | Path) -> Path:
    """Write the page, whole or not at all.

    Raises InputError where the libraries of `kilograd[report]` are missing, or it cannot be
    written.
    """
    require_charts()
    specs = frontier_charts(frontier)
    places = "\n".join(
        f'<figure class="chart" id="{name}" role="img" aria-label="{name} of a training step '
        'against SRAM; the table below has the figures."></figure>'
        for name in specs
    )
    data = json.dumps(specs, separators=(",", ":"), sort_keys=True)
    for sign in "<>&":
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    text = _PAGE.format(
        title=html.escape(f"{frontier.network} on {frontier.device}: SRAM, energy, time"),
        places=places,
        table=html.escape(str(frontier)),
        runtime=chart_runtime(),
        specs=data,
    )
    target = Path(path)
    write_file(target, text.encode(), "the frontier")
    return target


def frontier_charts(frontier: Frontier) -> dict[str, Spec]:
    """Vega-Lite charts by what they show, of what the device has estimates of."""
    charts = {}
    for name, title, scale, color in _MEASURES:
        values = [getattr(point, name) for point in frontier.points]
        if None not in values:
            charts[name] = _chart(frontier, [value * scale for value in values], title, color)
    return charts


def _chart(frontier: Frontier, values: list[float], title: str, color: str) -> Spec:
    rows = [
        {
            "kilobytes": point.sram_bytes / 1024,
            "bytes": point.sram_bytes,
            "value": value,
            "reads": point.page_ins,
            "writes": point.page_outs,
            "again": point.recomputations,
            "stored": point.stored_bytes,
        }
        for point, value in zip(frontier.points, values, strict=True)
    ]
    axis = {"labelColor": "currentColor", "titleColor": "currentColor"}
    names = {"bytes": "SRAM, bytes", "value": title, "reads": "reads from storage",
             "writes": "writes to it", "again": "operators that run again",
             "stored": "bytes of weights in storage"}  # fmt: skip
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": "container",
        "height": 260,
        "background": None,
        "data": {"values": rows},
        "mark": {
            "type": "line",
            "interpolate": "step-after",
            "color": color,
            "point": {"color": color, "size": 70, "filled": True},
        },
        "encoding": {
            "x": {
                "field": "kilobytes",
                "type": "quantitative",
                "title": "SRAM in all, KB",
                "scale": {"zero": False, "padding": 12},
            },
            "y": {
                "field": "value",
                "type": "quantitative",
                "title": title,
                "scale": {"zero": False, "padding": 12},
            },
            "tooltip": [
                {"field": field, "type": "quantitative", "title": text, "format": ",.4~g"}
                if field == "value"
                else {"field": field, "type": "quantitative", "title": text, "format": ","}
                for field, text in names.items()
            ],
        },
        "config": {"view": {"stroke": None}, "axis": axis},
    }
