"""Integer gradients of quantised depthwise convolutions.

A sum belongs to one channel, so its scale is folded in behind the products:

    sum = multiplier[c] sum over kh, kw of g w,   multiplier[c] = round(s_w[c] 2^unit)

in units of 2^(exponent - unit), `unit` being the largest with which nothing exceeds 2^30. The
largest multiplier has at least 12 bits for 3x3 kernels and 10 for 7x7. The gradient of a weight,
sum of g (x - z_x), is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.operator import Argument, Array, Call, Cost, Example, Namespace, Operands
from kilograd.ir.types import DType, TensorType
from kilograd.ops.conv_geometry import forward_geometry, pad_image, zeros
from kilograd.ops.ig_conv import MAX_PIXELS, float_fields
from kilograd.ops.ig_narrow import (
    GRADIENT_LIMIT,
    MAX_SUM,
    SCALAR,
    a_seed,
    check_gradient,
    check_seed,
    gradient,
    headroom,
    i32,
    narrow,
    random_gradient,
)
from kilograd.ops.q_conv import part_list
from kilograd.ops.q_depthwise_grad import QDepthwiseConv2dGradInput, QDepthwiseConv2dGradWeight
from kilograd.ops.q_optimizer import WEIGHT_LIMIT


def channel_multipliers(scales: Sequence[float], taps: int) -> tuple[np.ndarray, int]:
    """Multipliers i32 [C] and the unit, for sums of `taps` products."""
    largest = MAX_SUM // (GRADIENT_LIMIT * WEIGHT_LIMIT * taps)
    if largest < 2:
        raise InputError(f"a depthwise kernel of {taps} taps is too large for an integer gradient")
    unit = math.frexp(largest / max(scales))[1] - 1
    return np.array([round(scale * 2.0**unit) for scale in scales], np.int32), unit


@dataclass(frozen=True)
class IntegerDepthwiseConv2dGradInput(QDepthwiseConv2dGradInput):
    """Inputs d_y i8 [1,OH,OW,C], its exponent i32[], weight parts i8 [KH,KW,C_k], multipliers i32
    [C], shift i32[], seed u32[1]; d_x i8 [1,H,W,C], its exponent, and the shift wanted. The other
    fields are those of QDepthwiseConv2dGradInput.
    """

    name: ClassVar[str] = "integer_depthwise_conv2d_grad_input"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ()
    unit: int = 0
    salt: int = 0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """i8 [1,H,W,C] and two i32[]."""
        d_y, exponent, *weights, multiplier, shift, seed = types
        check_gradient(self.name, d_y, exponent, shift)
        check_seed(self.name, seed)
        if multiplier != TensorType((d_y.shape[3],), DType.I32):
            raise InputError(f"{self.name}: multipliers {multiplier} for {d_y}")
        self.geometry(d_y, *weights, *(TensorType(weight.shape[2:]) for weight in weights))
        return gradient((1, *self.size, d_y.shape[3])), SCALAR, SCALAR

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Exact integers."""
        d_y, exponent, *weights, multiplier, shift, seed = arrays
        weight = xp.astype(xp.concat(list(weights), axis=2), xp.int64)
        geometry = forward_geometry(
            self.name, self.size, weight.shape[:2], self.stride, self.padding, self.dilation
        )
        g = xp.astype(d_y, xp.int64)
        padded = zeros(xp, g, g.shape[0], *geometry.padded_size, g.shape[3])
        for kh, kw, index in geometry.taps:
            padded[index] += g * weight[kh, kw]
        sums = padded[geometry.inside] * xp.astype(multiplier, xp.int64)
        return narrow(
            xp, sums, int(exponent) - self.unit, shift, headroom(xp, d_y), seed, self.salt
        )

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward; two words a tap."""
        taps = math.prod(types[2].shape[:2])
        return Cost(
            macs=types[0].size * taps,
            bytes_read=sum(t.bytes for t in types),
            bytes_written=sum(t.bytes for t in self.infer(*types)),
            scratch_bytes=8 * taps,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        d_y, d_exponent, *weights, multiplier, shift, seed = operands.inputs
        kernel = weights[0].type.shape[:2]
        geometry = forward_geometry(
            self.name, self.size, (kernel[0], kernel[1]), self.stride, self.padding, self.dilation
        )
        arguments: tuple[Argument, ...] = (
            *operands.outputs, d_y, d_exponent, part_list(weights), len(weights), multiplier,
            shift, operands.scratch, str(geometry), d_y.type.shape[3], self.unit, seed, self.salt,
        )  # fmt: skip
        return [Call("ig_depthwise.h", "kg_ig_depthwise_grad_input", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Those of QDepthwiseConv2dGradInput; shifts that cut off, and that leave little."""
        result = []
        for number, example in enumerate(QDepthwiseConv2dGradInput.examples()):
            op, types = example.op, example.types
            assert isinstance(op, QDepthwiseConv2dGradInput) and types is not None
            d_y, weights = example.inputs[0], example.inputs[1 : 1 + op.parts]
            scales = np.concatenate(example.inputs[1 + op.parts :])
            taps = math.prod(weights[0].shape[:2])
            multiplier, unit = channel_multipliers(list(map(float, scales)), taps)
            inputs = (
                random_gradient(number, d_y.shape), i32(-number), *weights, multiplier,
                i32((18, 21, 16)[number % 3]), a_seed(number),
            )  # fmt: skip
            plain = [TensorType(np.shape(a), DType.of(a)) for a in inputs]
            own = (*plain[:2], *types[1 : 1 + op.parts], *plain[-3:])
            mine = cls(**float_fields(op), unit=unit, salt=number)
            result.append(Example(mine, inputs, types=own))
        return result


