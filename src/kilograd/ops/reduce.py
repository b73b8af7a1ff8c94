"""Sums and means over a run of neighbouring axes: y[a, c] = scale * sum over b of x[a, b, c]."""

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


def split_axes(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, int, int]:
    """Element counts before, inside and after a run of neighbouring axes."""
    return (
        math.prod(shape[: axes[0]]),
        math.prod(shape[axes[0] : axes[-1] + 1]),
        math.prod(shape[axes[-1] + 1 :]),
    )


@dataclass(frozen=True)
class Reduce(Operator):
    """Sum, or mean, of x over neighbouring `axes` (ascending, non-negative); they stay as 1 if
    `keep`.
    """

    name: ClassVar[str] = "reduce"
    axes: tuple[int, ...]
    mean: bool = False
    keep: bool = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape without the axes, or with 1 in their place."""
        (x,) = types
        first, last = self.axes[0], self.axes[-1]
        if self.axes != tuple(range(first, last + 1)) or first < 0 or last >= x.rank:
            raise InputError(f"reduce: axes {self.axes} are no run of neighbours in {x}")
        kept = (1,) * len(self.axes) if self.keep else ()
        return (x.with_shape(*x.shape[:first], *kept, *x.shape[last + 1 :]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """`sum` or `mean` of the array API."""
        function = xp.mean if self.mean else xp.sum
        return (function(arrays[0], axis=self.axes, keepdims=self.keep),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """Every summand gets the cotangent, divided by their number for a mean."""
        (d_y,) = cotangents
        assert d_y is not None
        (x,) = node.inputs
        sizes = tuple(x.type.shape[axis] for axis in self.axes)
        op = Spread(self.axes, sizes, self.mean, self.keep)
        return [builder.add(op, d_y, name=f"d_{x.name}")]

    def cost(self, *types: TensorType) -> Cost:
        """Additions are not counted as multiply-accumulates."""
        (x,) = types
        return Cost(bytes_read=x.bytes, bytes_written=self.infer(x)[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (x,), (y,) = operands.inputs, operands.outputs
        outer, count, inner = split_axes(x.type.shape, self.axes)
        scale = 1.0 / count if self.mean else 1.0
        return [Call("reduce.h", "kg_reduce_f32", (y, x, outer, count, inner, scale))]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Leading, middle and trailing axes."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
        return [
            Example(cls((0, 1, 2)), (x,), 1e-6, (0,)),
            Example(cls((1, 2), mean=True), (x,), 1e-6, (0,), (0,)),
            Example(cls((3,), mean=True, keep=True), (x,), 1e-6, (0,), (0,)),
        ]


@dataclass(frozen=True)
class Spread(Operator):
    """The transpose of Reduce: repeats x along neighbouring `axes` of the given sizes, over their
    product if `mean`.
    """

    name: ClassVar[str] = "spread"
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    mean: bool = False
    keep: bool = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape with the axes inserted, or grown if `keep`."""
        (x,) = types
        first = self.axes[0]
        rest = x.shape[first + (len(self.axes) if self.keep else 0) :]
        return (x.with_shape(*x.shape[:first], *self.sizes, *rest),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """`broadcast_to` of the array API."""
        (x,) = arrays
        first = self.axes[0]
        if not self.keep:
            x = xp.reshape(x, (*x.shape[:first], *(1 for _ in self.axes), *x.shape[first:]))
        shape = list(x.shape)
        for axis, size in zip(self.axes, self.sizes, strict=True):
            shape[axis] = size if axis else max(size, shape[0])
        if self.mean:
            x = x / math.prod(self.sizes)
        return (xp.broadcast_to(x, tuple(shape)),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """The sum, or mean, over the axes."""
        (d_y,) = cotangents
        assert d_y is not None
        return [
            builder.add(
                Reduce(self.axes, self.mean, self.keep), d_y, name=f"d_{node.inputs[0].name}"
            )
        ]

    def cost(self, *types: TensorType) -> Cost:
        """Copies only."""
        return Cost(bytes_read=types[0].bytes, bytes_written=self.infer(*types)[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (x,), (y,) = operands.inputs, operands.outputs
        outer, count, inner = split_axes(y.type.shape, self.axes)
        scale = 1.0 / count if self.mean else 1.0
        return [Call("reduce.h", "kg_spread_f32", (y, x, outer, count, inner, scale))]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Axes inserted and axes grown."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((2, 1, 1, 5)).astype(np.float32)
        return [
            Example(cls((1, 2), (3, 4), mean=True, keep=True), (x,), 1e-6, (0,), (0,)),
            Example(cls((1,), (3,)), (x,), 1e-6, (0,), (0,)),
        ]


@dataclass(frozen=True)
class ReduceProduct(Operator):
    """Inputs u and v of one shape: the sum of u v over neighbouring `axes`; they stay as 1 if
    `keep`.

    This is the gradient of a factor that was broadcast, without the product as a tensor.
    """

    name: ClassVar[str] = "reduce_product"
    axes: tuple[int, ...]
    keep: bool = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """As for Reduce."""
        u, v = types
        if u != v:
            raise InputError(f"reduce_product: {u} and {v} differ")
        return Reduce(self.axes, keep=self.keep).infer(u)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        return (xp.sum(arrays[0] * arrays[1], axis=self.axes, keepdims=self.keep),)

    def cost(self, *types: TensorType) -> Cost:
        """One multiply-accumulate an element."""
        (y,) = self.infer(*types)
        u = types[0]
        return Cost(macs=u.size, bytes_read=2 * u.bytes, bytes_written=y.bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (u, v), (y,) = operands.inputs, operands.outputs
        arguments = (y, u, v, *split_axes(u.type.shape, self.axes))
        return [Call("reduce.h", "kg_reduce_product_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Leading, middle and trailing axes; channels beyond a whole block of sums."""
        rng = np.random.default_rng(0)

        def draw(*shape: int) -> tuple[np.ndarray, np.ndarray]:
            u, v = rng.standard_normal((2, *shape)).astype(np.float32)
            return u, v

        return [
            Example(cls((0, 1, 2)), draw(1, 3, 4, 21), 1e-6),
            Example(cls((1, 2), keep=True), draw(1, 3, 4, 37), 1e-6, batched=(0, 1)),
            Example(cls((3,), keep=True), draw(1, 3, 4, 5), 1e-6, batched=(0, 1)),
            Example(cls((1, 2, 3)), draw(1, 3, 4, 5), 1e-6, batched=(0, 1)),
        ]
