"""Int8 gradients of what has no weights: joins, means, tables; and the sum of a bias."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.operator import Argument, Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType
from kilograd.ops.ig_narrow import (
    SCALAR,
    a_seed,
    check_gradient,
    check_seed,
    gradient,
    headroom,
    i32,
    narrow,
    noise,
    random_gradient,
    scalar,
)
from kilograd.ops.q_types import LOW
from kilograd.ops.reduce import Spread, split_axes

ALIGNED_BITS = 16
"""Bits of the larger operand of a sum behind its unit."""


@dataclass(frozen=True)
class GradientAdd(Operator):
    """Inputs a i8, its exponent, b i8, its exponent, shift i32[], seed u32[1]: their sum i8, its
    exponent, and the shift wanted; in place over either.
    """

    name: ClassVar[str] = "gradient_add"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (0, 2))
    salt: int = 0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of both, and two i32[]."""
        a, a_exponent, b, b_exponent, shift, seed = types
        check_gradient(self.name, a, a_exponent, shift)
        check_gradient(self.name, b, b_exponent)
        check_seed(self.name, seed)
        if a.shape != b.shape:
            raise InputError(f"{self.name}: {a} and {b} have different shapes")
        return gradient(a.shape), SCALAR, SCALAR

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Both in units of the larger exponent, with 16 bits below it; rounded down, then added."""
        a, a_exponent, b, b_exponent, shift, seed = arrays
        high = max(int(a_exponent), int(b_exponent))
        sums = sum(
            xp.bitwise_right_shift(
                xp.astype(g, xp.int64) * (1 << ALIGNED_BITS), min(high - int(exponent), 31)
            )
            for g, exponent in ((a, a_exponent), (b, b_exponent))
        )
        room = min(
            headroom(xp, g) + high - int(exponent)
            for g, exponent in ((a, a_exponent), (b, b_exponent))
        )
        room = min(room, ALIGNED_BITS)
        return narrow(xp, sums, high - ALIGNED_BITS, shift, room, seed, self.salt)

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        return Cost(bytes_read=2 * types[0].bytes, bytes_written=types[0].bytes + 8)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        a, a_exponent, b, b_exponent, shift, seed = operands.inputs
        arguments: tuple[Argument, ...] = (
            *operands.outputs, a, a_exponent, b, b_exponent, shift, a.type.size, seed, self.salt,
        )  # fmt: skip
        return [Call("ig_elementwise.h", "kg_ig_add", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Equal exponents, unlike ones, one that leaves nothing; saturation."""
        a, b = random_gradient(1, (1, 3, 4, 5)), random_gradient(2, (1, 3, 4, 5))
        return [
            Example(cls(3), (a, i32(x), b, i32(y), i32(shift), a_seed()))
            for x, y, shift in ((-3, -3, 17), (-3, -6, 16), (-90, 2, 17), (4, 3, 12))
        ]


