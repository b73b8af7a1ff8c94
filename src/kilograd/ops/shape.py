"""Operators that move elements and compute nothing: reshape, transpose, slice, concat, pad."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import numpy as np
from array_api_compat import device

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
from kilograd.ops.copies import around, copy_grid, copy_rows, fill, merge_axes, packed_steps


@dataclass(frozen=True)
class Reshape(Operator):
    """The same elements in the same order under `shape`; costs nothing. The leading dimension is
    the batch.
    """

    name: ClassVar[str] = "reshape"
    alias: ClassVar[bool] = True
    shape: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """`shape`, which must hold as many elements."""
        (x,) = types
        if math.prod(self.shape) != x.size:
            raise InputError(f"reshape: {x} has {x.size} elements, {list(self.shape)} has not")
        return (x.with_shape(*self.shape),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """`reshape` of the array API, with the leading dimension left to absorb the batch."""
        return (xp.reshape(arrays[0], (-1, *self.shape[1:])),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """The cotangent in the shape of the input."""
        (d_y,) = cotangents
        assert d_y is not None
        (x,) = node.inputs
        return [builder.add(Reshape(x.type.shape), d_y, name=f"d_{x.name}")]

    def cost(self, *types: TensorType) -> Cost:
        """Nothing."""
        return Cost()

    def emit(self, operands: Operands) -> Sequence[Call]:
        """No code: the output is the input's memory."""
        return []

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """One."""
        x = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
        return [Example(cls((1, 12)), (x,), 0.0, (0,), (0,))]


@dataclass(frozen=True)
class Transpose(Operator):
    """Dimension i of the result is dimension axes[i] of the input (up to rank 6), any element
    type.
    """

    name: ClassVar[str] = "transpose"
    axes: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The permuted shape."""
        (x,) = types
        if sorted(self.axes) != list(range(x.rank)) or x.rank > 6:
            raise InputError(
                f"transpose: {list(self.axes)} is no permutation of the axes of {x} (at most 6)"
            )
        return (x.with_shape(*(x.shape[axis] for axis in self.axes)),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """`permute_dims` of the array API."""
        return (xp.permute_dims(arrays[0], self.axes),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """The inverse permutation of the cotangent."""
        (d_y,) = cotangents
        assert d_y is not None
        return [builder.add(self.inverse(), d_y, name=f"d_{node.inputs[0].name}")]

    def inverse(self) -> Transpose:
        """The transpose that undoes this one."""
        return Transpose(tuple(sorted(range(len(self.axes)), key=lambda i: self.axes[i])))

    def cost(self, *types: TensorType) -> Cost:
        """A copy."""
        return Cost(bytes_read=types[0].bytes, bytes_written=types[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """A plain copy, one 2-D transpose, or a general strided copy."""
        (x,), (y,) = operands.inputs, operands.outputs
        shape, axes, size = merge_axes(x.type.shape, self.axes, x.type.dtype.bytes)
        if not axes:
            return [Call("shape.h", "kg_copy_rows", (y, x, 1, size, size, size))]
        if axes == (1, 0):
            return [Call("shape.h", "kg_transpose", (y, x, *shape, size))]
        steps = packed_steps(shape, size)
        result = tuple(shape[axis] for axis in axes)
        return [
            copy_grid(y, x, result, tuple(steps[a] for a in axes), packed_steps(result, size), size)
        ]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Between NCHW and NHWC, batches of matrices, identities, ranks 2 to 6, bytes."""
        x = np.arange(210, dtype=np.float32).reshape(1, 5, 6, 7)
        return [
            Example(cls((0, 2, 3, 1)), (x,), 0.0, (0,), (0,)),
            Example(cls((0, 3, 1, 2)), (x,), 0.0, (0,), (0,)),
            Example(cls((0, 2, 1, 3)), (x,), 0.0, (0,), (0,)),
            Example(cls((0, 1, 3, 2)), (x,), 0.0, (), (0,)),
            Example(cls((0, 3, 2, 1)), (x.astype(np.int8),), 0.0, (), (0,)),
            Example(cls((3, 0, 1, 2)), (x.astype(np.int32),)),
            Example(cls((1, 0)), (x.reshape(30, 7).astype(np.int8),)),
            Example(cls((0, 2, 1)), (x[:, :1, :5].reshape(1, 1, 35),)),
            Example(cls((2, 1, 0)), (np.arange(42, dtype=np.int8).reshape(2, 3, 7),)),
            Example(
                cls((5, 3, 1, 4, 2, 0)),
                (np.arange(360, dtype=np.float32).reshape(1, 5, 4, 3, 3, 2),),
            ),
            Example(
                cls((5, 4, 3, 2, 1, 0)),
                (np.arange(96, dtype=np.float32).reshape(2, 2, 2, 2, 3, 2),),
            ),
        ]


