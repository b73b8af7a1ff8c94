"""Quantised sums, products and concatenations: operands of different quantisation, one rounding.

A sum takes both operands to units of 2^-k of the result's scale with k chosen so that the larger of
the factors s_a / s_y and s_b / s_y has 21 bits:

    y = clamp((((a - z_a) A + (b - z_b) B + 2^(k-1)) >> k) + z_y, low, high)
    A = round(s_a / s_y 2^k),   B = round(s_b / s_y 2^k)

so the result is within 1/2 + 255 r 2^-20 steps of the exact sum, r being the larger ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import TensorType
from kilograd.ops.binary import Mul, sum_to
from kilograd.ops.copies import around, copy_rows
from kilograd.ops.q_convert import Dequantize, limited
from kilograd.ops.q_types import HIGH, LOW, activation, check_activation, check_output
from kilograd.ops.requantize import quantize_multiplier, requantize, to_int8
from kilograd.ops.shape import Slice

Source = tuple[float, int]
"""Scale and zero point of an input."""


def check_sources(name: str, sources: Sequence[Source], types: Sequence[TensorType]) -> None:
    """Raise InputError unless the types have these quantisations."""
    if len(sources) != len(types):
        raise InputError(f"{name}: {len(sources)} quantisations for {len(types)} inputs")
    for (scale, zero_point), type_ in zip(sources, types, strict=True):
        if check_activation(name, type_, zero_point) != scale:
            raise InputError(f"{name}: is for the scale {scale}, not for that of {type_}")


@dataclass(frozen=True)
class QAdd(Operator):
    """Inputs a and b i8 of one shape, quantised as `sources` says: their sum, quantised with
    `scale` and `zero_point`, limited to [low, high]; in place over either.
    """

    name: ClassVar[str] = "q_add"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (0, 1))
    scale: float
    zero_point: int
    sources: tuple[Source, Source]
    low: int = LOW
    high: int = HIGH

    def factors(self) -> tuple[int, int, int]:
        """A, B and k of the formula."""
        ratios = [scale / self.scale for scale, _ in self.sources]
        k = min(21 - math.frexp(max(ratios))[1], 30)
        if k < 1:
            raise InputError(
                f"{self.name}: the scales {self.sources} are out of proportion to the result's "
                f"{self.scale}; calibrate on representative data"
            )
        a, b = (round(ratio * 2**k) for ratio in ratios)
        return a, b, k

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of both."""
        a, b = types
        check_output(self.name, self.scale, self.zero_point, self.low, self.high)
        check_sources(self.name, self.sources, types)
        self.factors()
        if a.shape != b.shape:
            raise InputError(f"{self.name}: {a} and {b} have different shapes")
        return (activation(a.shape, self.scale, self.zero_point),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Exact integers."""
        *factors, k = self.factors()
        terms = [
            (xp.astype(array, xp.int32) - zero_point) * factor
            for array, (_, zero_point), factor in zip(arrays, self.sources, factors, strict=True)
        ]
        result = (terms[0] + terms[1] + (1 << (k - 1))) >> k
        return (to_int8(xp, result, self.zero_point, self.low, self.high),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """d_y for both, nothing where the result sits on a bound."""
        d_y = limited(builder, cotangents[0], node.outputs[0], self.low, self.high)
        return [d_y if want else None for want in wanted]

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        return Cost(bytes_read=2 * types[0].bytes, bytes_written=types[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (a, b), (y,) = operands.inputs, operands.outputs
        a_factor, b_factor, k = self.factors()
        (_, a_zero), (_, b_zero) = self.sources
        added = (1 << (k - 1)) - a_zero * a_factor - b_zero * b_factor
        arguments = (
            y, a, b, y.type.size, a_factor, b_factor, added, k, self.zero_point, self.low,
            self.high,
        )  # fmt: skip
        return [Call("q_elementwise.h", "kg_add_s8", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Like and unlike scales, a clamp, extremes."""
        pairs = [
            cls(0.1, -3, ((0.07, 4), (0.05, -9))),
            cls(0.1, -128, ((0.2, -128), (0.0001, 127)), low=-100, high=90),
            cls(1.0, 0, ((1.0, 0), (1.0, 0))),
            cls(30.0, 0, ((0.01, 127), (0.01, -128))),
            cls(1e-4, 5, ((1.0, 127), (2.0, -128))),
        ]
        return [_pair_example(i, op, (1, 3, 4, 5), (1, 3, 4, 5)) for i, op in enumerate(pairs)]


def _pair_example(
    seed: int, op: QAdd | QMul, a_shape: tuple[int, ...], b_shape: tuple[int, ...]
) -> Example:
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(-128, 128, shape).astype(np.int8) for shape in (a_shape, b_shape))
    a.flat[:2], b.flat[:2] = (-128, 127), (127, -128)
    types = tuple(
        activation(s, *source) for s, source in zip((a_shape, b_shape), op.sources, strict=True)
    )
    return Example(op, (a, b), batched=(0, 1), types=types)


