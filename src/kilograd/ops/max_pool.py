"""Maximum pooling over NHWC images, and its gradient.

    y[oh, ow, c] = max over kh, kw of x[oh s - p + kh d, ow s - p + kw d, c]

One-dimensional pooling comes with height 1. Framework rules for the rounding of sizes (ceil_mode)
become explicit padding in the front ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np
from array_api_compat import device

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType
from kilograd.ops.windows import (
    NO_PADDING,
    Padding,
    Pair,
    adaptive_taps,
    adaptive_windows,
    check_taps,
    distinct,
    image_calls,
    image_shape,
    widest,
    window_count,
)


@dataclass(frozen=True)
class MaxPool2d(Operator):
    """x [N,H,W,C] to (y, index): each window's maximum and, as u8, where in the window it is.

    `padding` is ((top, bottom), (left, right)), counts as -infinity and may be extended at the
    bottom and right to round sizes up. The index, kh * KW + kw of the first maximum, is what the
    gradient reads; it drops out when nobody does. NaN wins over every number. Raises InputError for
    a window without a position inside the image, and with the index for more than 255 taps.
    """

    name: ClassVar[str] = "max_pool2d"
    kernel: Pair
    stride: Pair
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    index: bool = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """[N,OH,OW,C] once as f32, and as u8 with the index."""
        (x,) = types
        n, h, w, c = image_shape(self.name, x)
        oh, ow = (
            window_count(self.name, size, k, s, p, d)
            for size, k, s, p, d in zip(
                (h, w), self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        y = x.with_shape(n, oh, ow, c)
        if not self.index:
            return (y,)
        check_taps(self.name, self.kernel[0] * self.kernel[1])
        return (y, TensorType(y.shape, DType.U8))

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The maximum over the taps as slices of the padded image."""
        (x,) = arrays
        n, h, w, c = x.shape
        (top, bottom), (left, right) = self.padding
        shape = (n, h + top + bottom, w + left + right, c)
        padded = xp.full(shape, -xp.inf, dtype=x.dtype, device=device(x))
        padded[:, top : top + h, left : left + w, :] = x
        taps = xp.stack([padded[tap] for tap in self._taps(shape)], axis=0)
        inside = xp.zeros(shape[1:3], dtype=xp.bool, device=device(x))
        inside[top : top + h, left : left + w] = True
        masks = xp.stack([inside[tap[1:3]] for tap in self._taps(shape)], axis=0)
        y = xp.max(taps, axis=0)
        if not self.index:
            return (y,)
        first = (taps == y) & masks[:, None, :, :, None]
        return (y, xp.astype(xp.argmax(xp.astype(first, xp.uint8), axis=0), xp.uint8))

    def _taps(self, padded: Sequence[int]) -> Iterator[tuple[slice, slice, slice, slice]]:
        """For every tap, in order, the slices of the padded image that it visits."""
        extents = [(k - 1) * d for k, d in zip(self.kernel, self.dilation, strict=True)]
        counts = [(padded[1 + i] - extents[i] - 1) // self.stride[i] + 1 for i in (0, 1)]
        for kh in range(self.kernel[0]):
            for kw in range(self.kernel[1]):
                starts = (kh * self.dilation[0], kw * self.dilation[1])
                rows, columns = (
                    slice(start, start + (count - 1) * stride + 1, stride)
                    for start, count, stride in zip(starts, counts, self.stride, strict=True)
                )
                yield (slice(None), rows, columns, slice(None))

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """The cotangent, sent to where each maximum was."""
        d_y = cotangents[0]
        assert d_y is not None and self.index
        (x,) = node.inputs
        op = MaxPool2dGrad(x.type.shape[1:3], self.kernel, self.stride, self.padding, self.dilation)
        return [builder.add(op, d_y, node.outputs[1], name=f"d_{x.name}")]

    def prune(self, used: Sequence[bool]) -> Operator | None:
        """Without the index when nobody reads it."""
        return replace(self, index=False) if self.index and list(used) == [True, False] else None

    def cost(self, *types: TensorType) -> Cost:
        """Every tap is read; comparisons are not counted as multiply-accumulates."""
        results = self.infer(*types)
        read = results[0].bytes * self.kernel[0] * self.kernel[1]
        return Cost(bytes_read=read, bytes_written=sum(type_.bytes for type_ in results))

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (x,), y = operands.inputs, operands.outputs[0]
        index = operands.outputs[1] if self.index else "NULL"
        (top, _), (left, _) = self.padding
        rest = (
            *x.type.shape[1:], *y.type.shape[1:3], *self.kernel, *self.stride, top, left,
            *self.dilation,
        )  # fmt: skip
        return image_calls(operands, "kg_max_pool2d_f32", (y, index, x), rest)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Plain, overlapping and padded, asymmetric, dilated, stride above kernel, one axis."""
        return [
            Example(cls((2, 2), (2, 2)), (distinct(0, 1, 6, 4, 7),), 0.0, (0,), (0,)),
            Example(cls((2, 2), (2, 2)), (distinct(0, 2, 5, 5, 21),), 0.0, (0,), (0,)),
            Example(
                cls((3, 3), (2, 2), ((1, 1), (1, 1))), (distinct(1, 1, 7, 6, 5),), 0.0, (0,), (0,)
            ),
            Example(
                cls((3, 2), (1, 3), ((0, 2), (1, 0))), (distinct(2, 1, 5, 7, 3),), 0.0, (0,), (0,)
            ),
            Example(
                cls((3, 3), (2, 1), ((2, 1), (0, 2)), (2, 2)),
                (distinct(3, 1, 7, 6, 4),), 0.0, (0,), (0,),
            ),
            Example(cls((2, 2), (3, 4)), (distinct(4, 1, 9, 10, 1),), 0.0, (0,), (0,)),
            Example(cls((1, 3), (1, 2)), (distinct(5, 1, 1, 11, 6),), 0.0, (0,), (0,)),
            Example(cls((15, 17), (1, 1)), (distinct(6, 1, 15, 18, 2),), 0.0, (0,), (0,)),
            Example(cls((1, 1), (1, 1)), (distinct(7, 1, 1, 1, 3),), 0.0, (0,), (0,)),
            Example(
                cls((16, 17), (1, 1), ((0, 0), (9, 0)), index=False), (distinct(8, 1, 16, 17, 19),)
            ),
            Example(cls((2, 2), (2, 2)), (np.full((1, 4, 4, 5), -np.inf, np.float32),)),
            Example(cls((2, 2), (2, 2)), (np.zeros((1, 4, 4, 5), np.float32),)),
        ]  # fmt: skip


@dataclass(frozen=True)
class MaxPool2dGrad(Operator):
    """Inputs d_y and index [N,OH,OW,C]; d_x [N,H,W,C] for an image of `size` (H, W).

    Integer gradients are i8, where no pixel gets more than one of them.
    """

    name: ClassVar[str] = "max_pool2d_grad"
    size: tuple[int, ...]
    kernel: Pair
    stride: Pair
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)

    @property
    def overlaps(self) -> bool:
        """True when two windows may share a pixel."""
        return any(
            (k - 1) * d + 1 > s
            for k, d, s in zip(self.kernel, self.dilation, self.stride, strict=True)
        )

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """[N,H,W,C]."""
        d_y, index = types
        if d_y.dtype is DType.I8 and self.overlaps:
            raise InputError(f"{self.name}: windows overlap, so {d_y} is no integer gradient")
        if d_y.shape != index.shape or index.dtype is not DType.U8:
            raise InputError(f"{self.name}: {d_y} and the index {index} differ")
        return (d_y.with_shape(d_y.shape[0], *self.size, d_y.shape[3]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Each tap's share added at its place."""
        d_y, index = arrays
        n, _, _, c = d_y.shape
        (top, bottom), (left, right) = self.padding
        h, w = self.size
        shape = (n, h + top + bottom, w + left + right, c)
        padded = xp.zeros(shape, dtype=d_y.dtype, device=device(d_y))
        pool = MaxPool2d(self.kernel, self.stride, self.padding, self.dilation)
        for number, tap in enumerate(pool._taps(shape)):
            padded[tap] = padded[tap] + xp.where(index == number, d_y, xp.zeros_like(d_y))
        return (padded[:, top : top + h, left : left + w, :],)

    def cost(self, *types: TensorType) -> Cost:
        """Zeroes the result, then one addition a window and channel."""
        d_x = self.infer(*types)[0]
        read = sum(type_.bytes for type_ in types)
        return Cost(bytes_read=read + types[0].bytes, bytes_written=d_x.bytes + types[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (d_y, index), (d_x,) = operands.inputs, operands.outputs
        (top, _), (left, _) = self.padding
        rest = (
            *d_x.type.shape[1:], *d_y.type.shape[1:3], self.kernel[1], *self.stride, top, left,
            *self.dilation,
        )  # fmt: skip
        if d_y.type.dtype is DType.I8:
            calls = image_calls(operands, "kg_ig_max_pool2d_grad", (d_x, d_y, index), rest)
            return [replace(call, header="ig_pool.h") for call in calls]
        return image_calls(operands, "kg_max_pool2d_grad_f32", (d_x, d_y, index), rest)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """What the gradients of MaxPool2d's examples read; integers where windows are apart."""
        floats = cls._float_examples()
        integers = [
            Example(
                example.op, ((example.inputs[0] * 8 % 255 - 127).astype(np.int8), example.inputs[1])
            )
            for example in floats
            if not cast(MaxPool2dGrad, example.op).overlaps
        ]
        assert integers
        return [*floats, *integers]

    @classmethod
    def _float_examples(cls) -> list[Example]:
        return [
            Example(
                cls(
                    example.inputs[0].shape[1:3],
                    example.op.kernel,
                    example.op.stride,
                    example.op.padding,
                    example.op.dilation,
                ),
                (distinct(9, *index.shape), index),
                1e-6,
                batched=(0, 1),
            )
            for example in MaxPool2d.examples()
            if isinstance(example.op, MaxPool2d) and example.op.index
            for _, index in (example.op.reference(np, *example.inputs),)
        ]


@dataclass(frozen=True)
class AdaptiveMaxPool2d(Operator):
    """x [N,H,W,C] to (y, index) of `output` (OH, OW) windows after PyTorch's formula.

    Window i of n over s positions is [floor(i s / n), ceil((i + 1) s / n)). The u8 index counts
    inside its window, rows being as long as the widest window; it drops out when nobody reads it.
    Raises InputError with the index for windows of more than 255 positions.
    """

    name: ClassVar[str] = "adaptive_max_pool2d"
    output: Pair
    index: bool = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """[N,OH,OW,C] once as f32, and as u8 with the index."""
        (x,) = types
        n, h, w, c = image_shape(self.name, x)
        y = x.with_shape(n, *self.output, c)
        if not self.index:
            return (y,)
        check_taps(self.name, widest(h, self.output[0]) * widest(w, self.output[1]))
        return (y, TensorType(y.shape, DType.U8))

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Window by window."""
        (x,) = arrays
        n, h, w, c = x.shape
        pitch = widest(w, self.output[1])
        maxima, places = [], []
        for h0, h1 in adaptive_windows(h, self.output[0]):
            for w0, w1 in adaptive_windows(w, self.output[1]):
                window = xp.reshape(x[:, h0:h1, w0:w1, :], (n, -1, c))
                place = xp.argmax(window, axis=1)
                maxima.append(xp.max(window, axis=1))
                places.append(place // (w1 - w0) * pitch + place % (w1 - w0))
        shape = (n, *self.output, c)
        y = xp.reshape(xp.stack(maxima, axis=1), shape)
        if not self.index:
            return (y,)
        return (y, xp.astype(xp.reshape(xp.stack(places, axis=1), shape), xp.uint8))

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """The cotangent, sent to where each maximum was."""
        d_y = cotangents[0]
        assert d_y is not None and self.index
        (x,) = node.inputs
        op = AdaptiveMaxPool2dGrad(x.type.shape[1:3])
        return [builder.add(op, d_y, node.outputs[1], name=f"d_{x.name}")]

    def prune(self, used: Sequence[bool]) -> Operator | None:
        """Without the index when nobody reads it."""
        return replace(self, index=False) if self.index and list(used) == [True, False] else None

    def cost(self, *types: TensorType) -> Cost:
        """The image is read, overlaps again."""
        results = self.infer(*types)
        return Cost(
            bytes_read=adaptive_taps(types[0].shape, self.output) * types[0].shape[3] * 4,
            bytes_written=sum(type_.bytes for type_ in results),
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (x,), y = operands.inputs, operands.outputs[0]
        index = operands.outputs[1] if self.index else "NULL"
        rest = (*x.type.shape[1:], *self.output, widest(x.type.shape[2], self.output[1]))
        return image_calls(operands, "kg_adaptive_max_pool2d_f32", (y, index, x), rest)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Uneven, even, more windows than positions, one window."""
        return [
            Example(cls((3, 2)), (distinct(0, 1, 7, 5, 6),), 0.0, (0,), (0,)),
            Example(cls((2, 2)), (distinct(1, 1, 6, 4, 17),), 0.0, (0,), (0,)),
            Example(cls((3, 5)), (distinct(2, 1, 2, 3, 2),), 0.0, (0,), (0,)),
            Example(cls((1, 1)), (distinct(3, 1, 5, 4, 3),), 0.0, (0,), (0,)),
            Example(cls((2, 1), index=False), (distinct(4, 1, 35, 16, 3),)),
        ]


@dataclass(frozen=True)
class AdaptiveMaxPool2dGrad(Operator):
    """Inputs d_y and index [N,OH,OW,C]; d_x [N,H,W,C] for an image of `size` (H, W)."""

    name: ClassVar[str] = "adaptive_max_pool2d_grad"
    size: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """[N,H,W,C]."""
        d_y, index = types
        if d_y.shape != index.shape or index.dtype is not DType.U8:
            raise InputError(f"{self.name}: {d_y} and the index {index} differ")
        return (d_y.with_shape(d_y.shape[0], *self.size, d_y.shape[3]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Window by window, position by position."""
        d_y, index = arrays
        n, oh, ow, c = d_y.shape
        pitch = widest(self.size[1], ow)
        d_x = xp.zeros((n, *self.size, c), dtype=d_y.dtype, device=device(d_y))
        for i, (h0, h1) in enumerate(adaptive_windows(self.size[0], oh)):
            for j, (w0, w1) in enumerate(adaptive_windows(self.size[1], ow)):
                share = d_y[:, i, j, :]
                for h in range(h0, h1):
                    for w in range(w0, w1):
                        hit = index[:, i, j, :] == (h - h0) * pitch + w - w0
                        d_x[:, h, w, :] = d_x[:, h, w, :] + xp.where(hit, share, 0 * share)
        return (d_x,)

    def cost(self, *types: TensorType) -> Cost:
        """Zeroes the result, then one addition a window and channel."""
        d_x = self.infer(*types)[0]
        read = sum(type_.bytes for type_ in types)
        return Cost(bytes_read=read + types[0].bytes, bytes_written=d_x.bytes + types[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (d_y, index), (d_x,) = operands.inputs, operands.outputs
        columns = d_y.type.shape[2]
        rest = (*d_x.type.shape[1:], *d_y.type.shape[1:3], widest(self.size[1], columns))
        return image_calls(operands, "kg_adaptive_max_pool2d_grad_f32", (d_x, d_y, index), rest)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """What the gradients of AdaptiveMaxPool2d's examples read."""
        return [
            Example(
                cls(example.inputs[0].shape[1:3]),
                (distinct(9, *index.shape), index),
                1e-6,
                batched=(0, 1),
            )
            for example in AdaptiveMaxPool2d.examples()
            if isinstance(example.op, AdaptiveMaxPool2d) and example.op.index
            for _, index in (example.op.reference(np, *example.inputs),)
        ]
