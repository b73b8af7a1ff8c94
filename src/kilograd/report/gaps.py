"""Tensors that leave the arena during a step and come back, as marks of the memory map."""

from __future__ import annotations

from typing import Any

from kilograd.figures import Figures
from kilograd.planning.facts import GapKind
from kilograd.report.drawing import altair_module


def gap_dashes() -> dict[str, list[int]]:
    """How the lines of absent tensors are dashed, by what reports call the absence."""
    return {GapKind.PAGED.value: [1, 0], GapKind.RECOMPUTED.value: [2, 3]}


def gap_marks(figures: Figures, y_scale: Any) -> list[Any]:
    """A line from the box that a tensor leaves to the one it comes back in, and a bar where that
    begins.
    """
    alt = altair_module()
    facts = {buffer.name: buffer for buffer in figures.buffers}
    rows = []
    for gap in figures.gaps:
        before, after = facts[gap.before], facts[gap.after]
        size = after.lifetime.size_bytes
        rows.append(
            {
                "tensor": gap.tensor,
                "absence": gap.kind.value,
                "bytes": size,
                "absent": f"nodes {gap.first} to {gap.last - 1}",
                "from": gap.first,
                "to": gap.last,
                "left": before.offset_bytes + before.lifetime.size_bytes / 2,
                "right": after.offset_bytes + size / 2,
                "bottom": after.offset_bytes,
                "top": after.offset_bytes + size,
            }
        )
    tooltip = [
        alt.Tooltip("tensor:N"),
        alt.Tooltip("absence:N", title="what"),
        alt.Tooltip("bytes:Q", format=","),
        alt.Tooltip("absent:N", title="absent during"),
    ]
    dashes = gap_dashes()
    base = alt.Chart(alt.Data(values=rows))
    lines = base.mark_rule(color="currentColor", strokeWidth=1.6, opacity=0.85).encode(
        x="from:Q",
        x2="to:Q",
        y=alt.Y("left:Q", scale=y_scale),
        y2="right:Q",
        strokeDash=alt.StrokeDash(
            "absence:N",
            scale=alt.Scale(domain=list(dashes), range=list(dashes.values())),
            legend=None,
        ),
        tooltip=tooltip,
    )
    bars = base.mark_rule(color="currentColor", strokeWidth=3).encode(
        x="to:Q", y=alt.Y("bottom:Q", scale=y_scale), y2="top:Q", tooltip=tooltip
    )
    return [lines, bars]
