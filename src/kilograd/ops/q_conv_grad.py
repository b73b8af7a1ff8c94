"""Gradients of quantised convolutions and fully connected layers, in float32 and real units.

d_y is dL/d(real y). d_x = the transpose of the convolution with the real weights s_w[o] w, and
d_w = s_x times the correlation of x - z_x with d_y: the gradient of the real weight, in the layout
of the integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.operator import Argument, Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType
from kilograd.ops.conv_geometry import (
    NO_PADDING,
    Geometry,
    Padding,
    Pair,
    check_groups,
    convolve_grad_input,
    convolve_grad_weight,
    drawer,
    forward_geometry,
    image_shape,
)
from kilograd.ops.q_examples import quantised_weight
from kilograd.ops.q_types import activation, check_activation

SCRATCH_BYTES = 4 * 256
"""KG_Q_PACKED of q_conv_grad.h: what of the integers is in floats at a time."""


def rows_geometry(pixels: int) -> Geometry:
    """A fully connected layer as a 1x1 convolution over `pixels` in a row."""
    return Geometry((1, pixels), (1, pixels), (1, 1), (1, 1), (1, 1), (0, 0))


def real_weight(xp: Namespace, parts: Sequence[Array], scales: Array) -> Array:
    """The joined parts [O, ..., I] times the scales [O]."""
    weight = xp.concat(list(parts), axis=-1)
    shape = (-1, *(1 for _ in weight.shape[1:]))
    return xp.astype(weight, scales.dtype) * xp.reshape(scales, shape)


def check_scales(name: str, scales: TensorType, channels: int) -> None:
    """Raise InputError unless the scales are f32 [channels]."""
    if scales.shape != (channels,) or scales.dtype is not DType.F32:
        raise InputError(f"{name}: the scales are f32[{channels}], not {scales}")


def input_calls(operands: Operands, geometry: Geometry, groups: int) -> list[Call]:
    """One call of kg_conv2d_grad_input_s8 a weight part, each writing its own channels."""
    d_y, weights, scales = operands.inputs[0], operands.inputs[1:-1], operands.inputs[-1]
    (d_x,) = operands.outputs
    calls, begin = [], 0
    for weight in weights:
        taken = weight.type.shape[-1]
        arguments: tuple[Argument, ...] = (
            d_x.offset(begin), d_y, weight, scales, operands.scratch, str(geometry),
            d_x.type.shape[-1], taken, d_y.type.shape[-1], groups,
        )  # fmt: skip
        calls.append(Call("q_conv_grad.h", "kg_conv2d_grad_input_s8", arguments))
        begin += taken
    return calls


def weight_call(
    operands: Operands, geometry: Geometry, groups: int, part: Pair, x_zero_point: int
) -> Call:
    """The call of kg_conv2d_grad_weight_s8."""
    x, d_y = operands.inputs
    arguments = (
        operands.outputs[0], x.offset(part[0]), d_y, operands.scratch, str(geometry),
        x.type.shape[-1], part[1] - part[0], d_y.type.shape[-1], groups,
        check_activation("gradient", x.type), x_zero_point,
    )  # fmt: skip
    return Call("q_conv_grad.h", "kg_conv2d_grad_weight_s8", arguments)


@dataclass(frozen=True)
class QConv2dGradInput(Operator):
    """Inputs d_y f32 [1,OH,OW,O], weight parts i8 [O,KH,KW,I_k] and their scales f32 [O]; d_x f32
    [1,H,W,groups * sum of I_k].

    `size` is (H, W); the other fields are those of the convolution.
    """

    name: ClassVar[str] = "q_conv2d_grad_input"
    size: Pair
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1
    parts: int = 1

    def geometry(self, *types: TensorType) -> Geometry:
        """The geometry of the convolution whose gradient this is."""
        kh, kw = types[1].shape[1:3]
        geometry = forward_geometry(
            self.name, self.size, (kh, kw), self.stride, self.padding, self.dilation
        )
        if geometry.size_out != types[0].shape[1:3]:
            raise InputError(f"{self.name}: a gradient {types[0]} for {geometry.size_out} pixels")
        return geometry

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """f32 [1,H,W,C]."""
        self.geometry(*types)
        check_scales(self.name, types[-1], types[0].shape[3])
        channels = self.groups * sum(weight.shape[3] for weight in types[1:-1])
        return (TensorType((1, *self.size, channels)),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The transpose of the convolution in x."""
        weight = xp.permute_dims(real_weight(xp, arrays[1:-1], arrays[-1]), (1, 2, 3, 0))
        geometry = forward_geometry(
            self.name, self.size, weight.shape[:2], self.stride, self.padding, self.dilation
        )
        return (convolve_grad_input(xp, arrays[0], weight, geometry, self.groups),)

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        (d_x,) = self.infer(*types)
        return Cost(
            macs=math.prod(types[0].shape[1:3]) * sum(t.size for t in types[1:-1]),
            bytes_read=sum(t.bytes for t in types),
            bytes_written=d_x.bytes,
            scratch_bytes=SCRATCH_BYTES,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call a part, each writing its own channels."""
        geometry = self.geometry(*(operand.type for operand in operands.inputs))
        return input_calls(operands, geometry, self.groups)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every attribute, odd sizes, edges; more terms and channels than fit a tile."""
        pads, same = ((1, 2), (0, 3)), ((1, 1), (1, 1))
        make = _input_example
        return [
            make(0, cls((4, 5)), (1, 2, 3, 5), (5, 3, 3, 3), batched=True),
            make(1, cls((6, 7), (2, 3), pads, (2, 1)), (1, 3, 3, 3), (3, 3, 2, 2)),
            make(
                2, cls((6, 6), (2, 2), ((0, 1), (0, 1)), groups=2, parts=2), (1, 3, 3, 4),
                (4, 3, 3, 1), (4, 3, 3, 2),
            ),
            make(3, cls((7, 7), (3, 3)), (1, 2, 2, 3), (3, 2, 2, 2)),
            make(4, cls((1, 1), (1, 1), same), (1, 1, 1, 2), (2, 3, 3, 3)),
            make(5, cls((3, 5), parts=2), (1, 3, 5, 9), (9, 1, 1, 3), (9, 1, 1, 4)),
            make(6, cls((5, 6), (2, 2)), (1, 3, 3, 9), (9, 1, 1, 7)),
            make(7, cls((4, 7), (1, 1), same), (1, 4, 7, 75), (75, 3, 3, 21)),
        ]  # fmt: skip


def _input_example(
    seed: int,
    op: QConv2dGradInput,
    shape: Sequence[int],
    *weights: Sequence[int],
    batched: bool = False,
) -> Example:
    rng = np.random.default_rng(seed)
    parts, types, scales = quantised_weight(rng, 0, weights[0][0], *weights)
    inputs = (drawer(seed)(*shape), *parts, scales.astype(np.float32))
    plain = (TensorType(tuple(shape)), *types, TensorType(scales.shape))
    return Example(op, inputs, 2e-6, batched=(0,) if batched else (), types=plain)


@dataclass(frozen=True)
class QConv2dGradWeight(Operator):
    """Inputs x i8 [1,H,W,C] and d_y f32 [1,OH,OW,O]; d_w f32 [O,KH,KW,I] for the input channels
    `channels` = (begin, end) of each group, or all.

    `kernel` is (KH, KW), `x_scale` and `x_zero_point` are the quantisation of x; the other fields
    are those of the convolution.
    """

    name: ClassVar[str] = "q_conv2d_grad_weight"
    x_scale: float
    x_zero_point: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1
    channels: Pair | None = None

    def geometry(self, *types: TensorType) -> Geometry:
        """The geometry of the convolution whose gradient this is."""
        x, d_y = types
        h, w, channels_in = image_shape(self.name, x, DType.I8)
        check_activation(self.name, x, self.x_zero_point)
        check_groups(self.name, self.groups, input=channels_in, output=d_y.shape[3])
        geometry = forward_geometry(
            self.name, (h, w), self.kernel, self.stride, self.padding, self.dilation
        )
        if geometry.size_out != d_y.shape[1:3]:
            raise InputError(f"{self.name}: a gradient {d_y} for {geometry.size_out} pixels")
        return geometry

    def _part(self, channels_in: int) -> Pair:
        return self.channels or (0, channels_in // self.groups)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """f32 [O,KH,KW,I]."""
        self.geometry(*types)
        x, d_y = types
        begin, end = self._part(x.shape[3])
        if not 0 <= begin < end <= x.shape[3] // self.groups:
            raise InputError(f"{self.name}: channels [{begin}, {end}) are not in a group of {x}")
        return (TensorType((d_y.shape[3], *self.kernel, end - begin)),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The transpose of the convolution in the weight, summed over the batch."""
        x, d_y = arrays
        geometry = forward_geometry(
            self.name, x.shape[1:3], self.kernel, self.stride, self.padding, self.dilation
        )
        part = slice(*self._part(x.shape[3]))
        whole = xp.astype(x, d_y.dtype) - self.x_zero_point
        d_w = convolve_grad_weight(xp, whole, d_y, geometry, self.groups, part)
        return (xp.permute_dims(d_w, (3, 0, 1, 2)) * self.x_scale,)

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        (d_w,) = self.infer(*types)
        return Cost(
            macs=math.prod(types[1].shape[1:3]) * d_w.size,
            bytes_read=sum(t.bytes for t in types),
            bytes_written=d_w.bytes,
            scratch_bytes=SCRATCH_BYTES,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        x, d_y = operands.inputs
        part = self._part(x.type.shape[3])
        geometry = self.geometry(x.type, d_y.type)
        return [weight_call(operands, geometry, self.groups, part, self.x_zero_point)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every attribute, odd sizes, edges; more pixels and channels than fit a tile."""
        pads, same = ((1, 2), (0, 3)), ((1, 1), (1, 1))
        make = _weight_example
        return [
            make(0, cls(0.05, -7, (3, 3)), (1, 4, 5, 3), (1, 2, 3, 5)),
            make(1, cls(0.05, 127, (3, 2), (2, 3), pads, (2, 1)), (1, 6, 7, 2), (1, 3, 3, 3)),
            make(
                2, cls(0.5, 0, (3, 3), (2, 2), ((0, 1), (0, 1)), groups=2, channels=(1, 3)),
                (1, 6, 6, 6), (1, 3, 3, 4),
            ),
            make(3, cls(0.05, -128, (2, 2), (3, 3)), (1, 7, 7, 2), (1, 2, 2, 3)),
            make(4, cls(0.05, 3, (3, 3), (1, 1), same), (1, 1, 1, 3), (1, 1, 1, 2)),
            make(5, cls(0.05, 3, (1, 1)), (1, 3, 5, 7), (1, 3, 5, 9)),
            make(6, cls(0.05, 3, (1, 1), (2, 2)), (1, 6, 5, 7), (1, 3, 3, 9)),
            make(7, cls(0.05, 3, (3, 3), (1, 1), same), (1, 9, 13, 21), (1, 9, 13, 27)),
        ]  # fmt: skip


def _weight_example(
    seed: int, op: QConv2dGradWeight, shape: Sequence[int], d_shape: Sequence[int]
) -> Example:
    x = np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)
    types = (activation(shape, op.x_scale, op.x_zero_point), TensorType(tuple(d_shape)))
    return Example(op, (x, drawer(seed)(*d_shape)), 2e-6, types=types)


@dataclass(frozen=True)
class QLinearGradInput(Operator):
    """Inputs d_y f32 [..., O], weight parts i8 [O,I_k] and their scales f32 [O]; d_x f32 [..., sum
    of I_k].
    """

    name: ClassVar[str] = "q_linear_grad_input"
    parts: int = 1

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """f32 [..., I]."""
        d_y, weights = types[0], types[1:-1]
        check_scales(self.name, types[-1], d_y.shape[-1])
        return (d_y.with_shape(*d_y.shape[:-1], sum(weight.shape[1] for weight in weights)),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """d_y times the real weight."""
        return (xp.matmul(arrays[0], real_weight(xp, arrays[1:-1], arrays[-1])),)

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        (d_x,) = self.infer(*types)
        return Cost(
            macs=d_x.size * types[0].shape[-1],
            bytes_read=sum(t.bytes for t in types),
            bytes_written=d_x.bytes,
            scratch_bytes=SCRATCH_BYTES,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call a part, each writing its own channels."""
        d_y = operands.inputs[0].type
        return input_calls(operands, rows_geometry(d_y.size // d_y.shape[-1]), 1)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """One part and two."""
        return [
            _linear_example(0, cls(), (1, 5), (5, 7)),
            _linear_example(1, cls(2), (1, 3, 6), (6, 4), (6, 5)),
            _linear_example(2, cls(), (1, 70), (70, 19)),
        ]


def _linear_example(
    seed: int, op: QLinearGradInput, shape: Sequence[int], *weights: Sequence[int]
) -> Example:
    rng = np.random.default_rng(seed)
    parts, types, scales = quantised_weight(rng, 0, weights[0][0], *weights)
    inputs = (drawer(seed)(*shape), *parts, scales.astype(np.float32))
    plain = (TensorType(tuple(shape)), *types, TensorType(scales.shape))
    return Example(op, inputs, 1e-6, batched=(0,), types=plain)


@dataclass(frozen=True)
class QLinearGradWeight(Operator):
    """Inputs x i8 [..., C] and d_y f32 [..., O]; d_w f32 [O, I] for the input channels `channels` =
    (begin, end), or all, summed over everything else. `x_scale` and `x_zero_point` are the
    quantisation of x.
    """

    name: ClassVar[str] = "q_linear_grad_weight"
    x_scale: float
    x_zero_point: int
    channels: Pair | None = None

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """f32 [O, I]."""
        x, d_y = types
        check_activation(self.name, x, self.x_zero_point)
        begin, end = self.channels or (0, x.shape[-1])
        if not 0 <= begin < end <= x.shape[-1] or x.shape[:-1] != d_y.shape[:-1]:
            raise InputError(f"{self.name}: no channels [{begin}, {end}) of {x} for {d_y}")
        return (TensorType((d_y.shape[-1], end - begin)),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """d_y^T x over all rows."""
        x, d_y = (xp.reshape(array, (-1, array.shape[-1])) for array in arrays)
        begin, end = self.channels or (0, x.shape[-1])
        whole = xp.astype(x[:, begin:end], d_y.dtype) - self.x_zero_point
        return (xp.matmul(xp.permute_dims(d_y, (1, 0)), whole) * self.x_scale,)

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        x, d_y = types
        (d_w,) = self.infer(*types)
        return Cost(
            macs=x.size // x.shape[-1] * d_w.size,
            bytes_read=x.bytes + d_y.bytes,
            bytes_written=d_w.bytes,
            scratch_bytes=SCRATCH_BYTES,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        x = operands.inputs[0].type
        geometry = rows_geometry(x.size // x.shape[-1])
        part = self.channels or (0, x.shape[-1])
        return [weight_call(operands, geometry, 1, part, self.x_zero_point)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """One row, several, a part, more rows than are converted at a time."""

        def make(op: QLinearGradWeight, shape: Sequence[int], d_shape: Sequence[int]) -> Example:
            x = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
            types = (activation(shape, op.x_scale, op.x_zero_point), TensorType(tuple(d_shape)))
            return Example(op, (x, drawer(0)(*d_shape)), 2e-6, types=types)

        return [
            make(cls(0.05, 4), (1, 7), (1, 5)),
            make(cls(0.05, -4), (1, 3, 6), (1, 3, 5)),
            make(cls(0.05, -4, (2, 5)), (1, 3, 6), (1, 3, 5)),
            make(cls(0.05, -128), (1, 70, 9), (1, 70, 5)),
        ]
