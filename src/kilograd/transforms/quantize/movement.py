"""Operators that only move numbers: their result has the quantisation of their input."""

from __future__ import annotations

from dataclasses import replace

from kilograd.ir.graph import Node
from kilograd.ops.shape import Pad
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
