"""HiGHS through OR-Tools' MathOpt, in a process of its own.

A child can be ended when it outlives its time limit, takes its crashes with it, and keeps the
symbols of OR-Tools apart from those of a separately installed `highspy`, with which they clash.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kilograd.planning.remat.linear import FloatArray, LinearModel, from_bytes, to_bytes

_START_SECONDS = 1.0
_GRACE_SECONDS = 10.0
_log = logging.getLogger(__name__)

Status = Literal["optimal", "feasible", "infeasible", "unknown"]


@dataclass(frozen=True)
class Answer:
    """What the solver knows: values of the columns if it has any, and a bound of the objective.

    "optimal" is meant within the gap that was asked for.
    """

    status: Status
    values: FloatArray | None
    bound: float


UNKNOWN = Answer("unknown", None, -np.inf)


def minimise(
    model: LinearModel,
    *,
    seconds: float,
    absolute_gap: float,
    hint: FloatArray | None = None,
) -> Answer:
    """Solve the model within the time limit; `UNKNOWN` where the child gives no answer.

    `hint` are values to start from. The child stops when its values are within `absolute_gap` of
    its bound.
    """
    seconds -= _START_SECONDS
    if seconds <= 0:
        return UNKNOWN
    request = {**model.pack(), "seconds": seconds, "absolute_gap": absolute_gap}
    if hint is not None:
        request["hint"] = hint
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=to_bytes(request),
            capture_output=True,
            check=True,
            timeout=seconds + _GRACE_SECONDS,
        )
        reply = from_bytes(done.stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        _log.warning("HiGHS gave no answer: %s", error)
        return UNKNOWN
    values = reply["values"] if reply["values"].size else None
    return Answer(str(reply["status"]), values, float(reply["bound"]))  # type: ignore[arg-type]


def main() -> None:
    """Answer the request on standard input; nothing else may write to standard output."""
    import os

    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    output.write(to_bytes(_solve(from_bytes(sys.stdin.buffer.read()))))
    output.close()


def _solve(request: Mapping[str, np.ndarray]) -> dict[str, object]:  # type: ignore[type-arg]
    import datetime

    from ortools.math_opt.python import mathopt

    model = mathopt.Model.from_model_proto(_proto(request))
    variables = list(model.variables())
    parameters = mathopt.SolveParameters(
        time_limit=datetime.timedelta(seconds=float(request["seconds"])),
        absolute_gap_tolerance=float(request["absolute_gap"]),
        relative_gap_tolerance=0.0,
        random_seed=1,
    )
    hints = mathopt.ModelSolveParameters()
    if "hint" in request:
        values = dict(zip(variables, request["hint"].tolist(), strict=True))
        hints.solution_hints.append(mathopt.SolutionHint(variable_values=values))
    result = mathopt.solve(
        model, mathopt.SolverType.HIGHS, params=parameters, model_params=hints
    )
    reason = mathopt.TerminationReason
    status = {
        reason.OPTIMAL: "optimal",
        reason.FEASIBLE: "feasible",
        reason.INFEASIBLE: "infeasible",
    }.get(result.termination.reason, "unknown")
    found = result.has_primal_feasible_solution()
    values = result.variable_values(variables) if found else []
    bound = result.termination.objective_bounds.dual_bound
    return {"status": status, "values": np.array(values, np.float64), "bound": bound}


def _proto(request: Mapping[str, np.ndarray]) -> object:  # type: ignore[type-arg]
    """The request as MathOpt's message; its sparse rows come sorted by row, then by column."""
    from ortools.math_opt import model_pb2

    proto = model_pb2.ModelProto()
    count, rows = len(request["cost"]), len(request["lower"])
    proto.variables.ids.extend(range(count))
    proto.variables.lower_bounds.extend([0.0] * count)
    proto.variables.upper_bounds.extend(request["upper_bound"].tolist())
    proto.variables.integers.extend(request["integer"].tolist())
    used = np.flatnonzero(request["cost"])
    proto.objective.linear_coefficients.ids.extend(used.tolist())
    proto.objective.linear_coefficients.values.extend(request["cost"][used].tolist())
    proto.linear_constraints.ids.extend(range(rows))
    proto.linear_constraints.lower_bounds.extend(request["lower"].tolist())
    proto.linear_constraints.upper_bounds.extend(request["upper"].tolist())
    row_of = np.repeat(np.arange(rows), np.diff(request["starts"]))
    order = np.lexsort((request["columns"], row_of))
    proto.linear_constraint_matrix.row_ids.extend(row_of[order].tolist())
    proto.linear_constraint_matrix.column_ids.extend(request["columns"][order].tolist())
    proto.linear_constraint_matrix.coefficients.extend(request["coefficients"][order].tolist())
    return proto


if __name__ == "__main__":
    main()
