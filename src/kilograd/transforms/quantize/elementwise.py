"""Functions of one tensor by table, sums and products of two, concatenations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kilograd.ir.graph import Node, Tensor, Value
from kilograd.ir.origin import Reshape as ReshapeStep
from kilograd.ops.binary import Add, Div, Mul, Sub
from kilograd.ops.q_elementwise import QAdd, QConcat, QMul
from kilograd.ops.q_table import QTable
from kilograd.ops.q_types import HIGH, LOW
from kilograd.ops.shape import Concat
from kilograd.ops.unary import Clamp, Neg, Relu
from kilograd.transforms.quantize.layers import affine
from kilograd.transforms.quantize.parameters import after, quantized_constant
from kilograd.transforms.quantize.quantizer import Quantizer, Reason, meaning, to_integer


def table(q: Quantizer, node: Node) -> Reason:
    """256 values computed beforehand."""
    x, out = q.integer(node.inputs[0]), q.quantization(node.outputs[0])
    scale, zero_point = meaning(x.type)
    every = scale * (np.arange(LOW, HIGH + 1, dtype=np.float64) - zero_point)
    with np.errstate(all="ignore"):
        (results,) = node.op.reference(np, every[None, :])
    if not np.isfinite(results).all():
        return "it is not finite on the whole range of its input"
    op = QTable(node.op, out.scales[0], out.zero_point, (scale, zero_point))
    q.made(node, _tabulated(q, x, op, node.outputs[0].name))
    return None


def clamp(q: Quantizer, node: Node) -> Reason:
    """Nothing, where the input's quantisation ends at the bounds, as it does for an input that
    nobody else reads; else a table.
    """
    assert isinstance(node.op, Clamp | Relu)
    low, high = (0.0, math.inf) if isinstance(node.op, Relu) else (node.op.low, node.op.high)
    x = q.integer(node.inputs[0])
    assert x.type.quantization is not None
    if [to_integer(bound, x.type.quantization) for bound in (low, high)] != [LOW, HIGH]:
        return table(q, node)
    q.made(node, x)
    return None


def add(q: Quantizer, node: Node) -> Reason:
    """A sum of activations or of an activation and a constant of its shape; else a shift."""
    assert isinstance(node.op, Add)
    place = _constant_place(q, node)
    if reason := _refusal(q, node, place):
        return reason
    if place is not None and _per_channel(node, place):
        shift = _channels(q, node, place)
        return affine(q, node, node.inputs[1 - place], Tensor(np.ones_like(shift.array)), shift)
    return _sum(q, node, [_operand(q, node, i) for i in range(2)])


def sub(q: Quantizer, node: Node) -> Reason:
    """A sum with the negative, which int8 has exactly at the zero point -1 - z."""
    assert isinstance(node.op, Sub)
    place = _constant_place(q, node)
    if reason := _refusal(q, node, place):
        return reason
    if place is not None and _per_channel(node, place):
        tensor = _channels(q, node, place)
        if tensor.origin is not None:
            return "its parameter enters with a minus"
        one, sign = np.ones_like(tensor.array), 1 if place == 0 else -1
        scale, shift = Tensor(-sign * one), Tensor(sign * tensor.array)
        return affine(q, node, node.inputs[1 - place], scale, shift)
    a, b = (_operand(q, node, i) for i in range(2))
    scale_b, zero_point = meaning(b.type)
    op = QTable(Neg(), scale_b, -1 - zero_point, (scale_b, zero_point))
    return _sum(q, node, [a, _tabulated(q, b, op, f"{b.name}.negative")])


def mul(q: Quantizer, node: Node) -> Reason:
    """A product of activations, the second of which may be one pixel; else a scale."""
    assert isinstance(node.op, Mul)
    place = _constant_place(q, node)
    if reason := _refusal(q, node, place):
        return reason
    if place is not None and _per_channel(node, place):
        scale = _channels(q, node, place)
        return affine(q, node, node.inputs[1 - place], scale, Tensor(np.zeros_like(scale.array)))
    a, b = sorted((_operand(q, node, i) for i in range(2)), key=lambda v: -v.type.size)
    out = q.quantization(node.outputs[0])
    op = QMul(out.scales[0], out.zero_point, (meaning(a.type), meaning(b.type)))
    q.made(node, q.builder.add(op, a, b, name=node.outputs[0].name))
    return None


def div(q: Quantizer, node: Node) -> Reason:
    """A scale by the reciprocal of a constant."""
    assert isinstance(node.op, Div)
    if _constant_place(q, node) != 1 or not _per_channel(node, 1):
        return "it divides by what is no constant per channel"
    divisor = _channels(q, node, 1)
    if q.graph.constants[node.inputs[1]].origin is not None:
        return "it divides by a parameter"
    with np.errstate(divide="ignore"):
        scale = 1 / divisor.array
    if not np.isfinite(scale).all():
        return "it divides by zero"
    return affine(q, node, node.inputs[0], Tensor(scale), Tensor(np.zeros_like(scale)))


def concat(q: Quantizer, node: Node) -> Reason:
    """A copy of what has the result's quantisation, as an input has that nobody else reads; the
    others are rescaled.
    """
    assert isinstance(node.op, Concat)
    out = q.quantization(node.outputs[0])
    inputs = [q.integer(value) for value in node.inputs]
    op: Concat | QConcat = node.op
    if any(value.type.quantization != out for value in inputs):
        sources = tuple(meaning(value.type) for value in inputs)
        op = QConcat(out.scales[0], out.zero_point, sources, node.op.axis)
    q.made(node, q.builder.add(op, *inputs, name=node.outputs[0].name))
    return None


def _tabulated(q: Quantizer, x: Value, op: QTable, name: str) -> Value:
    return q.builder.add(op, x, q.constant(f"{name}.table", Tensor(op.table())), name=name)


def _sum(q: Quantizer, node: Node, operands: Sequence[Value]) -> Reason:
    a, b = operands
    out = q.quantization(node.outputs[0])
    low, high = getattr(node.op, "low", -math.inf), getattr(node.op, "high", math.inf)
    op = QAdd(
        out.scales[0], out.zero_point, (meaning(a.type), meaning(b.type)), to_integer(low, out),
        to_integer(high, out),
    )  # fmt: skip
    q.made(node, q.builder.add(op, a, b, name=node.outputs[0].name))
    return None


# Constants


def _constant_place(q: Quantizer, node: Node) -> int | None:
    """Which of the two inputs is a constant."""
    places = [i for i, value in enumerate(node.inputs) if value in q.graph.constants]
    return places[0] if places else None


def _refusal(q: Quantizer, node: Node, place: int | None) -> Reason:
    """Why a constant operand cannot be int8, if it cannot."""
    if place is None or q.graph.constants[node.inputs[place]].origin is None:
        return None
    value, channels = node.inputs[place], node.outputs[0].type.shape[-1:]
    if value.type.size == 1 and channels != (1,):
        return f"its parameter {value} is one number for all channels"
    return q.shared_parameter(node)


def _per_channel(node: Node, place: int) -> bool:
    """True when the constant is one number, or one for each entry of the last axis."""
    constant, result = node.inputs[place].type, node.outputs[0].type
    sizes = (1, result.shape[-1])
    whole = node.inputs[1 - place].type.shape == result.shape and result.rank > 1
    return whole and constant.size in sizes and constant.shape[-1:] in ((), (1,), sizes[1:])


def _channels(q: Quantizer, node: Node, place: int) -> Tensor:
    """The constant as [C]; a parameter keeps its origin if it has as many entries."""
    tensor = q.graph.constants[node.inputs[place]]
    channels = node.outputs[0].type.shape[-1]
    if tensor.array.size != channels:
        return Tensor(np.full(channels, tensor.array.reshape(-1)[0], np.float32))
    return after(tensor, ReshapeStep(tensor.array.shape, (channels,)))


def _operand(q: Quantizer, node: Node, place: int) -> Value:
    """The input as int8; a constant gets the rank of the result."""
    value, rank = node.inputs[place], node.outputs[0].type.rank
    if value not in q.graph.constants:
        return q.integer(value)
    tensor = q.graph.constants[value]
    shape = (1,) * (rank - tensor.array.ndim) + tensor.array.shape
    if shape != tensor.array.shape:
        tensor = after(tensor, ReshapeStep(tensor.array.shape, shape))
    return q.constant(value.name, *quantized_constant(tensor))
