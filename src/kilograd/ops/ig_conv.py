"""Integer gradients of quantised convolutions and fully connected layers.

The scales of the weights are folded into d_y, which becomes int16, before the products:

    h[o]  = round(g[o] multiplier[o] / 2^14),   multiplier[o] = round(s_w[o] 2^(unit + 14))
    sum   = sum over kh, kw, o of h[o] w[o],    in units of 2^(exponent - unit)

`unit` is the largest with which no sum of int8 weights exceeds 2^30 and h fits int16. h is off by
up to 1/2: in the largest channel by 0.4 % of a step of d_y up to 258 terms, 0.8 % at 500 and 7 % at
4608. The gradient of a weight, sum of g (x - z_x), is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, cast

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.operator import Argument, Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType
from kilograd.ops.conv_geometry import (
    Geometry,
    Pair,
    convolve_grad_input,
    convolve_grad_weight,
    forward_geometry,
)
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
from kilograd.ops.q_conv_grad import (
    QConv2dGradInput,
    QConv2dGradWeight,
    QLinearGradInput,
    QLinearGradWeight,
    rows_geometry,
)
from kilograd.ops.q_types import check_activation

FRACTION_BITS = 14
"""KG_IG_FRACTION of ig_conv.h."""

MAX_PIXELS = 1 << 16
"""Sums of a weight gradient: 2^16 terms of 127 * 255 and less stay below 2^31."""

_FACTORS = 256
"""KG_IG_FACTORS of ig_conv.h."""


def scale_multipliers(scales: Sequence[float], terms: int) -> tuple[np.ndarray, int]:
    """Multipliers i32 [O] and the unit, for sums of `terms` products."""
    largest = min((1 << 15) - 1, MAX_SUM // (GRADIENT_LIMIT * terms))
    fraction, power = math.frexp(largest / (GRADIENT_LIMIT * max(scales)))
    del fraction
    unit = power - 1
    numbers = [round(scale * 2.0 ** (unit + FRACTION_BITS)) for scale in scales]
    return np.array(numbers, np.int32), unit


def _check_scaled(name: str, *types: TensorType) -> None:
    """Raise InputError unless these are d_y, exponent, weights, multipliers, shift and seed."""
    d_y, exponent, *_, multiplier, shift, seed = types
    check_gradient(name, d_y, exponent, shift)
    check_seed(name, seed)
    if multiplier != TensorType((d_y.shape[-1],), DType.I32):
        raise InputError(f"{name}: the multipliers are i32[{d_y.shape[-1]}], not {multiplier}")


def _scaled(xp: Namespace, d_y: Array, multiplier: Array) -> Array:
    """h, as float64, which holds the sums exactly."""
    wide = xp.astype(d_y, xp.int64) * xp.astype(multiplier, xp.int64)
    rounded = xp.bitwise_right_shift(wide + (1 << (FRACTION_BITS - 1)), FRACTION_BITS)
    return xp.astype(rounded, xp.float64)


def _input_scratch(taps: int, terms: int) -> int:
    """Bytes of the factors and taps of kg_ig_conv2d_grad_input."""
    return 2 * (-(-terms // 2) * 2) + 4 * taps


def _weight_scratch(columns: int) -> int:
    """Bytes of the factors of kg_ig_conv2d_grad_weight."""
    return 2 * max(_FACTORS, columns)


def _input_call(
    operands: Operands, geometry: Geometry, groups: int, unit: int, salt: int
) -> list[Call]:
    d_y, d_exponent, *weights, multiplier, shift, seed = operands.inputs
    d_x = operands.outputs[0]
    arguments: tuple[Argument, ...] = (
        *operands.outputs, d_y, d_exponent, part_list(weights), len(weights), multiplier, shift,
        operands.scratch, str(geometry), d_x.type.shape[-1], d_y.type.shape[-1], groups, unit,
        seed, salt,
    )  # fmt: skip
    return [Call("ig_conv.h", "kg_ig_conv2d_grad_input", arguments)]


def _weight_call(
    operands: Operands, geometry: Geometry, groups: int, part: Pair, zero_point: int
) -> list[Call]:
    x, d_y = operands.inputs
    arguments = (
        operands.outputs[0], x.offset(part[0]), d_y, operands.scratch, str(geometry),
        x.type.shape[-1], part[1] - part[0], d_y.type.shape[-1], groups, zero_point,
    )  # fmt: skip
    return [Call("ig_conv.h", "kg_ig_conv2d_grad_weight", arguments)]


@dataclass(frozen=True)
class IntegerConv2dGradInput(QConv2dGradInput):
    """Inputs d_y i8 [1,OH,OW,O], its exponent i32[], weight parts i8 [O,KH,KW,I_k], multipliers i32
    [O], shift i32[], seed u32[1]; d_x i8 [1,H,W,groups * sum of I_k], its exponent, and the shift
    wanted. The other fields are those of QConv2dGradInput.
    """

    name: ClassVar[str] = "integer_conv2d_grad_input"
    unit: int = 0
    salt: int = 0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """i8 [1,H,W,C] and two i32[]."""
        _check_scaled(self.name, *types)
        weights = types[2:-3]
        self.geometry(types[0], *weights)
        channels = self.groups * sum(weight.shape[3] for weight in weights)
        return gradient((1, *self.size, channels)), SCALAR, SCALAR

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Exact integers."""
        d_y, exponent, *weights, multiplier, shift, seed = arrays
        whole = xp.astype(xp.concat(list(weights), axis=3), xp.float64)
        weight = xp.permute_dims(whole, (1, 2, 3, 0))
        geometry = forward_geometry(
            self.name, self.size, weight.shape[:2], self.stride, self.padding, self.dilation
        )
        h = _scaled(xp, d_y, multiplier)
        sums = convolve_grad_input(xp, h, weight, geometry, self.groups)
        unit = int(exponent) - self.unit
        return narrow(
            xp, xp.astype(sums, xp.int64), unit, shift, headroom(xp, d_y), seed, self.salt
        )

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        d_y, weights = types[0], types[2:-3]
        taps = math.prod(weights[0].shape[1:3])
        return Cost(
            macs=math.prod(d_y.shape[1:3]) * sum(t.size for t in weights),
            bytes_read=sum(t.bytes for t in types),
            bytes_written=sum(t.bytes for t in self.infer(*types)),
            scratch_bytes=_input_scratch(taps, taps * d_y.shape[3] // self.groups),
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        types = [operand.type for operand in operands.inputs]
        geometry = self.geometry(types[0], *types[2:-3])
        return _input_call(operands, geometry, self.groups, self.unit, self.salt)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Those of QConv2dGradInput; shifts that cut off, and that leave little."""
        result = []
        for number, example in enumerate(QConv2dGradInput.examples()):
            op, types = example.op, example.types
            assert isinstance(op, QConv2dGradInput) and types is not None
            terms = math.prod(types[1].shape[:3]) // op.groups
            result.append(_scaled_example(number, example, terms, cls(**float_fields(op))))
        return result


def float_fields(op: Operator) -> dict[str, Any]:
    """The attributes that a float gradient shares with its integer form."""
    return {field.name: getattr(op, field.name) for field in fields(cast(Any, op))}


def _scaled_example(
    number: int,
    example: Example,
    terms: int,
    op: IntegerConv2dGradInput | IntegerLinearGradInput,
) -> Example:
    d_y, *weights, scales = example.inputs
    types = example.types
    assert types is not None
    multiplier, unit = scale_multipliers(list(map(float, scales)), terms)
    shift = (16, 12, 19, 14)[number % 4]
    inputs = (
        random_gradient(number, d_y.shape), i32(number - 5), *weights, multiplier, i32(shift),
        a_seed(number),
    )  # fmt: skip
    plain = [TensorType(np.shape(a), DType.of(a)) for a in inputs]
    own = (*plain[:2], *types[1:-1], *plain[-3:])
    return Example(replace(op, unit=unit, salt=number), inputs, types=own)


@dataclass(frozen=True)
class IntegerConv2dGradWeight(QConv2dGradWeight):
    """Inputs x i8 [1,H,W,C] and d_y i8 [1,OH,OW,O]; the sums i32 [O,KH,KW,I] of the gradient in
    units of x_scale and d_y's. The fields are those of QConv2dGradWeight.
    """

    name: ClassVar[str] = "integer_conv2d_grad_weight"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """i32 [O,KH,KW,I]."""
        _check_pixels(self.name, types[1])
        (d_w,) = super().infer(*types)
        return (TensorType(d_w.shape, DType.I32),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Exact integers, in float64."""
        x, d_y = arrays
        geometry = forward_geometry(
            self.name, x.shape[1:3], self.kernel, self.stride, self.padding, self.dilation
        )
        part = slice(*self._part(x.shape[3]))
        whole, wide = xp.astype(x, xp.float64) - self.x_zero_point, xp.astype(d_y, xp.float64)
        d_w = convolve_grad_weight(xp, whole, wide, geometry, self.groups, part)
        return (xp.astype(xp.permute_dims(d_w, (3, 0, 1, 2)), xp.int32),)

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        return replace(super().cost(*types), scratch_bytes=_weight_scratch(types[1].shape[2]))

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        x, d_y = operands.inputs
        part = self._part(x.type.shape[3])
        geometry = self.geometry(x.type, d_y.type)
        return _weight_call(operands, geometry, self.groups, part, self.x_zero_point)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Those of QConv2dGradWeight, and one with more than one run of rows."""
        examples = [
            _unscaled_example(number, example, cls(**float_fields(example.op)))
            for number, example in enumerate(QConv2dGradWeight.examples())
            if isinstance(example.op, QConv2dGradWeight)
        ]
        x = np.random.default_rng(9).integers(-128, 128, (1, 5, 260, 3)).astype(np.int8)
        types = (examples[0].types or ())[:1]
        op = cls(0.05, -7, (3, 3), padding=((1, 1), (1, 1)))
        x_type = types[0].with_shape(*x.shape)
        d_y = random_gradient(9, (1, 5, 260, 3))
        return [*examples, Example(op, (x, d_y), types=(x_type, gradient(d_y.shape)))]


def _check_pixels(name: str, d_y: TensorType) -> None:
    check_gradient(name, d_y)
    if d_y.size // d_y.shape[-1] > MAX_PIXELS:
        raise InputError(f"{name}: sums over more than {MAX_PIXELS} pixels may overflow 32 bits")


def _unscaled_example(
    number: int, example: Example, op: IntegerConv2dGradWeight | IntegerLinearGradWeight
) -> Example:
    x, d_y = example.inputs
    types = example.types
    assert types is not None
    own = (types[0], gradient(d_y.shape))
    return Example(op, (x, random_gradient(number, d_y.shape)), types=own)


@dataclass(frozen=True)
class IntegerLinearGradInput(QLinearGradInput):
    """Inputs d_y i8 [..., O], its exponent i32[], weight parts i8 [O,I_k], multipliers i32 [O],
    shift i32[], seed u32[1]; d_x i8 [..., sum of I_k], its exponent, and the shift wanted.
    """

    name: ClassVar[str] = "integer_linear_grad_input"
    unit: int = 0
    salt: int = 0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """i8 [..., I] and two i32[]."""
        _check_scaled(self.name, *types)
        features = sum(weight.shape[1] for weight in types[2:-3])
        return gradient((*types[0].shape[:-1], features)), SCALAR, SCALAR

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Exact integers."""
        d_y, exponent, *weights, multiplier, shift, seed = arrays
        weight = xp.astype(xp.concat(list(weights), axis=1), xp.float64)
        sums = xp.astype(xp.matmul(_scaled(xp, d_y, multiplier), weight), xp.int64)
        return narrow(
            xp, sums, int(exponent) - self.unit, shift, headroom(xp, d_y), seed, self.salt
        )

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        outputs = self.infer(*types)
        return Cost(
            macs=outputs[0].size * types[0].shape[-1],
            bytes_read=sum(t.bytes for t in types),
            bytes_written=sum(t.bytes for t in outputs),
            scratch_bytes=_input_scratch(1, types[0].shape[-1]),
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        d_y = operands.inputs[0].type
        geometry = rows_geometry(d_y.size // d_y.shape[-1])
        return _input_call(operands, geometry, 1, self.unit, self.salt)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Those of QLinearGradInput."""
        result = []
        for number, example in enumerate(QLinearGradInput.examples()):
            assert isinstance(example.op, QLinearGradInput)
            op = cls(**float_fields(example.op))
            result.append(_scaled_example(number, example, len(example.inputs[-1]), op))
        return result


@dataclass(frozen=True)
class IntegerLinearGradWeight(QLinearGradWeight):
    """Inputs x i8 [..., C] and d_y i8 [..., O]; the sums i32 [O, I] of the gradient in units of
    x_scale and d_y's. The fields are those of QLinearGradWeight.
    """

    name: ClassVar[str] = "integer_linear_grad_weight"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """i32 [O, I]."""
        _check_pixels(self.name, types[1])
        (d_w,) = super().infer(*types)
        return (TensorType(d_w.shape, DType.I32),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Exact integers, in float64."""
        x, d_y = (
            xp.astype(xp.reshape(array, (-1, array.shape[-1])), xp.float64) for array in arrays
        )
        begin, end = self.channels or (0, x.shape[-1])
        whole = x[:, begin:end] - self.x_zero_point
        return (xp.astype(xp.matmul(xp.permute_dims(d_y, (1, 0)), whole), xp.int32),)

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        rows = types[1].size // types[1].shape[-1]
        return replace(super().cost(*types), scratch_bytes=_weight_scratch(rows))

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        x = operands.inputs[0].type
        check_activation(self.name, x)
        geometry = rows_geometry(x.size // x.shape[-1])
        part = self.channels or (0, x.shape[-1])
        return _weight_call(operands, geometry, 1, part, self.x_zero_point)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Those of QLinearGradWeight."""
        return [
            _unscaled_example(number, example, cls(**float_fields(example.op)))
            for number, example in enumerate(QLinearGradWeight.examples())
            if isinstance(example.op, QLinearGradWeight)
        ]
