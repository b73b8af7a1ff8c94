"""Maxima, which keep the quantisation of their input, and means, which have their own."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kilograd.ir.graph import Node, Value
from kilograd.ops.pool import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from kilograd.ops.q_pool import QAvgPool2d, QMaxPool2d, QMean
from kilograd.ops.reduce import Reduce
from kilograd.ops.shape import Reshape
from kilograd.transforms.quantize.quantizer import Quantizer, Reason, meaning

UNEVEN = "its windows differ in size"


def max_pool(q: Quantizer, node: Node) -> Reason:
    """The index comes along; it is dropped later where nobody reads it."""
    assert isinstance(node.op, MaxPool2d)
    op = node.op
    made = QMaxPool2d(op.kernel, op.stride, op.padding, op.dilation, op.index)
    return _maximum(q, node, made)


def adaptive_max_pool(q: Quantizer, node: Node) -> Reason:
    """Windows of one size."""
    assert isinstance(node.op, AdaptiveMaxPool2d)
    windows = _windows(node, node.op.output)
    if windows is None:
        return UNEVEN
    return _maximum(q, node, QMaxPool2d(windows, windows, index=node.op.index))


def avg_pool(q: Quantizer, node: Node) -> Reason:
    """One window over everything is a mean."""
    assert isinstance(node.op, AvgPool2d)
    op, out = node.op, q.quantization(node.outputs[0])
    x = q.integer(node.inputs[0])
    plain = op == AvgPool2d(op.kernel, op.stride)
    if plain and op.kernel == node.inputs[0].type.shape[1:3]:
        return _mean(q, node, x, keep=True)
    made = QAvgPool2d(
        op.kernel, op.stride, op.padding, op.include_pad, op.extra, op.divisor, out.scales[0],
        out.zero_point, meaning(x.type),
    )  # fmt: skip
    q.made(node, q.builder.add(made, x, name=node.outputs[0].name))
    return None


def adaptive_avg_pool(q: Quantizer, node: Node) -> Reason:
    """Windows of one size."""
    assert isinstance(node.op, AdaptiveAvgPool2d)
    windows = _windows(node, node.op.output)
    if windows is None:
        return UNEVEN
    x, out = q.integer(node.inputs[0]), q.quantization(node.outputs[0])
    if node.op.output == (1, 1):
        return _mean(q, node, x, keep=True)
    made = QAvgPool2d(
        windows, windows, scale=out.scales[0], zero_point=out.zero_point, source=meaning(x.type)
    )
    q.made(node, q.builder.add(made, x, name=node.outputs[0].name))
    return None


def reduce(q: Quantizer, node: Node) -> Reason:
    """A mean over the axes after the batch; those after them are its channels."""
    op, shape = node.op, node.inputs[0].type.shape
    assert isinstance(op, Reduce)
    if not op.mean:
        return "there is no int8 kernel for sums over axes"
    if op.axes[0] != 1:
        return "there is no int8 kernel for means over the last axes"
    x = q.integer(node.inputs[0])
    if op.axes == (1, 2) and len(shape) == 4:
        return _mean(q, node, x, keep=op.keep)
    inside = math.prod(shape[axis] for axis in op.axes)
    image = (shape[0], 1, inside, math.prod(shape[op.axes[-1] + 1 :]))
    return _mean(q, node, q.builder.add(Reshape(image), x, name=x.name), keep=False)


def _mean(q: Quantizer, node: Node, x: Value, *, keep: bool) -> Reason:
    out = q.quantization(node.outputs[0])
    op = QMean(out.scales[0], out.zero_point, meaning(x.type), keep)
    y = q.builder.add(op, x, name=node.outputs[0].name)
    shape = node.outputs[0].type.shape
    q.made(node, y if y.type.shape == shape else q.builder.add(Reshape(shape), y, name=y.name))
    return None


def _maximum(q: Quantizer, node: Node, op: QMaxPool2d) -> Reason:
    x = q.integer(node.inputs[0])
    q.made(node, q.builder.add_multi(op, x, name=node.outputs[0].name)[0])
    return None


def _windows(node: Node, output: Sequence[int]) -> tuple[int, int] | None:
    """The size of every window, if they have one."""
    height, width = node.inputs[0].type.shape[1:3]
    if height % output[0] or width % output[1]:
        return None
    return height // output[0], width // output[1]
