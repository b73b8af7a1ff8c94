"""The charts of a report, as Vega-Lite by Altair: figures in, specifications out.

Every chart takes the width of its place on the page, and texts take the colour of the page.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from kilograd.execution.session import History
from kilograd.figures import Figures, Step
from kilograd.ir import Graph
from kilograd.planning.explain import kept_for
from kilograd.planning.facts import BufferFacts, Kind, Phase
from kilograd.report.choices import front as front
from kilograd.report.confusion import MOST_CLASSES as MOST_CLASSES
from kilograd.report.confusion import confusion as confusion
from kilograd.report.drawing import FONT as _FONT
from kilograd.report.drawing import Spec, byte_ticks
from kilograd.report.drawing import altair_module as _altair
from kilograd.report.drawing import color_of as _color
from kilograd.report.drawing import finish as _finish
from kilograd.report.drawing import kilobytes as _kilobytes
from kilograd.report.gaps import gap_marks
from kilograd.report.palette import KINDS, PHASES, USES, ink_on

MACS = "multiply-accumulates"
INSTRUCTIONS = "instructions"

_AXIS_HEIGHT = 52
"""Pixels of a horizontal axis with its title, and of the padding."""

_KIND_COLORS = {kind.value: color for kind, color in KINDS.items()}
_PHASE_COLORS = {phase.value: color for phase, color in PHASES.items()}
_RUN_COLORS = [KINDS[k] for k in (Kind.SAVED, Kind.COTANGENT, Kind.GRADIENT, Kind.ACTIVATION)]
_DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 4]]


def memory_map(figures: Figures, graph: Graph) -> Spec:
    """The arena during a training step: time to the right, addresses upwards, a box a buffer."""
    alt = _altair()
    arena, count = figures.memory.arena_bytes, max(len(figures.steps), 1)
    data = alt.Data(values=[_box(figures, graph, facts) for facts in figures.buffers])
    x = alt.X(
        "first:Q",
        scale=alt.Scale(domain=[0, count], nice=False),
        title="node, in order of execution",
        axis=alt.Axis(ticks=False, labelPadding=13),
    )
    ticks = byte_ticks(arena)
    y_axis = alt.Axis(values=ticks, labelExpr=_kilobytes(arena), title="address in the arena")
    y_scale = alt.Scale(domain=[0, arena], nice=False)
    tooltip = [
        alt.Tooltip("name:N", title="tensor"),
        *([alt.Tooltip("again:N", title="in the arena")] if figures.gaps else []),
        alt.Tooltip("shares:N", title="shared with"),
        alt.Tooltip("type:N"),
        alt.Tooltip("layer:N"),
        alt.Tooltip("kind:N", title="what"),
        alt.Tooltip("bytes:Q", format=","),
        alt.Tooltip("place:N", title="address"),
        alt.Tooltip("alive:N", title="alive during"),
        alt.Tooltip("keeper:N", title="kept alive by"),
    ]
    find = alt.param(
        name="find",
        value="",
        bind=alt.binding(
            input="search", placeholder="part of a name", name="find a tensor or layer"
        ),
    )
    texts = "lower(datum.name + ' ' + datum.shares + ' ' + datum.layer)"
    found = f"!find || indexof({texts}, lower(find)) >= 0"
    base = alt.Chart(data)
    boxes = base.mark_rect(stroke="rgba(255,255,255,0.55)", strokeWidth=0.6).encode(
        x=x,
        x2="last:Q",
        y=alt.Y("bottom:Q", scale=y_scale, axis=y_axis),
        y2="top:Q",
        color=_color("kind", _KIND_COLORS, _kinds(figures)),
        opacity=alt.condition(found, alt.value(1), alt.value(0.12)),
        tooltip=tooltip,
    )
    room = f"width * (datum.last - datum.first) / {count}"
    tall = f"height * (datum.top - datum.bottom) / {arena}"
    fits = f"{room} > 6.2 * length(datum.name) + 8 && {tall} > 12"
    labels = base.mark_text(
        align="left",
        baseline="middle",
        dx=5,
        fontSize=10.5,
        font=_FONT,
        color=alt.expr("datum.ink"),
        text=alt.expr(f"{fits} ? datum.name : ''"),
    ).encode(
        x="first:Q",
        y=alt.Y("middle:Q", scale=y_scale),
        opacity=alt.condition(found, alt.value(1), alt.value(0.25)),
        tooltip=tooltip,
    )
    at = figures.peak_step
    side = "right" if at > count / 2 else "left"
    ends = alt.Data(values=[{"x": at}, {"x": at + 1}])
    lines = (
        alt.Chart(ends)
        .mark_rule(color="currentColor", strokeWidth=1.2, strokeDash=[4, 3])
        .encode(x="x:Q")
    )
    title = (
        alt.Chart(alt.Data(values=[{"x": at + 0.5}]))
        .mark_text(
            align=side,
            dx=-4 if side == "right" else 4,
            dy=-10,
            fontWeight="bold",
            fontSize=11.5,
            color="currentColor",
            font=_FONT,
            clip=False,
        )
        .encode(x="x:Q", y=alt.value(0), text=alt.value(f"peak: {figures.peak_bytes:,} B alive"))
    )
    strip = (
        alt.Chart(alt.Data(values=_phase_runs(figures)))
        .mark_rect(color=alt.expr("datum.color"), clip=False)
        .encode(
            x=alt.X("first:Q"),
            x2="last:Q",
            y=alt.value(alt.expr("height + 4")),
            y2=alt.value(alt.expr("height + 10")),
            tooltip=[alt.Tooltip("phase:N"), alt.Tooltip("nodes:N")],
        )
    )
    layers = [boxes, labels, strip, lines, title]
    if figures.gaps:
        layers[1:1] = gap_marks(figures, y_scale)
    return _finish(alt.layer(*layers).add_params(find), 390)


def memory_uses(figures: Figures) -> Spec:
    """SRAM and flash, each a bar of its device's size, by what uses them."""
    alt = _altair()
    rows = []
    for room, uses in zip(figures.rooms, (figures.sram, figures.flash), strict=True):
        whole = max(room.available_bytes or 0, room.used_bytes, 1)
        start = 0
        for order, use in enumerate(uses):
            rows.append(
                {
                    "memory": room.name,
                    "use": use.name,
                    "what": use.what,
                    "bytes": use.size_bytes,
                    "from": start / whole,
                    "to": (start + use.size_bytes) / whole,
                    "share": use.size_bytes / whole,
                    "order": order,
                }
            )
            start += use.size_bytes
    names = list(dict.fromkeys(str(row["use"]) for row in rows))
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(stroke="rgba(255,255,255,0.6)", strokeWidth=0.6, height=26)
        .encode(
            y=alt.Y(
                "memory:N",
                sort=["SRAM", "flash"],
                title=None,
                axis=alt.Axis(labelFontSize=12, ticks=False, domain=False),
            ),
            x=alt.X(
                "from:Q",
                scale=alt.Scale(domain=[0, 1]),
                title="share of the device",
                axis=alt.Axis(format="%", tickCount=5),
            ),
            x2="to:Q",
            color=_color("use", USES, names),
            tooltip=[
                alt.Tooltip("memory:N"),
                alt.Tooltip("use:N", title="part"),
                alt.Tooltip("what:N", title="what"),
                alt.Tooltip("bytes:Q", format=","),
                alt.Tooltip("share:Q", format=".1%", title="of the device"),
            ],
        )
    )
    return _finish(chart, 46 * len(figures.rooms) + _AXIS_HEIGHT)


