"""Quantised depthwise convolutions: y = clamp(requantize(sum (x - z_x) w + bias) + z_y, low, high).

x and y are int8 with one scale, weights int8 [KH,KW,C] symmetric with one scale a channel, bias
int32 at s_x s_w.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType
from kilograd.ops.conv_geometry import (
    NO_PADDING,
    Geometry,
    Padding,
    Pair,
    forward_geometry,
    image_shape,
    pad_image,
)
from kilograd.ops.q_conv import output_stage
from kilograd.ops.q_convert import limited, weight_scales
from kilograd.ops.q_depthwise_grad import QDepthwiseConv2dGradInput, QDepthwiseConv2dGradWeight
from kilograd.ops.q_examples import output_constants, quantised_weight
from kilograd.ops.q_types import (
    HIGH,
    LOW,
    activation,
    check_activation,
    check_channels,
    check_output,
    check_terms,
    check_weight,
)
from kilograd.ops.reduce import Reduce
from kilograd.ops.requantize import requantize, to_int8
from kilograd.ops.shape import Slice


def _scratch_bytes(geometry: Geometry) -> int:
    """Scratch of `kg_depthwise_s8`: the taps of four channels in pairs, and the rows that they
    meet.
    """
    if geometry.dilation[1] != 1 or geometry.stride[1] > 2:
        return 0
    words = geometry.kernel[1] // 2 + 1
    blocks = -(-geometry.size_out[1] // 4) * 4
    reach = (blocks - 1) * geometry.stride[1] + 2 * words
    width = -(-max(geometry.before[1] + geometry.size_in[1], reach) // 2) * 2
    rows = (geometry.kernel[0] - 1) * geometry.dilation[0] + 2
    return 2 * (geometry.kernel[0] * (2 + 16 * words) + 4 * rows * width)


@dataclass(frozen=True)
class QDepthwiseConv2d(Operator):
    """Inputs x i8 [1,H,W,C], weight parts i8 [KH,KW,C_k] with sum of C_k = C, bias, multiplier and
    shift i32 [C]; the fields are those of QConv2d.
    """

    name: ClassVar[str] = "q_depthwise_conv2d"
    channel_axis: ClassVar[int | None] = 2
    scale: float
    zero_point: int
    x_zero_point: int
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    parts: int = 1
    low: int = LOW
    high: int = HIGH

    def geometry(self, *types: TensorType) -> Geometry:
        """Where the kernel meets the input; raises InputError in the user's terms."""
        x, weights = types[0], types[1 : 1 + self.parts]
        h, w, channels = image_shape(self.name, x, DType.I8)
        check_output(self.name, self.scale, self.zero_point, self.low, self.high)
        check_activation(self.name, x, self.x_zero_point)
        kh, kw, _ = weights[0].shape
        taken = sum(weight.shape[2] for weight in weights)
        if taken != channels:
            raise InputError(f"{self.name}: the input has {channels} channels, the weight {taken}")
        for weight in weights:
            if weight.shape[:2] != (kh, kw):
                raise InputError(f"{self.name}: the parts {weights[0]} and {weight} do not join")
            check_weight(self.name, weight, 2)
        check_channels(self.name, channels, *types[1 + self.parts :])
        check_terms(self.name, kh * kw)
        return forward_geometry(
            self.name, (h, w), (kh, kw), self.stride, self.padding, self.dilation
        )

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """i8 [1,OH,OW,C]."""
        geometry = self.geometry(*types)
        shape = (1, *geometry.size_out, types[0].shape[3])
        return (activation(shape, self.scale, self.zero_point),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Exact integers."""
        x, weight = arrays[0], xp.concat(list(arrays[1 : 1 + self.parts]), axis=2)
        bias, multiplier, shift = arrays[1 + self.parts :]
        geometry = forward_geometry(
            self.name, x.shape[1:3], weight.shape[:2], self.stride, self.padding, self.dilation
        )
        padded = pad_image(xp, xp.astype(x, xp.int32) - self.x_zero_point, geometry)
        taps = xp.astype(weight, xp.int32)
        sums = sum(padded[index] * taps[kh, kw] for kh, kw, index in geometry.taps)
        result = requantize(xp, sums + bias, multiplier, shift)
        return (to_int8(xp, result, self.zero_point, self.low, self.high),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """In real units: the transpose for x, the correlation of x and d_y for the weight, a sum
        for bias; nothing where the result sits on a bound.
        """
        x, weights, bias = node.inputs[0], node.inputs[1:-3], node.inputs[-3]
        result: list[Value | None] = [None] * len(node.inputs)
        if not any(wanted):
            return result
        d_y = limited(builder, cotangents[0], node.outputs[0], self.low, self.high)
        geometry = self.geometry(*(value.type for value in node.inputs))
        how = (self.stride, self.padding, self.dilation)
        if wanted[0]:
            op = QDepthwiseConv2dGradInput(geometry.size_in, *how, parts=self.parts)
            scales = [weight_scales(builder, weight, 2) for weight in weights]
            result[0] = builder.add(op, d_y, *weights, *scales, name=f"d_{x.name}")
        x_scale = check_activation(self.name, x.type)
        begins = accumulate((weight.type.shape[2] for weight in weights), initial=0)
        for k, (weight, begin) in enumerate(zip(weights, begins, strict=False)):
            if wanted[1 + k]:
                source, d_part = x, d_y
                if self.parts > 1:
                    cut = Slice(-1, begin, begin + weight.type.shape[2])
                    source, d_part = builder.add(cut, x), builder.add(cut, d_y)
                grad = QDepthwiseConv2dGradWeight(x_scale, self.x_zero_point, geometry.kernel, *how)
                result[1 + k] = builder.add(grad, source, d_part, name=f"d_{weight.name}")
        if wanted[-3]:
            result[-3] = builder.add(Reduce((0, 1, 2)), d_y, name=f"d_{bias.name}")
        return result

    def cost(self, *types: TensorType) -> Cost:
        """One multiply-accumulate a weight and output pixel, padding included."""
        (y,) = self.infer(*types)
        return Cost(
            macs=y.size * math.prod(types[1].shape[:2]),
            bytes_read=sum(t.bytes for t in types),
            bytes_written=y.bytes,
            scratch_bytes=_scratch_bytes(self.geometry(*types)),
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call a part."""
        x, (y,) = operands.inputs[0], operands.outputs
        weights, constants = operands.inputs[1:-3], operands.inputs[-3:]
        geometry = self.geometry(*(operand.type for operand in operands.inputs))
        calls, begin, channels = [], 0, x.type.shape[3]
        for weight in weights:
            bias, multiplier, shift = (constant.offset(begin) for constant in constants)
            arguments = (
                y.offset(begin), x.offset(begin), weight,
                output_stage(bias, multiplier, shift, self.zero_point, self.low, self.high),
                operands.scratch, str(geometry), weight.type.shape[2], channels, self.x_zero_point,
            )  # fmt: skip
            calls.append(Call("q_depthwise.h", "kg_depthwise_s8", arguments))
            begin += weight.type.shape[2]
        return calls

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Kernels of 1 to 7, strides, dilation, edges, parts; many channels and few."""
        one, two, three = (((k, k), (k, k)) for k in (1, 2, 3))
        make = q_depthwise_example
        return [
            make(0, cls(0.1, -3, 4, padding=one), (1, 4, 7, 3), (3, 3, 3), batched=True),
            make(1, cls(0.1, 3, -4, (2, 2), ((0, 1), (0, 1))), (1, 6, 8, 2), (3, 3, 2)),
            make(2, cls(0.1, 3, -128, (2, 3), ((1, 2), (0, 3)), (2, 1)), (1, 6, 7, 2), (3, 2, 2)),
            make(3, cls(0.1, 3, 9, (2, 2), two, parts=2), (1, 5, 6, 5), (5, 5, 2), (5, 5, 3)),
            make(4, cls(0.2, -128, 9, (1, 2), three, high=90), (1, 3, 9, 2), (7, 7, 2)),
            make(5, cls(0.1, 3, 127, padding=one), (1, 1, 1, 3), (3, 3, 3)),
            make(6, cls(0.1, 3, 9, (3, 3)), (1, 7, 7, 2), (1, 2, 2)),
            make(7, cls(0.1, 3, 9, padding=one, low=3), (1, 9, 13, 27), (3, 3, 27)),
            make(8, cls(0.1, 3, 9, (2, 2), one), (1, 12, 19, 21), (3, 3, 21)),
            make(9, cls(0.2, 3, 9, padding=two), (1, 9, 15, 18), (5, 5, 18)),
            make(10, cls(0.2, 3, 9, padding=three), (1, 9, 15, 17), (7, 7, 17)),
            make(11, cls(0.2, 3, 9, (1, 1), two, (2, 2)), (1, 9, 6, 9), (3, 3, 9)),
            make(12, cls(1e-5, 3, 9, padding=one), (1, 3, 4, 6), (3, 3, 6)),
        ]  # fmt: skip


def q_depthwise_example(
    seed: int,
    op: QDepthwiseConv2d,
    shape: Sequence[int],
    *weights: Sequence[int],
    batched: bool = False,
) -> Example:
    """Random operands with the extremes of int8 among them."""
    rng, x_scale = np.random.default_rng(seed), 0.05
    x = rng.integers(-128, 128, shape).astype(np.int8)
    x.flat[0], x.flat[-1] = -128, 127
    parts, types, scales = quantised_weight(rng, 2, shape[3], *weights)
    constants, constant_types = output_constants(rng, scales, x_scale, op.scale)
    return Example(
        op,
        (x, *parts, *constants),
        batched=(0,) if batched else (),
        types=(activation(shape, x_scale, op.x_zero_point), *types, *constant_types),
    )
