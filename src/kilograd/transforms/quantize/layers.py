"""Convolutions and linear layers in int8, and scales and shifts as depthwise convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from kilograd.ir.graph import Node, Tensor, Value
from kilograd.ir.operator import Operator
from kilograd.ir.origin import Permute
from kilograd.ir.origin import Reshape as ReshapeStep
from kilograd.ops.affine import ChannelAffine
from kilograd.ops.conv import Conv2d
from kilograd.ops.depthwise import DepthwiseConv2d
from kilograd.ops.linear import Linear
from kilograd.ops.q_conv import QConv2d
from kilograd.ops.q_depthwise import QDepthwiseConv2d
from kilograd.ops.q_linear import QLinear
from kilograd.ops.q_types import MAX_TERMS
from kilograd.ops.requantize import quantize_multipliers
from kilograd.ops.shape import Reshape
from kilograd.transforms.quantize.parameters import (
    after,
    quantized_bias,
    quantized_weight,
    raised_for_bias,
    weight_scales,
)
from kilograd.transforms.quantize.quantizer import Quantizer, Reason, meaning, to_integer

LAYERS = (ChannelAffine, Conv2d, DepthwiseConv2d, Linear)
"""Operators whose inputs are x, weight and bias."""


def conv2d(q: Quantizer, node: Node) -> Reason:
    """Weights [KH,KW,I,O] become [O,KH,KW,I]."""
    op = node.op
    assert isinstance(op, Conv2d)
    if reason := _refusal(q, node):
        return reason
    weight, bias = _parameters(q, node)
    build = partial(
        QConv2d, stride=op.stride, padding=op.padding, dilation=op.dilation, groups=op.groups
    )
    x = q.integer(node.inputs[0])
    q.made(node, _layer(q, node, x, after(weight, Permute((3, 0, 1, 2))), bias, 0, build))
    return None


def depthwise(q: Quantizer, node: Node) -> Reason:
    """Weights stay [KH,KW,C]."""
    op = node.op
    assert isinstance(op, DepthwiseConv2d)
    if reason := _refusal(q, node):
        return reason
    weight, bias = _parameters(q, node)
    build = partial(QDepthwiseConv2d, stride=op.stride, padding=op.padding, dilation=op.dilation)
    q.made(node, _layer(q, node, q.integer(node.inputs[0]), weight, bias, 2, build))
    return None


def linear(q: Quantizer, node: Node) -> Reason:
    """Weights [I,O] become [O,I]."""
    assert isinstance(node.op, Linear)
    if reason := _refusal(q, node):
        return reason
    weight, bias = _parameters(q, node)
    x = q.integer(node.inputs[0])
    q.made(node, _layer(q, node, x, after(weight, Permute((1, 0))), bias, 0, QLinear))
    return None


def channel_affine(q: Quantizer, node: Node) -> Reason:
    """A depthwise convolution of one pixel."""
    assert isinstance(node.op, ChannelAffine)
    if reason := _refusal(q, node):
        return reason
    return affine(q, node, node.inputs[0], *_parameters(q, node))


def affine(q: Quantizer, node: Node, source: Value, scale: Tensor, shift: Tensor) -> Reason:
    """`source` scale + shift, both [C], with the scale as the weight [1,1,C] of a convolution."""
    x, shape = q.integer(source), source.type.shape
    channels = shape[-1]
    image = (1, 1, math.prod(shape[1:-1]), channels)
    if len(shape) != 4:
        x = q.builder.add(Reshape(image), x, name=x.name)
    weight = after(scale, ReshapeStep((channels,), (1, 1, channels)))
    y = _layer(q, node, x, weight, shift, 2, QDepthwiseConv2d)
    if len(shape) != 4:
        y = q.builder.add(Reshape(shape), y, name=y.name)
    q.made(node, y)
    return None


def _refusal(q: Quantizer, node: Node) -> Reason:
    """Why the layer cannot be int8, if it cannot."""
    for value in node.inputs[1:]:
        if value not in q.graph.constants:
            return f"its operand {value} is computed, not a parameter"
    weight = node.inputs[1].type
    terms = weight.size // weight.shape[-1]
    if terms > MAX_TERMS:
        return f"sums of {terms} products may overflow 32 bits; at most {MAX_TERMS} are supported"
    return q.shared_parameter(node)


def _parameters(q: Quantizer, node: Node) -> tuple[Tensor, Tensor]:
    """Weight and bias; a bias of zeros where there is none."""
    weight, *bias = (q.graph.constants[value] for value in node.inputs[1:])
    channels = node.outputs[0].type.shape[-1]
    return weight, bias[0] if bias else Tensor(np.zeros(channels, np.float32))


def _layer(
    q: Quantizer, node: Node, x: Value, weight: Tensor, bias: Tensor, axis: int,
    build: Callable[..., Operator],
) -> Value:  # fmt: skip
    """The int8 layer on x; `axis` is that of the output channels in the weight."""
    out = q.quantization(node.outputs[0])
    x_scale, x_zero_point = meaning(x.type)
    tight = weight_scales(weight.array, axis) * q.headroom
    scales = raised_for_bias(tight, bias.array, x_scale)
    for channel in np.flatnonzero(scales > tight):
        q.report.notes.append(
            f"{node.location}: the bias {bias.array[channel]:.3g} of channel {channel} overflows "
            f"32 bits at the scale {x_scale * tight[channel]:.3g} of its products, so the scale of "
            f"the channel's weights is {scales[channel] / tight[channel]:.3g} times what they need"
        )
    low, high = getattr(node.op, "low", -math.inf), getattr(node.op, "high", math.inf)
    op = build(
        scale=out.scales[0], zero_point=out.zero_point, x_zero_point=x_zero_point,
        low=to_integer(low, out), high=to_integer(high, out),
    )  # fmt: skip
    name = node.outputs[0].name
    layer = isinstance(node.op, LAYERS)
    names = [value.name for value in node.inputs[1:]] if layer else [f"{name}.scale"]
    if len(names) < 2:
        names.append(f"{name}.bias")
    sums = x_scale * scales
    multiplier, shift = quantize_multipliers(list(sums / out.scales[0]))
    constants = (
        q.constant(names[0], *quantized_weight(weight, axis, scales)),
        q.constant(names[1], *quantized_bias(bias, sums)),
        q.constant(f"{name}.multiplier", Tensor(multiplier)),
        q.constant(f"{name}.shift", Tensor(shift)),
    )
    return q.builder.add(op, x, *constants, name=name)
