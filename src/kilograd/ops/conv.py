"""Convolutions: y[oh, ow, o] = sum over kh, kw, i of x[ih, iw, i] w[kh, kw, i, o] + bias[o].

The weight may come in parts along the input channels of each group (a trained slice and the frozen
rest); the kernel is called once a part and accumulates. Depthwise convolutions are in depthwise.py.
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
    check_groups,
    convolve,
    convolve_grad_input,
    convolve_grad_weight,
    drawer,
    forward_geometry,
    image_shape,
)
from kilograd.ops.depthwise import DepthwiseConv2d
from kilograd.ops.reduce import Reduce
from kilograd.ops.shape import Slice

__all__ = ["Conv2d", "Conv2dGradInput", "Conv2dGradWeight", "DepthwiseConv2d"]


def _is_linear(geometry: Geometry, groups: int) -> bool:
    """True when pixels do not mix, so that the kernels of linear.h do."""
    return (
        groups == 1
        and geometry.kernel == geometry.stride == (1, 1)
        and geometry.size_in == geometry.size_out
    )


@dataclass(frozen=True)
class Conv2d(Operator):
    """Inputs x [1,H,W,C], weight parts [KH,KW,I_k,O] with sum of I_k = C / groups, and bias [O] if
    `bias`.

    Padding, ((top, bottom), (left, right)), is zeros. The first part holds the first input channels
    of each group. The result is limited to [low, high], which is how a following ReLU or ReLU6 is
    fused.
    """

    name: ClassVar[str] = "conv2d"
    channel_axis: ClassVar[int | None] = 2
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True
    parts: int = 1
    low: float = -math.inf
    high: float = math.inf

    def geometry(self, *types: TensorType) -> Geometry:
        """Where the kernel meets the input; raises InputError in the user's terms."""
        x, weights = types[0], types[1 : 1 + self.parts]
        h, w, channels_in = image_shape(self.name, x)
        kh, kw, _, channels_out = weights[0].shape
        check_groups(self.name, self.groups, input=channels_in, output=channels_out)
        taken = sum(weight.shape[2] for weight in weights)
        if taken != channels_in // self.groups:
            raise InputError(
                f"{self.name}: the input has {channels_in} channels, {channels_in // self.groups} "
                f"for each of {self.groups} groups; the weight takes {taken}"
            )
        for weight in weights:
            if weight.shape[:2] != (kh, kw) or weight.shape[3] != channels_out:
                raise InputError(f"{self.name}: the parts {weights[0]} and {weight} do not join")
        if self.bias and types[-1].shape != (channels_out,):
            raise InputError(f"{self.name}: {channels_out} channels take no bias {types[-1]}")
        return forward_geometry(
            self.name, (h, w), (kh, kw), self.stride, self.padding, self.dilation
        )

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Shape [1,OH,OW,O]."""
        geometry = self.geometry(*types)
        return (types[0].with_shape(1, *geometry.size_out, types[1].shape[3]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The convolution with the joined parts."""
        x, weight = arrays[0], xp.concat(list(arrays[1 : 1 + self.parts]), axis=2)
        geometry = forward_geometry(
            self.name, x.shape[1:3], weight.shape[:2], self.stride, self.padding, self.dilation
        )
        y = convolve(xp, x, weight, geometry, self.groups)
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
        """Transposed convolution for x, correlation of x and d_y for the weight, a sum for bias."""
        (d_y,) = cotangents
        assert d_y is not None and self.low == -math.inf and self.high == math.inf
        x, weights = node.inputs[0], node.inputs[1 : 1 + self.parts]
        geometry = self.geometry(*(value.type for value in node.inputs))
        how = (self.stride, self.padding, self.dilation, self.groups)
        result: list[Value | None] = [None] * len(node.inputs)
        if wanted[0]:
            op = Conv2dGradInput(geometry.size_in, *how, parts=self.parts)
            result[0] = builder.add(op, d_y, *weights, name=f"d_{x.name}")
        ranges = pairwise([0, *accumulate(weight.type.shape[2] for weight in weights)])
        for k, (weight, part) in enumerate(zip(weights, ranges, strict=True)):
            if wanted[1 + k]:
                source, channels = x, None
                if self.parts > 1 and self.groups == 1:
                    source = builder.add(Slice(-1, *part), x)
                elif self.parts > 1:
                    channels = part
                grad = Conv2dGradWeight(geometry.kernel, *how, channels=channels)
                result[1 + k] = builder.add(grad, source, d_y, name=f"d_{weight.name}")
        if self.bias and wanted[-1]:
            result[-1] = builder.add(Reduce((0, 1, 2)), d_y, name=f"d_{node.inputs[-1].name}")
        return result

    def cost(self, *types: TensorType) -> Cost:
        """One multiply-accumulate a weight and output pixel, padding included."""
        (y,) = self.infer(*types)
        return Cost(
            macs=y.size // y.shape[3] * sum(t.size for t in types[1 : 1 + self.parts]),
            bytes_read=sum(t.bytes for t in types),
            bytes_written=y.bytes,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call a part; the later ones accumulate."""
        x, weights = operands.inputs[0], operands.inputs[1 : 1 + self.parts]
        (y,) = operands.outputs
        geometry = self.geometry(*(operand.type for operand in operands.inputs))
        pixels, channels_in = math.prod(geometry.size_in), x.type.shape[3]
        calls, begin = [], 0
        for k, weight in enumerate(weights):
            taken, channels_out = weight.type.shape[2:]
            limits = (self.low, self.high) if k == self.parts - 1 else (-math.inf, math.inf)
            bias: Argument = operands.inputs[-1] if self.bias and k == 0 else "NULL"
            source = (y, x.offset(begin), weight, bias, k > 0)
            if _is_linear(geometry, self.groups):
                sizes = (pixels, channels_in, taken, channels_out)
                calls.append(Call("linear.h", "kg_linear_f32", (*source, *sizes, *limits)))
            else:
                shape = (str(geometry), channels_in, taken, channels_out, self.groups)
                calls.append(Call("conv.h", "kg_conv2d_f32", (*source, *shape, *limits)))
            begin += taken
        return calls

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every attribute, odd sizes, edges; one large enough for every tile of the kernel."""
        draw = drawer(0)
        pads = ((1, 2), (0, 3))
        return [
            Example(cls(), (draw(1, 4, 5, 3), draw(3, 3, 3, 5), draw(5)), 2e-6, (0, 1, 2), (0,)),
            Example(
                cls((2, 3), pads, (2, 1), bias=False), (draw(1, 6, 7, 2), draw(3, 2, 2, 3)), 2e-6,
                (0, 1), (0,),
            ),
            Example(
                cls((2, 2), ((0, 1), (0, 1)), groups=2, parts=2),
                (draw(1, 6, 6, 6), draw(3, 3, 1, 4), draw(3, 3, 2, 4), draw(4)), 2e-6, (0, 1, 2, 3),
                (0,),
            ),
            Example(
                cls(padding=((1, 1), (1, 1)), parts=2),
                (draw(1, 3, 9, 5), draw(3, 3, 2, 6), draw(3, 3, 3, 6), draw(6)), 2e-6, (0, 1, 2, 3),
            ),
            Example(cls((3, 3)), (draw(1, 7, 7, 2), draw(2, 2, 2, 3), draw(3)), 2e-6, (0, 1, 2)),
            Example(
                cls(padding=((1, 1), (1, 1))), (draw(1, 1, 1, 3), draw(3, 3, 3, 2), draw(2)), 2e-6,
                (0, 1, 2),
            ),
            Example(cls(), (draw(1, 3, 5, 7), draw(1, 1, 7, 9), draw(9)), 2e-6, (0, 1, 2), (0,)),
            Example(
                cls(bias=False, parts=2), (draw(1, 3, 5, 7), draw(1, 1, 3, 2), draw(1, 1, 4, 2)),
                2e-6, (0, 1, 2),
            ),
            Example(
                cls((2, 2), low=0.0, high=1.5), (draw(1, 5, 5, 7), draw(1, 1, 7, 9), draw(9)), 2e-6
            ),
            Example(
                cls(padding=((1, 1), (1, 1)), low=0.0, high=6.0, parts=2),
                (draw(1, 9, 13, 20), draw(3, 3, 13, 27), draw(3, 3, 7, 27), draw(27)), 2e-6,
            ),
            Example(
                cls(padding=((1, 1), (1, 1))),
                (draw(1, 3, 4, 70), draw(3, 3, 70, 49), draw(49)), 2e-6,
            ),
        ]  # fmt: skip


@dataclass(frozen=True)
class Conv2dGradInput(Operator):
    """Inputs d_y [1,OH,OW,O] and weight parts [KH,KW,I_k,O]; d_x [1,H,W,groups * sum of I_k].

    `size` is (H, W); the other fields are those of the convolution.
    """

    name: ClassVar[str] = "conv2d_grad_input"
    size: Pair
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1
    parts: int = 1

    def geometry(self, *types: TensorType) -> Geometry:
        """The geometry of the convolution whose gradient this is."""
        kh, kw = types[1].shape[:2]
        geometry = forward_geometry(
            self.name, self.size, (kh, kw), self.stride, self.padding, self.dilation
        )
        if geometry.size_out != types[0].shape[1:3]:
            raise InputError(f"{self.name}: a gradient {types[0]} for {geometry.size_out} pixels")
        return geometry

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Shape [1,H,W,C]."""
        self.geometry(*types)
        channels = self.groups * sum(weight.shape[2] for weight in types[1:])
        return (types[0].with_shape(1, *self.size, channels),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The transpose of the convolution in x."""
        weight = xp.concat(list(arrays[1:]), axis=2)
        geometry = forward_geometry(
            self.name, self.size, weight.shape[:2], self.stride, self.padding, self.dilation
        )
        return (convolve_grad_input(xp, arrays[0], weight, geometry, self.groups),)

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        (d_x,) = self.infer(*types)
        return Cost(
            macs=math.prod(types[0].shape[1:3]) * sum(t.size for t in types[1:]),
            bytes_read=sum(t.bytes for t in types),
            bytes_written=d_x.bytes,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call a part, each writing its own channels."""
        d_y, weights = operands.inputs[0], operands.inputs[1:]
        (d_x,) = operands.outputs
        geometry = self.geometry(*(operand.type for operand in operands.inputs))
        pixels, channels_in = math.prod(self.size), d_x.type.shape[3]
        calls, begin = [], 0
        for weight in weights:
            taken, channels_out = weight.type.shape[2:]
            arguments: tuple[Argument, ...] = (d_x.offset(begin), d_y, weight)
            if _is_linear(geometry, self.groups):
                arguments += (pixels, channels_in, taken, channels_out)
                calls.append(Call("linear.h", "kg_linear_grad_input_f32", arguments))
            else:
                arguments += ("NULL", str(geometry), channels_in, taken, channels_out, self.groups)
                calls.append(Call("conv.h", "kg_conv2d_grad_input_f32", arguments))
            begin += taken
        return calls

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every attribute, odd sizes, edges; one large enough for every tile of the kernel."""
        draw = drawer(1)
        pads = ((1, 2), (0, 3))
        same = ((1, 1), (1, 1))
        return [
            Example(cls((4, 5)), (draw(1, 2, 3, 5), draw(3, 3, 3, 5)), 2e-6, batched=(0,)),
            Example(
                cls((6, 7), (2, 3), pads, (2, 1)), (draw(1, 3, 3, 3), draw(3, 2, 2, 3)), 2e-6,
                batched=(0,),
            ),
            Example(
                cls((6, 6), (2, 2), ((0, 1), (0, 1)), groups=2, parts=2),
                (draw(1, 3, 3, 4), draw(3, 3, 1, 4), draw(3, 3, 2, 4)), 2e-6, batched=(0,),
            ),
            Example(cls((7, 7), (3, 3)), (draw(1, 2, 2, 3), draw(2, 2, 2, 3)), 2e-6),
            Example(cls((1, 1), (1, 1), same), (draw(1, 1, 1, 2), draw(3, 3, 3, 2)), 2e-6),
            Example(
                cls((3, 5), parts=2), (draw(1, 3, 5, 9), draw(1, 1, 3, 9), draw(1, 1, 4, 9)), 2e-6
            ),
            Example(cls((9, 13), (1, 1), same), (draw(1, 9, 13, 20), draw(3, 3, 27, 20)), 2e-6),
            Example(cls((3, 4), (1, 1), same), (draw(1, 3, 4, 150), draw(3, 3, 21, 150)), 2e-6),
            Example(
                cls((12, 11), (2, 2), same), (draw(1, 6, 6, 7), draw(3, 3, 17, 7)), 2e-6
            ),
        ]  # fmt: skip


@dataclass(frozen=True)
class Conv2dGradWeight(Operator):
    """Inputs x [1,H,W,C] and d_y [1,OH,OW,O]; d_w [KH,KW,I,O] for the input channels `channels` =
    (begin, end) of each group, or all.

    `kernel` is (KH, KW); the other fields are those of the convolution.
    """

    name: ClassVar[str] = "conv2d_grad_weight"
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1
    channels: Pair | None = None

    def geometry(self, *types: TensorType) -> Geometry:
        """The geometry of the convolution whose gradient this is."""
        x, d_y = types
        h, w, channels_in = image_shape(self.name, x)
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
        """Shape [KH,KW,I,O]."""
        self.geometry(*types)
        x, d_y = types
        begin, end = self._part(x.shape[3])
        if not 0 <= begin < end <= x.shape[3] // self.groups:
            raise InputError(f"{self.name}: channels [{begin}, {end}) are not in a group of {x}")
        return (x.with_shape(*self.kernel, end - begin, d_y.shape[3]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The transpose of the convolution in the weight, summed over the batch."""
        x, d_y = arrays
        geometry = forward_geometry(
            self.name, x.shape[1:3], self.kernel, self.stride, self.padding, self.dilation
        )
        part = slice(*self._part(x.shape[3]))
        return (convolve_grad_weight(xp, x, d_y, geometry, self.groups, part),)

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
        channels_in, channels_out = x.type.shape[3], d_y.type.shape[3]
        geometry = self.geometry(x.type, d_y.type)
        begin, end = self._part(channels_in)
        arguments: tuple[Argument, ...] = (operands.outputs[0], x.offset(begin), d_y)
        if _is_linear(geometry, self.groups) and end - begin == channels_in:
            arguments += (math.prod(geometry.size_in), channels_in, channels_out)
            return [Call("linear.h", "kg_linear_grad_weight_f32", arguments)]
        arguments += (str(geometry), channels_in, end - begin, channels_out, self.groups)
        return [Call("conv.h", "kg_conv2d_grad_weight_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every attribute, odd sizes, edges; one large enough for every tile of the kernel."""
        draw = drawer(2)
        pads = ((1, 2), (0, 3))
        same = ((1, 1), (1, 1))
        return [
            Example(cls((3, 3)), (draw(1, 4, 5, 3), draw(1, 2, 3, 5)), 2e-6),
            Example(
                cls((3, 2), (2, 3), pads, (2, 1)), (draw(1, 6, 7, 2), draw(1, 3, 3, 3)), 2e-6
            ),
            Example(
                cls((3, 3), (2, 2), ((0, 1), (0, 1)), groups=2, channels=(1, 3)),
                (draw(1, 6, 6, 6), draw(1, 3, 3, 4)), 2e-6,
            ),
            Example(cls((2, 2), (3, 3)), (draw(1, 7, 7, 2), draw(1, 2, 2, 3)), 2e-6),
            Example(cls((3, 3), (1, 1), same), (draw(1, 1, 1, 3), draw(1, 1, 1, 2)), 2e-6),
            Example(cls((1, 1)), (draw(1, 3, 5, 7), draw(1, 3, 5, 9)), 2e-6),
            Example(cls((1, 1), (2, 2)), (draw(1, 6, 5, 7), draw(1, 3, 3, 9)), 2e-6),
            Example(cls((3, 3), (1, 1), same), (draw(1, 9, 13, 21), draw(1, 9, 13, 27)), 2e-6),
        ]  # fmt: skip
