"""A plan for a step: a list of events, what it costs, and how good that is known to be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from kilograd.errors import InputError

Kind = Literal["compute", "page_out", "page_in", "drop"]
Objective = Literal["energy", "time", "peak"]
KINDS: tuple[Kind, ...] = ("compute", "page_out", "page_in", "drop")


@dataclass(frozen=True)
class Event:
    """Something done to the tensor of one node.

    compute: run the node; its output is in RAM afterwards. `over` names the input whose buffer it
        takes over, None for a buffer of its own.
    page_out: copy the tensor to storage. page_in: copy it back. drop: free its RAM.
    """

    kind: Kind
    node: int
    over: int | None = None


@dataclass(frozen=True)
class Limits:
    """What a plan may use; None is no limit."""

    ram_bytes: int | None = None
    seconds: float | None = None
    joules: float | None = None


@dataclass(frozen=True)
class Solution:
    """A plan. `bound` is a value of the objective that no plan of the kind searched is below:
    joules, seconds or bytes. `method` names the solver that found the events.
    """

    events: tuple[Event, ...]
    joules: float
    seconds: float
    peak_bytes: int
    bound: float
    limits: Limits
    objective: Objective
    method: str

    @property
    def value(self) -> float:
        """The objective of this plan: joules, seconds or bytes."""
        if self.objective == "peak":
            return self.peak_bytes
        return self.joules if self.objective == "energy" else self.seconds

    @property
    def gap(self) -> float:
        """(value - bound) / value: the share of the objective that a better plan could save."""
        return (self.value - self.bound) / self.value if self.value else 0.0

    def count(self, kind: Kind) -> int:
        """How many events there are of a kind."""
        return sum(event.kind == kind for event in self.events)

    def to_json(self) -> dict[str, Any]:
        """As plain data; an event is [kind, node] or [kind, node, over]."""
        data = asdict(self)
        data["events"] = [
            [e.kind, e.node] if e.over is None else [e.kind, e.node, e.over] for e in self.events
        ]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Solution:
        """The inverse of `to_json`; raises `InputError` for anything else."""
        try:
            events = tuple(Event(*row) for row in data["events"])
            limits = Limits(**data["limits"])
            rest = {k: v for k, v in data.items() if k not in ("events", "limits")}
            return cls(events=events, limits=limits, **rest)
        except (KeyError, TypeError) as error:
            raise InputError(f"this is no plan: {error}") from error


def save_solution(solution: Solution, path: str | Path) -> None:
    """Write the plan as JSON."""
    text = json.dumps(solution.to_json(), sort_keys=True)
    Path(path).write_text(text + "\n", encoding="utf-8")


def load_solution(path: str | Path) -> Solution:
    """Read a plan; raises `InputError` where the file holds none."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error
    return Solution.from_json(data)
