"""Which classes were taken for which, as a chart."""

from __future__ import annotations

from collections.abc import Sequence

from kilograd.planning.facts import Kind
from kilograd.report.drawing import FONT, Spec, altair_module, finish
from kilograd.report.palette import KINDS, ink_on

MOST_CLASSES = 24
"""Of more classes the cells have no room for their numbers."""

_CELL_HEIGHT, _AXES_HEIGHT = 24, 44


def confusion(counts: Sequence[Sequence[int]]) -> Spec:
    """A row a class, a column what its samples were taken for: counts, shaded by their share of the
    row.
    """
    alt = altair_module()
    rows = [
        {
            "class": row,
            "taken": column,
            "count": count,
            "share": count / max(sum(line), 1),
            "text": str(count) if count else "",
        }
        for row, line in enumerate(counts)
        for column, count in enumerate(line)
    ]
    axis = {"ticks": False, "domain": False, "grid": False, "labelAngle": 0, "labelPadding": 6}
    color = KINDS[Kind.SAVED]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("taken:O", title="taken for", axis=alt.Axis(**axis)),
        y=alt.Y("class:O", title="class", axis=alt.Axis(**axis)),
        tooltip=[
            alt.Tooltip("class:O"),
            alt.Tooltip("taken:O", title="taken for"),
            alt.Tooltip("count:Q", title="samples"),
            alt.Tooltip("share:Q", format=".0%", title="of the class"),
        ],
    )
    cells = base.mark_rect(color=color, stroke="rgba(128,128,128,0.22)").encode(
        opacity=alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1]), legend=None)
    )
    numbers = base.mark_text(fontSize=11, font=FONT).encode(
        text="text:N",
        color=alt.condition(
            "datum.share > 0.8", alt.value(ink_on(color)), alt.value("currentColor")
        ),
    )
    return finish(alt.layer(cells, numbers), _CELL_HEIGHT * len(counts) + _AXES_HEIGHT)
