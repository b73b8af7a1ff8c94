"""Gradients of quantised layers are those of the real layer with straight-through rounding: PyTorch
differentiates clamp(conv(s_x (x - z_x), s_w w) + s_b b) in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest

from kilograd.ir import Builder, evaluate, verify
from kilograd.ir.operator import Example
from kilograd.ops.q_conv import QConv2d
from kilograd.ops.q_depthwise import QDepthwiseConv2d
from kilograd.ops.q_elementwise import QAdd, QConcat, QMul
from kilograd.ops.q_linear import QLinear
from kilograd.ops.q_pool import QAvgPool2d, QMean
from kilograd.ops.q_table import QTable
from kilograd.ops.shape import Slice

torch = pytest.importorskip("torch")


def real(array: np.ndarray, type_) -> torch.Tensor:
    """What the integers stand for."""
    meaning = type_.quantization
    scales = np.array(meaning.scales)
    if meaning.axis is not None:
        scales = scales.reshape([-1 if i == meaning.axis else 1 for i in range(array.ndim)])
    values = (array.astype(np.float64) - meaning.zero_point) * scales
    return torch.tensor(values, requires_grad=True)


def pad(x: torch.Tensor, op) -> torch.Tensor:
    """NHWC to padded NCHW."""
    (top, bottom), (left, right) = op.padding
    return torch.nn.functional.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))


def conv(op: QConv2d, x: torch.Tensor, parts: Sequence[torch.Tensor], bias: torch.Tensor):
    weight = torch.cat(list(parts), 3).permute(0, 3, 1, 2)
    how = {"stride": op.stride, "dilation": op.dilation, "groups": op.groups}
    return torch.nn.functional.conv2d(pad(x, op), weight, bias, **how).permute(0, 2, 3, 1)


def depthwise(
    op: QDepthwiseConv2d, x: torch.Tensor, parts: Sequence[torch.Tensor], bias: torch.Tensor
):
    weight = torch.cat(list(parts), 2).permute(2, 0, 1)[:, None]
    how = {"stride": op.stride, "dilation": op.dilation, "groups": x.shape[3]}
    return torch.nn.functional.conv2d(pad(x, op), weight, bias, **how).permute(0, 2, 3, 1)


def add(op: QAdd, a: torch.Tensor, b: torch.Tensor):
    return a + b


def mul(op: QMul, a: torch.Tensor, b: torch.Tensor):
    return a * b


def concat(op: QConcat, *pieces: torch.Tensor):
    return torch.cat(pieces, op.axis)


def mean(op: QMean, x: torch.Tensor):
    return x.mean((1, 2), keepdim=op.keep)


def avg_pool(op: QAvgPool2d, x: torch.Tensor):
    (top, bottom), (left, right) = op.padding
    extra = (0, 0, left, right + op.extra[1], top, bottom + op.extra[0])
    windows = torch.nn.functional.pad(x, extra).unfold(1, op.kernel[0], op.stride[0])
    sums = windows.unfold(2, op.kernel[1], op.stride[1]).sum((-1, -2))
    return sums / torch.tensor(op.divisors(x.shape[1:3]))[:, :, None]


def linear(op: QLinear, x: torch.Tensor, parts: Sequence[torch.Tensor], bias: torch.Tensor):
    return torch.nn.functional.linear(x, torch.cat(list(parts), 1), bias)


CASES = [
    (f"{op.name}-{number}", example, function)
    for op, function in ((QConv2d, conv), (QDepthwiseConv2d, depthwise), (QLinear, linear))
    for number, example in enumerate(op.examples())
]


@pytest.mark.parametrize(("name", "example", "function"), CASES, ids=[c[0] for c in CASES])
def test_layer(name: str, example: Example, function: Callable[..., torch.Tensor]):
    op, arrays, types = example.op, example.inputs, example.types
    assert types is not None
    builder = Builder()
    inputs = [builder.input(f"x{i}", type_) for i, type_ in enumerate(types)]
    y = builder.add(op, *inputs)
    seed_type = type(y.type)(y.type.shape)
    seed = builder.input("seed", seed_type)
    wanted = [i < len(inputs) - 2 for i in range(len(inputs))]
    results = op.gradient(builder, builder.nodes[-1], [seed], wanted)
    assert results[-2:] == [None, None]
    chosen = [value for value in results if value is not None]
    assert [value.type for value in chosen] == [type(y.type)(t.shape) for t in types[:-2]]
    graph = verify(builder.finish([y, *chosen]))
    d_y = np.random.default_rng(0).standard_normal(y.type.shape).astype(np.float32)
    feed = {f"x{i}": array for i, array in enumerate(arrays)}
    q, *gradients = evaluate(graph, feed | {"seed": d_y}).outputs

    tensors = [real(array, type_) for array, type_ in zip(arrays[:-2], types[:-2], strict=True)]
    exact = function(op, tensors[0], tensors[1:-1], tensors[-1])
    # The layer computes what PyTorch does, up to one rounding.
    places = exact.detach().numpy() / op.scale + op.zero_point
    assert np.max(np.abs(np.clip(places, op.low, op.high) - q)) <= 0.5 + 1e-3
    inside = torch.tensor((q > op.low) & (q < op.high))
    exact.backward(torch.tensor(d_y, dtype=torch.float64) * inside)
    assert inside.any() or op.scale < 1e-4
    for tensor, gradient in zip(tensors, gradients, strict=True):
        scale = max(float(tensor.grad.abs().max()), 1e-30)
        assert np.max(np.abs(gradient - tensor.grad.numpy())) <= 2e-5 * scale


OTHERS = [
    (f"{op.name}-{number}", example, function)
    for op, function in (
        (QAdd, add), (QMul, mul), (QConcat, concat), (QMean, mean), (QAvgPool2d, avg_pool),
    )
    for number, example in enumerate(op.examples())
]  # fmt: skip


@pytest.mark.parametrize(("name", "example", "function"), OTHERS, ids=[c[0] for c in OTHERS])
def test_function(name: str, example: Example, function: Callable[..., torch.Tensor]):
    op, arrays, types = example.op, example.inputs, example.types
    assert types is not None
    builder = Builder()
    inputs = [builder.input(f"x{i}", type_) for i, type_ in enumerate(types)]
    y = builder.add(op, *inputs)
    seed = builder.input("seed", type(y.type)(y.type.shape))
    results = op.gradient(builder, builder.nodes[-1], [seed], [True] * len(inputs))
    assert all(value is not None for value in results)
    graph = verify(builder.finish([y, *results]))
    d_y = np.random.default_rng(0).standard_normal(y.type.shape).astype(np.float32)
    feed = {f"x{i}": array for i, array in enumerate(arrays)} | {"seed": d_y}
    q, *gradients = evaluate(graph, feed).outputs
    tensors = [real(array, type_) for array, type_ in zip(arrays, types, strict=True)]
    exact = function(op, *tensors)
    low, high = getattr(op, "low", -128), getattr(op, "high", 127)
    places = np.clip(exact.detach().numpy() / op.scale + op.zero_point, low, high)
    assert np.max(np.abs(places - q)) <= 0.501
    inside = torch.tensor((q > low) & (q < high))
    if isinstance(op, QConcat):  # what is only copied is not limited
        own = (op.scale, op.zero_point)
        copied = [torch.full(t.shape, s == own) for t, s in zip(tensors, op.sources, strict=True)]
        inside = inside | torch.cat(copied, op.axis)
    exact.backward(torch.tensor(d_y, dtype=torch.float64) * inside)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        scale = max(float(tensor.grad.abs().max()), 1e-30)
        assert np.max(np.abs(gradient - tensor.grad.numpy())) <= 2e-5 * scale


@pytest.mark.parametrize("example", QTable.examples(), ids=lambda example: str(example.op))
def test_table(example: Example):
    (x, table), (type_, _) = example.inputs, example.types
    function = {"sigmoid": torch.sigmoid, "hard_swish": torch.nn.functional.hardswish}
    tensor = real(x, type_)
    exact = function[example.op.function.name](tensor)
    places = exact.detach().numpy() / example.op.scale + example.op.zero_point
    (q,) = example.op.reference(np, x, table)
    assert np.max(np.abs(np.clip(places, -128, 127) - q)) <= 0.5 + 1e-9
    exact.sum().backward()
    inside = (np.rint(places) >= -128) & (np.rint(places) <= 127)
    slopes = example.op.slopes()[x.astype(np.int64) + 128]
    np.testing.assert_allclose(slopes, tensor.grad.numpy() * inside, atol=1e-6)


def test_what_is_not_wanted_is_not_built():
    for _, example, _ in CASES:
        builder = Builder()
        inputs = [builder.input(f"x{i}", type_) for i, type_ in enumerate(example.types or ())]
        y = builder.add(example.op, *inputs)
        seed = builder.input("seed", type(y.type)(y.type.shape))
        for index in range(len(inputs) - 2):
            wanted = [i == index for i in range(len(inputs))]
            before = len(builder.nodes)
            results = example.op.gradient(builder, builder.nodes[0], [seed], wanted)
            assert [value is not None for value in results] == wanted
            added = [node.op for node in builder.nodes[before:]]
            # The mask and the gradient, and slices of what only a part of the weight meets.
            assert len([op for op in added if not isinstance(op, Slice)]) == 2


def test_parts_share_the_channels():
    """The gradients of the parts are the pieces of the gradient of the whole."""
    example = QConv2d.examples()[3]
    weights, types = example.inputs[1:3], example.types
    assert types is not None and example.op.parts == 2
    whole = np.concatenate(weights, 3)
    builder = Builder()
    values = [builder.input(f"x{i}", type_) for i, type_ in enumerate(types)]
    joined = builder.input("joined", types[1].with_shape(*whole.shape))
    seed_type = example.op.infer(*types)[0]
    seed = builder.input("seed", type(seed_type)(seed_type.shape))
    builder.add(example.op, *values)
    parts = example.op.gradient(
        builder, builder.nodes[-1], [seed], [False, True, True] + [False] * 3
    )
    single = type(example.op)(
        example.op.scale, example.op.zero_point, example.op.x_zero_point, padding=example.op.padding
    )
    builder.add(single, values[0], joined, *values[3:])
    (_, full, *_) = single.gradient(
        builder, builder.nodes[-1], [seed], [False, True, False, False, False]
    )
    graph = builder.finish([parts[1], parts[2], full])
    d_y = np.random.default_rng(1).standard_normal(seed.type.shape).astype(np.float32)
    feed = {f"x{i}": a for i, a in enumerate(example.inputs)} | {"joined": whole, "seed": d_y}
    first, second, both = evaluate(graph, feed).outputs
    np.testing.assert_allclose(np.concatenate([first, second], 3), both, rtol=1e-6)
    assert [a.shape[3] for a in (first, second)] == [
        b - a for a, b in pairwise([0, *np.cumsum([w.shape[3] for w in weights])])
    ]
