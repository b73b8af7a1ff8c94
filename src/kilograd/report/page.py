"""A program and what was seen of its runs become one HTML page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from kilograd.errors import InputError
from kilograd.execution.session import History
from kilograd.figures import Figures, counted
from kilograd.planning.costs import Estimate, rounded, total, with_prefix
from kilograd.planning.explain import PeakExplanation, explain_peak
from kilograd.planning.facts import Kind, Phase
from kilograd.planning.front import FrontPoint, efficient, measure_of
from kilograd.planning.layers import LayerFacts
from kilograd.report import charts
from kilograd.report.choices import quantity
from kilograd.report.gaps import gap_dashes
from kilograd.report.html import html, write_html
from kilograd.report.palette import FRONT, KINDS, PHASES, USES
from kilograd.report.runtime import require_charts

if TYPE_CHECKING:
    from kilograd.program import Program

Runs = Sequence[History] | Mapping[str, History]
Sample = tuple[ArrayLike, ArrayLike | None]
Fronts = Mapping[str, Sequence[FrontPoint]]


def write(
    program: Program,
    path: str | Path,
    *,
    runs: Runs = (),
    sample: Sample | None = None,
    fronts: Fronts | None = None,
) -> Path:
    """Write the report, whole or not at all; see `Program.report`."""
    target = Path(path)
    text = render(program, runs=runs, sample=sample, fronts=fronts)
    write_html(target, text, "the report")
    return target


def render(
    program: Program,
    *,
    runs: Runs = (),
    sample: Sample | None = None,
    fronts: Fronts | None = None,
) -> str:
    """The HTML of the report; the same text for the same arguments."""
    require_charts()
    named = _named(runs)
    figures = program.figures
    if sample is not None:
        figures = counted(figures, program.device, program.instructions_by_node(*sample))
    graph = program.train.graph
    specs = {
        "memory-map": charts.memory_map(figures, graph),
        "memory-uses": charts.memory_uses(figures),
        "timeline": charts.timeline(figures),
        "layer-work": charts.layer_work(figures),
    }
    if any(history.losses for history in named.values()):
        specs["losses"] = charts.losses(named)
    if any(history.validation_accuracies for history in named.values()):
        specs["validation"] = charts.accuracies(named)
    elif any(history.validation_losses for history in named.values()):
        specs["validation"] = charts.validation_losses(named)
    confused = {
        f"confusion-{index}": name
        for index, (name, history) in enumerate(named.items())
        if 0 < len(history.confusion) <= charts.MOST_CLASSES
    }
    for chart, name in confused.items():
        specs[chart] = charts.confusion(named[name].confusion)
    choices = [_front(name, points) for name, points in (fronts or {}).items()]
    room = figures.rooms[0].available_bytes
    for choice, points in zip(choices, (fronts or {}).values(), strict=True):
        specs[choice["id"]] = charts.front(points, room)
    absent = {gap.kind.value for gap in figures.gaps}
    context = {
        "figures": figures,
        "model": Path(figures.model).name,
        "verdict": _verdict(figures),
        "rooms": _rooms(figures),
        "facts": _facts(figures),
        "legends": {
            "kinds": [(k.value, KINDS[k]) for k in Kind if k in {f.kind for f in figures.buffers}],
            "phases": [(p.value, PHASES[p]) for p in Phase],
            "runs": charts.run_marks(list(named)),
            "gaps": {name: dash for name, dash in gap_dashes().items() if name in absent},
            "front": FRONT,
        },
        "kind_colors": {kind.value: color for kind, color in KINDS.items()}
        | {"free": USES["free"]},
        "peak": _peak(explain_peak(program.train)),
        "layers": _layers(figures),
        "plan": figures.plan,
        "moves": _by_layer(figures),
        "unit": charts.unit_of_work(figures),
        "runs": [_run(name, history) for name, history in named.items()],
        "estimates": _estimates(figures),
        "fronts": choices,
        "confused": confused,
    }
    return html("report.html.j2", specs, context)


def blank_sample(program: Program) -> Sample:
    """Zeros as input and target: what a step costs hardly depends on the numbers."""
    interface = program.interface
    target = interface.target_type
    return np.zeros(interface.input.shape), None if target is None else np.zeros(target.size)


def _named(runs: Runs) -> dict[str, History]:
    if isinstance(runs, History):
        runs = [runs]
    if isinstance(runs, Mapping):
        named = dict(runs)
    else:
        single = len(runs) == 1
        named = {"run" if single else f"run {i + 1}": run for i, run in enumerate(runs)}
    for name, run in named.items():
        if not isinstance(run, History):
            raise InputError(
                f"runs: {name} is {type(run).__name__}; pass what Session.fit returns, in a list "
                "or in a mapping from names"
            )
        curves = (run.losses, run.validation_losses, run.validation_accuracies)
        if not all(math.isfinite(number) for curve in curves for number in curve):
            raise InputError(f"runs: {name} has numbers that are not finite, which have no curve")
    return named


def _verdict(figures: Figures) -> dict[str, Any]:
    """The sentence at the top: does it fit, and how much is left."""
    limited = [room for room in figures.rooms if room.available_bytes is not None]
    if not limited:
        place = "this computer" if figures.device == "host" else figures.device
        return {
            "state": "open",
            "title": f"Compiled for {place}",
            "text": "It has no memory limits. Compile for a microcontroller to see if it fits.",
        }
    broken = [room for room in limited if not room.fits]
    if broken:
        parts = [
            f"{room.used_bytes - (room.available_bytes or 0):,} bytes too many for the {room.name}"
            for room in broken
        ]
        return {"state": "bad", "title": "Does not fit", "text": ", ".join(parts) + "."}
    parts = [
        f"{(room.available_bytes or 0) - room.used_bytes:,} bytes of {room.name}"
        for room in limited
    ]
    return {
        "state": "good",
        "title": f"Fits the {'budget' if _by_budget(figures) else 'device'}",
        "text": f"{' and '.join(parts)} are left for your application.",
    }


def _by_budget(figures: Figures) -> bool:
    return any(room.limit == "budget" for room in figures.rooms)


def _rooms(figures: Figures) -> list[dict[str, Any]]:
    rows = []
    for room, uses in zip(figures.rooms, (figures.sram, figures.flash), strict=True):
        available = room.available_bytes
        rows.append(
            {
                "name": room.name,
                "used": room.used_bytes,
                "available": available,
                "share": room.used_bytes / available if available else None,
                "limit": room.limit,
                "uses": [(use, USES.get(use.name, USES["other data"])) for use in uses],
            }
        )
    return rows


def _facts(figures: Figures) -> list[tuple[str, str, str]]:
    """The key figures: title, value, remark."""
    elements = sum(p.elements for p in figures.parameters)
    trained = sum(p.trained for p in figures.parameters)
    ratio = figures.macs.train_step / max(figures.macs.predict, 1)
    facts = [
        (
            "MACs of a prediction",
            f"{figures.macs.predict:,}",
            f"{figures.predict_operators} operators",
        ),
        ("MACs of a training step", f"{figures.macs.train_step:,}", f"{ratio:.1f} x a prediction"),
        ("trained parameters", f"{trained:,}", f"{_percent(trained, elements)} of {elements:,}"),
    ]
    step = figures.train_step
    if step.instructions is not None:
        remark = ", ".join(_amounts(step)[1:]) or "on the emulated device"
        number = (
            f"{step.instructions:,}"
            if charts.unit_of_work(figures) == charts.INSTRUCTIONS
            else _amounts(step)[0]
        )
        facts.append(("instructions of a training step", number, remark))
    elif step.seconds is not None:
        facts.append(("a training step", _amounts(step)[0], ", ".join(_amounts(step)[1:])))
    return facts


def _amounts(estimate: Estimate) -> list[str]:
    """What is known of instructions, time and energy, each as text."""
    known = (
        estimate.instructions is not None and f"about {rounded(estimate.instructions):,}",
        estimate.seconds is not None and f"about {with_prefix(estimate.seconds, 's')}",
        estimate.joules is not None and f"about {with_prefix(estimate.joules, 'J')}",
    )
    return [text for text in known if text]


def _number(instructions: int | None, unit: str) -> int | None:
    """Counted instructions as they are, estimated ones without figures that mean nothing."""
    if instructions is None or unit == charts.INSTRUCTIONS:
        return instructions
    return rounded(instructions)


def _estimates(figures: Figures) -> list[str]:
    """How far to trust what is estimated."""
    counted = charts.unit_of_work(figures) == charts.INSTRUCTIONS
    return [
        f"Estimate: {sentence}."
        for sentence in figures.estimates
        if not (counted and sentence.startswith("instructions"))
    ]


def _peak(peak: PeakExplanation, limit: int = 8) -> dict[str, Any]:
    rows = peak.tensors[:limit]
    colors = {kind.value: color for kind, color in KINDS.items()}
    return {
        "running": peak.running,
        "bytes": peak.peak_bytes,
        "rows": [(tensor, colors[tensor.kind]) for tensor in rows],
        "others": len(peak.tensors) - len(rows),
        "others_bytes": sum(t.size_bytes for t in peak.tensors[limit:]),
        "remedies": peak.remedies,
    }


def _layers(figures: Figures) -> list[dict[str, Any]]:
    rows = [_layer(figures, layer) for layer in figures.layers]
    largest = max((row["share"] for row in rows), default=0) or 1
    return [row | {"of_largest": row["share"] / largest} for row in rows]


def _layer(figures: Figures, layer: LayerFacts) -> dict[str, Any]:
    own = [figures.steps[index] for indices in layer.nodes.values() for index in indices]
    unit, estimate = charts.unit_of_work(figures), total(step.estimate for step in own)
    work, whole = charts.work_of(own, unit), charts.work_of(figures.steps, unit)
    trained = sum(p.trained for p in layer.parameters)
    elements = sum(p.elements for p in layer.parameters)
    return {
        "name": layer.name,
        "source": layer.source,
        "type": layer.type,
        "forward_macs": layer.macs[Phase.FORWARD],
        "backward_macs": sum(layer.macs.values()) - layer.macs[Phase.FORWARD],
        "instructions": _number(estimate.instructions, unit),
        "time": "" if estimate.seconds is None else with_prefix(estimate.seconds, "s"),
        "energy": "" if estimate.joules is None else with_prefix(estimate.joules, "J"),
        "share": work / max(whole, 1),
        "saved_bytes": layer.saved_bytes,
        "state_bytes": sum(p.weight_bytes + p.optimizer_bytes for p in layer.parameters),
        "frozen_bytes": sum(p.frozen_bytes + p.initial_bytes for p in layer.parameters),
        "parameters": layer.parameters,
        "status": _status(trained, elements),
    }


def _by_layer(figures: Figures) -> list[dict[str, Any]]:
    """What the plan of the training step costs each layer, the dearest first."""
    rows: dict[str, dict[str, Any]] = {}
    for tensor in (t for told in figures.plan.functions[-1:] for t in told.tensors):
        name = tensor.layer.removeprefix("backward of ").split(" (")[0]
        if tensor.how == "stored":
            name = tensor.layer.rpartition(".")[0] or name
        row = rows.setdefault(
            name,
            {"layer": name, "reads": 0, "writes": 0, "again": 0, "stored": 0, "joules": 0.0,
             "seconds": 0.0},
        )  # fmt: skip
        row["reads"] += tensor.page_ins
        row["writes"] += tensor.page_outs
        row["again"] += tensor.reruns
        row["stored"] += tensor.size_bytes if tensor.how == "stored" else 0
        row["joules"] += tensor.price.joules or 0.0
        row["seconds"] += tensor.price.seconds or 0.0
    return sorted(rows.values(), key=lambda row: (-row["joules"], -row["seconds"], row["layer"]))


def _status(trained: int, elements: int) -> str:
    if not elements:
        return ""
    return "trained" if trained == elements else "in part" if trained else "frozen"


def _run(name: str, history: History) -> dict[str, Any]:
    count = max(1, len(history.losses) // 20)
    first, last = history.losses[:count], history.losses[-count:]
    accuracies, run_losses = history.validation_accuracies, history.validation_losses
    return {
        "name": name,
        "steps": len(history.losses),
        "first_loss": f"{sum(first) / count:.4f}" if first else "",
        "last_loss": f"{sum(last) / count:.4f}" if last else "",
        "validation_loss": f"{run_losses[-1]:.4f}" if run_losses else "",
        "accuracy": f"{accuracies[-1]:.1%}" if accuracies else "",
        "best": f"{max(accuracies):.1%}" if accuracies else "",
    }


def _front(name: str, points: Sequence[FrontPoint]) -> dict[str, Any]:
    """The choices of a front for the page, those that no other beats; by SRAM."""
    on_front = efficient(points, measure_of(points))
    rows = [
        {
            "label": point.label,
            "sram": point.sram_bytes,
            "time": quantity(point.seconds, "s"),
            "energy": quantity(point.joules, "J"),
            "gain": "" if point.gain is None else f"{point.gain:.4g}",
            "chosen": point.chosen,
            "note": point.note,
        }
        for point, best in zip(points, on_front, strict=True)
        if best or point.chosen
    ]
    rows.sort(key=lambda row: (row["sram"], row["label"]))
    columns = [key for key in ("time", "energy", "gain") if any(row[key] for row in rows)]
    identity = "front-" + re.sub(r"\W+", "-", name).strip("-").lower()
    return {
        "id": identity,
        "name": name,
        "rows": rows,
        "columns": columns,
        "beaten": len(points) - len(rows),
    }


def _percent(part: int, whole: int) -> str:
    share = part / max(whole, 1)
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"
