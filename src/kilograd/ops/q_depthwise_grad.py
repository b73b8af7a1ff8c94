"""Gradients of quantised depthwise convolutions, in float32 and real units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType
from kilograd.ops.conv_geometry import (
    NO_PADDING,
    Geometry,
    Padding,
    Pair,
    drawer,
    forward_geometry,
    image_shape,
    pad_image,
    zeros,
)
from kilograd.ops.depthwise import DepthwiseConv2dGradInput, DepthwiseConv2dGradWeight
from kilograd.ops.q_examples import quantised_weight
from kilograd.ops.q_types import activation, check_activation

_BLOCK = 16
"""Most channels whose weights become floats at a time."""

_ASIDE_FLOATS = 1024
"""Gradients are set aside together as long as they do not take more than this."""

_PLANE_FLOATS = 1024
"""Channels become floats together as long as they do not take more than this."""


@dataclass(frozen=True)
class QDepthwiseConv2dGradInput(Operator):
    """Inputs d_y f32 [1,OH,OW,C], weight parts i8 [KH,KW,C_k], then for each part its scales f32
    [C_k]; d_x f32 [1,H,W,C].

    `size` is (H, W); the other fields are those of the convolution.
    """

    name: ClassVar[str] = "q_depthwise_conv2d_grad_input"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    size: Pair
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    parts: int = 1

    def geometry(self, *types: TensorType) -> Geometry:
        """The geometry of the convolution whose gradient this is."""
        kh, kw, _ = types[1].shape
        geometry = forward_geometry(
            self.name, self.size, (kh, kw), self.stride, self.padding, self.dilation
        )
        weights, scales = types[1 : 1 + self.parts], types[1 + self.parts :]
        for weight, own in zip(weights, scales, strict=True):
            if own.shape != weight.shape[2:] or own.dtype is not DType.F32:
                raise InputError(f"{self.name}: the scales of {weight} are not {own}")
        if geometry.size_out != types[0].shape[1:3]:
            raise InputError(f"{self.name}: a gradient {types[0]} for {geometry.size_out} pixels")
        return geometry

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """f32 [1,H,W,C]."""
        self.geometry(*types)
        return (types[0].with_shape(1, *self.size, types[0].shape[3]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The transpose of the convolution in x."""
        d_y = arrays[0]
        scales = xp.concat(list(arrays[1 + self.parts :]), axis=0)
        weight = xp.concat(list(arrays[1 : 1 + self.parts]), axis=2)
        weight = xp.astype(weight, scales.dtype) * scales
        geometry = forward_geometry(
            self.name, self.size, weight.shape[:2], self.stride, self.padding, self.dilation
        )
        padded = zeros(xp, d_y, d_y.shape[0], *geometry.padded_size, d_y.shape[3])
        for kh, kw, index in geometry.taps:
            padded[index] += d_y * weight[kh, kw]
        return (padded[geometry.inside],)

    def _block(self, d_y: TensorType) -> int:
        """Channels at a time: fewer where setting them aside would take much memory."""
        return max(1, min(_BLOCK, _ASIDE_FLOATS // math.prod(d_y.shape[1:3])))

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward; the scratch of the float kernel, and taps and
        gradients of a block.
        """
        (d_x,) = self.infer(*types)
        real = DepthwiseConv2dGradInput(self.size, self.stride, self.padding, self.dilation)
        taps, block = math.prod(types[1].shape[:2]), self._block(types[0])
        aside = d_x.size // d_x.shape[3] if d_x == types[0] else 0
        scratch = real.cost(types[0], TensorType((*types[1].shape[:2], types[0].shape[3])))
        return Cost(
            macs=types[0].size * taps,
            bytes_read=sum(t.bytes for t in types),
            bytes_written=d_x.bytes,
            scratch_bytes=4 * (taps + aside) * block + scratch.scratch_bytes,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call a part, each writing its own channels."""
        d_y, (d_x,) = operands.inputs[0], operands.outputs
        weights, scales = operands.inputs[1 : 1 + self.parts], operands.inputs[1 + self.parts :]
        geometry = self.geometry(*(operand.type for operand in operands.inputs))
        calls, begin = [], 0
        for weight, own in zip(weights, scales, strict=True):
            arguments = (
                d_x.offset(begin), d_y.offset(begin), weight, own, operands.scratch, str(geometry),
                weight.type.shape[2], d_y.type.shape[3], self._block(d_y.type),
            )  # fmt: skip
            calls.append(Call("q_depthwise_grad.h", "kg_depthwise_grad_input_s8", arguments))
            begin += weight.type.shape[2]
        return calls

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Kernels of 2 to 7, strides, dilation, edges, parts."""
        one, two, three = (((k, k), (k, k)) for k in (1, 2, 3))
        make = _input_example
        return [
            make(0, cls((4, 7), (1, 1), one), (1, 4, 7, 3), (3, 3, 3), batched=True),
            make(1, cls((6, 8), (2, 2), one, parts=2), (1, 3, 4, 3), (3, 3, 1), (3, 3, 2)),
            make(2, cls((6, 7), (2, 3), ((1, 2), (0, 3)), (2, 1)), (1, 3, 3, 2), (3, 2, 2)),
            make(3, cls((7, 8), (2, 2), two, (2, 3)), (1, 4, 3, 2), (3, 3, 2)),
            make(4, cls((9, 13), (1, 1), one), (1, 9, 13, 27), (3, 3, 27)),
            make(5, cls((9, 15), (2, 2), two), (1, 5, 8, 18), (5, 5, 18)),
            make(6, cls((9, 15), (1, 1), three), (1, 9, 15, 17), (7, 7, 17)),
        ]


def _input_example(
    seed: int,
    op: QDepthwiseConv2dGradInput,
    shape: Sequence[int],
    *weights: Sequence[int],
    batched: bool = False,
) -> Example:
    rng = np.random.default_rng(seed)
    parts, types, _ = quantised_weight(rng, 2, shape[3], *weights)
    scales = [np.array(t.quantization.scales, np.float32) for t in types if t.quantization]
    plain = [TensorType(own.shape) for own in scales]
    inputs = (drawer(seed)(*shape), *parts, *scales)
    all_types = (TensorType(tuple(shape)), *types, *plain)
    return Example(op, inputs, 2e-6, batched=(0,) if batched else (), types=all_types)


@dataclass(frozen=True)
class QDepthwiseConv2dGradWeight(Operator):
    """Inputs x i8 [1,H,W,C] and d_y f32 [1,OH,OW,C]; d_w f32 [KH,KW,C_k] of the channels
    `channels` = (begin, end), or all.

    `kernel` is (KH, KW), `x_scale` and `x_zero_point` are the quantisation of x; the other fields
    are those of the convolution.
    """

    name: ClassVar[str] = "q_depthwise_conv2d_grad_weight"
    x_scale: float
    x_zero_point: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    channels: Pair | None = None

    def geometry(self, *types: TensorType) -> Geometry:
        """The geometry of the convolution whose gradient this is."""
        x, d_y = types
        h, w, channels = image_shape(self.name, x, DType.I8)
        check_activation(self.name, x, self.x_zero_point)
        geometry = forward_geometry(
            self.name, (h, w), self.kernel, self.stride, self.padding, self.dilation
        )
        if (*geometry.size_out, channels) != d_y.shape[1:]:
            raise InputError(
                f"{self.name}: a gradient {d_y} for {geometry.size_out} pixels of {channels} "
                "channels"
            )
        return geometry

    def _part(self, channels: int) -> Pair:
        return self.channels or (0, channels)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """f32 [KH,KW,C_k]."""
        self.geometry(*types)
        begin, end = self._part(types[0].shape[3])
        if not 0 <= begin < end <= types[0].shape[3]:
            raise InputError(f"{self.name}: {types[0]} has no channels [{begin}, {end})")
        return (TensorType((*self.kernel, end - begin)),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The transpose of the convolution in the weight, summed over the batch."""
        x, d_y = arrays
        begin, end = self._part(x.shape[3])
        geometry = forward_geometry(
            self.name, x.shape[1:3], self.kernel, self.stride, self.padding, self.dilation
        )
        whole = xp.astype(x[..., begin:end], d_y.dtype) - self.x_zero_point
        padded, d_y = pad_image(xp, whole, geometry), d_y[..., begin:end]
        taps = [xp.sum(padded[index] * d_y, axis=(0, 1, 2)) for _, _, index in geometry.taps]
        return (xp.reshape(xp.stack(taps), (*self.kernel, end - begin)) * self.x_scale,)

    def _block(self, x: TensorType) -> int:
        """Channels of x that become floats at a time."""
        return max(1, min(_BLOCK, _PLANE_FLOATS // math.prod(x.shape[1:3])))

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward; the scratch of the float kernel, and planes of
        floats.
        """
        (d_w,) = self.infer(*types)
        x, d_y = types
        real = DepthwiseConv2dGradWeight(self.kernel, self.stride, self.padding, self.dilation)
        floats = (math.prod(x.shape[1:3]) + math.prod(self.kernel)) * self._block(x)
        return Cost(
            macs=math.prod(d_y.shape[1:3]) * d_w.size,
            bytes_read=sum(t.bytes for t in types),
            bytes_written=d_w.bytes,
            scratch_bytes=4 * floats + real.cost(TensorType(x.shape), d_y).scratch_bytes,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        x, d_y = operands.inputs
        channels = x.type.shape[3]
        begin, end = self._part(channels)
        arguments = (
            operands.outputs[0], x.offset(begin), d_y.offset(begin), operands.scratch,
            str(self.geometry(x.type, d_y.type)), end - begin, channels, channels,
            float(self.x_scale), self.x_zero_point, self._block(x.type),
        )  # fmt: skip
        return [Call("q_depthwise_grad.h", "kg_depthwise_grad_weight_s8", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Kernels of 2 to 7, strides, dilation, edges, a part; more than one block of channels."""
        one, two, three = (((k, k), (k, k)) for k in (1, 2, 3))
        make = _weight_example
        return [
            make(0, cls(0.05, -3, (3, 3), (1, 1), one), (1, 4, 7, 3), (1, 4, 7, 3)),
            make(
                1, cls(0.05, 127, (3, 3), (2, 2), ((0, 1), (0, 1)), channels=(1, 3)), (1, 6, 8, 4),
                (1, 3, 4, 4),
            ),
            make(
                2, cls(0.05, -128, (3, 2), (2, 3), ((1, 2), (0, 3)), (2, 1)), (1, 6, 7, 2),
                (1, 3, 3, 2),
            ),
            make(3, cls(0.05, 0, (1, 2), (3, 3)), (1, 7, 7, 2), (1, 3, 2, 2)),
            make(4, cls(0.05, 5, (3, 3), (1, 1), one), (1, 9, 13, 27), (1, 9, 13, 27)),
            make(5, cls(0.05, 5, (5, 5), (2, 2), two), (1, 9, 15, 18), (1, 5, 8, 18)),
            make(6, cls(0.05, 5, (7, 7), (1, 1), three), (1, 33, 35, 2), (1, 33, 35, 2)),
        ]  # fmt: skip


def _weight_example(
    seed: int, op: QDepthwiseConv2dGradWeight, shape: Sequence[int], d_shape: Sequence[int]
) -> Example:
    x = np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)
    types = (activation(shape, op.x_scale, op.x_zero_point), TensorType(tuple(d_shape)))
    return Example(op, (x, drawer(seed)(*d_shape)), 2e-6, types=types)
