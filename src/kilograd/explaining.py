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

if TYPE_CHECKING:
    from kilograd.program import Program

Explanation = PeakExplanation | ValueExplanation | WeightExplanation | LayersExplanation

SUBJECTS = ("peak", "value", "weight", "layer")


def explain(program: Program, subject: str, name: str = "") -> Explanation:
    """See `Program.explain`."""
    if subject not in SUBJECTS:
        raise InputError(unknown("subject of explanations", subject, SUBJECTS))
    if subject == "peak":
        if name:
            raise InputError(f"the peak has no name: explain it without {name!r}")
        return explain_peak(program.train)
    if not name:
        raise InputError(f"name the {subject} to explain, such as {_example(program, subject)!r}")
    if subject == "value":
        return explain_value(program.train, name)
    parts = program.forward, program.update, program.train, name
    return explain_weight(*parts) if subject == "weight" else explain_layer(*parts, program.device)


def to_json(explanation: Explanation) -> str:
    """The fields of an explanation as JSON."""
    return json.dumps(dataclasses.asdict(explanation), indent=2) + "\n"


def _example(program: Program, subject: str) -> str:
    if subject == "value":
        return program.train.graph.nodes[0].outputs[0].name
    if subject == "weight":
        return next(p.name for p in program.figures.parameters)
    return program.figures.layers[0].name