@dataclass(frozen=True)
class GradientMean(Operator):
    """Inputs d i8, its exponent, seed u32[1]: the transpose of a mean over neighbouring `axes` of
    the given sizes (see Spread), and its exponent.

    1 / n is multiplier 2^power with a multiplier of (2^15, 2^16] / 2^16, so that nothing is cut off
    and a power of two changes only the exponent.
    """

    name: ClassVar[str] = "gradient_mean"
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    keep: bool = False
    salt: int = 0

    @property
    def factor(self) -> tuple[int, int]:
        """Multiplier and power."""
        fraction, power = math.frexp(1 / math.prod(self.sizes))
        if fraction == 0.5:
            return 1 << 16, power - 1
        return round(fraction * (1 << 16)), power

    def _spread(self) -> Spread:
        return Spread(self.axes, self.sizes, keep=self.keep)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape with the axes inserted, or grown if `keep`, and i32[]."""
        d, exponent, seed = types
        check_gradient(self.name, d, exponent)
        check_seed(self.name, seed)
        return (*self._spread().infer(d), SCALAR)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Spread, then scaled."""
        d, exponent, seed = arrays
        multiplier, power = self.factor
        (wide,) = self._spread().reference(xp, xp.astype(d, xp.int64))
        sums = wide * multiplier + noise(xp, seed, self.salt, wide.shape, 16)
        return (
            xp.astype(xp.bitwise_right_shift(sums, 16), xp.int8),
            scalar(xp, int(exponent) + power, d),
        )

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        return Cost(bytes_read=types[0].bytes, bytes_written=self.infer(*types)[0].bytes + 4)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (d, exponent, seed), (g, _) = operands.inputs, operands.outputs
        sizes = split_axes(g.type.shape, self.axes)
        arguments: tuple[Argument, ...] = (
            *operands.outputs,
            d,
            exponent,
            *sizes,
            *self.factor,
            seed,
            self.salt,
        )
        return [Call("ig_elementwise.h", "kg_ig_spread", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Counts that are powers of two and that are not; one."""

        def make(op: GradientMean, *shape: int) -> Example:
            return Example(op, (random_gradient(0, shape), i32(-4), a_seed()))

        return [
            make(cls((1, 2), (3, 5), salt=2), 1, 7),
            make(cls((1, 2), (4, 2), keep=True), 1, 1, 1, 6),
            make(cls((1,), (1,)), 1, 3),
        ]


@dataclass(frozen=True)
class GradientSum(Operator):
    """Input g i8 [..., C]: the sums i32 [C] over everything else, exactly, in units of g."""

    name: ClassVar[str] = "gradient_sum"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """i32 [C]."""
        (g,) = types
        check_gradient(self.name, g)
        if g.size // g.shape[-1] > 1 << 23:
            raise InputError(f"{self.name}: sums of more than 2^23 elements, in {g}")
        return (TensorType(g.shape[-1:], DType.I32),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        rows = xp.reshape(xp.astype(arrays[0], xp.int64), (-1, arrays[0].shape[-1]))
        return (xp.astype(xp.sum(rows, axis=0), xp.int32),)

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        return Cost(bytes_read=types[0].bytes, bytes_written=4 * types[0].shape[-1])

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (g,), (sums,) = operands.inputs, operands.outputs
        channels = sums.type.size
        arguments = (sums, g, g.type.size // channels, channels)
        return [Call("ig_elementwise.h", "kg_ig_sum_rows", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """An image, a vector."""
        return [Example(cls(), (random_gradient(0, shape),)) for shape in ((1, 3, 4, 5), (1, 6))]


@dataclass(frozen=True)
class GradientTable(Operator):
    """Inputs d i8, its exponent, x i8 of its shape, slopes i32 [256] in units of 2^-unit, shift
    i32[], seed u32[1]: d slopes[x + 128], its exponent, and the shift wanted; in place over d.
    """

    name: ClassVar[str] = "gradient_table"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    unit: int = 0
    salt: int = 0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of d, and two i32[]."""
        d, exponent, x, slopes, shift, seed = types
        check_gradient(self.name, d, exponent, shift)
        check_seed(self.name, seed)
        if d.shape != x.shape or x.dtype is not DType.I8 or slopes != TensorType((256,), DType.I32):
            raise InputError(f"{self.name}: {d}, {x} and {slopes} do not go together")
        return gradient(d.shape), SCALAR, SCALAR

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """`take` of the array API."""
        d, exponent, x, slopes, shift, seed = arrays
        places = xp.reshape(xp.astype(x, xp.int64) - LOW, (-1,))
        slope = xp.reshape(xp.take(xp.astype(slopes, xp.int64), places, axis=0), x.shape)
        sums = xp.astype(d, xp.int64) * slope
        return narrow(xp, sums, int(exponent) - self.unit, shift, headroom(xp, d), seed, self.salt)

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        return Cost(bytes_read=6 * types[0].bytes, bytes_written=types[0].bytes + 8)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        d, exponent, x, slopes, shift, seed = operands.inputs
        arguments: tuple[Argument, ...] = (
            *operands.outputs, d, exponent, x, slopes, shift, d.type.size, self.unit, seed,
            self.salt,
        )  # fmt: skip
        return [Call("ig_elementwise.h", "kg_ig_table", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every int8."""
        every = np.arange(-128, 128, dtype=np.int8).reshape(1, 16, 16)
        slopes = np.random.default_rng(0).integers(-(2**15), 2**15, 256).astype(np.int32)
        d = random_gradient(0, every.shape)
        return [Example(cls(15, 1), (d, i32(-3), every, slopes, i32(14), a_seed()))]
