"""Elementwise operators beyond conformance: kinks, NaN, broadcasting over the batch."""

from __future__ import annotations

import numpy as np
import pytest

from kilograd.errors import InputError
from kilograd.ir import Builder, Example, evaluate, f32, verify
from kilograd.ops import all_operators, unary
from kilograd.ops.binary import Add, Div, Mul, Sub, broadcast_loops
from kilograd.ops.reduce import Reduce, ReduceProduct
from tests.conformance.c_cases import Case, build, run

torch = pytest.importorskip("torch")


def gradients(op, seed: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
    """What `op.gradient` computes for these inputs, whose types are for batch 1 as in programs."""
    builder = Builder()
    types = [f32(*((1, *a.shape[1:]) if a.ndim == seed.ndim else a.shape)) for a in arrays]
    inputs = [builder.input(f"x{i}", type_) for i, type_ in enumerate(types)]
    y = builder.add(op, *inputs)
    d_y = builder.input("d_y", y.type)
    results = op.gradient(builder, builder.nodes[-1], [d_y], [True] * len(inputs))
    graph = verify(builder.finish(results))
    feed = {f"x{i}": array for i, array in enumerate(arrays)} | {"d_y": seed}
    return list(evaluate(graph, feed).outputs)


F = torch.nn.functional
KINKS = [
    (unary.Relu(), F.relu, [0.0]),
    (unary.Clamp(0.0, 6.0), F.relu6, [0.0, 6.0]),
    (unary.Clamp(-1.0, 1.0), F.hardtanh, [-1.0, 1.0]),
    (unary.LeakyRelu(0.1), lambda x: F.leaky_relu(x, 0.1), [0.0]),
    (unary.HardSigmoid(), F.hardsigmoid, [-3.0, 3.0]),
    (unary.HardSwish(), F.hardswish, [-3.0, 3.0]),
    (unary.Elu(0.5), lambda x: F.elu(x, 0.5), [0.0]),
    (unary.Abs(), torch.abs, [0.0]),
]


@pytest.mark.parametrize("op, function, points", KINKS, ids=[kink[0].name for kink in KINKS])
def test_derivative_at_a_kink_is_that_of_pytorch(op, function, points):
    x = torch.tensor([points], dtype=torch.float64, requires_grad=True)
    function(x).sum().backward()
    (d_x,) = gradients(op, np.ones((1, len(points))), x.detach().numpy())
    np.testing.assert_allclose(d_x, x.grad)


def test_nan_in_nan_out(tmp_path):
    x = np.array([[np.nan, 1.0]], np.float32)
    one = np.ones_like(x)
    cases = []
    for operator in all_operators():
        op = operator.examples()[0].op
        if issubclass(operator, unary.Unary):
            cases.append(Case(len(cases), operator.name, Example(op, (x,))))
        elif issubclass(operator, unary.UnaryGrad):
            cases.append(Case(len(cases), operator.name, Example(op, (x, one))))
    assert len(cases) > 30
    library = build(cases, tmp_path)
    for case in cases:
        _, (y,) = run(library, case, ())
        where = f"{case.name} gives {y}"
        if case.name in ("clamp_grad", "hard_sigmoid_grad"):  # 1 is on or beyond a bound
            continue
        assert np.isnan(y[0, 0]) and not np.isnan(y[0, 1]), where


SHAPES = [
    ((3, 4, 2, 5), (5,)),
    ((3, 4, 2, 5), (1, 1, 5)),
    ((3, 4, 2, 5), (4, 1, 5)),
    ((3, 4, 2, 5), (1, 2, 1)),
    ((3, 4, 2, 5), ()),
    ((3, 4, 2, 5), (3, 1, 1, 5)),
    ((3, 4, 2, 5), (3, 4, 2, 1)),
    ((3, 4, 1), (3, 1, 5)),
    ((3, 1), (5,)),
]


@pytest.mark.parametrize("operator", [Add, Sub, Mul, Div], ids=lambda operator: operator.name)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("swap", [False, True])
def test_gradient_over_a_batch_is_that_of_pytorch(operator, shapes, swap):
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0.5, 2.0, shape) for shape in (shapes[::-1] if swap else shapes)]
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    y = operator().f(torch, *tensors)
    seed = rng.standard_normal(tuple(y.shape))
    y.backward(torch.tensor(seed))
    for ours, tensor in zip(gradients(operator(), seed, *arrays), tensors, strict=True):
        assert ours.shape == tuple(tensor.shape)
        np.testing.assert_allclose(ours, tensor.grad, rtol=1e-12)


def test_broadcast_loops_are_few():
    assert broadcast_loops((1, 8, 8, 4), (1, 8, 8, 4)) == [(256, 1, 1)]
    assert broadcast_loops((1, 8, 8, 4), (4,)) == [(64, 4, 0), (4, 1, 1)]
    assert broadcast_loops((1, 8, 8, 4), (1, 8, 8, 1)) == [(64, 4, 1), (4, 1, 0)]
    assert broadcast_loops((1, 8, 8, 4), ()) == [(256, 1, 0)]
    assert broadcast_loops((), ()) == [(1, 1, 1)]


def test_gate_gradient_needs_no_tensor_of_products():
    builder = Builder()
    x, gate = builder.input("x", f32(1, 8, 8, 4)), builder.input("gate", f32(1, 1, 1, 4))
    d_y = builder.add(Mul(), x, gate)
    Mul().gradient(builder, builder.nodes[0], [d_y], [False, True])
    assert [node.op for node in builder.nodes[1:]] == [ReduceProduct((1, 2), keep=True)]


def test_bias_gradient_is_one_sum_over_batch_and_pixels():
    builder = Builder()
    x, bias = builder.input("x", f32(1, 8, 8, 4)), builder.input("bias", f32(4))
    y = builder.add(Add(), x, bias)
    Add().gradient(builder, builder.nodes[0], [y], [True, True])
    assert [node.op for node in builder.nodes[1:]] == [Reduce((0, 1, 2))]


def test_shapes_that_do_not_broadcast():
    with pytest.raises(InputError, match=r"add: f32\[1,3\] and f32\[1,4\]"):
        Add().infer(f32(1, 3), f32(1, 4))
