"""The one way from int32 sums to int8: a rounded product with a 31-bit multiplier and a shift.

    requantize(sum, m, s) = floor(sum m / 2^s + 1/2),   m in [2^30, 2^31),   s in [1, 62]

exactly, in 64-bit integers, limited to +-2^30; `requantize.h` is the same in C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.operator import Array, Namespace

LIMIT = 1 << 30
"""No requantised value is larger, so that a zero point can be added in 32 bits."""


def quantize_multiplier(real: float) -> tuple[int, int]:
    """`real` as (multiplier, shift), real ~ multiplier / 2^shift to a relative 2^-31.

    Factors below 2^-32 become 2^-32, at which every int32 sum gives 0 or, at the very end of the
    range, 1 in magnitude. Raises InputError for what is not positive, or 2^30 and more.
    """
    if not 0 < real < LIMIT:
        raise InputError(f"a scale ratio of {real} is not between 0 and 2^30; check the scales")
    fraction, exponent = math.frexp(max(real, 2.0**-32))
    multiplier = round(fraction * (1 << 31))
    if multiplier == 1 << 31:
        multiplier, exponent = 1 << 30, exponent + 1
    return multiplier, 31 - exponent


def quantize_multipliers(reals: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers and shifts, i32 [O] each: the constants that convolutions take."""
    pairs = [quantize_multiplier(real) for real in reals]
    multiplier, shift = (np.array(column, np.int32) for column in zip(*pairs, strict=True))
    return multiplier, shift


def requantize(xp: Namespace, sums: Array, multiplier: Array, shift: Array) -> Array:
    """The formula above on an integer array; multiplier and shift broadcast (arrays or ints)."""
    wide = xp.astype(sums, xp.int64)
    zero = wide[..., :1] * 0
    factor, places = (
        (value + zero) if isinstance(value, int) else xp.astype(value, xp.int64)
        for value in (multiplier, shift)
    )
    half = xp.bitwise_left_shift(xp.ones_like(places), places - 1)
    return xp.clip(xp.bitwise_right_shift(wide * factor + half, places), -LIMIT, LIMIT)


def to_int8(xp: Namespace, values: Array, zero_point: int, low: int, high: int) -> Array:
    """clamp(values + zero_point, low, high) as int8."""
    return xp.astype(xp.clip(values + zero_point, low, high), xp.int8)
