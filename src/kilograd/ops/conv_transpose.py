"""Transposed convolutions: the gradient of a convolution in its input, as a layer of its own.

The weight is [KH,KW,O/groups,I]: PyTorch's [I,O/groups,KH,KW] permuted by (2, 3, 1, 0). That is the
weight of the convolution from the O channels of y to the I channels of x, so the kernels of conv.h
serve: y is its d_x, d_x its y, and d_w its d_w with x and d_y exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import (
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
    image_shape,
)
from kilograd.ops.reduce import Reduce


@dataclass(frozen=True)
class _Transposed(Operator):
    """What the operator and its gradients share: the fields, and the geometry of the convolution
    that goes from y to x.
    """

    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    output_padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def geometry(self, size: Sequence[int], kernel: Sequence[int]) -> Geometry:
        """Sizes (H, W) of x and (KH, KW) of the kernel to the geometry from y to x."""
        sizes = []
        for n, k, s, pads, extra, d in zip(
            size, kernel, self.stride, self.padding, self.output_padding, self.dilation,
            strict=True,
        ):  # fmt: skip
            count = (n - 1) * s + (k - 1) * d + 1 + extra - sum(pads)
            if min(k, s, d) < 1 or min(*pads, extra) < 0 or count < 1:
                raise InputError(
                    f"{self.name}: a kernel of {k} (stride {s}, dilation {d}, output padding "
                    f"{extra}) gives {count} positions from {n} after cutting {pads}"
                )
            if extra >= max(s, d):
                raise InputError(
                    f"{self.name}: output padding {extra} must be less than the stride {s} or the "
                    f"dilation {d}"
                )
            sizes.append(count)
        before = (self.padding[0][0], self.padding[1][0])
        size_in, size_out, kernel_size = ((pair[0], pair[1]) for pair in (sizes, size, kernel))
        return Geometry(size_in, size_out, kernel_size, self.stride, self.dilation, before)


@dataclass(frozen=True)
class ConvTranspose2d(_Transposed):
    """Inputs x [1,H,W,I], weight [KH,KW,O/groups,I], and bias [O] if `bias`; y [1,OH,OW,O].

    OH = (H - 1) stride - top - bottom + (KH - 1) dilation + output_padding + 1, as in PyTorch;
    padding, ((top, bottom), (left, right)), is what is cut off.
    """

    name: ClassVar[str] = "conv_transpose2d"
    bias: bool = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Shape [1,OH,OW,O]."""
        x, weight = types[:2]
        h, w, channels_in = image_shape(self.name, x)
        kh, kw, out_of_group, taken = weight.shape
        check_groups(self.name, self.groups, input=channels_in)
        if taken != channels_in:
            raise InputError(
                f"{self.name}: the input has {channels_in} channels, the weight {weight} "
                f"([KH,KW,O/groups,I]) takes {taken}"
            )
        channels_out = out_of_group * self.groups
        if self.bias and types[2].shape != (channels_out,):
            raise InputError(f"{self.name}: {channels_out} channels take no bias {types[2]}")
        geometry = self.geometry((h, w), (kh, kw))
        return (x.with_shape(1, *geometry.size_in, channels_out),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The transpose of the convolution from y to x."""
        x, weight = arrays[:2]
        geometry = self.geometry(x.shape[1:3], weight.shape[:2])
        y = convolve_grad_input(xp, x, weight, geometry, self.groups)
        return (y + arrays[2] if self.bias else y,)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """A convolution for x, the correlation of d_y and x for the weight, a sum for bias."""
        (d_y,) = cotangents
        assert d_y is not None
        x, weight = node.inputs[:2]
        height, width = x.type.shape[1:3]
        kh, kw = weight.type.shape[:2]
        how = (self.stride, self.padding, self.output_padding, self.dilation, self.groups)
        result: list[Value | None] = [None] * len(node.inputs)
        if wanted[0]:
            op = ConvTranspose2dGradInput(*how, size=(height, width))
            result[0] = builder.add(op, d_y, weight, name=f"d_{x.name}")
        if wanted[1]:
            grad = ConvTranspose2dGradWeight(*how, kernel=(kh, kw))
            result[1] = builder.add(grad, x, d_y, name=f"d_{weight.name}")
        if self.bias and wanted[2]:
            result[2] = builder.add(Reduce((0, 1, 2)), d_y, name=f"d_{node.inputs[2].name}")
        return result

    def cost(self, *types: TensorType) -> Cost:
        """One multiply-accumulate a weight and input pixel."""
        (y,) = self.infer(*types)
        return Cost(
            macs=math.prod(types[0].shape[1:3]) * types[1].size,
            bytes_read=sum(t.bytes for t in types),
            bytes_written=y.bytes,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        x, weight = operands.inputs[:2]
        (y,) = operands.outputs
        geometry = self.geometry(x.type.shape[1:3], weight.type.shape[:2])
        arguments = (
            y, x, weight, operands.inputs[2] if self.bias else "NULL", str(geometry),
            y.type.shape[3], weight.type.shape[2], x.type.shape[3], self.groups,
        )  # fmt: skip
        return [Call("conv_transpose.h", "kg_conv_transpose2d_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every attribute, odd sizes, edges."""
        draw = drawer(0)
        return [
            Example(
                cls((2, 2)), (draw(1, 3, 4, 5), draw(2, 2, 3, 5), draw(3)), 2e-6, (0, 1, 2), (0,)
            ),
            Example(
                cls((2, 3), ((1, 0), (1, 2)), (1, 2), (2, 1), bias=False),
                (draw(1, 4, 3, 3), draw(3, 2, 2, 3)), 2e-6, (0, 1), (0,),
            ),
            Example(
                cls((2, 2), ((1, 1), (1, 1)), (1, 1), groups=2),
                (draw(1, 3, 3, 4), draw(3, 3, 3, 4), draw(6)), 2e-6, (0, 1, 2), (0,),
            ),
            Example(
                cls((1, 1), NO_PADDING, (1, 1), (2, 2)),
                (draw(1, 2, 3, 2), draw(2, 2, 3, 2), draw(3)), 2e-6, (0, 1, 2),
            ),
            Example(cls((3, 3)), (draw(1, 1, 1, 3), draw(2, 2, 2, 3), draw(2)), 2e-6, (0, 1, 2)),
            Example(
                cls((2, 2), ((1, 1), (1, 1)), (1, 1)),
                (draw(1, 6, 7, 19), draw(3, 3, 21, 19), draw(21)), 2e-6,
            ),
        ]  # fmt: skip


@dataclass(frozen=True)
class ConvTranspose2dGradInput(_Transposed):
    """Inputs d_y [1,OH,OW,O] and weight [KH,KW,O/groups,I]; d_x [1,H,W,I]. `size` is (H, W)."""

    name: ClassVar[str] = "conv_transpose2d_grad_input"
    size: Pair = (1, 1)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Shape [1,H,W,I]."""
        d_y, weight = types
        geometry = self.geometry(self.size, weight.shape[:2])
        if geometry.size_in != d_y.shape[1:3]:
            raise InputError(f"{self.name}: a gradient {d_y} for {geometry.size_in} pixels")
        return (d_y.with_shape(1, *self.size, weight.shape[3]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The convolution from y to x."""
        d_y, weight = arrays
        return (convolve(xp, d_y, weight, self.geometry(self.size, weight.shape[:2]), self.groups),)

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        (d_x,) = self.infer(*types)
        return Cost(
            macs=math.prod(self.size) * types[1].size,
            bytes_read=sum(t.bytes for t in types),
            bytes_written=d_x.bytes,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        d_y, weight = operands.inputs
        geometry = self.geometry(self.size, weight.type.shape[:2])
        arguments = (
            operands.outputs[0], d_y, weight, str(geometry), d_y.type.shape[3],
            weight.type.shape[2], weight.type.shape[3], self.groups,
        )  # fmt: skip
        return [Call("conv_transpose.h", "kg_conv_transpose2d_grad_input_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Stride, padding, groups, dilation."""
        draw = drawer(1)
        return [
            Example(cls((2, 2), size=(3, 4)), (draw(1, 6, 8, 3), draw(2, 2, 3, 5)), 2e-6),
            Example(
                cls((2, 3), ((1, 0), (1, 2)), (1, 2), (2, 1), size=(4, 3)),
                (draw(1, 11, 7, 2), draw(3, 2, 2, 3)), 2e-6, batched=(0,),
            ),
            Example(
                cls((2, 2), ((1, 1), (1, 1)), (1, 1), groups=2, size=(3, 3)),
                (draw(1, 6, 6, 6), draw(3, 3, 3, 4)), 2e-6, batched=(0,),
            ),
        ]  # fmt: skip


@dataclass(frozen=True)
class ConvTranspose2dGradWeight(_Transposed):
    """Inputs x [1,H,W,I] and d_y [1,OH,OW,O]; d_w [KH,KW,O/groups,I]. `kernel` is (KH, KW)."""

    name: ClassVar[str] = "conv_transpose2d_grad_weight"
    kernel: Pair = (1, 1)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Shape [KH,KW,O/groups,I]."""
        x, d_y = types
        check_groups(self.name, self.groups, input=x.shape[3], output=d_y.shape[3])
        geometry = self.geometry(x.shape[1:3], self.kernel)
        if geometry.size_in != d_y.shape[1:3]:
            raise InputError(f"{self.name}: a gradient {d_y} for {geometry.size_in} pixels")
        return (x.with_shape(*self.kernel, d_y.shape[3] // self.groups, x.shape[3]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The gradient of the convolution from y to x in its weight, summed over the batch."""
        x, d_y = arrays
        geometry = self.geometry(x.shape[1:3], self.kernel)
        return (convolve_grad_weight(xp, d_y, x, geometry, self.groups, slice(None)),)

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        (d_w,) = self.infer(*types)
        return Cost(
            macs=math.prod(types[0].shape[1:3]) * d_w.size,
            bytes_read=sum(t.bytes for t in types),
            bytes_written=d_w.bytes,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        x, d_y = operands.inputs
        (d_w,) = operands.outputs
        geometry = self.geometry(x.type.shape[1:3], self.kernel)
        arguments = (
            d_w, x, d_y, str(geometry), d_y.type.shape[3], d_w.type.shape[2],
            d_w.type.shape[3], self.groups,
        )  # fmt: skip
        return [Call("conv_transpose.h", "kg_conv_transpose2d_grad_weight_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Stride, padding, groups, dilation."""
        draw = drawer(2)
        return [
            Example(cls((2, 2), kernel=(2, 2)), (draw(1, 3, 4, 5), draw(1, 6, 8, 3)), 2e-6),
            Example(
                cls((2, 3), ((1, 0), (1, 2)), (1, 2), (2, 1), kernel=(3, 2)),
                (draw(1, 4, 3, 3), draw(1, 11, 7, 2)), 2e-6,
            ),
            Example(
                cls((2, 2), ((1, 1), (1, 1)), (1, 1), groups=2, kernel=(3, 3)),
                (draw(1, 3, 3, 4), draw(1, 6, 6, 6)), 2e-6,
            ),
        ]  # fmt: skip
