"""Random graphs in any mixture of layouts compute the same after layout and folding."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kilograd.ir import Graph, Value, to_user, verify
from kilograd.ops.binary import Add, Mul
from kilograd.ops.linear import Linear
from kilograd.ops.norm import LayerNorm
from kilograd.ops.reduce import Reduce, Spread
from kilograd.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from kilograd.ops.softmax import Softmax
from kilograd.ops.unary import Relu
from kilograd.transforms.fold import fold
from kilograd.transforms.layout import arrange
from tests.transforms.nets import Net, plain_ports, run

MAX_ELEMENTS = 2000


def transpose(net: Net, draw, x: Value) -> Value:
    axes = draw(st.permutations(range(1, x.type.rank)))
    return net.add(Transpose((0, *axes)), x)


def reshape(net: Net, draw, x: Value) -> Value:
    shape = list(x.type.shape[1:])
    if draw(st.booleans()) and len(shape) > 1:
        i = draw(st.integers(0, len(shape) - 2))
        shape[i : i + 2] = [shape[i] * shape[i + 1]]
    elif len(shape) < 4:
        i = draw(st.integers(0, len(shape) - 1))
        divisor = draw(st.sampled_from([d for d in range(1, shape[i] + 1) if shape[i] % d == 0]))
        shape[i : i + 1] = [divisor, shape[i] // divisor]
    return net.add(Reshape((1, *shape)), x)


def conv(net: Net, draw, x: Value) -> Value:
    if x.type.rank != 4:
        return x
    x = net.conv(x, draw(st.integers(1, 3)), draw(st.sampled_from([1, 3])))
    return net.norm(x) if draw(st.booleans()) else x


def linear(net: Net, draw, x: Value) -> Value:
    weight = net.parameter(draw(st.integers(1, 4)), x.type.shape[-1], axes=(1, 0))
    return net.add(Linear(bias=False), x, weight)


def arithmetic(net: Net, draw, x: Value) -> Value:
    """With itself under two layouts, with a constant, with a parameter, with its own means."""
    op, kind = draw(st.sampled_from([Add(), Mul()])), draw(st.integers(0, 3))
    shape = x.type.shape
    if kind == 0:
        return net.add(op, net.relu(x), x)
    if kind == 1:
        mask = [draw(st.booleans()) for _ in shape[1:]]
        sizes = [n if m else 1 for n, m in zip(shape[1:], mask, strict=True)]
        return net.add(op, x, net.builder.constant("c", net.draw(*sizes)))
    if kind == 2:
        return net.add(op, x, net.parameter(*shape[1:]))
    axis = draw(st.integers(1, len(shape) - 1))
    return net.add(op, net.add(Reduce((axis,), mean=True, keep=True), x), x)


def structure(net: Net, draw, x: Value) -> Value:
    shape = x.type.shape
    axis = draw(st.integers(1, len(shape) - 1))
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return net.add(Concat(axis), x, net.relu(x))
    if kind == 1:
        step = draw(st.integers(1, 2))
        return net.add(Slice(axis, draw(st.integers(0, shape[axis] - 1)), shape[axis], step), x)
    if kind == 2:
        pads = [(0, 0)] * len(shape)
        pads[axis] = (draw(st.integers(0, 1)), draw(st.integers(0, 2)))
        return net.add(Pad(tuple(pads), 0.5), x)
    if kind == 3 and len(shape) > 2:
        last = draw(st.integers(axis, len(shape) - 1))
        keep = last - axis + 2 == len(shape) or draw(st.booleans())
        return net.add(Reduce(tuple(range(axis, last + 1)), keep=keep), x)
    if kind == 4 and shape[axis] == 1:
        return net.add(Spread((axis,), (2,), keep=True), x)
    return net.add(draw(st.sampled_from([Softmax(), LayerNorm(affine=False)])), x)


def relu(net: Net, draw, x: Value) -> Value:
    return net.add(Relu(), x)


STEPS = [transpose, transpose, reshape, reshape, conv, conv, linear, arithmetic, structure, relu]


@st.composite
def nets(draw) -> Net:
    net = Net(1, *draw(st.lists(st.integers(1, 4), min_size=2, max_size=3)))
    values = [net.x]
    for _ in range(draw(st.integers(2, 9))):
        x = draw(st.sampled_from(values[-2:]))
        y = draw(st.sampled_from(STEPS))(net, draw, x)
        if math.prod(y.type.shape) <= MAX_ELEMENTS:
            values.append(y)
    net.graph = net.done(values[-1], draw(st.sampled_from(values[1:] or values)))
    return net


def close(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(
        x.shape == y.shape and np.allclose(x, y, rtol=1e-3, atol=1e-3 * max(1.0, np.abs(x).max()))
        for x, y in zip(a, b, strict=True)
    )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(nets())
def test_layout_and_fold_preserve_random_graphs(net: Net):
    graph: Graph = net.graph
    before = run(graph, plain_ports(graph))
    arranged, ports = arrange(graph)
    assert close(before, run(verify(arranged), ports))
    moved = sum(isinstance(node.op, Transpose) for node in arranged.nodes)
    assert moved <= sum(isinstance(node.op, Transpose) for node in graph.nodes) + 2
    folded = verify(fold(arranged))
    assert close(before, run(folded, ports))
    held = [(t.origin, t.array) for t in folded.constants.values() if t.origin]
    for name, array in to_user(held).items():
        assert np.allclose(array, net.parameters[name], rtol=1e-3, atol=1e-4)
