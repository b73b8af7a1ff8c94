"""The child process of `highs`: reads a model from standard input, writes the answer.

It runs as a script and imports nothing of kilograd, so that it starts at once.
"""

from __future__ import annotations

import datetime
import io
import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from ortools.math_opt import model_pb2
from ortools.math_opt.python import mathopt
from ortools.math_opt.solvers import highs_pb2

Array = npt.NDArray[Any]


def main() -> None:
    """Answer the request on standard input; nothing else may write to standard output."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as file:
        request = {name: file[name] for name in file.files}
    reply = io.BytesIO()
    np.savez(reply, **solve(request))  # type: ignore[arg-type]
    output.write(reply.getvalue())
    output.close()
    # The threads of HiGHS have been seen not to end when the process does.
    os._exit(0)


def solve(request: Mapping[str, Array]) -> dict[str, object]:
    """Answer one request: status, values (empty where there are none) and bound."""
    model = mathopt.Model.from_model_proto(_proto(request))
    variables = list(model.variables())
    parameters = mathopt.SolveParameters(
        time_limit=datetime.timedelta(seconds=float(request["seconds"])),
        absolute_gap_tolerance=float(request["absolute_gap"]),
        relative_gap_tolerance=0.0,
        random_seed=1,
        highs=highs_pb2.HighsOptionsProto(string_options={"parallel": "off"}),
    )
    hints = mathopt.ModelSolveParameters()
    if "hint" in request:
        values = dict(zip(variables, request["hint"].tolist(), strict=True))
        hints.solution_hints.append(mathopt.SolutionHint(variable_values=values))
    result = mathopt.solve(model, mathopt.SolverType.HIGHS, params=parameters, model_params=hints)
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


def _proto(request: Mapping[str, Array]) -> object:
    """The request as MathOpt's message; its sparse rows come sorted by row, then by column."""
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
