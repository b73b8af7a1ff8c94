"""Elementwise functions of two tensors, with NumPy broadcasting.

An operand of the result's rank carries the batch in its leading dimension. A parameter or constant
that is shared by the batch has at most one dimension less: its gradient sums over the batch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

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
from kilograd.ir.types import DType, TensorType
from kilograd.ops.reduce import Reduce, ReduceProduct
from kilograd.ops.shape import Reshape
from kilograd.ops.unary import Neg

MAX_LOOPS = 5


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...] | None:
    """The common shape of NumPy's broadcasting, or None where there is none."""
    rank = max(map(len, shapes))
    result = []
    for sizes in zip(*((1,) * (rank - len(s)) + tuple(s) for s in shapes), strict=True):
        larger = {size for size in sizes if size != 1}
        if len(larger) > 1:
            return None
        result.append(larger.pop() if larger else 1)
    return tuple(result)


def broadcast_loops(*shapes: Sequence[int]) -> list[tuple[int, ...]]:
    """The fewest loops that broadcast the shapes: (size, step of each operand), outermost first.

    Axes of size 1 vanish and neighbours along which the same operands repeat become one.
    """
    common = broadcast_shapes(*shapes)
    assert common is not None
    loops: list[tuple[int, ...]] = []
    steps = [1] * len(shapes)
    for back in range(1, len(common) + 1):
        size = common[-back]
        if size == 1:
            continue
        moves = [len(shape) >= back and shape[-back] == size for shape in shapes]
        if loops and [step > 0 for step in loops[-1][1:]] == moves:
            loops[-1] = (loops[-1][0] * size, *loops[-1][1:])
        else:
            loops.append((size, *(s if m else 0 for s, m in zip(steps, moves, strict=True))))
        steps = [s * size if m else s for s, m in zip(steps, moves, strict=True)]
    return loops[::-1] or [(1,) * (1 + len(shapes))]


def sum_to(builder: Builder, d_y: Value, like: Value, times: Value | None = None) -> Value:
    """The cotangent of an operand that was broadcast: d_y, or d_y `times` a tensor of its shape,
    summed over the axes along which `like` repeats (and over the batch where it has none).
    """
    shape, target = d_y.type.shape, like.type.shape
    lead = len(shape) - len(target)
    repeated = [i < lead or (size > 1 and target[i - lead] == 1) for i, size in enumerate(shape)]
    # Neighbouring runs are joined across axes of size 1, of which there is nothing to sum.
    neutral = [i >= lead and size == 1 for i, size in enumerate(shape)]
    runs: list[tuple[int, ...]] = []
    for i in (i for i, repeats in enumerate(repeated) if repeats):
        if runs and all(neutral[runs[-1][-1] + 1 : i]):
            runs[-1] = tuple(range(runs[-1][0], i + 1))
        else:
            runs.append((i,))
    value, name = d_y, f"d_{like.name}"
    if times is not None and not runs:
        value = builder.add(Mul(), value, times, name=name)
    for run in reversed(runs):
        keep = lead == 0 or run[0] > 0
        if times is not None:
            value = builder.add(ReduceProduct(run, keep), value, times, name=name)
            times = None
        else:
            value = builder.add(Reduce(run, keep=keep), value, name=name)
    if value.type.shape != target:
        value = builder.add(Reshape(target), value, name=name)
    return value


