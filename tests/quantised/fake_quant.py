"""A fake-quantised network in PyTorch: real numbers in float64, straight-through rounding.

Each operator of an int8 graph is the function of torch.nn.functional that it quantises, on real
numbers; the result is rounded to what int8 can hold, and the derivative of the rounding is 1 inside
the range and 0 where the result sits on a bound. Nothing here calls an operator's reference or
gradient: from the graph come structure, attributes, scales and zero points alone.

The rounded results are taken from a run of the int8 network, after a check that they are the
nearest, so that both have their masks from the same integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kilograd.ir import DType, Graph, Node, Value

LARGEST_ERROR = 0.5 + 1e-3
"""In steps: a result is the nearest, or the other one of a near tie."""


class StraightThrough(torch.autograd.Function):
    """`stored`, with the derivative of the identity where `inside`, else 0."""

    @staticmethod
    def forward(ctx, exact: Tensor, stored: Tensor, inside: Tensor) -> Tensor:
        ctx.save_for_backward(inside)
        return stored

    @staticmethod
    def backward(ctx, d_stored: Tensor):
        (inside,) = ctx.saved_tensors
        return d_stored * inside, None, None


def real(array: np.ndarray, value: Value) -> Tensor:
    """What the numbers of a tensor stand for, float64."""
    q = value.type.quantization
    if q is None:
        return torch.tensor(array.astype(np.float64))
    scales = np.array(q.scales)
    if q.axis is not None:
        scales = scales.reshape([-1 if i == q.axis else 1 for i in range(array.ndim)])
    return torch.tensor((array.astype(np.float64) - q.zero_point) * scales)


@dataclass
class FakeQuantised:
    """The network of an int8 forward graph with one input and one output.

    `parameters` are the leaves, by the value that holds each in the graph, in its layout, in real
    units. `integers` are the results of a run; without them results are rounded here. `differing`
    counts the elements that rounding here would have made others, `rounded` all of them, `on_bound`
    those without a derivative. `results` are the first results of all nodes in the last call.
    """

    graph: Graph
    integers: Mapping[Value, np.ndarray] | None = None
    parameters: dict[Value, Tensor] = field(default_factory=dict)
    differing: int = 0
    rounded: int = 0
    results: dict[Value, Tensor] = field(default_factory=dict)
    on_bound: dict[str, int] = field(default_factory=lambda: {"low": 0, "high": 0})

    def __post_init__(self) -> None:
        for value, tensor in self.graph.constants.items():
            if tensor.origin is not None:
                self.parameters[value] = real(tensor.array, value).requires_grad_()

    def __call__(self, x: np.ndarray) -> Tensor:
        """The output for a batch of one, in the program's layout."""
        env = {self.graph.inputs[0]: torch.tensor(x.astype(np.float64))}
        for value, tensor in self.graph.constants.items():
            env[value] = self.parameters.get(value, real(tensor.array, value))
        for node in self.graph.nodes:
            exact = FUNCTIONS[node.op.name](node, *(env[value] for value in node.inputs))
            y = node.outputs[0]
            env[y] = self._round(node, exact) if y.type.dtype is DType.I8 else exact
        self.results = {y: env[y].detach() for node in self.graph.nodes for y in node.outputs[:1]}
        return env[self.graph.outputs[0]]

    def _round(self, node: Node, exact: Tensor) -> Tensor:
        y = node.outputs[0]
        q, op = y.type.quantization, node.op
        assert q is not None
        assert exact.shape == y.type.shape
        if op.name in MOVES:
            return exact
        low, high = getattr(op, "low", -128), getattr(op, "high", 127)
        places = exact.detach() / q.scales[0] + q.zero_point
        nearest = torch.clamp(torch.round(places), low, high)
        stored = nearest
        if self.integers is not None:
            stored = torch.tensor(self.integers[y].astype(np.float64))
            error = float((torch.clamp(places, low, high) - stored).abs().max())
            if error > LARGEST_ERROR:
                raise AssertionError(f"{node.op} at {node.location} is off by {error} steps")
        self.rounded += stored.numel()
        self.differing += int((stored != nearest).sum())
        self.on_bound["low"] += int((stored == low).sum())
        self.on_bound["high"] += int((stored == high).sum())
        inside = (stored > low) & (stored < high)
        if op.name == "q_table":  # a function may end at a bound and be smooth there
            inside = (torch.round(places) >= -128) & (torch.round(places) <= 127)
        if op.name == "q_concat":  # what is only copied was rounded before
            own = (op.scale, op.zero_point)
            copied = [
                torch.full(value.type.shape, source == own)
                for value, source in zip(node.inputs, op.sources, strict=True)
            ]
            inside = inside | torch.cat(copied, op.axis)
        return StraightThrough.apply(exact, (stored - q.zero_point) * q.scales[0], inside)


