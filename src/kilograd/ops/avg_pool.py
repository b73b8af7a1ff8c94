"""Average pooling over NHWC images, and its gradient.

    y[oh, ow, c] = (sum over kh, kw of x[oh s - p + kh, ow s - p + kw, c]) / n

What n counts is where frameworks differ; `AvgPool2d` can say each of their rules:

* padding does not count (count_include_pad off): include_pad=False;
* padding counts (count_include_pad): include_pad=True, and what ceil_mode adds beyond the padding
  goes to `extra`, which never counts;
* PyTorch's divisor_override: divisor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from array_api_compat import device

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import TensorType
from kilograd.ops.windows import (
    NO_PADDING,
    Padding,
    Pair,
    adaptive_taps,
    adaptive_windows,
    distinct,
    image_calls,
    image_shape,
    window_count,
)


@dataclass(frozen=True)
class _Averages(Operator):
    """The attributes that AvgPool2d and its gradient share, and what follows from them."""

    kernel: Pair
    stride: Pair
    padding: Padding = NO_PADDING
    include_pad: bool = True
    extra: Pair = (0, 0)
    divisor: int = 0

    def counts(self, size: Sequence[int]) -> tuple[int, ...]:
        """OH and OW for an image of H and W."""
        return tuple(
            window_count(self.name, n, k, s, (before, after + extra), 1)
            for n, k, s, (before, after), extra in zip(
                size, self.kernel, self.stride, self.padding, self.extra, strict=True
            )
        )

    def divisors(self, size: Sequence[int]) -> np.ndarray:
        """What each window's sum is divided by, [OH, OW]."""
        counts = self.counts(size)
        if self.divisor:
            return np.full(counts, self.divisor)
        lengths = []
        for axis, windows in enumerate(counts):
            before, after = self.padding[axis] if self.include_pad else (0, 0)
            starts = np.arange(windows) * self.stride[axis] - self.padding[axis][0]
            stops = np.minimum(starts + self.kernel[axis], size[axis] + after)
            lengths.append(stops - np.maximum(starts, -before))
        return np.outer(*lengths)

    def rest(self, size: Sequence[int], counts: Sequence[int], channels: int) -> tuple[int, ...]:
        """The last arguments of both kernels."""
        (top, bottom), (left, right) = self.padding
        return (
            *size, channels, *counts, *self.kernel, *self.stride, top, bottom, left, right,
            self.include_pad, self.divisor,
        )  # fmt: skip


