"""Runs a graph through the references of its operators: the meaning of a program, and its
debugger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

from kilograd.errors import NonFiniteError
from kilograd.ir.graph import Graph, Value

Array = Any


@dataclass(frozen=True)
class Result:
    """What one execution gives: outputs in order, the state after it, and every value when it was
    kept.
    """

    outputs: tuple[Array, ...]
    state: dict[Value, Array]
    values: dict[Value, Array]


def evaluate(
    graph: Graph,
    inputs: Mapping[str, Array],
    state: Mapping[Value, Array] | None = None,
    *,
    keep: bool = False,
) -> Result:
    """Execute `graph` on arrays given by input name; NumPy and PyTorch arrays, any batch.

    `state` holds the state tensors (default: the initial ones). With `keep`, all values are
    returned. Raises NonFiniteError where a check fails.
    """
    xp = array_api_compat.array_namespace(*inputs.values())
    anchor = next(iter(inputs.values()))

    def convert(array: np.ndarray) -> Array:
        if array_api_compat.is_numpy_namespace(xp):
            return array
        return xp.asarray(array, device=array_api_compat.device(anchor))

    env: dict[Value, Array] = {value: inputs[value.name] for value in graph.inputs}
    env |= {value: convert(tensor.array) for value, tensor in graph.constants.items()}
    current = state or {value: convert(tensor.array) for value, tensor in graph.state.items()}
    env |= current
    last = _last_uses(graph)
    for index, node in enumerate(graph.nodes):
        operands = [env[value] for value in node.inputs]
        good = not node.op.may_fail or node.op.succeeds(xp, *operands)
        results = node.op.reference(xp, *operands) if good else ()
        if node.op.check:
            good = bool(results[0])
        if not good:
            raise NonFiniteError(f"NaN or infinity at {node.location}: {node.op}")
        if not node.op.check:
            env.update(zip(node.outputs, results, strict=True))
        if not keep:
            for value in last.get(index, ()):
                del env[value]
    successor = {value: env[graph.updates.get(value, value)] for value in current}
    return Result(tuple(env[value] for value in graph.outputs), successor, env if keep else {})


def _last_uses(graph: Graph) -> dict[int, list[Value]]:
    last: dict[Value, int] = {}
    for index, node in enumerate(graph.nodes):
        for value in (*node.outputs, *node.inputs):
            last[value] = index
    for value in (*graph.results(), *graph.state):
        last.pop(value, None)
    result: dict[int, list[Value]] = {}
    for value, index in last.items():
        result.setdefault(index, []).append(value)
    return result
