"""Quantised fully connected layers: y = clamp(requantize(sum (x - z_x) w + bias) + z_y, low, high).

x and y are int8 with one scale, weights int8 [O,I] symmetric with one scale an output, bias int32
at s_x s_w.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import TensorType
from kilograd.ops.q_conv import output_stage, part_list, scratch_bytes
from kilograd.ops.q_conv_grad import QLinearGradInput, QLinearGradWeight, rows_geometry
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


@dataclass(frozen=True)
class QLinear(Operator):
    """Inputs x i8 [..., I], weight parts i8 [O,I_k] with sum of I_k = I, bias, multiplier and shift
    i32 [O]; the fields are those of QConv2d.
    """

    name: ClassVar[str] = "q_linear"
    channel_axis: ClassVar[int | None] = 1
    scale: float
    zero_point: int
    x_zero_point: int
    parts: int = 1
    low: int = LOW
    high: int = HIGH

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """i8 [..., O]."""
        x, weights = types[0], types[1 : 1 + self.parts]
        check_output(self.name, self.scale, self.zero_point, self.low, self.high)
        check_activation(self.name, x, self.x_zero_point)
        channels_in = sum(weight.shape[1] for weight in weights)
        channels_out = weights[0].shape[0]
        if x.shape[-1] != channels_in:
            raise InputError(
                f"{self.name}: the input has {x.shape[-1]} features, the weight takes {channels_in}"
            )
        for weight in weights:
            if weight.shape[0] != channels_out:
                raise InputError(f"{self.name}: the parts {weights[0]} and {weight} do not join")
            check_weight(self.name, weight, 0)
        check_channels(self.name, channels_out, *types[1 + self.parts :])
        check_terms(self.name, channels_in)
        return (activation((*x.shape[:-1], channels_out), self.scale, self.zero_point),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Exact integers; the products are summed in float64, which holds them exactly."""
        weight = xp.concat(list(arrays[1 : 1 + self.parts]), axis=1)
        bias, multiplier, shift = arrays[1 + self.parts :]
        x = xp.astype(arrays[0], xp.float64) - self.x_zero_point
        sums = xp.matmul(x, xp.permute_dims(xp.astype(weight, xp.float64), (1, 0)))
        wide = xp.astype(sums, xp.int64) + xp.astype(bias, xp.int64)
        result = requantize(xp, wide, multiplier, shift)
        return (to_int8(xp, result, self.zero_point, self.low, self.high),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """In real units: d_x = d_y w, d_w = d_y^T x, and the sum of d_y for bias; nothing where the
        result sits on a bound.
        """
        x, weights, bias = node.inputs[0], node.inputs[1:-3], node.inputs[-3]
        result: list[Value | None] = [None] * len(node.inputs)
        if not any(wanted):
            return result
        d_y = limited(builder, cotangents[0], node.outputs[0], self.low, self.high)
        if wanted[0]:
            scales = weight_scales(builder, weights[0], 0)
            op = QLinearGradInput(self.parts)
            result[0] = builder.add(op, d_y, *weights, scales, name=f"d_{x.name}")
        x_scale = check_activation(self.name, x.type)
        ranges = pairwise([0, *accumulate(weight.type.shape[1] for weight in weights)])
        for k, (weight, part) in enumerate(zip(weights, ranges, strict=True)):
            if wanted[1 + k]:
                source = builder.add(Slice(-1, *part), x) if self.parts > 1 else x
                grad = QLinearGradWeight(x_scale, self.x_zero_point)
                result[1 + k] = builder.add(grad, source, d_y, name=f"d_{weight.name}")
        if wanted[-3]:
            axes = tuple(range(d_y.type.rank - 1))
            result[-3] = builder.add(Reduce(axes), d_y, name=f"d_{bias.name}")
        return result

    def cost(self, *types: TensorType) -> Cost:
        """One multiply-accumulate a weight and row."""
        (y,) = self.infer(*types)
        return Cost(
            macs=y.size * types[0].shape[-1],
            bytes_read=sum(t.bytes for t in types),
            bytes_written=y.bytes,
            scratch_bytes=scratch_bytes(1, [t.shape[1] for t in types[1 : 1 + self.parts]]),
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        x, (y,) = operands.inputs[0], operands.outputs
        weights, (bias, multiplier, shift) = operands.inputs[1:-3], operands.inputs[-3:]
        channels_in, channels_out = x.type.shape[-1], y.type.shape[-1]
        arguments = (
            y, x, part_list(weights), self.parts,
            output_stage(bias, multiplier, shift, self.zero_point, self.low, self.high),
            operands.scratch, str(rows_geometry(x.type.size // channels_in)), channels_in,
            channels_out, 1, self.x_zero_point,
        )  # fmt: skip
        return [Call("q_conv.h", "kg_conv2d_s8", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Vector, rows, parts, clamp."""
        return [
            q_linear_example(0, cls(0.1, 4, -3), (1, 7), (5, 7), batched=True),
            q_linear_example(1, cls(0.1, -4, 3, parts=2), (1, 3, 9), (17, 4), (17, 5)),
            q_linear_example(2, cls(0.2, -128, 3, low=-128, high=50), (1, 33), (10, 33)),
            q_linear_example(3, cls(0.2, 0, 0), (1, 1), (1, 1)),
        ]


def q_linear_example(
    seed: int, op: QLinear, shape: Sequence[int], *weights: Sequence[int], batched: bool = False
) -> Example:
    """Random operands."""
    rng, x_scale = np.random.default_rng(seed), 0.05
    x = rng.integers(-128, 128, shape).astype(np.int8)
    parts, types, scales = quantised_weight(rng, 0, weights[0][0], *weights)
    constants, constant_types = output_constants(rng, scales, x_scale, op.scale)
    return Example(
        op,
        (x, *parts, *constants),
        batched=(0,) if batched else (),
        types=(activation(shape, x_scale, op.x_zero_point), *types, *constant_types),
    )