class Binary(Operator):
    """y = f(a, b) element by element, in place over either input that does not repeat.

    The C kernels are `kg_<name>_f32` and `kg_<name>_broadcast_f32`; both take `parameters` last.
    """

    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (0, 1))

    @abstractmethod
    def f(self, xp: Namespace, a: Array, b: Array) -> Array:
        """The function."""

    @property
    def parameters(self) -> tuple[float, ...]:
        """Further arguments of the C kernels."""
        return ()

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The broadcast shape."""
        a, b = types
        shape = broadcast_shapes(a.shape, b.shape)
        if shape is None or a.dtype is not DType.F32 or b.dtype is not DType.F32:
            raise InputError(f"{self.name}: {a} and {b} are not float32 of shapes that broadcast")
        if len(broadcast_loops(a.shape, b.shape)) > MAX_LOOPS:
            raise InputError(f"{self.name}: {a} and {b} repeat along too many axes in turn")
        return (a.with_shape(*shape),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The function."""
        return (self.f(xp, *arrays),)

    def cost(self, *types: TensorType) -> Cost:
        """Every operand once."""
        (y,) = self.infer(*types)
        return Cost(bytes_read=sum(t.bytes for t in types), bytes_written=y.bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (a, b), (y,) = operands.inputs, operands.outputs
        if a.type.size == b.type.size == y.type.size:
            arguments: tuple[Argument, ...] = (y, a, b, y.type.size)
            return [Call("binary.h", f"kg_{self.name}_f32", arguments + self.parameters)]
        loops = broadcast_loops(a.type.shape, b.type.shape)
        loops = [(1, 0, 0)] * (MAX_LOOPS - len(loops)) + loops
        rows = ("{" + ", ".join(map(str, row)) + "}" for row in zip(*loops, strict=True))
        shape = f"&(const kg_broadcast){{{', '.join(rows)}}}"
        arguments = (y, a, b, shape)
        return [Call("binary.h", f"kg_{self.name}_broadcast_f32", arguments + self.parameters)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """The shapes of `_pairs`."""
        return [Example(cls(), (a, b), 1e-6, (0, 1), rows) for a, b, rows in _pairs()]


def _pairs() -> list[tuple[Any, Any, tuple[int, ...]]]:
    """Operands away from zero, and which of them have a batch dimension."""
    rng = np.random.default_rng(0)
    shapes: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = [
        ((1, 3, 5), (1, 3, 5), (0, 1)),
        ((1, 3, 4, 5), (5,), (0,)),  # a bias
        ((1, 3, 4, 5), (1, 1, 5), (0,)),
        ((4, 5), (1, 3, 4, 5), (1,)),
        ((1, 3, 4, 5), (1, 1, 1, 5), (0, 1)),  # squeeze and excite
        ((1, 3, 4, 1), (1, 3, 4, 5), (0, 1)),  # spatial attention
        ((1, 3, 4, 5), (), (0,)),
        ((), (1, 7), (1,)),
        ((1, 4, 1), (1, 1, 5), (0, 1)),  # an outer sum
        ((1, 2, 1, 3, 1, 2), (1, 2, 2, 3, 2, 1), (0, 1)),
        ((1, 2, 3, 1), (2, 1, 4), (0,)),
        ((), (), ()),
    ]
    result = []
    for a_shape, b_shape, batched in shapes:
        a = np.asarray(rng.standard_normal(a_shape), np.float32)
        b = np.asarray(rng.standard_normal(b_shape), np.float32)
        b = np.asarray(b + np.where(b < 0, -0.5, 0.5), np.float32)
        result.append((a, b, batched))
    return result


@dataclass(frozen=True)
class Add(Binary):
    """a + b limited to [low, high], which is how a following ReLU or ReLU6 is fused."""

    name: ClassVar[str] = "add"
    low: float = -math.inf
    high: float = math.inf

    def f(self, xp: Namespace, a: Array, b: Array) -> Array:
        """The definition."""
        y = a + b
        if self.low > -math.inf or self.high < math.inf:
            y = xp.clip(y, self.low, self.high)
        return y

    @property
    def parameters(self) -> tuple[float, ...]:
        """The bounds."""
        return (self.low, self.high)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """d_y for both."""
        (d_y,) = cotangents
        assert d_y is not None and self.low == -math.inf and self.high == math.inf
        return [
            sum_to(builder, d_y, x) if want else None
            for x, want in zip(node.inputs, wanted, strict=True)
        ]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """With a fused ReLU, too."""
        a, b, batched = _pairs()[0]
        clamped = Example(cls(0.0, 1.0), (a, b), 1e-6, batched=batched)
        return [*super().examples(), clamped]


@dataclass(frozen=True)
class Sub(Binary):
    """a - b."""

    name: ClassVar[str] = "sub"

    def f(self, xp: Namespace, a: Array, b: Array) -> Array:
        """The definition."""
        return a - b

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """d_y and -d_y."""
        (d_y,), (a, b) = cotangents, node.inputs
        assert d_y is not None
        d_a = sum_to(builder, d_y, a) if wanted[0] else None
        d_b = None
        if wanted[1]:
            d_b = builder.add(Neg(), sum_to(builder, d_y, b), name=f"d_{b.name}")
        return [d_a, d_b]


@dataclass(frozen=True)
class Mul(Binary):
    """a b."""

    name: ClassVar[str] = "mul"

    def f(self, xp: Namespace, a: Array, b: Array) -> Array:
        """The definition."""
        return a * b

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """d_y b and d_y a."""
        (d_y,), (a, b) = cotangents, node.inputs
        assert d_y is not None
        return [
            _product_to(builder, d_y, other, x) if want else None
            for x, other, want in zip((a, b), (b, a), wanted, strict=True)
        ]


def _product_to(builder: Builder, d_y: Value, factor: Value, like: Value) -> Value:
    """d_y times `factor`, summed to the shape of `like`."""
    if factor.type.shape == d_y.type.shape:
        return sum_to(builder, d_y, like, factor)
    product = builder.add(Mul(), d_y, factor, name=f"d_{like.name}")
    return sum_to(builder, product, like)


@dataclass(frozen=True)
class Div(Binary):
    """a / b."""

    name: ClassVar[str] = "div"

    def f(self, xp: Namespace, a: Array, b: Array) -> Array:
        """The definition."""
        return a / b

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """With q = d_y / b: q and -q y."""
        (d_y,), (a, b), (y,) = cotangents, node.inputs, node.outputs
        assert d_y is not None
        quotient = builder.add(Div(), d_y, b, name=f"d_{a.name}")
        d_a = sum_to(builder, quotient, a) if wanted[0] else None
        d_b = None
        if wanted[1]:
            d_b = builder.add(Neg(), sum_to(builder, quotient, b, y), name=f"d_{b.name}")
        return [d_a, d_b]
