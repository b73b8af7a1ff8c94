"""Quantised convolutions: y = clamp(requantize(sum (x - z_x) w + bias) + z_y, low, high).

x and y are int8 with one scale, weights int8 [O,KH,KW,I] symmetric with one scale an output channel
(the input channels innermost, where the 16-bit multiply-accumulates of microcontrollers want them),
bias int32 at s_x s_w. ReLU and ReLU6 are the clamp. Depthwise ones are in q_depthwise.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operand, Operands, Operator
from kilograd.ir.types import DType, TensorType
from kilograd.ops.conv_geometry import (
    NO_PADDING,
    Geometry,
    Padding,
    Pair,
    check_groups,
    convolve,
    forward_geometry,
    image_shape,
)
from kilograd.ops.q_conv_grad import QConv2dGradInput, QConv2dGradWeight
from kilograd.ops.q_convert import limited, weight_scales
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


def scratch_bytes(taps: int, channels: Sequence[int]) -> int:
    """Scratch of `kg_conv2d_s8`: two int16 columns, and the bytes of the widest part."""
    terms = [taps * count for count in channels]
    return sum(4 * (-(-count // 4) * 4) for count in terms) + -(-max(terms) // 4) * 4


def output_stage(
    bias: Operand, multiplier: Operand, shift: Operand, zero_point: int, low: int, high: int
) -> str:
    """The `kg_output_s8` as a C compound literal."""
    fields = output_fields(bias, multiplier, shift, zero_point, low, high)
    return f"&(const kg_output_s8){fields}"


def output_fields(
    bias: Operand, multiplier: Operand, shift: Operand, zero_point: int, low: int, high: int
) -> str:
    """The fields of the `kg_output_s8` in braces."""
    return (
        f"{{.bias = {bias}, .multiplier = {multiplier}, .shift = {shift}, "
        f".zero_point = {zero_point}, .low = {low}, .high = {high}}}"
    )


def part_list(weights: Sequence[Operand]) -> str:
    """The array of `kg_part_s8` as a C compound literal."""
    body = ", ".join(f"{{{weight}, {weight.type.shape[-1]}}}" for weight in weights)
    return f"(const kg_part_s8[]){{{body}}}"


def q_convolve(
    xp: Namespace, x: Array, weight: Array, zero_point: int, geometry: Geometry, groups: int
) -> Array:
    """sum (x - zero_point) w as int64 [N,OH,OW,O]; in float64, which holds the sums exactly."""
    real = xp.astype(x, xp.float64) - zero_point
    transposed = xp.permute_dims(xp.astype(weight, xp.float64), (1, 2, 3, 0))
    return xp.astype(convolve(xp, real, transposed, geometry, groups), xp.int64)


@dataclass(frozen=True)
class QConv2d(Operator):
    """Inputs x i8 [1,H,W,C], weight parts i8 [O,KH,KW,I_k] with sum of I_k = C / groups, bias,
    multiplier and shift i32 [O].

    `scale` and `zero_point` are the result's, `x_zero_point` is that of x; multiplier / 2^shift is
    s_x s_w[o] / scale. Padded taps add nothing. The result is limited to [low, high].
    """

    name: ClassVar[str] = "q_conv2d"
    channel_axis: ClassVar[int | None] = 3
    scale: float
    zero_point: int
    x_zero_point: int
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1
    parts: int = 1
    low: int = LOW
    high: int = HIGH

    def geometry(self, *types: TensorType) -> Geometry:
        """Where the kernel meets the input; raises InputError in the user's terms."""
        x, weights = types[0], types[1 : 1 + self.parts]
        h, w, channels_in = image_shape(self.name, x, DType.I8)
        check_output(self.name, self.scale, self.zero_point, self.low, self.high)
        check_activation(self.name, x, self.x_zero_point)
        channels_out, kh, kw, _ = weights[0].shape
        check_groups(self.name, self.groups, input=channels_in, output=channels_out)
        taken = sum(weight.shape[3] for weight in weights)
        if taken != channels_in // self.groups:
            raise InputError(
                f"{self.name}: the input has {channels_in} channels, {channels_in // self.groups} "
                f"for each of {self.groups} groups; the weight takes {taken}"
            )
        for weight in weights:
            if weight.shape[:3] != (channels_out, kh, kw):
                raise InputError(f"{self.name}: the parts {weights[0]} and {weight} do not join")
            check_weight(self.name, weight, 0)
        check_channels(self.name, channels_out, *types[1 + self.parts :])
        check_terms(self.name, kh * kw * taken)
        return forward_geometry(
            self.name, (h, w), (kh, kw), self.stride, self.padding, self.dilation
        )

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """i8 [1,OH,OW,O]."""
        geometry = self.geometry(*types)
        shape = (1, *geometry.size_out, types[1].shape[0])
        return (activation(shape, self.scale, self.zero_point),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Exact integers."""
        x, weight = arrays[0], xp.concat(list(arrays[1 : 1 + self.parts]), axis=3)
        bias, multiplier, shift = arrays[1 + self.parts :]
        geometry = forward_geometry(
            self.name, x.shape[1:3], weight.shape[1:3], self.stride, self.padding, self.dilation
        )
        sums = q_convolve(xp, x, weight, self.x_zero_point, geometry, self.groups)
        result = requantize(xp, sums + xp.astype(bias, xp.int64), multiplier, shift)
        return (to_int8(xp, result, self.zero_point, self.low, self.high),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """In real units: transposed convolution for x, correlation of x and d_y for the weight, a
        sum for bias; nothing where the result sits on a bound.
        """
        x, weights, bias = node.inputs[0], node.inputs[1:-3], node.inputs[-3]
        result: list[Value | None] = [None] * len(node.inputs)
        if not any(wanted):
            return result
        d_y = limited(builder, cotangents[0], node.outputs[0], self.low, self.high)
        geometry = self.geometry(*(value.type for value in node.inputs))
        how = (self.stride, self.padding, self.dilation, self.groups)
        if wanted[0]:
            scales = weight_scales(builder, weights[0], 0)
            op = QConv2dGradInput(geometry.size_in, *how, parts=self.parts)
            result[0] = builder.add(op, d_y, *weights, scales, name=f"d_{x.name}")
        x_scale = check_activation(self.name, x.type)
        ranges = pairwise([0, *accumulate(weight.type.shape[3] for weight in weights)])
        for k, (weight, part) in enumerate(zip(weights, ranges, strict=True)):
            if wanted[1 + k]:
                source, channels = x, None
                if self.parts > 1 and self.groups == 1:
                    source = builder.add(Slice(-1, *part), x)
                elif self.parts > 1:
                    channels = part
                grad = QConv2dGradWeight(
                    x_scale, self.x_zero_point, geometry.kernel, *how, channels=channels
                )
                result[1 + k] = builder.add(grad, source, d_y, name=f"d_{weight.name}")
        if wanted[-3]:
            result[-3] = builder.add(Reduce((0, 1, 2)), d_y, name=f"d_{bias.name}")
        return result

    def cost(self, *types: TensorType) -> Cost:
        """One multiply-accumulate a weight and output pixel, padding included."""
        (y,) = self.infer(*types)
        weights = types[1 : 1 + self.parts]
        return Cost(
            macs=y.size // y.shape[3] * sum(t.size for t in weights),
            bytes_read=sum(t.bytes for t in types),
            bytes_written=y.bytes,
            scratch_bytes=scratch_bytes(
                math.prod(weights[0].shape[1:3]), [weight.shape[3] for weight in weights]
            ),
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        x, (y,) = operands.inputs[0], operands.outputs
        weights, (bias, multiplier, shift) = operands.inputs[1:-3], operands.inputs[-3:]
        geometry = self.geometry(*(operand.type for operand in operands.inputs))
        arguments = (
            y, x, part_list(weights), self.parts,
            output_stage(bias, multiplier, shift, self.zero_point, self.low, self.high),
            operands.scratch, str(geometry), x.type.shape[3], y.type.shape[3], self.groups,
            self.x_zero_point,
        )  # fmt: skip
        return [Call("q_conv.h", "kg_conv2d_s8", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every attribute, odd sizes, edges."""
        pads, same = ((1, 2), (0, 3)), ((1, 1), (1, 1))
        make = q_conv_example
        return [
            make(0, cls(0.1, -3, 4), (1, 4, 5, 3), (5, 3, 3, 3), batched=True),
            make(
                1, cls(0.2, 5, -128, (2, 3), pads, (2, 1)), (1, 6, 7, 2), (3, 3, 2, 2), batched=True
            ),
            make(
                2, cls(0.2, 0, 0, (2, 2), ((0, 1), (0, 1)), groups=2, parts=2), (1, 6, 6, 6),
                (4, 3, 3, 1), (4, 3, 3, 2), batched=True,
            ),
            make(
                3, cls(0.2, 7, 127, padding=same, parts=2), (1, 3, 9, 5), (6, 3, 3, 2), (6, 3, 3, 3)
            ),
            make(4, cls(0.1, -128, 3, (3, 3), low=-128, high=20), (1, 7, 7, 2), (3, 2, 2, 2)),
            make(58, cls(0.1, -9, 3, padding=same, low=-9), (1, 1, 1, 3), (2, 3, 3, 3)),
            make(6, cls(0.1, -2, 5), (1, 3, 5, 8), (9, 1, 1, 8)),
            make(7, cls(0.1, -2, 5, parts=2), (1, 3, 5, 7), (2, 1, 1, 3), (2, 1, 1, 4)),
            make(8, cls(0.1, -2, -5, (2, 2), padding=same), (1, 5, 5, 7), (9, 1, 1, 7)),
            make(9, cls(0.4, 11, -5, padding=same), (1, 5, 7, 20), (27, 3, 3, 20)),
            make(10, cls(0.4, 11, -5, padding=same, groups=4), (1, 4, 4, 12), (16, 3, 3, 3)),
            make(11, cls(1e-6, 1, -5), (1, 2, 3, 4), (5, 1, 1, 4)),
            make(12, cls(1e5, 1, -5), (1, 2, 3, 4), (5, 1, 1, 4)),
        ]  # fmt: skip


def q_conv_example(
    seed: int, op: QConv2d, shape: Sequence[int], *weights: Sequence[int], batched: bool = False
) -> Example:
    """Random operands with the extremes of int8 among them."""
    rng, x_scale = np.random.default_rng(seed), 0.05
    x = rng.integers(-128, 128, shape).astype(np.int8)
    x.flat[0], x.flat[-1] = -128, 127
    parts, types, scales = quantised_weight(rng, 0, weights[0][0], *weights)
    constants, constant_types = output_constants(rng, scales, x_scale, op.scale)
    return Example(
        op,
        (x, *parts, *constants),
        batched=(0,) if batched else (),
        types=(activation(shape, x_scale, op.x_zero_point), *types, *constant_types),
    )
