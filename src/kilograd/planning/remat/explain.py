"""Why no plan exists: the least RAM that would do, what makes it, and what would lower it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from kilograd.errors import InfeasibleError
from kilograd.planning.remat.least import WorkingSet, least_working_set
from kilograd.planning.remat.problem import Problem
from kilograd.planning.remat.solution import Limits
from kilograd.planning.remat.uses import Freedom

_SHOWN = 6

RuledOut = Literal["every schedule", "the formulation", "nothing"]
_VERBS: dict[RuledOut, str] = {
    "every schedule": "no plan exists",
    "the formulation": "the gap formulation has no plan",
    "nothing": "no plan was found in the time limit",
}


class NoPlanError(InfeasibleError):
    """No plan keeps the limits.

    `least_bytes` is a bound that no plan under the other limits is below, `found_bytes` the RAM of
    the leanest plan that was found under them; None where none was. Equal, they are the least.
    """

    def __init__(self, text: str, least_bytes: int, found_bytes: int | None) -> None:
        """The message and its numbers."""
        super().__init__(text)
        self.least_bytes = least_bytes
        self.found_bytes = found_bytes


def too_small(
    problem: Problem,
    ram_bytes: int,
    freedom: Freedom,
    least: WorkingSet,
    above: tuple[int, int | None],
) -> NoPlanError:
    """For RAM that does not hold one working set."""
    lines = [
        f"the step does not fit {ram_bytes} bytes of RAM",
        _range(*above),
        _working_set(problem, least),
        *_ways_out(problem, least, freedom, deadline=False),
    ]
    return NoPlanError("; ".join(lines), *above)


def infeasible(
    problem: Problem,
    limits: Limits,
    freedom: Freedom,
    ruled_out: RuledOut,
    above: tuple[int, int | None],
) -> NoPlanError:
    """For limits under which no plan was found."""
    asked = []
    if limits.ram_bytes is not None:
        asked.append(f"{limits.ram_bytes} bytes of RAM")
    if limits.seconds is not None:
        asked.append(f"{limits.seconds:.6g} s (the plain step takes {problem.plain_seconds:.6g} s)")
    if limits.joules is not None:
        asked.append(f"{limits.joules:.6g} J (the plain step takes {problem.plain_joules:.6g} J)")
    verb = _VERBS[ruled_out]
    least = least_working_set(problem, recompute=freedom.recompute, page=freedom.page)
    lines = [
        f"{verb} within {' and '.join(asked) or 'no limits'}",
        _range(*above),
        _working_set(problem, least),
        *_ways_out(problem, least, freedom, deadline=limits.seconds is not None),
    ]
    return NoPlanError("; ".join(lines), *above)


def _range(least_bytes: int, found_bytes: int | None) -> str:
    if found_bytes is None:
        return f"at least {least_bytes} bytes are needed, and no plan of any size was found"
    if found_bytes == least_bytes:
        return f"the least that does is {least_bytes} bytes"
    return f"{found_bytes} bytes would do, and less than {least_bytes} never do"


def _working_set(problem: Problem, least: WorkingSet) -> str:
    node = problem.nodes[least.stage]
    parts = [f"its output ({node.bytes})"]
    parts += [f"'{problem.nodes[u].name}' ({problem.nodes[u].bytes})" for u in node.inputs]
    if node.scratch_bytes:
        parts.append(f"scratch ({node.scratch_bytes})")
    text = f"node '{node.name}' alone needs {least.bytes} bytes: {_listed(parts)}"
    if least.held:
        held = [f"'{problem.nodes[u].name}' ({problem.nodes[u].bytes})" for u in least.held]
        text += f", beside {_listed(held)}, which cannot leave RAM"
    return text


def _ways_out(
    problem: Problem, least: WorkingSet, freedom: Freedom, *, deadline: bool
) -> list[str]:
    """What would lower the least, with the bytes it would come down to."""
    ways = []
    if deadline:
        ways.append("allow more time")
    for name, wider in (
        ("page", Freedom(freedom.recompute, True)),
        ("recompute", Freedom(True, freedom.page)),
    ):
        if wider == freedom:
            continue
        lower = least_working_set(problem, recompute=wider.recompute, page=wider.page).bytes
        ways.append(f"allow `{name}` (then at least {lower} bytes)")
    held = sorted(least.held, key=lambda v: -problem.nodes[v].bytes)
    if held:
        names = _listed([f"'{problem.nodes[v].name}'" for v in held])
        ways.append(f"let {names} be paged or run again")
    ways.append(f"split node '{problem.nodes[least.stage].name}' or make its tensors smaller")
    return ["to lower it: " + ", or ".join(ways)]


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
