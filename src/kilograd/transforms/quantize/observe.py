"""Runs the float graph on calibration data and counts what every value holds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.graph import Graph, Value
from kilograd.ir.interpret import evaluate
from kilograd.ir.types import DType
from kilograd.transforms.quantize.ranges import Histogram

BATCH_BYTES = 64 * 2**20
"""About how many bytes of activations are held at a time."""


def observe(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[Value, Histogram]:
    """A histogram for every float32 value that depends on the inputs, over all samples.

    `inputs` gives float32 arrays [N, ...] by input name. Raises InputError, naming the layer, where
    a value is not finite.
    """
    places = {value: node.location for node in graph.nodes for value in node.outputs}
    seen = {
        value: Histogram() for value in (*graph.inputs, *places) if value.type.dtype is DType.F32
    }
    sample_bytes = sum(value.type.bytes for value in seen)
    batch = max(1, BATCH_BYTES // max(1, sample_bytes))
    count = min(len(array) for array in inputs.values())
    for start in range(0, count, batch):
        part = {name: array[start : start + batch] for name, array in inputs.items()}
        values = evaluate(graph, part, keep=True).values
        for value, histogram in seen.items():
            try:
                histogram.add(np.asarray(values[value]))
            except InputError as error:
                where = places.get(value, f"input {value.name}")
                raise InputError(f"{value} of {where} cannot be quantised: {error}") from error
    return seen
