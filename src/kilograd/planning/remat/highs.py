"""HiGHS through OR-Tools' MathOpt, in a process of its own.

A child can be ended when it outlives its time limit, takes its crashes with it, and keeps the
symbols of OR-Tools apart from those of a separately installed `highspy`, with which they clash.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from kilograd.planning.remat.linear import FloatArray, LinearModel, from_bytes, to_bytes

_CHILD = str(Path(__file__).with_name("highs_child.py"))
_START_SECONDS = 1.0
_SHARE_OF_TIME = 0.9
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
    # It looks at its clock between steps of work, which can be long.
    seconds = _SHARE_OF_TIME * seconds - _START_SECONDS
    if seconds <= 0:
        return UNKNOWN
    request = {**model.pack(), "seconds": seconds, "absolute_gap": absolute_gap}
    if hint is not None:
        request["hint"] = hint
    try:
        done = subprocess.run(
            [sys.executable, "-P", _CHILD],
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