@dataclass(frozen=True)
class QMul(Operator):
    """Inputs a i8 [1, ..., C] and b i8 of the same shape or [1, 1, ..., C], quantised as `sources`
    says: their product, quantised with `scale` and `zero_point`, limited to [low, high].
    """

    name: ClassVar[str] = "q_mul"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    scale: float
    zero_point: int
    sources: tuple[Source, Source]
    low: int = LOW
    high: int = HIGH

    def factor(self) -> tuple[int, int]:
        """s_a s_b / s_y as multiplier and shift."""
        return quantize_multiplier(self.sources[0][0] * self.sources[1][0] / self.scale)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of a."""
        a, b = types
        check_output(self.name, self.scale, self.zero_point, self.low, self.high)
        check_sources(self.name, self.sources, types)
        self.factor()
        if b.shape not in (a.shape, (*(1 for _ in a.shape[1:]), a.shape[-1])):
            raise InputError(f"{self.name}: {b} is neither of the shape of {a} nor one a channel")
        return (activation(a.shape, self.scale, self.zero_point),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Exact integers."""
        a, b = (
            xp.astype(array, xp.int32) - zero_point
            for array, (_, zero_point) in zip(arrays, self.sources, strict=True)
        )
        result = requantize(xp, a * b, *self.factor())
        return (to_int8(xp, result, self.zero_point, self.low, self.high),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """d_y times the other factor, summed where b repeats."""
        if not any(wanted):
            return [None, None]
        d_y = limited(builder, cotangents[0], node.outputs[0], self.low, self.high)
        a, b = node.inputs
        result: list[Value | None] = [None, None]
        if wanted[0]:
            real = builder.add(Dequantize(*self.sources[1]), b)
            result[0] = builder.add(Mul(), d_y, real, name=f"d_{a.name}")
        if wanted[1]:
            real = builder.add(Dequantize(*self.sources[0]), a)
            result[1] = sum_to(builder, d_y, b, real)
        return result

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        return Cost(bytes_read=sum(t.bytes for t in types), bytes_written=types[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (a, b), (y,) = operands.inputs, operands.outputs
        (_, a_zero), (_, b_zero) = self.sources
        arguments = (
            y, a, b, a.type.size // b.type.size, b.type.size, a_zero, b_zero, *self.factor(),
            self.zero_point, self.low, self.high,
        )  # fmt: skip
        return [Call("q_elementwise.h", "kg_mul_s8", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """One shape, squeeze and excite, a clamp."""
        sources = ((0.07, 4), (0.05, -9))
        return [
            _pair_example(0, cls(0.1, -3, sources), (1, 3, 4, 5), (1, 3, 4, 5)),
            _pair_example(1, cls(0.05, -3, sources, -60, 70), (1, 3, 4, 5), (1, 1, 1, 5)),
            _pair_example(2, cls(0.3, 127, ((0.1, -128), (0.01, 127))), (1, 6), (1, 6)),
        ]


@dataclass(frozen=True)
class QConcat(Operator):
    """The i8 inputs, quantised as `sources` says, one after the other along `axis` (not the
    batch), quantised with `scale` and `zero_point`. Inputs that are quantised so are copied.
    """

    name: ClassVar[str] = "q_concat"
    scale: float
    zero_point: int
    sources: tuple[Source, ...]
    axis: int

    def _same(self, source: Source) -> bool:
        return source == (self.scale, self.zero_point)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The sum of the sizes on the axis; the other sizes must agree."""
        first = types[0]
        check_output(self.name, self.scale, self.zero_point)
        check_sources(self.name, self.sources, types)
        for scale, _ in self.sources:
            quantize_multiplier(scale / self.scale)
        if not -first.rank <= self.axis < first.rank:
            raise InputError(f"{self.name}: {first} has no axis {self.axis}")
        axis = self.axis % first.rank
        for other in types[1:]:
            if other.shape[:axis] + other.shape[axis + 1 :] != (
                first.shape[:axis] + first.shape[axis + 1 :]
            ):
                raise InputError(f"{self.name}: {first} and {other} differ beside axis {self.axis}")
        shape = list(first.shape)
        shape[axis] = sum(other.shape[axis] for other in types)
        return (activation(shape, self.scale, self.zero_point),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Each input rescaled by itself."""
        pieces = []
        for array, source in zip(arrays, self.sources, strict=True):
            if not self._same(source):
                whole = xp.astype(array, xp.int32) - source[1]
                scaled = requantize(xp, whole, *quantize_multiplier(source[0] / self.scale))
                array = to_int8(xp, scaled, self.zero_point, LOW, HIGH)
            pieces.append(array)
        return (xp.concat(pieces, axis=self.axis),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """Each wanted input gets its slice of the cotangent, nothing where rescaling saturates."""
        (d_y,) = cotangents
        assert d_y is not None
        sizes = [value.type.shape[self.axis] for value in node.inputs]
        starts = accumulate(sizes, initial=0)
        result: list[Value | None] = []
        for value, source, start, size, want in zip(
            node.inputs, self.sources, starts, sizes, wanted, strict=False
        ):
            if not want:
                result.append(None)
                continue
            cut = Slice(self.axis, start, start + size)
            part = builder.add(cut, d_y, name=f"d_{value.name}")
            if not self._same(source):
                own = builder.add(cut, node.outputs[0])
                part = limited(builder, part, own, LOW, HIGH)
            result.append(part)
        return result

    def cost(self, *types: TensorType) -> Cost:
        """A copy."""
        size = sum(type_.bytes for type_ in types)
        return Cost(bytes_read=size, bytes_written=size)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call an input."""
        (y,) = operands.outputs
        outer, total, inner = around(y.type, self.axis)
        calls, start = [], 0
        for x, source in zip(operands.inputs, self.sources, strict=True):
            row, to = x.type.shape[self.axis] * inner, y.offset(start)
            if self._same(source):
                calls.append(copy_rows(to, x, outer, row, row, total * inner))
            else:
                factor = quantize_multiplier(source[0] / self.scale)
                arguments = (
                    to, x, outer, row, row, total * inner, source[1], *factor, self.zero_point,
                )  # fmt: skip
                calls.append(Call("q_elementwise.h", "kg_rescale_s8", arguments))
            start += row
        return calls

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Channels and rows, equal and other quantisations."""
        rng = np.random.default_rng(0)

        def make(axis: int, *shapes: tuple[int, ...]) -> Example:
            sources = ((0.1, 3), (0.05, -7), (0.3, 127))[: len(shapes)]
            arrays = tuple(rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes)
            types = tuple(activation(s, *q) for s, q in zip(shapes, sources, strict=True))
            every = tuple(range(len(shapes)))
            return Example(cls(0.1, 3, sources, axis), arrays, batched=every, types=types)

        return [
            make(3, (1, 3, 4, 5), (1, 3, 4, 2), (1, 3, 4, 1)),
            make(1, (1, 3, 4, 5), (1, 1, 4, 5)),
            make(-1, (1, 7), (1, 4)),
        ]