def timeline(figures: Figures) -> Spec:
    """The operators of a step in order, as wide as their work, in a lane a phase."""
    alt = _altair()
    unit = unit_of_work(figures)
    rows, start = [], 0
    for step in figures.steps:
        work = work_of([step], unit)
        rows.append(
            {
                "phase": step.phase.value,
                "from": start,
                "to": start + work,
                "work": work,
                "operator": step.operator,
                "layer": step.layer,
                "macs": step.macs,
                "alive": step.live_bytes,
                "node": step.index,
            }
        )
        start += work
    lanes = [phase.value for phase in Phase]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(height=20, stroke="rgba(255,255,255,0.6)", strokeWidth=0.5)
        .encode(
            x=alt.X(
                "from:Q",
                title=f"{unit} since the step began",
                scale=alt.Scale(domain=[0, max(start, 1)], nice=False),
                axis=alt.Axis(labelExpr="format(datum.value, '~s')", tickCount=6),
            ),
            x2="to:Q",
            y=alt.Y(
                "phase:N",
                sort=lanes,
                title=None,
                scale=alt.Scale(domain=lanes),
                axis=alt.Axis(ticks=False, domain=False, labelFontSize=12),
            ),
            color=_color("phase", _PHASE_COLORS, lanes),
            tooltip=[
                alt.Tooltip("operator:N"),
                alt.Tooltip("layer:N"),
                alt.Tooltip("node:Q", title="node"),
                *([alt.Tooltip("work:Q", format=",", title=unit)] if unit != MACS else []),
                alt.Tooltip("macs:Q", format=",", title="MACs"),
                alt.Tooltip("alive:Q", format=",", title="bytes alive"),
            ],
        )
    )
    return _finish(chart, 32 * len(Phase) + _AXIS_HEIGHT)