@dataclass(frozen=True)
class AvgPool2d(_Averages):
    """The mean of every window of x [N,H,W,C]: [N,OH,OW,C].

    `padding` ((top, bottom), (left, right)) counts in the divisor if `include_pad`; `extra`
    (bottom, right) lets windows reach further, as ceil_mode does, and never counts; `divisor`,
    unless 0, replaces the count. Raises InputError for a window without a position inside.
    """

    name: ClassVar[str] = "avg_pool2d"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """[N,OH,OW,C]."""
        (x,) = types
        n, h, w, c = image_shape(self.name, x)
        return (x.with_shape(n, *self.counts((h, w)), c),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Window by window."""
        (x,) = arrays
        _, h, w, _ = x.shape
        divisors = self.divisors((h, w))
        rows = []
        for oh, ow in np.ndindex(*divisors.shape):
            inside = _inside(self, oh, ow, (h, w))
            rows.append(xp.sum(x[inside], axis=(1, 2)) / int(divisors[oh, ow]))
        return (xp.reshape(xp.stack(rows, axis=1), (x.shape[0], *divisors.shape, x.shape[3])),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """Every position gets its share of the windows that cover it."""
        (d_y,) = cotangents
        assert d_y is not None
        (x,) = node.inputs
        op = AvgPool2dGrad(
            self.kernel, self.stride, self.padding, self.include_pad, self.extra, self.divisor,
            x.type.shape[1:3],
        )  # fmt: skip
        return [builder.add(op, d_y, name=f"d_{x.name}")]

    def cost(self, *types: TensorType) -> Cost:
        """Every tap is read; additions are not counted as multiply-accumulates."""
        (y,) = self.infer(*types)
        return Cost(
            bytes_read=y.bytes * self.kernel[0] * self.kernel[1],
            bytes_written=y.bytes,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (x,), (y,) = operands.inputs, operands.outputs
        rest = self.rest(x.type.shape[1:3], y.type.shape[1:3], x.type.shape[3])
        return image_calls(operands, "kg_avg_pool2d_f32", (y, x), rest)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Plain, padded both ways, windows beyond the padding, divisor, gaps, one axis."""
        ops = [
            (cls((2, 2), (2, 2)), (1, 6, 4, 7)),
            (cls((2, 2), (2, 2)), (2, 5, 5, 21)),
            (cls((3, 3), (2, 2), ((1, 1), (1, 1))), (1, 7, 6, 5)),
            (cls((3, 3), (2, 2), ((1, 1), (1, 1)), include_pad=False), (1, 7, 6, 5)),
            (cls((3, 2), (2, 2), ((1, 1), (0, 1)), extra=(1, 0)), (1, 6, 5, 4)),
            (cls((3, 2), (2, 2), ((1, 1), (0, 1)), False, (1, 0)), (1, 6, 5, 4)),
            (cls((2, 3), (1, 2), ((1, 0), (2, 1)), divisor=5), (1, 4, 5, 3)),
            (cls((2, 2), (3, 4)), (1, 9, 10, 1)),
            (cls((1, 4), (1, 2), ((0, 0), (2, 2))), (1, 1, 11, 6)),
            (cls((1, 1), (1, 1)), (1, 1, 1, 3)),
        ]
        return [
            Example(op, (distinct(i, *shape),), 1e-6, (0,), (0,))
            for i, (op, shape) in enumerate(ops)
        ]


def _inside(op: _Averages, oh: int, ow: int, size: Sequence[int]) -> tuple[slice, ...]:
    """The index of the part of a window that is inside the image."""
    index = [slice(None)]
    for i, o in enumerate((oh, ow)):
        start = o * op.stride[i] - op.padding[i][0]
        index.append(slice(max(start, 0), min(start + op.kernel[i], size[i])))
    return tuple(index)


@dataclass(frozen=True)
class AvgPool2dGrad(_Averages):
    """d_y [N,OH,OW,C] to d_x [N,H,W,C] for an image of `size` (H, W)."""

    name: ClassVar[str] = "avg_pool2d_grad"
    size: tuple[int, ...] = (1, 1)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """[N,H,W,C]."""
        (d_y,) = types
        n, oh, ow, c = image_shape(self.name, d_y)
        if (oh, ow) != self.counts(self.size):
            raise InputError(f"{self.name}: {d_y} is no result for an image of {self.size}")
        return (d_y.with_shape(n, *self.size, c),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Window by window."""
        (d_y,) = arrays
        n, oh, ow, c = d_y.shape
        divisors = self.divisors(self.size)
        d_x = xp.zeros((n, *self.size, c), dtype=d_y.dtype, device=device(d_y))
        for i, j in np.ndindex(oh, ow):
            inside = _inside(self, i, j, self.size)
            d_x[inside] = d_x[inside] + d_y[:, i : i + 1, j : j + 1, :] / int(divisors[i, j])
        return (d_x,)

    def cost(self, *types: TensorType) -> Cost:
        """Every tap is written, overlaps again."""
        (d_y,) = types
        d_x = self.infer(d_y)[0]
        return Cost(
            macs=d_y.size * self.kernel[0] * self.kernel[1],
            bytes_read=d_y.bytes * self.kernel[0] * self.kernel[1],
            bytes_written=d_x.bytes,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (d_y,), (d_x,) = operands.inputs, operands.outputs
        rest = self.rest(self.size, d_y.type.shape[1:3], d_x.type.shape[3])
        return image_calls(operands, "kg_avg_pool2d_grad_f32", (d_x, d_y), rest)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """The gradients of AvgPool2d's examples."""
        result = []
        for example in AvgPool2d.examples():
            op, (x,) = example.op, example.inputs
            assert isinstance(op, AvgPool2d)
            (y,) = op.reference(np, x)
            grad = cls(
                op.kernel, op.stride, op.padding, op.include_pad, op.extra, op.divisor,
                x.shape[1:3],
            )  # fmt: skip
            result.append(Example(grad, (distinct(9, *y.shape),), 1e-6, batched=(0,)))
        return result


@dataclass(frozen=True)
class AdaptiveAvgPool2d(Operator):
    """The means of `output` (OH, OW) windows of x [N,H,W,C], after PyTorch's formula.

    Window i of n over s positions is [floor(i s / n), ceil((i + 1) s / n)).
    """

    name: ClassVar[str] = "adaptive_avg_pool2d"
    output: Pair

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """[N,OH,OW,C]."""
        (x,) = types
        n, _, _, c = image_shape(self.name, x)
        return (x.with_shape(n, *self.output, c),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Window by window."""
        (x,) = arrays
        n, h, w, c = x.shape
        means = [
            xp.mean(x[:, h0:h1, w0:w1, :], axis=(1, 2))
            for h0, h1 in adaptive_windows(h, self.output[0])
            for w0, w1 in adaptive_windows(w, self.output[1])
        ]
        return (xp.reshape(xp.stack(means, axis=1), (n, *self.output, c)),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """Every position gets its share of the windows that cover it."""
        (d_y,) = cotangents
        assert d_y is not None
        (x,) = node.inputs
        op = AdaptiveAvgPool2dGrad(x.type.shape[1:3])
        return [builder.add(op, d_y, name=f"d_{x.name}")]

    def cost(self, *types: TensorType) -> Cost:
        """The image is read, overlaps again."""
        (x,) = types
        return Cost(
            bytes_read=adaptive_taps(x.shape, self.output) * x.shape[3] * 4,
            bytes_written=self.infer(x)[0].bytes,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (x,), (y,) = operands.inputs, operands.outputs
        rest = (*x.type.shape[1:], *self.output)
        return image_calls(operands, "kg_adaptive_avg_pool2d_f32", (y, x), rest)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Uneven, even, more windows than positions, one window."""
        return [
            Example(cls(output), (distinct(i, *shape),), 1e-6, (0,), (0,))
            for i, (output, shape) in enumerate(_ADAPTIVE)
        ]


_ADAPTIVE: tuple[tuple[Pair, tuple[int, ...]], ...] = (
    ((3, 2), (1, 7, 5, 6)),
    ((2, 2), (1, 6, 4, 17)),
    ((3, 5), (1, 2, 3, 2)),
    ((1, 1), (1, 5, 4, 3)),
)


@dataclass(frozen=True)
class AdaptiveAvgPool2dGrad(Operator):
    """d_y [N,OH,OW,C] to d_x [N,H,W,C] for an image of `size` (H, W)."""

    name: ClassVar[str] = "adaptive_avg_pool2d_grad"
    size: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """[N,H,W,C]."""
        (d_y,) = types
        n, _, _, c = image_shape(self.name, d_y)
        return (d_y.with_shape(n, *self.size, c),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Window by window."""
        (d_y,) = arrays
        n, oh, ow, c = d_y.shape
        d_x = xp.zeros((n, *self.size, c), dtype=d_y.dtype, device=device(d_y))
        for i, (h0, h1) in enumerate(adaptive_windows(self.size[0], oh)):
            for j, (w0, w1) in enumerate(adaptive_windows(self.size[1], ow)):
                share = d_y[:, i : i + 1, j : j + 1, :] / ((h1 - h0) * (w1 - w0))
                d_x[:, h0:h1, w0:w1, :] = d_x[:, h0:h1, w0:w1, :] + share
        return (d_x,)

    def cost(self, *types: TensorType) -> Cost:
        """Every tap is written, overlaps again."""
        (d_y,) = types
        d_x = self.infer(d_y)[0]
        taps = adaptive_taps(d_x.shape, (d_y.shape[1], d_y.shape[2])) * d_x.shape[3]
        return Cost(macs=taps, bytes_read=4 * taps, bytes_written=d_x.bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (d_y,), (d_x,) = operands.inputs, operands.outputs
        rest = (*d_x.type.shape[1:], *d_y.type.shape[1:3])
        return image_calls(operands, "kg_adaptive_avg_pool2d_grad_f32", (d_x, d_y), rest)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """The gradients of AdaptiveAvgPool2d's examples."""
        return [
            Example(
                cls(shape[1:3]), (distinct(9, shape[0], *output, shape[3]),), 1e-6, batched=(0,)
            )
            for output, shape in _ADAPTIVE
        ]
