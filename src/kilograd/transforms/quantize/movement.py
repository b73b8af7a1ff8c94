"""Operators that move or compare numbers: their result has the quantisation of their input."""

from __future__ import annotations

import math
from dataclasses import replace

from kilograd.ir.graph import Node
from kilograd.ops.q_types import HIGH, LOW
from kilograd.ops.shape import Concat, Pad
from kilograd.ops.unary import Clamp, Relu
from kilograd.transforms.quantize.quantizer import Quantizer, Reason, meaning, to_integer


def move(q: Quantizer, node: Node) -> Reason:
    """The same operator on int8."""
    x = q.integer(node.inputs[0])
    q.made(node, q.builder.add(node.op, x, name=node.outputs[0].name))
    return None


def pad(q: Quantizer, node: Node) -> Reason:
    """Padding with the int8 of the value, if there is one."""
    assert isinstance(node.op, Pad)
    x = q.integer(node.inputs[0])
    scale, zero_point = meaning(x.type)
    assert x.type.quantization is not None
    value = to_integer(node.op.value, x.type.quantization)
    if abs(scale * (value - zero_point) - node.op.value) > scale:
        return f"int8 at scale {scale:.3g} does not reach its padding value {node.op.value}"
    op = replace(node.op, value=float(value))
    q.made(node, q.builder.add(op, x, name=node.outputs[0].name))
    return None


def clamp(q: Quantizer, node: Node) -> Reason:
    """Nothing, where the input's quantisation ends at the bounds, as it does for an input that
    nobody else reads; else a table.
    """
    assert isinstance(node.op, Clamp | Relu)
    low, high = (0.0, math.inf) if isinstance(node.op, Relu) else (node.op.low, node.op.high)
    x = q.integer(node.inputs[0])
    assert x.type.quantization is not None
    limits = to_integer(low, x.type.quantization), to_integer(high, x.type.quantization)
    if limits != (LOW, HIGH):
        return "its bounds lie inside the range of its input"
    q.made(node, x)
    return None


def concat(q: Quantizer, node: Node) -> Reason:
    """Joined where all inputs have the result's quantisation."""
    assert isinstance(node.op, Concat)
    out = q.quantization(node.outputs[0])
    inputs = [q.integer(value) for value in node.inputs]
    if any(value.type.quantization != out for value in inputs):
        return "its inputs differ in scale"
    q.made(node, q.builder.add(node.op, *inputs, name=node.outputs[0].name))
    return None