def layer_work(figures: Figures) -> Spec:
    """The work of each layer by phase, in the order of the model."""
    alt = _altair()
    unit = unit_of_work(figures)
    rows = []
    for layer in figures.layers:
        for phase in Phase:
            work = work_of([figures.steps[i] for i in layer.nodes[phase]], unit)
            if work:
                rows.append({"layer": layer.name, "phase": phase.value, "work": work})
    names = list(dict.fromkeys(str(row["layer"]) for row in rows))
    lanes = [phase.value for phase in Phase]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .transform_calculate(order=f"indexof({lanes!r}, datum.phase)")
        .mark_bar(height={"band": 0.72})
        .encode(
            y=alt.Y(
                "layer:N",
                sort=names,
                title=None,
                axis=alt.Axis(ticks=False, domain=False, labelLimit=150),
            ),
            x=alt.X(
                "work:Q",
                title=unit,
                axis=alt.Axis(labelExpr="format(datum.value, '~s')", tickCount=5),
            ),
            color=_color("phase", _PHASE_COLORS, lanes),
            order="order:Q",
            tooltip=[
                alt.Tooltip("layer:N"),
                alt.Tooltip("phase:N"),
                alt.Tooltip("work:Q", format=",", title=unit),
            ],
        )
    )
    return _finish(chart, 22 * len(names) + _AXIS_HEIGHT)


def losses(runs: Mapping[str, History]) -> Spec:
    """The loss of every step, smoothed over a fiftieth of the run, a line a run."""
    alt = _altair()
    rows = []
    for name, history in runs.items():
        for step, mean in smoothed(history.losses):
            rows.append({"run": name, "step": step, "loss": mean})
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(strokeWidth=2, interpolate="monotone")
        .encode(
            x=alt.X("step:Q", title="training step", axis=alt.Axis(tickCount=6)),
            y=alt.Y(
                "loss:Q", title="loss", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)
            ),
            **_runs(runs),
            tooltip=["run:N", alt.Tooltip("step:Q"), alt.Tooltip("loss:Q", format=".4f")],
        )
    )
    return _finish(chart, 220)


def accuracies(runs: Mapping[str, History]) -> Spec:
    """The accuracy on the validation data after every epoch, a line a run."""
    alt = _altair()
    curves = {name: history.validation_accuracies for name, history in runs.items()}
    y = alt.Y(
        "value:Q",
        title="accuracy on validation data",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format="%", tickCount=5),
    )
    return _by_epoch(runs, curves, y, alt.Tooltip("value:Q", format=".1%", title="accuracy"))


def validation_losses(runs: Mapping[str, History]) -> Spec:
    """The loss on the validation data after every epoch, a line a run."""
    alt = _altair()
    curves = {name: history.validation_losses for name, history in runs.items()}
    y = alt.Y(
        "value:Q",
        title="loss on validation data",
        scale=alt.Scale(zero=False),
        axis=alt.Axis(tickCount=5),
    )
    return _by_epoch(runs, curves, y, alt.Tooltip("value:Q", format=".4f", title="loss"))


