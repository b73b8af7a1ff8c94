"""Gradients of random quantised layers: the C, sanitised, is the reference up to the rounding of
its sums, and has the same bits on the host and on emulated microcontrollers.
"""

from __future__ import annotations

import numpy as np
import pytest

from kilograd.ir import Builder, Example, TensorType, evaluate
from tests.conformance.c_cases import Case, build, run
from tests.ops.device_cases import MACHINES, build_machine, layer_examples, run_on

TOLERANCE = 4e-6
"""Of the largest element: sums of up to a thousand products in float32."""


def gradient_examples() -> list[Example]:
    """Every operator that the gradients of the random layers are built of."""
    result = []
    for number, layer in enumerate(layer_examples()):
        assert layer.types is not None
        builder = Builder()
        inputs = [builder.input(f"x{i}", type_) for i, type_ in enumerate(layer.types)]
        y = builder.add(layer.op, *inputs)
        seed = builder.input("seed", TensorType(y.type.shape))
        wanted = [i < len(inputs) - 2 for i in range(len(inputs))]
        gradients = layer.op.gradient(builder, builder.nodes[0], [seed], wanted)
        graph = builder.finish([value for value in gradients if value is not None])
        d_y = np.random.default_rng(number).standard_normal(y.type.shape).astype(np.float32)
        feeds = {f"x{i}": array for i, array in enumerate(layer.inputs)} | {"seed": d_y}
        values = evaluate(graph, feeds, keep=True).values
        for node in graph.nodes[1:]:
            arrays = tuple(np.asarray(values[v], v.type.dtype.numpy) for v in node.inputs)
            types = tuple(value.type for value in node.inputs)
            result.append(Example(node.op, arrays, TOLERANCE, types=types))
    return result


CASES = [Case(i, str(example.op), example) for i, example in enumerate(gradient_examples())]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    flags = ("-fsanitize=undefined", "-fsanitize-trap=undefined", "-fno-sanitize=alignment")
    return build(CASES, tmp_path_factory.mktemp("gradients"), flags)


def ids(case: Case) -> str:
    return f"{case.index}-{case.example.op.name}"


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_reference_on_the_host(case: Case, library):
    exact = [
        array.astype(np.float64) if array.dtype == np.float32 else array
        for array in map(np.asarray, case.example.inputs)
    ]
    status, (ours,) = run(library, case, ())
    (expected,) = case.example.op.reference(np, *exact)
    assert status == 0
    assert np.abs(ours - expected).max() <= TOLERANCE * max(np.abs(expected).max(), 1e-30)


@pytest.fixture(scope="module", params=["m7", "m0plus"])
def machine(request, tmp_path_factory):
    return build_machine(*MACHINES[request.param], CASES, tmp_path_factory.mktemp("paths"))


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_same_bits_on_the_device(case: Case, machine, library):
    _, expected = run(library, case, ())
    for ours, theirs in zip(run_on(machine, case), expected, strict=True):
        np.testing.assert_array_equal(ours.view(np.uint8), theirs.view(np.uint8))
