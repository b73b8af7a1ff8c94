"""Every operator, every example: C = reference, gradient = finite differences, batches, shapes,
costs.
"""

from __future__ import annotations

import platform

import array_api_compat
import numpy as np
import pytest

from kilograd.ir import Builder, DType, TensorType, evaluate, verify
from kilograd.ir.operator import Operator
from kilograd.ops import all_operators
from tests.conformance.c_cases import Case, all_cases, build, run

CASES = all_cases()
by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    flags = ("-fsanitize=undefined", "-fsanitize-trap=undefined", "-fno-sanitize=alignment")
    return build(CASES, tmp_path_factory.mktemp("conformance"), flags)


def exact_inputs(case: Case) -> list[np.ndarray]:
    """The inputs with float32 widened to float64, so that the reference is more exact than the
    C.
    """
    arrays = [np.asarray(array) for array in case.example.inputs]
    return [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]


def reference(case: Case, inputs: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    with np.errstate(all="ignore"):
        return case.example.op.reference(np, *inputs)


@pytest.mark.parametrize("operator", all_operators(), ids=lambda operator: operator.name)
def test_operator_is_complete(operator: type[Operator]):
    assert operator.__doc__ and operator.name
    assert operator.examples(), f"{operator.name} has no examples"


@by_name
def test_shapes_are_what_infer_says(case: Case):
    results = reference(case, [np.asarray(array) for array in case.example.inputs])
    inferred = case.example.op.infer(*case.types)
    if not case.example.op.check:
        assert tuple(np.shape(r) for r in results) == tuple(t.shape for t in inferred)


@by_name
def test_c_equals_reference(case: Case, library):
    op = case.example.op
    expected = reference(case, exact_inputs(case))
    modes = [(), *((pair,) for pair in op.in_place)]
    if op.mutates or op.alias:
        modes = [op.in_place or ((0, 0),)]
    results = op.infer(*case.types)
    for mode in modes:
        mode = tuple((o, i) for o, i in mode if o < len(results) and i < len(case.types))
        if any(results[o].bytes != case.types[i].bytes for o, i in mode):
            continue
        status, arrays = run(library, case, mode)
        if op.check:
            assert (status == 0) == bool(expected[0])
            continue
        if not op.succeeds(np, *case.example.inputs):
            assert status != 0
            continue
        assert status == 0
        for array, truth in zip(arrays, expected, strict=True):
            assert_close(array, truth, case.example.tolerance)


@pytest.fixture(scope="session")
def plain_library(tmp_path_factory):
    """For a processor without fused multiply-add or wide vectors."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("needs an x86-64 processor")
    return build(CASES, tmp_path_factory.mktemp("plain"), ("-mcpu=x86_64",))


@by_name
def test_bits_do_not_depend_on_the_processor(case: Case, library, plain_library):
    op = case.example.op
    pairs = (op.in_place or ((0, 0),)) if op.mutates or op.alias else ()
    sizes = len(op.infer(*case.types)), len(case.types)
    pairs = tuple((o, i) for o, i in pairs if o < sizes[0] and i < sizes[1])
    results = [run(each, case, pairs) for each in (library, plain_library)]
    assert results[0][0] == results[1][0]
    if results[0][0]:
        return  # what outputs hold is then unspecified
    for array, other in zip(results[0][1], results[1][1], strict=True):
        assert array.tobytes() == other.tobytes()


def assert_close(array: np.ndarray, truth: np.ndarray, tolerance: float):
    truth = np.asarray(truth)
    if array.dtype.kind in "iu" or tolerance == 0:
        np.testing.assert_array_equal(array, truth)
        return
    scale = max(np.max(np.abs(truth)), 1e-30)
    assert np.all(np.isfinite(array))
    assert np.max(np.abs(array - truth)) <= tolerance * scale


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.example.differentiable], ids=lambda case: case.name
)
def test_gradient_equals_finite_differences(case: Case):
    op, rng = case.example.op, np.random.default_rng(0)
    arrays = exact_inputs(case)
    builder = Builder()
    inputs = [builder.input(f"x{i}", type_) for i, type_ in enumerate(case.types)]
    outputs = builder.add_multi(op, *inputs)
    seeds = [builder.input(f"seed{i}", value.type) for i, value in enumerate(outputs)]
    is_float = [value.type.dtype is DType.F32 for value in outputs]
    wanted = [i in case.example.differentiable for i in range(len(inputs))]
    cotangents = [seed if f else None for seed, f in zip(seeds, is_float, strict=True)]
    results = op.gradient(builder, builder.nodes[-1], cotangents, wanted)
    chosen = [results[i] for i in case.example.differentiable]
    assert all(value is not None for value in chosen)
    for i, value in zip(case.example.differentiable, chosen, strict=True):
        assert value.type.shape == case.types[i].shape
    graph = verify(builder.finish([*outputs, *chosen]))
    weights = [
        rng.standard_normal(v.type.shape) if v.type.rank else np.float64(1.0) for v in outputs
    ]
    feed = {f"x{i}": array for i, array in enumerate(arrays)}
    feed |= {f"seed{i}": np.asarray(weight) for i, weight in enumerate(weights)}
    gradients = evaluate(graph, feed).outputs[len(outputs) :]

    def objective() -> float:
        values = op.reference(np, *arrays)
        return sum(
            float(np.sum(v * w)) for v, w, f in zip(values, weights, is_float, strict=True) if f
        )

    for i, gradient in zip(case.example.differentiable, gradients, strict=True):
        numeric = np.zeros_like(arrays[i])
        for index in np.ndindex(*arrays[i].shape):
            value, step = arrays[i][index], 1e-6
            arrays[i][index] = value + step
            above = objective()
            arrays[i][index] = value - step
            below = objective()
            arrays[i][index] = value
            numeric[index] = (above - below) / (2 * step)
        np.testing.assert_allclose(gradient, numeric, rtol=2e-4, atol=2e-5 * np.abs(numeric).max())


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.example.batched], ids=lambda case: case.name
)
def test_reference_takes_any_batch(case: Case):
    singles = [np.asarray(array) for array in case.example.inputs]
    rng = np.random.default_rng(0)
    others = [
        rng.permuted(array) if i in case.example.batched else array
        for i, array in enumerate(singles)
    ]
    both = [
        np.concatenate([a, b]) if i in case.example.batched else a
        for i, (a, b) in enumerate(zip(singles, others, strict=True))
    ]
    parts = [reference(case, singles), reference(case, others)]
    for joined, *pieces in zip(reference(case, both), *parts, strict=True):
        np.testing.assert_allclose(joined, np.concatenate(pieces), rtol=1e-5, atol=1e-6)


@by_name
def test_reference_is_the_same_in_torch(case: Case):
    torch = pytest.importorskip("torch")
    if any(type_.dtype is DType.U32 for type_ in case.types):
        pytest.skip("PyTorch has next to no arithmetic on uint32")
    inputs = exact_inputs(case)
    tensors = [torch.asarray(np.array(array)) for array in inputs]
    results = case.example.op.reference(array_api_compat.array_namespace(*tensors), *tensors)
    for tensor, expected in zip(results, reference(case, inputs), strict=True):
        np.testing.assert_allclose(np.asarray(tensor), expected, rtol=1e-6, atol=1e-9)


@by_name
def test_cost_is_counted(case: Case):
    op = case.example.op
    cost = op.cost(*case.types)
    written = sum(type_.bytes for type_ in op.infer(*case.types))
    # What overwrites its input may leave most of it alone.
    assert op.alias or op.check or op.mutates or cost.bytes_written >= written
    assert min(cost.macs, cost.bytes_read, cost.scratch_bytes) >= 0
    assert TensorType(()).bytes == 4
