"""The explanations of a program by subject."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from kilograd.errors import InputError
from kilograd.planning.explain import (
    PeakExplanation,
    ValueExplanation,
    explain_peak,
    explain_value,
    unknown,
)
from kilograd.planning.explain_parts import (
    LayersExplanation,
    WeightExplanation,
    explain_layer,
    explain_weight,
)
from kilograd.planning.explain_plan import PlanExplanation, TensorPlan, explain_plan
from kilograd.planning.paging import Mover, least_bytes, node_prices

if TYPE_CHECKING:
    from kilograd.program import Program

Explanation = (
    PeakExplanation | ValueExplanation | WeightExplanation | LayersExplanation | PlanExplanation
)

SUBJECTS = ("peak", "value", "weight", "layer", "plan")


def explain(program: Program, subject: str, name: str = "") -> Explanation:
    """See `Program.explain`."""
    if subject not in SUBJECTS:
        raise InputError(unknown("subject of explanations", subject, SUBJECTS))
    if subject in ("peak", "plan"):
        if name:
            raise InputError(f"the {subject} has no name: explain it without {name!r}")
        if subject == "plan":
            return program.plan
        away = _away_at_peak(program)
        return dataclasses.replace(explain_peak(program.train), away=away)
    if not name:
        raise InputError(f"name the {subject} to explain, such as {_example(program, subject)!r}")
    if subject == "value":
        told = explain_value(program.train, name)
        return dataclasses.replace(told, plan=_moves_of(program, told.name))
    parts = program.forward, program.update, program.train, name
    if subject == "weight":
        return explain_weight(*parts)
    return explain_layer(*parts, program.device, program.storage_device)


def to_json(explanation: Explanation) -> str:
    """The fields of an explanation as JSON."""
    return json.dumps(dataclasses.asdict(explanation), indent=2) + "\n"


def _example(program: Program, subject: str) -> str:
    if subject == "value":
        return program.train.graph.nodes[0].outputs[0].name
    if subject == "weight":
        return next(p.name for p in program.figures.parameters)
    return program.figures.layers[0].name


def plan_of(program: Program) -> PlanExplanation:
    """See `Program.plan`."""
    names = ("predict", "train step")
    return explain_plan(
        dict(zip(names, program.plans, strict=True)) if program.plans else {},
        program.device,
        program.storage_device,
        program.storage,
        _kept(program),
    )


def _kept(program: Program) -> dict[str, str]:
    """What it would take to keep each stored weight in SRAM, by the name of the weight."""
    storage = program.storage_device
    if storage is None or not program.plans:
        return {}
    limit, _ = program.limits()
    used = program.memory.sram_bytes
    mover, texts = Mover(storage, program.device), {}
    requests = [
        (p.step.graph, node_prices(p.step.graph, program.device, None)) for p in program.plans
    ]
    graph = program.train.graph
    for value in sorted(graph.stored, key=lambda v: v.name):
        size = value.type.bytes
        if value in graph.constants:
            texts[value.name] = f"keep it in flash: {size:,} B more of it, which has no room"
            continue
        least = max(
            least_bytes(base, costs, graph.stored - {value}, mover, program.optimizer.atomic)
            for base, costs in requests
        )
        needed = used - program.arena_bytes + size + least
        if limit is not None and needed > limit:
            texts[value.name] = (
                f"keep it in SRAM: at least {needed - limit:,} B over the {limit:,} B, with the "
                f"{least:,} B of arena that no plan does without"
            )
        else:
            texts[value.name] = (
                f"keep it in SRAM: it would fit, but leave {size:,} B less for the arena, for "
                "which the plans that were compared cost more"
            )
    return texts


def _moves_of(program: Program, name: str) -> TensorPlan | None:
    """What the plan of the training step does with a value; a copy is explained by its original."""
    moved = {t.name: t for plan in program.plan.functions[-1:] for t in plan.tensors}
    while name not in moved and "." in name:
        name = name.rpartition(".")[0]
    return moved.get(name)


def _away_at_peak(program: Program) -> tuple[str, ...]:
    """The tensors that a plan keeps out of RAM at the peak, a line each."""
    node = explain_peak(program.train).node
    return tuple(
        f"{tensor.size_bytes:,} B  %{tensor.name} of {tensor.layer}, {tensor.how}"
        for plan in program.plan.functions[-1:]
        for tensor in plan.tensors
        if any(stretch.first < node < stretch.last for stretch in tensor.away)
    )