@dataclass(frozen=True)
class Slice(Operator):
    """Elements start, start + step, ... before stop of one axis; a negative axis counts from the
    end.
    """

    name: ClassVar[str] = "slice"
    axis: int
    start: int
    stop: int
    step: int = 1

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape with ceil((stop - start) / step) on the axis."""
        (x,) = types
        shape = list(x.shape)
        if not -x.rank <= self.axis < x.rank:
            raise InputError(f"slice: {x} has no axis {self.axis}")
        if not 0 <= self.start < self.stop <= shape[self.axis] or self.step < 1:
            raise InputError(
                f"slice: [{self.start}, {self.stop}) by {self.step} of axis {self.axis} is not "
                f"inside {x}"
            )
        shape[self.axis] = len(range(self.start, self.stop, self.step))
        return (x.with_shape(*shape),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Basic indexing."""
        index = [slice(None)] * arrays[0].ndim
        index[self.axis] = slice(self.start, self.stop, self.step)
        return (arrays[0][tuple(index)],)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """The cotangent between zeros."""
        (d_y,) = cotangents
        assert d_y is not None
        (x,) = node.inputs
        op = SliceGrad(self.axis, self.start, x.type.shape[self.axis], self.step)
        return [builder.add(op, d_y, name=f"d_{x.name}")]

    def cost(self, *types: TensorType) -> Cost:
        """A copy of what is kept."""
        size = self.infer(*types)[0].bytes
        return Cost(bytes_read=size, bytes_written=size)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One strided copy."""
        (x,), (y,) = operands.inputs, operands.outputs
        outer, size, inner = around(x.type, self.axis)
        count = y.type.shape[self.axis]
        source = x.offset(self.start * inner)
        bytes_ = inner * x.type.dtype.bytes
        if self.step == 1:
            return [copy_rows(y, source, outer, count * bytes_, size * bytes_, count * bytes_)]
        x_steps, y_steps = (size * bytes_, self.step * bytes_), (count * bytes_, bytes_)
        return [copy_grid(y, source, (outer, count), x_steps, y_steps, bytes_)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Last axis and a middle one, with and without a step, bytes."""
        x = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
        return [
            Example(cls(-1, 0, 2), (x,), 0.0, (0,), (0,)),
            Example(cls(2, 1, 4), (x,), 0.0, (0,), (0,)),
            Example(cls(-1, 1, 5), (x.astype(np.int8),), 0.0, (), (0,)),
            Example(cls(1, 0, 3, 2), (x,), 0.0, (0,), (0,)),
            Example(cls(-1, 1, 5, 3), (x,), 0.0, (0,), (0,)),
            Example(cls(2, 1, 3, 2), (x.astype(np.int8),), 0.0, (), (0,)),
        ]