MOVES = {
    "concat", "pad", "q_max_pool2d", "reshape", "slice", "transpose", "upsample_nearest2d",
}  # fmt: skip
"""Results are inputs: nothing to round."""


def _images(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _padded(op, x: Tensor, value: float = 0.0) -> Tensor:
    (top, bottom), (left, right) = op.padding
    return functional.pad(_images(x), (left, right, top, bottom), value=value)


def _limited(op, y: Tensor) -> Tensor:
    """The clamp of float operators."""
    return torch.clamp(y, op.low, op.high)


def _q_conv2d(node: Node, x: Tensor, weight: Tensor, bias: Tensor, *_: Tensor) -> Tensor:
    op = node.op
    how = {"stride": op.stride, "dilation": op.dilation, "groups": op.groups}
    return _rows(functional.conv2d(_padded(op, x), weight.permute(0, 3, 1, 2), bias, **how))


def _conv2d(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    op = node.op
    how = {"stride": op.stride, "dilation": op.dilation, "groups": op.groups}
    y = functional.conv2d(_padded(op, x), weight.permute(3, 2, 0, 1), bias, **how)
    return _limited(op, _rows(y))


def _q_depthwise(node: Node, x: Tensor, weight: Tensor, bias: Tensor, *_: Tensor) -> Tensor:
    op = node.op
    how = {"stride": op.stride, "dilation": op.dilation, "groups": x.shape[3]}
    kernel = weight.permute(2, 0, 1)[:, None]
    return _rows(functional.conv2d(_padded(op, x), kernel, bias, **how))


def _q_linear(node: Node, x: Tensor, weight: Tensor, bias: Tensor, *_: Tensor) -> Tensor:
    return functional.linear(x, weight, bias)


def _linear(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return _limited(node.op, functional.linear(x, weight.T, bias))


def _max_pool(node: Node, x: Tensor) -> Tensor:
    op = node.op
    padded = _padded(op, x, -math.inf)
    return _rows(functional.max_pool2d(padded, op.kernel, op.stride, 0, op.dilation))


def _avg_pool(node: Node, x: Tensor) -> Tensor:
    op = node.op
    assert op.divisor in (None, 0) and op.extra == (0, 0) and op.padding == ((0, 0), (0, 0))
    return _rows(functional.avg_pool2d(_images(x), op.kernel, op.stride))


def _table(node: Node, x: Tensor, table: Tensor) -> Tensor:
    function = node.op.function
    if function.name == "hard_sigmoid":
        return torch.clamp(function.alpha * x + function.beta, 0, 1)
    return TABLES[function.name](x)


def _reduce(node: Node, x: Tensor) -> Tensor:
    op = node.op
    return x.mean(op.axes, keepdim=op.keep) if op.mean else x.sum(op.axes, keepdim=op.keep)


TABLES: dict[str, Callable[[Tensor], Tensor]] = {
    "hard_swish": functional.hardswish,
    "relu": functional.relu,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "tanh": torch.tanh,
}

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "add": lambda node, a, b: _limited(node.op, a + b),
    "concat": lambda node, *pieces: torch.cat(pieces, node.op.axis),
    "conv2d": _conv2d,
    "dequantize": lambda node, x: x,
    "linear": _linear,
    "q_add": lambda node, a, b: a + b,
    "q_avg_pool2d": _avg_pool,
    "q_concat": lambda node, *pieces: torch.cat(pieces, node.op.axis),
    "q_conv2d": _q_conv2d,
    "q_depthwise_conv2d": _q_depthwise,
    "q_linear": _q_linear,
    "q_max_pool2d": _max_pool,
    "q_mean": lambda node, x: x.mean((1, 2), keepdim=node.op.keep),
    "q_mul": lambda node, a, b: a * b,
    "q_table": _table,
    "quantize": lambda node, x: x,
    "reduce": _reduce,
    "reshape": lambda node, x: x.reshape(node.outputs[0].type.shape),
    "transpose": lambda node, x: x.permute(node.op.axes),
    "upsample_nearest2d": lambda node, x: _rows(
        functional.interpolate(_images(x), size=node.op.output, mode="nearest")
    ),
}
"""The function of real numbers that each operator stands for."""