@dataclass(frozen=True)
class IntegerDepthwiseConv2dGradWeight(QDepthwiseConv2dGradWeight):
    """Inputs x i8 [1,H,W,C] and d_y i8 [1,OH,OW,C]; the sums i32 [KH,KW,C_k] of the gradient in
    units of x_scale and d_y's. The fields are those of QDepthwiseConv2dGradWeight.
    """

    name: ClassVar[str] = "integer_depthwise_conv2d_grad_weight"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """i32 [KH,KW,C_k]."""
        check_gradient(self.name, types[1])
        if math.prod(types[1].shape[1:3]) > MAX_PIXELS:
            raise InputError(f"{self.name}: more than {MAX_PIXELS} pixels may overflow 32 bits")
        (d_w,) = super().infer(*types)
        return (TensorType(d_w.shape, DType.I32),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Exact integers."""
        x, d_y = arrays
        begin, end = self._part(x.shape[3])
        geometry = forward_geometry(
            self.name, x.shape[1:3], self.kernel, self.stride, self.padding, self.dilation
        )
        whole = xp.astype(x[..., begin:end], xp.int64) - self.x_zero_point
        padded, g = pad_image(xp, whole, geometry), xp.astype(d_y[..., begin:end], xp.int64)
        taps = [xp.sum(padded[index] * g, axis=(0, 1, 2)) for _, _, index in geometry.taps]
        return (xp.astype(xp.reshape(xp.stack(taps), (*self.kernel, end - begin)), xp.int32),)

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        (d_w,) = self.infer(*types)
        return Cost(
            macs=math.prod(types[1].shape[1:3]) * d_w.size,
            bytes_read=sum(t.bytes for t in types),
            bytes_written=d_w.bytes,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        x, d_y = operands.inputs
        begin, end = self._part(x.type.shape[3])
        arguments = (
            operands.outputs[0], x.offset(begin), d_y.offset(begin),
            str(self.geometry(x.type, d_y.type)), end - begin, x.type.shape[3], self.x_zero_point,
        )  # fmt: skip
        return [Call("ig_depthwise.h", "kg_ig_depthwise_grad_weight", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Those of QDepthwiseConv2dGradWeight."""
        result = []
        for number, example in enumerate(QDepthwiseConv2dGradWeight.examples()):
            op, types = example.op, example.types
            assert isinstance(op, QDepthwiseConv2dGradWeight) and types is not None
            x, d_y = example.inputs
            own = (types[0], gradient(d_y.shape))
            g = random_gradient(number, d_y.shape)
            result.append(Example(cls(**float_fields(op)), (x, g), types=own))
        return result