def _by_epoch(
    runs: Mapping[str, History], curves: Mapping[str, Sequence[float]], y: Any, tooltip: Any
) -> Spec:
    alt = _altair()
    rows = [
        {"run": name, "epoch": epoch + 1, "value": value}
        for name, values in curves.items()
        for epoch, value in enumerate(values)
    ]
    epochs = max(len(values) for values in curves.values())
    x = alt.X(
        "epoch:Q",
        axis=alt.Axis(values=list(range(1, epochs + 1, -(-epochs // 8))), format="d"),
        scale=alt.Scale(domain=[1, max(epochs, 2)], nice=False),
    )
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(filled=True, size=42))
        .encode(x=x, y=y, **_runs(runs), tooltip=["run:N", "epoch:Q", tooltip])
    )
    return _finish(chart, 220)


def unit_of_work(figures: Figures) -> str:
    """What work is told in: instructions, counted or estimated, or else multiply-accumulates."""
    if figures.train_step.instructions is None:
        return MACS
    counted = all(step.instructions is not None for step in figures.steps)
    return INSTRUCTIONS if counted else f"estimated {INSTRUCTIONS}"


def work_of(steps: Sequence[Step], unit: str) -> int:
    """The work of steps in a unit of `unit_of_work`."""
    if unit == MACS:
        return sum(step.macs for step in steps)
    return sum(step.estimate.instructions or 0 for step in steps)


def smoothed(values: Sequence[float], points: int = 150) -> list[tuple[int, float]]:
    """Means of equal stretches, each at the last step of its stretch."""
    count = min(points, len(values))
    edges = [len(values) * i // count for i in range(count + 1)] if count else []
    return [
        (end, sum(values[begin:end]) / (end - begin)) for begin, end in itertools.pairwise(edges)
    ]


def _phase_runs(figures: Figures) -> list[dict[str, Any]]:
    """Stretches of nodes of one phase."""
    runs = []
    for phase, members in itertools.groupby(figures.steps, key=lambda step: step.phase):
        own = [step.index for step in members]
        first, last = own[0], own[-1]
        nodes = f"{first} to {last}" if last > first else f"{first}"
        color = PHASES[phase]
        runs.append(
            {"first": first, "last": last + 1, "phase": phase.value, "nodes": nodes, "color": color}
        )
    return runs


def _box(figures: Figures, graph: Graph, facts: BufferFacts) -> dict[str, Any]:
    life = facts.lifetime
    step = None if facts.writer is None else figures.steps[facts.writer]
    back = {gap.after: f"again, after it was {gap.kind.value}" for gap in figures.gaps}
    bottom, top = facts.offset_bytes, facts.offset_bytes + life.size_bytes
    count = len(figures.steps)
    return {
        "name": facts.name,
        "again": back.get(facts.name, "for the first time"),
        "shares": ", ".join(value.name for value in facts.values[1:]) or "no other",
        "type": str(facts.values[0].type) if facts.values else "bytes",
        "layer": "input of the program" if step is None else _where(step),
        "kind": facts.kind.value,
        "ink": ink_on(KINDS[facts.kind]),
        "bytes": life.size_bytes,
        "first": life.first,
        "last": min(life.last, count),
        "bottom": bottom,
        "top": top,
        "middle": (bottom + top) / 2,
        "place": f"{bottom:,} to {top:,}",
        "alive": f"nodes {life.first} to {min(life.last, count) - 1}",
        "keeper": kept_for(graph, facts),
    }


def _where(step: Step) -> str:
    text = f"{step.layer} ({step.source})" if step.source else step.layer
    return f"{text}, {step.phase.value}"


def _kinds(figures: Figures) -> list[str]:
    present = {facts.kind for facts in figures.buffers}
    return [kind.value for kind in Kind if kind in present]


def run_marks(names: Sequence[str]) -> dict[str, tuple[str, list[int]]]:
    """Colour and dash of each run: two ways to tell them apart."""
    return {
        name: (_RUN_COLORS[i % len(_RUN_COLORS)], _DASHES[i % len(_DASHES)])
        for i, name in enumerate(names)
    }


def _runs(runs: Mapping[str, History]) -> dict[str, Any]:
    alt, marks = _altair(), run_marks(list(runs))
    colors, dashes = zip(*marks.values(), strict=True)
    return {
        "color": alt.Color(
            "run:N", scale=alt.Scale(domain=list(marks), range=list(colors)), legend=None
        ),
        "strokeDash": alt.StrokeDash(
            "run:N", scale=alt.Scale(domain=list(marks), range=list(dashes)), legend=None
        ),
    }