@dataclass(frozen=True)
class SliceGrad(Operator):
    """x at start, start + step, ... of an axis of the given size, zero elsewhere: the transpose of
    Slice.
    """

    name: ClassVar[str] = "slice_grad"
    axis: int
    start: int
    size: int
    step: int = 1

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape with `size` on the axis."""
        (x,) = types
        shape = list(x.shape)
        shape[self.axis] = self.size
        return (x.with_shape(*shape),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Written into zeros."""
        (x,) = arrays
        shape = list(x.shape)
        index = [slice(None)] * x.ndim
        stop = self.start + (x.shape[self.axis] - 1) * self.step + 1
        index[self.axis] = slice(self.start, stop, self.step)
        shape[self.axis] = self.size
        y = xp.zeros(tuple(shape), dtype=x.dtype, device=device(x))
        y[tuple(index)] = x
        return (y,)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """The slice of the cotangent."""
        (d_y,) = cotangents
        assert d_y is not None
        (x,) = node.inputs
        stop = self.start + (x.type.shape[self.axis] - 1) * self.step + 1
        op = Slice(self.axis, self.start, stop, self.step)
        return [builder.add(op, d_y, name=f"d_{x.name}")]

    def cost(self, *types: TensorType) -> Cost:
        """A copy."""
        return Cost(bytes_read=types[0].bytes, bytes_written=self.infer(*types)[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """Zero everything, then one strided copy."""
        (x,), (y,) = operands.inputs, operands.outputs
        outer, count, inner = around(x.type, self.axis)
        bytes_ = inner * x.type.dtype.bytes
        row, target = self.size * bytes_, y.offset(self.start * inner)
        copy = copy_rows(target, x, outer, count * bytes_, count * bytes_, row)
        if self.step > 1:
            x_steps, y_steps = (count * bytes_, bytes_), (row, self.step * bytes_)
            copy = copy_grid(target, x, (outer, count), x_steps, y_steps, bytes_)
        return [Call("shape.h", "kg_zero", (y, y.type.bytes)), copy]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Middle of the last axis, end of a middle axis, steps."""
        x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
        return [
            Example(cls(-1, 2, 8), (x,), 0.0, (0,), (0,)),
            Example(cls(1, 1, 3), (x,), 0.0, (0,), (0,)),
            Example(cls(2, 1, 9, 3), (x,), 0.0, (0,), (0,)),
            Example(cls(-1, 0, 7, 2), (x,), 0.0, (0,), (0,)),
        ]


@dataclass(frozen=True)
class Concat(Operator):
    """The inputs one after the other along `axis`; a negative axis counts from the end."""

    name: ClassVar[str] = "concat"
    axis: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The sum of the sizes on the axis; the other sizes must agree."""
        first = types[0]
        if not -first.rank <= self.axis < first.rank:
            raise InputError(f"concat: {first} has no axis {self.axis}")
        axis = self.axis % first.rank
        for other in types[1:]:
            same = other.shape[:axis] + other.shape[axis + 1 :]
            if same != first.shape[:axis] + first.shape[axis + 1 :] or other.dtype != first.dtype:
                raise InputError(f"concat: {first} and {other} differ beside axis {self.axis}")
        shape = list(first.shape)
        shape[axis] = sum(other.shape[axis] for other in types)
        return (first.with_shape(*shape),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """`concat` of the array API."""
        return (xp.concat(list(arrays), axis=self.axis),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """Each wanted input gets its slice of the cotangent."""
        (d_y,) = cotangents
        assert d_y is not None
        sizes = [value.type.shape[self.axis] for value in node.inputs]
        starts = [0, *accumulate(sizes)]
        return [
            builder.add(Slice(self.axis, start, start + size), d_y, name=f"d_{value.name}")
            if want
            else None
            for value, start, size, want in zip(node.inputs, starts, sizes, wanted, strict=False)
        ]

    def cost(self, *types: TensorType) -> Cost:
        """A copy."""
        size = sum(type_.bytes for type_ in types)
        return Cost(bytes_read=size, bytes_written=size)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One strided copy an input."""
        (y,) = operands.outputs
        outer, total, inner = around(y.type, self.axis)
        bytes_ = inner * y.type.dtype.bytes
        calls, start = [], 0
        for x in operands.inputs:
            count = x.type.shape[self.axis]
            row = count * bytes_
            calls.append(copy_rows(y.offset(start * inner), x, outer, row, row, total * bytes_))
            start += count
        return calls

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Channels of uneven numbers, rows, one input, bytes at odd offsets."""
        x = np.arange(120, dtype=np.float32).reshape(1, 4, 5, 6)
        a, b, c = x[..., :1], x[..., 1:3], x[..., 3:]
        return [
            Example(cls(-1), (a, b, c), 0.0, (0, 1, 2), (0, 1, 2)),
            Example(cls(1), (x[:, :3], x), 0.0, (1,), (0, 1)),
            Example(cls(3), (x,), 0.0, (0,), (0,)),
            Example(cls(-1), (c.astype(np.int8), x.astype(np.int8)), 0.0, (), (0, 1)),
        ]


@dataclass(frozen=True)
class Pad(Operator):
    """x with (before, after) elements of `value` on every axis; the leading dimension, the batch,
    is never padded.
    """

    name: ClassVar[str] = "pad"
    pads: tuple[tuple[int, int], ...]
    value: float = 0.0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The grown shape."""
        (x,) = types
        if len(self.pads) != x.rank or min(min(pair) for pair in self.pads) < 0:
            raise InputError(f"pad: {self.pads} takes a pair of sizes >= 0 for every axis of {x}")
        if x.rank > 6 or self.pads[0] != (0, 0):
            raise InputError(f"pad: {x} has its batch padded, or more than 6 axes")
        grown = (n + sum(pair) for n, pair in zip(x.shape, self.pads, strict=True))
        return (x.with_shape(*grown),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """x written into a tensor of `value`."""
        (x,) = arrays
        shape = (n + sum(pair) for n, pair in zip(x.shape, self.pads, strict=True))
        y = xp.full(tuple(shape), self.value, dtype=x.dtype, device=device(x))
        inside = (slice(b, b + n) for n, (b, _) in zip(x.shape, self.pads, strict=True))
        y[tuple(inside)] = x
        return (y,)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """The inside of the cotangent: a slice for every padded axis."""
        (d_x,) = cotangents
        assert d_x is not None
        for axis, (before, after) in enumerate(self.pads):
            if before or after:
                op = Slice(axis, before, before + node.inputs[0].type.shape[axis])
                d_x = builder.add(op, d_x, name=f"d_{node.inputs[0].name}")
        return [d_x]

    def cost(self, *types: TensorType) -> Cost:
        """A copy."""
        return Cost(bytes_read=types[0].bytes, bytes_written=self.infer(*types)[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """Fill everything, then one strided copy."""
        (x,), (y,) = operands.inputs, operands.outputs
        size = x.type.dtype.bytes
        x_steps, y_steps = packed_steps(x.type.shape, size), packed_steps(y.type.shape, size)
        inside = sum(b * step for (b, _), step in zip(self.pads, y_steps, strict=True)) // size
        padded = [axis for axis, pair in enumerate(self.pads) if any(pair)]
        last = padded[-1] if padded else 0
        row = math.prod(x.type.shape[last:]) * size
        target = y.offset(inside)
        if len(padded) < 2:
            outer = math.prod(x.type.shape[:last])
            pitch = math.prod(y.type.shape[last:]) * size
            copy = copy_rows(target, x, outer, row, row, pitch)
        else:
            copy = copy_grid(target, x, x.type.shape[:last], x_steps[:last], y_steps[:last], row)
        return [fill(y, self.value), copy]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Rows and columns, channels only, nothing, infinity, bytes and integers."""
        x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
        frame = ((0, 0), (1, 2), (0, 3), (0, 0))
        return [
            Example(cls(frame), (x,), 0.0, (0,), (0,)),
            Example(cls(((0, 0), (0, 0), (0, 0), (1, 2)), -1.5), (x,), 0.0, (0,), (0,)),
            Example(cls(((0, 0), (1, 0), (0, 1), (2, 2)), math.inf), (x,), 0.0, (), (0,)),
            Example(cls(((0, 0),) * 4), (x,), 0.0, (0,), (0,)),
            Example(cls(frame, -3), (x.astype(np.int8),), 0.0, (), (0,)),
            Example(cls(frame, -70000), (x.astype(np.int32),), 0.0, (), (0,)),
        ]
