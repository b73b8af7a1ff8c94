"""How each operator becomes an int8 one: a table from operators to rules.

A rule gets the walk and a node, makes the int8 form of the node's first output and returns None, or
returns the reason why the node must stay float32 (empty where that needs no mention).
"""

from __future__ import annotations

from collections.abc import Callable

from kilograd.ir.graph import Node
from kilograd.ir.operator import Operator
from kilograd.ops.affine import ChannelAffine
from kilograd.ops.binary import Add, Div, Mul, Sub
from kilograd.ops.conv import Conv2d
from kilograd.ops.depthwise import DepthwiseConv2d
from kilograd.ops.linear import Linear
from kilograd.ops.pool import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from kilograd.ops.reduce import Reduce
from kilograd.ops.resize import UpsampleNearest2d
from kilograd.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from kilograd.ops.unary import Clamp, Relu, Unary
from kilograd.transforms.quantize import elementwise, layers, movement, pooling
from kilograd.transforms.quantize.quantizer import Quantizer, Reason

Rule = Callable[[Quantizer, Node], Reason]

_LAYERS: dict[type[Operator], Rule] = {
    ChannelAffine: layers.channel_affine,
    Conv2d: layers.conv2d,
    DepthwiseConv2d: layers.depthwise,
    Linear: layers.linear,
}
"""Worth a conversion of their input."""

_LIGHT: dict[type[Operator], Rule] = {
    AdaptiveAvgPool2d: pooling.adaptive_avg_pool,
    AdaptiveMaxPool2d: pooling.adaptive_max_pool,
    Add: elementwise.add,
    AvgPool2d: pooling.avg_pool,
    Clamp: elementwise.clamp,
    Concat: elementwise.concat,
    Div: elementwise.div,
    MaxPool2d: pooling.max_pool,
    Mul: elementwise.mul,
    Pad: movement.pad,
    Reduce: pooling.reduce,
    Relu: elementwise.clamp,
    Reshape: movement.move,
    Slice: movement.move,
    Sub: elementwise.sub,
    Transpose: movement.move,
    UpsampleNearest2d: movement.move,
}
"""Only where an input is int8 already."""


def rule_for(op: Operator) -> Rule | None:
    """The rule of an operator, None where it has no int8 form."""
    if type(op) in _LAYERS:
        return _LAYERS[type(op)]
    light = _LIGHT.get(type(op), elementwise.table if isinstance(op, Unary) else None)
    return None if light is None else _where_integer(light)


def _where_integer(rule: Rule) -> Rule:
    """The rule, for nodes that read a graph input or what is int8 already."""

    def guarded(q: Quantizer, node: Node) -> Reason:
        if any(q.is_integer(value) or value in q.graph.inputs for value in node.inputs):
            return rule(q, node)
        return "its inputs are float32"

    return guarded
