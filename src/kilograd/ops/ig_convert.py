"""Where float gradients become int8 ones, and integer gradients float ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType
from kilograd.ops.ig_narrow import (
    GRADIENT_LIMIT,
    SCALAR,
    a_seed,
    check_seed,
    gradient,
    i32,
    noise,
    random_gradient,
    scalar,
)

ZERO_EXPONENT = -126
"""The exponent of a gradient of zeros."""


def smallest_exponent(largest: float) -> int:
    """The smallest exponent with which `largest`, a float32, is at most 127 2^exponent."""
    if largest < 2.0**-126:
        return ZERO_EXPONENT
    fraction, power = math.frexp(largest)
    return power - 7 + (fraction * 128 > GRADIENT_LIMIT)


@dataclass(frozen=True)
class GradientQuantize(Operator):
    """Inputs d f32, finite, and seed u32[1]: g i8 and exponent i32[], rounded at random:
    sign(d) floor(|d| / 2^exponent + noise), with 16 bits behind the point.

    The exponent is that of the tensor itself, found in a first pass.
    """

    name: ClassVar[str] = "gradient_quantize"
    salt: int = 0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of d, as i8, and i32[]."""
        d, seed = types
        check_seed(self.name, seed)
        if d.dtype is not DType.F32:
            raise InputError(f"{self.name}: takes f32, not {d}")
        return gradient(d.shape), SCALAR

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The formula; float64 holds the numbers behind the point exactly."""
        d, seed = arrays
        wide = xp.astype(xp.astype(d, xp.float32), xp.float64)
        exponent = smallest_exponent(float(xp.max(xp.abs(wide))))
        small = xp.abs(wide) < 2.0**-126
        fixed = xp.floor(xp.where(small, 0 * wide, xp.abs(wide)) * 2.0 ** (16 - exponent))
        steps = xp.astype(fixed, xp.int64) + noise(xp, seed, self.salt, d.shape, 16)
        magnitude = xp.clip(xp.bitwise_right_shift(steps, 16), 0, GRADIENT_LIMIT)
        g = xp.where(wide < 0, -magnitude, magnitude)
        return xp.astype(g, xp.int8), scalar(xp, exponent, d)

    def cost(self, *types: TensorType) -> Cost:
        """Two passes."""
        return Cost(bytes_read=2 * types[0].bytes, bytes_written=types[0].size + 4)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (d, seed), (g, exponent) = operands.inputs, operands.outputs
        arguments = (g, exponent, d, d.type.size, seed, self.salt)
        return [Call("ig_convert.h", "kg_ig_quantize", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Wide ranges, both sides of 127 2^k, numbers too small, zeros."""
        normal = np.random.default_rng(0).standard_normal((1, 5, 7)).astype(np.float32)
        edges = [[127.0, -0.5, 1e-30, 126.99], [127.1, 0.3, -0.0, 1e-40], [-254.0, 1, -1, 64]]
        cases = [normal, normal**9 * np.float32(1e-12), normal * np.float32(1e30)]
        cases += [np.array([row], np.float32) for row in edges]
        cases += [np.zeros((1, 3), np.float32), np.full((1, 3), 1e-41, np.float32)]
        return [Example(cls(i), (case, a_seed(i))) for i, case in enumerate(cases)]


@dataclass(frozen=True)
class GradientDequantize(Operator):
    """Inputs g i8 or i32 and exponent i32[]: the real gradient g scale 2^exponent, f32."""

    name: ClassVar[str] = "gradient_dequantize"
    scale: float = 1.0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of g, as f32."""
        g, exponent = types
        if g.dtype not in (DType.I8, DType.I32) or exponent != SCALAR:
            raise InputError(f"{self.name}: takes i8 or i32 and an exponent, not {types}")
        return (TensorType(g.shape),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The formula in float32."""
        g, exponent = arrays
        power = 2.0 ** min(max(int(exponent), -126), 127)
        factor = float(np.float32(np.float32(self.scale) * np.float32(power)))
        return (xp.astype(g, xp.float32) * factor,)

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        return Cost(bytes_read=types[0].bytes, bytes_written=4 * types[0].size)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (g, exponent), (d,) = operands.inputs, operands.outputs
        suffix = "s8" if g.type.dtype is DType.I8 else "s32"
        arguments = (d, g, exponent, g.type.size, float(self.scale))
        return [Call("ig_convert.h", f"kg_ig_dequantize_{suffix}", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Gradients and sums."""
        sums = np.random.default_rng(0).integers(-(2**30), 2**30, (3, 5)).astype(np.int32)
        return [
            Example(cls(), (random_gradient(0, (1, 9)), i32(-7))),
            Example(cls(0.037), (sums, i32(-20))),
        ]
