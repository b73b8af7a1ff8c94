"""Operators that move elements and compute nothing: reshape, slice, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import TensorType


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
class Slice(Operator):
    """Elements [start, stop) of one axis; a negative axis counts from the end."""

    name: ClassVar[str] = "slice"
    axis: int
    start: int
    stop: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape with stop - start on the axis."""
        (x,) = types
        shape = list(x.shape)
        if not 0 <= self.start < self.stop <= shape[self.axis]:
            raise InputError(
                f"slice: [{self.start}, {self.stop}) of axis {self.axis} is not inside {x}"
            )
        shape[self.axis] = self.stop - self.start
        return (x.with_shape(*shape),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Basic indexing."""
        index = [slice(None)] * arrays[0].ndim
        index[self.axis] = slice(self.start, self.stop)
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
        op = SliceGrad(self.axis, self.start, x.type.shape[self.axis])
        return [builder.add(op, d_y, name=f"d_{x.name}")]

    def cost(self, *types: TensorType) -> Cost:
        """A copy of what is kept."""
        size = self.infer(*types)[0].bytes
        return Cost(bytes_read=size, bytes_written=size)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One strided copy."""
        (x,), (y,) = operands.inputs, operands.outputs
        axis = self.axis % x.type.rank
        outer, inner = math.prod(x.type.shape[:axis]), math.prod(x.type.shape[axis + 1 :])
        size = x.type.dtype.bytes
        arguments = (
            y, x.offset(self.start * inner), outer, (self.stop - self.start) * inner * size,
            x.type.shape[axis] * inner * size, (self.stop - self.start) * inner * size,
        )  # fmt: skip
        return [Call("shape.h", "kg_copy_rows", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Last axis and a middle one."""
        x = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
        return [
            Example(cls(-1, 0, 2), (x,), 0.0, (0,), (0,)),
            Example(cls(2, 1, 4), (x,), 0.0, (0,), (0,)),
        ]


@dataclass(frozen=True)
class SliceGrad(Operator):
    """x at `start` of an axis of the given size, zero elsewhere: the transpose of Slice."""

    name: ClassVar[str] = "slice_grad"
    axis: int
    start: int
    size: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape with `size` on the axis."""
        (x,) = types
        shape = list(x.shape)
        shape[self.axis] = self.size
        return (x.with_shape(*shape),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Zeros joined on both sides."""
        (x,) = arrays
        before, after = list(x.shape), list(x.shape)
        before[self.axis] = self.start
        after[self.axis] = self.size - self.start - x.shape[self.axis]
        zeros = [xp.zeros(tuple(shape), dtype=x.dtype) for shape in (before, after)]
        return (xp.concat([zeros[0], x, zeros[1]], axis=self.axis),)

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
        op = Slice(self.axis, self.start, self.start + x.type.shape[self.axis])
        return [builder.add(op, d_y, name=f"d_{x.name}")]

    def cost(self, *types: TensorType) -> Cost:
        """A copy."""
        return Cost(bytes_read=types[0].bytes, bytes_written=self.infer(*types)[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """Zero everything, then one strided copy."""
        (x,), (y,) = operands.inputs, operands.outputs
        axis = self.axis % x.type.rank
        outer, inner = math.prod(x.type.shape[:axis]), math.prod(x.type.shape[axis + 1 :])
        row = x.type.shape[axis] * inner * x.type.dtype.bytes
        copy = (
            y.offset(self.start * inner), x, outer, row, row, self.size * inner *
            x.type.dtype.bytes,
        )  # fmt: skip
        return [
            Call("shape.h", "kg_zero", (y, y.type.bytes)),
            Call("shape.h", "kg_copy_rows", copy),
        ]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Middle of the last axis, end of a middle axis."""
        x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
        return [
            Example(cls(-1, 2, 8), (x,), 0.0, (0,), (0,)),
            Example(cls(1, 1, 3), (x,), 0.0, (0,), (0,)),
        ]
