"""Depthwise convolutions: y[oh, ow, c] = sum over kh, kw of x[ih, iw, c] w[kh, kw, c] + bias[c].

The weight may come in parts along the channels (a trained slice and the frozen rest); the kernel is
called once a part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import (
    Argument,
    Array,
    Call,
    Cost,
    Example,
    Namespace,
    Operands,
    Operator,
)
from kilograd.ir.types import TensorType
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
from kilograd.ops.reduce import Reduce
from kilograd.ops.shape import Slice


def _slides(geometry: Geometry) -> bool:
    """True for what the kernels of depthwise3.h do."""
    return (
        geometry.kernel[0] <= 3
        and geometry.kernel[1] == 3
        and geometry.stride in ((1, 1), (2, 2))
        and geometry.dilation == (1, 1)
    )


def _call(
    name: str, geometry: Geometry, data: tuple[Argument, ...], scratch: str, *rest: Argument
) -> Call:
    """The call of `kg_depthwise_name`, or of `kg_depthwise3_name`, which takes no scratch."""
    if _slides(geometry):
        return Call("depthwise3.h", f"kg_depthwise3_{name}", (*data, str(geometry), *rest))
    return Call("depthwise.h", f"kg_depthwise_{name}", (*data, scratch, str(geometry), *rest))


def _scratch_bytes(geometry: Geometry) -> int:
    """Scratch of `kg_depthwise_f32`: one channel of x between zeros, its taps, a row of y."""
    if _slides(geometry):
        return 0
    (rows, columns), left = geometry.size_in, geometry.before[1]
    blocks = -(-geometry.size_out[1] // 4) * 4
    reach = (blocks - 1) * geometry.stride[1] + (geometry.kernel[1] - 1) * geometry.dilation[1] + 1
    return 4 * (rows * max(left + columns, reach) + math.prod(geometry.kernel) + blocks)


def _grad_scratch_bytes(geometry: Geometry) -> int:
    """Scratch of `kg_depthwise_grad_input_f32`: a channel of d_y between zeros, its taps, a row."""
    if _slides(geometry):
        return 0
    (rows, columns), left, stride = geometry.size_out, geometry.before[1], geometry.stride[1]
    margin = max(0, (geometry.kernel[1] - 1) * geometry.dilation[1] - left) // stride
    columns_of_residue = -(-geometry.size_in[1] // stride)
    blocks = -(-columns_of_residue // 4) * 4
    reach = blocks + (stride - 1 + left) // stride
    return 4 * (rows * (margin + max(columns, reach)) + math.prod(geometry.kernel) + blocks)


@dataclass(frozen=True)
class DepthwiseConv2d(Operator):
    """Inputs x [1,H,W,C], weight parts [KH,KW,C_k] with sum of C_k = C, and bias [C] if `bias`.

    Padding, ((top, bottom), (left, right)), is zeros. The result is limited to [low, high], which
    is how a following ReLU or ReLU6 is fused.
    """

    name: ClassVar[str] = "depthwise_conv2d"
    channel_axis: ClassVar[int | None] = 2
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    bias: bool = True
    parts: int = 1
    low: float = -math.inf
    high: float = math.inf

    def geometry(self, *types: TensorType) -> Geometry:
        """Where the kernel meets the input; raises InputError in the user's terms."""
        x, weights = types[0], types[1 : 1 + self.parts]
        h, w, channels = image_shape(self.name, x)
        kh, kw, _ = weights[0].shape
        taken = sum(weight.shape[2] for weight in weights)
        if taken != channels:
            raise InputError(f"{self.name}: the input has {channels} channels, the weight {taken}")
        for weight in weights:
            if weight.shape[:2] != (kh, kw):
                raise InputError(f"{self.name}: the parts {weights[0]} and {weight} do not join")
        if self.bias and types[-1].shape != (channels,):
            raise InputError(f"{self.name}: {channels} channels take no bias {types[-1]}")
        return forward_geometry(
            self.name, (h, w), (kh, kw), self.stride, self.padding, self.dilation
        )

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Shape [1,OH,OW,C]."""
        geometry = self.geometry(*types)
        return (types[0].with_shape(1, *geometry.size_out, types[0].shape[3]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The sum over the taps, with the joined parts."""
        x, weight = arrays[0], xp.concat(list(arrays[1 : 1 + self.parts]), axis=2)
        geometry = forward_geometry(
            self.name, x.shape[1:3], weight.shape[:2], self.stride, self.padding, self.dilation
        )
        padded = pad_image(xp, x, geometry)
        y = sum(padded[index] * weight[kh, kw] for kh, kw, index in geometry.taps)
        if self.bias:
            y = y + arrays[1 + self.parts]
        if self.low > -math.inf or self.high < math.inf:
            y = xp.clip(y, self.low, self.high)
        return (y,)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """The transpose for x, the correlation of x and d_y for the weight, a sum for bias."""
        (d_y,) = cotangents
        assert d_y is not None and self.low == -math.inf and self.high == math.inf
        x, weights = node.inputs[0], node.inputs[1 : 1 + self.parts]
        geometry = self.geometry(*(value.type for value in node.inputs))
        how = (self.stride, self.padding, self.dilation)
        result: list[Value | None] = [None] * len(node.inputs)
        if wanted[0]:
            op = DepthwiseConv2dGradInput(geometry.size_in, *how, parts=self.parts)
            result[0] = builder.add(op, d_y, *weights, name=f"d_{x.name}")
        ranges = pairwise([0, *accumulate(weight.type.shape[2] for weight in weights)])
        for k, (weight, part) in enumerate(zip(weights, ranges, strict=True)):
            if wanted[1 + k]:
                source = builder.add(Slice(-1, *part), x) if self.parts > 1 else x
                grad = DepthwiseConv2dGradWeight(geometry.kernel, *how, begin=part[0])
                result[1 + k] = builder.add(grad, source, d_y, name=f"d_{weight.name}")
        if self.bias and wanted[-1]:
            result[-1] = builder.add(Reduce((0, 1, 2)), d_y, name=f"d_{node.inputs[-1].name}")
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
        x, weights = operands.inputs[0], operands.inputs[1 : 1 + self.parts]
        (y,) = operands.outputs
        geometry = self.geometry(*(operand.type for operand in operands.inputs))
        calls, begin, channels = [], 0, x.type.shape[3]
        for weight in weights:
            bias: Argument = operands.inputs[-1].offset(begin) if self.bias else "NULL"
            taken = weight.type.shape[2]
            data = (y.offset(begin), x.offset(begin), weight, bias)
            rest = (taken, channels, channels, self.low, self.high)
            calls.append(_call("f32", geometry, data, operands.scratch, *rest))
            begin += weight.type.shape[2]
        return calls

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Kernels of 1 to 7, strides, edges, parts; many channels and few."""
        draw = drawer(0)
        one, two, three = (((k, k), (k, k)) for k in (1, 2, 3))
        return [
            Example(
                cls(padding=one), (draw(1, 4, 7, 3), draw(3, 3, 3), draw(3)), 2e-6, (0, 1, 2), (0,)
            ),
            Example(
                cls((2, 2), ((0, 1), (0, 1)), bias=False), (draw(1, 6, 8, 2), draw(3, 3, 2)), 2e-6,
                (0, 1), (0,),
            ),
            Example(
                cls((2, 3), ((1, 2), (0, 3)), (2, 1)), (draw(1, 6, 7, 2), draw(3, 2, 2), draw(2)),
                2e-6, (0, 1, 2), (0,),
            ),
            Example(
                cls((2, 2), two, parts=2),
                (draw(1, 5, 6, 5), draw(5, 5, 2), draw(5, 5, 3), draw(5)), 2e-6, (0, 1, 2, 3), (0,),
            ),
            Example(
                cls((1, 2), three), (draw(1, 3, 9, 2), draw(7, 7, 2), draw(2)), 2e-6, (0, 1, 2)
            ),
            Example(cls(padding=one), (draw(1, 1, 1, 3), draw(3, 3, 3), draw(3)), 2e-6, (0, 1, 2)),
            Example(cls((3, 3)), (draw(1, 7, 7, 2), draw(1, 2, 2), draw(2)), 2e-6, (0, 1, 2)),
            Example(
                cls(padding=one, low=0.0, high=6.0), (draw(1, 9, 13, 27), draw(3, 3, 27), draw(27)),
                2e-6,
            ),
            Example(
                cls((2, 2), one, low=0.0), (draw(1, 12, 19, 21), draw(3, 3, 21), draw(21)), 2e-6
            ),
            Example(cls(padding=two), (draw(1, 9, 15, 18), draw(5, 5, 18), draw(18)), 2e-6),
            Example(cls(padding=three), (draw(1, 9, 15, 17), draw(7, 7, 17), draw(17)), 2e-6),
            Example(cls(padding=three), (draw(1, 2, 2, 2), draw(3, 3, 2), draw(2)), 2e-6),
            Example(cls((2, 2), two), (draw(1, 3, 4, 2), draw(1, 3, 2), draw(2)), 2e-6),
        ]  # fmt: skip


@dataclass(frozen=True)
class DepthwiseConv2dGradInput(Operator):
    """Inputs d_y [1,OH,OW,C] and weight parts [KH,KW,C_k]; d_x [1,H,W,C].

    `size` is (H, W); the other fields are those of the convolution.
    """

    name: ClassVar[str] = "depthwise_conv2d_grad_input"
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
        if geometry.size_out != types[0].shape[1:3]:
            raise InputError(f"{self.name}: a gradient {types[0]} for {geometry.size_out} pixels")
        return geometry

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Shape [1,H,W,C]."""
        self.geometry(*types)
        return (types[0].with_shape(1, *self.size, types[0].shape[3]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The transpose of the convolution in x."""
        d_y, weight = arrays[0], xp.concat(list(arrays[1:]), axis=2)
        geometry = forward_geometry(
            self.name, self.size, weight.shape[:2], self.stride, self.padding, self.dilation
        )
        padded = zeros(xp, d_y, d_y.shape[0], *geometry.padded_size, d_y.shape[3])
        for kh, kw, index in geometry.taps:
            padded[index] += d_y * weight[kh, kw]
        return (padded[geometry.inside],)

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        (d_x,) = self.infer(*types)
        return Cost(
            macs=types[0].size * math.prod(types[1].shape[:2]),
            bytes_read=sum(t.bytes for t in types),
            bytes_written=d_x.bytes,
            scratch_bytes=_grad_scratch_bytes(self.geometry(*types)),
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call a part, each writing its own channels."""
        d_y, weights = operands.inputs[0], operands.inputs[1:]
        (d_x,) = operands.outputs
        geometry = self.geometry(*(operand.type for operand in operands.inputs))
        calls, begin, channels = [], 0, d_y.type.shape[3]
        for weight in weights:
            data = (d_x.offset(begin), d_y.offset(begin), weight)
            rest = (weight.type.shape[2], channels, channels)
            calls.append(_call("grad_input_f32", geometry, data, operands.scratch, *rest))
            begin += weight.type.shape[2]
        return calls

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Kernels of 2 to 7, strides, dilation, edges, parts."""
        draw = drawer(1)
        one, two, three = (((k, k), (k, k)) for k in (1, 2, 3))
        return [
            Example(
                cls((4, 7), (1, 1), one), (draw(1, 4, 7, 3), draw(3, 3, 3)), 2e-6, batched=(0,)
            ),
            Example(
                cls((6, 8), (2, 2), ((0, 1), (0, 1)), parts=2),
                (draw(1, 3, 4, 3), draw(3, 3, 1), draw(3, 3, 2)), 2e-6, batched=(0,),
            ),
            Example(
                cls((6, 7), (2, 3), ((1, 2), (0, 3)), (2, 1)),
                (draw(1, 3, 3, 2), draw(3, 2, 2)), 2e-6,
            ),
            Example(
                cls((7, 8), (2, 2), two, (2, 3)), (draw(1, 4, 3, 2), draw(3, 3, 2)), 2e-6
            ),
            Example(cls((7, 7), (3, 3)), (draw(1, 3, 2, 2), draw(1, 2, 2)), 2e-6),
            Example(
                cls((9, 13), (1, 1), one), (draw(1, 9, 13, 27), draw(3, 3, 27)), 2e-6
            ),
            Example(
                cls((12, 19), (2, 2), one), (draw(1, 6, 10, 21), draw(3, 3, 21)), 2e-6
            ),
            Example(
                cls((9, 15), (1, 1), two), (draw(1, 9, 15, 18), draw(5, 5, 18)), 2e-6
            ),
            Example(
                cls((9, 15), (2, 2), two), (draw(1, 5, 8, 18), draw(5, 5, 18)), 2e-6
            ),
            Example(
                cls((9, 15), (1, 1), three), (draw(1, 9, 15, 17), draw(7, 7, 17)), 2e-6
            ),
            Example(cls((2, 2), (1, 1), three), (draw(1, 6, 6, 2), draw(3, 3, 2)), 2e-6),
            Example(cls((3, 4), (2, 2), two), (draw(1, 4, 3, 2), draw(1, 3, 2)), 2e-6),
        ]  # fmt: skip


@dataclass(frozen=True)
class DepthwiseConv2dGradWeight(Operator):
    """Inputs x [1,H,W,C_k] and d_y [1,OH,OW,C]; d_w [KH,KW,C_k] of the channels of d_y from `begin`
    on, which are those of x.

    `kernel` is (KH, KW); the other fields are those of the convolution.
    """

    name: ClassVar[str] = "depthwise_conv2d_grad_weight"
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    begin: int = 0

    def geometry(self, *types: TensorType) -> Geometry:
        """The geometry of the convolution whose gradient this is."""
        x, d_y = types
        h, w, channels = image_shape(self.name, x)
        geometry = forward_geometry(
            self.name, (h, w), self.kernel, self.stride, self.padding, self.dilation
        )
        if geometry.size_out != d_y.shape[1:3] or self.begin + channels > d_y.shape[3]:
            raise InputError(
                f"{self.name}: a gradient {d_y} for {geometry.size_out} pixels of {channels} "
                f"channels from {self.begin} on"
            )
        return geometry

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Shape [KH,KW,C_k]."""
        self.geometry(*types)
        return (types[0].with_shape(*self.kernel, types[0].shape[3]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The transpose of the convolution in the weight, summed over the batch."""
        x, d_y = arrays
        d_y = d_y[..., self.begin : self.begin + x.shape[3]]
        geometry = forward_geometry(
            self.name, x.shape[1:3], self.kernel, self.stride, self.padding, self.dilation
        )
        padded = pad_image(xp, x, geometry)
        taps = [xp.sum(padded[index] * d_y, axis=(0, 1, 2)) for _, _, index in geometry.taps]
        return (xp.reshape(xp.stack(taps), (*self.kernel, x.shape[3])),)

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        (d_w,) = self.infer(*types)
        return Cost(
            macs=math.prod(types[1].shape[1:3]) * d_w.size,
            bytes_read=sum(t.bytes for t in types),
            bytes_written=d_w.bytes,
            scratch_bytes=_scratch_bytes(self.geometry(*types)),
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        x, d_y = operands.inputs
        channels = x.type.shape[3]
        geometry = self.geometry(x.type, d_y.type)
        data = (operands.outputs[0], x, d_y.offset(self.begin))
        rest = (channels, channels, d_y.type.shape[3])
        return [_call("grad_weight_f32", geometry, data, operands.scratch, *rest)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Kernels of 2 to 7, strides, dilation, edges, a part."""
        draw = drawer(2)
        one, two, three = (((k, k), (k, k)) for k in (1, 2, 3))
        return [
            Example(cls((3, 3), (1, 1), one), (draw(1, 4, 7, 3), draw(1, 4, 7, 3)), 2e-6),
            Example(
                cls((3, 3), (2, 2), ((0, 1), (0, 1)), begin=1),
                (draw(1, 6, 8, 2), draw(1, 3, 4, 3)), 2e-6,
            ),
            Example(
                cls((3, 2), (2, 3), ((1, 2), (0, 3)), (2, 1)),
                (draw(1, 6, 7, 2), draw(1, 3, 3, 2)), 2e-6,
            ),
            Example(cls((1, 2), (3, 3)), (draw(1, 7, 7, 2), draw(1, 3, 2, 2)), 2e-6),
            Example(cls((3, 3), (1, 1), one), (draw(1, 9, 13, 27), draw(1, 9, 13, 27)), 2e-6),
            Example(cls((3, 3), (2, 2), one), (draw(1, 12, 19, 21), draw(1, 6, 10, 21)), 2e-6),
            Example(cls((5, 5), (1, 1), two), (draw(1, 9, 15, 18), draw(1, 9, 15, 18)), 2e-6),
            Example(cls((7, 7), (1, 1), three), (draw(1, 9, 15, 17), draw(1, 9, 15, 17)), 2e-6),
            Example(cls((3, 3), (1, 1), three), (draw(1, 2, 2, 2), draw(1, 6, 6, 2)), 2e-6),
            Example(cls((1, 3), (2, 2), two), (draw(1, 3, 4, 2), draw(1, 4, 3, 2)), 2e-6),
        ]  # fmt: skip
