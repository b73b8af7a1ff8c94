"""The step of an integer weight along an integer gradient, without floating point.

A gradient is sums i32 in units of unit 2^exponent; a step at learning rate r moves the integer w of
scale s by r sums unit 2^exponent / s. unit / s is fraction / 2^power for each channel, r a mantissa
of 15 bits and a shift; so the step is

    product = sums mantissa / 2^16,    mantissa = round(fraction rate_mantissa / 2^15)
    step    = round(product / 2^shift)

with a relative error of the factor below 2^-13. Rounding is as in `q_optimizer.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.operator import Argument, Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType
from kilograd.ops.copies import around
from kilograd.ops.ig_narrow import SCALAR, a_seed, i32
from kilograd.ops.q_optimizer import WEIGHT_LIMIT
from kilograd.ops.q_types import MAX_BIAS
from kilograd.ops.random import SEED, draw32

STEP_BITS = 24
"""KG_IG_STEP_BITS of ig_step.h."""

_LARGEST = 1 << 15


def channel_ratios(reals: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Positive numbers as fraction / 2^power, fraction in [2^14, 2^15), i32 each."""
    fractions, powers = [], []
    for real in reals:
        fraction, power = math.frexp(real)
        mantissa = round(fraction * (1 << 15))
        if mantissa == 1 << 15:
            mantissa, power = 1 << 14, power + 1
        fractions.append(mantissa)
        powers.append(15 - power)
    return np.array(fractions, np.int32), np.array(powers, np.int32)


@dataclass(frozen=True)
class IntegerStep(Operator):
    """Inputs w i8 or i32, sums i32 of its shape, exponent i32[], learning rate f32[] (not
    negative), fraction and power i32[C] of the channels on `axis`, [seed u32[1]] where stochastic,
    [remainder i8] where residual and w is i8; outputs the next w and remainder. Always runs in
    place. A bias i32 is rounded to nearest.
    """

    name: ClassVar[str] = "integer_step"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (1, 6))
    mutates: ClassVar[bool] = True
    scalars: ClassVar[tuple[int, ...]] = (3,)
    axis: int = 0
    rounding: str = "stochastic"
    salt: int = 0

    def extra(self, w: TensorType) -> tuple[TensorType, ...]:
        """The types of the operands that the rounding asks for."""
        if w.dtype is DType.I32 or self.rounding == "nearest":
            return ()
        return (SEED,) if self.rounding == "stochastic" else (TensorType(w.shape, DType.I8),)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The types of w and the remainder."""
        w, sums, exponent, _, fraction, power, *extra = types
        channels = TensorType((w.shape[self.axis],), DType.I32)
        if (
            w.dtype not in (DType.I8, DType.I32)
            or sums != TensorType(w.shape, DType.I32)
            or (exponent, fraction, power) != (SCALAR, channels, channels)
            or tuple(extra) != self.extra(w)
        ):
            raise InputError(f"{self.name}: {', '.join(map(str, types))} do not go together")
        return (w, *(one for one in extra if one != SEED))

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Exact integers."""
        w, sums, exponent, rate, fraction, power, *extra = arrays
        shape = [1] * len(w.shape)
        shape[self.axis] = -1
        fraction, power = (
            xp.reshape(xp.astype(one, xp.int64), tuple(shape)) for one in (fraction, power)
        )
        rate_mantissa, rate_shift = _take_apart(float(rate))
        product = xp.bitwise_right_shift(fraction * rate_mantissa + (1 << 14), 15)
        mantissa = xp.clip(product, 0, 32767)
        shift = power + rate_shift - 15 - int(exponent)
        g = xp.astype(sums, xp.int64)
        whole = xp.astype(w, xp.int64)
        if w.dtype == xp.int32:
            moved = _shifted(xp, g * mantissa, xp.clip(shift, -15, 62), None)
            moved = xp.clip(moved, -2 * MAX_BIAS, 2 * MAX_BIAS)
            return (xp.astype(xp.clip(whole - moved, -MAX_BIAS, MAX_BIAS), xp.int32),)
        high = xp.bitwise_right_shift(g, 16) * mantissa
        low = xp.bitwise_right_shift(xp.bitwise_and(g, 0xFFFF) * mantissa + 0x8000, 16)
        product, shift = high + low, shift - 16
        if extra and self.rounding == "residual":
            steps = xp.clip(_steps(xp, product, shift - 8, None), -65536, 65536)
            rest = xp.astype(extra[0], xp.int64) - steps
            moved = -xp.bitwise_right_shift(rest + 128, 8)
            following = xp.clip(whole - moved, -WEIGHT_LIMIT, WEIGHT_LIMIT)
            return xp.astype(following, xp.int8), xp.astype(rest + moved * 256, xp.int8)
        bits = draw32(xp, extra[0], self.salt, w.shape) if extra else None
        moved = _steps(xp, product, shift, bits)
        return (xp.astype(xp.clip(whole - moved, -WEIGHT_LIMIT, WEIGHT_LIMIT), xp.int8),)

    def cost(self, *types: TensorType) -> Cost:
        """Reads and writes everything once."""
        return Cost(
            macs=types[0].size,
            bytes_read=sum(t.bytes for t in types),
            bytes_written=sum(t.bytes for t in self.infer(*types)),
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call; the outputs are the inputs' memory."""
        w, sums, exponent, rate, fraction, power, *extra = operands.inputs
        if w.type.dtype is DType.I32:
            arguments: tuple[Argument, ...] = (
                w, sums, exponent, fraction, power, w.type.size, rate,
            )  # fmt: skip
            return [Call("ig_step.h", "kg_ig_step_s32", arguments)]
        sizes = around(w.type, self.axis)
        remainder = extra[0] if self.rounding == "residual" else "NULL"
        seed = extra[0] if self.rounding == "stochastic" else "NULL"
        arguments = (
            w, remainder, sums, exponent, fraction, power, *sizes, rate, seed, self.salt,
        )  # fmt: skip
        return [Call("ig_step.h", "kg_ig_step_s8", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every rounding on weights of both layouts and on biases; small steps, and steps that
        saturate.
        """
        rng = np.random.default_rng(0)
        result = []
        for shape, axis in (((3, 2, 2, 5), 0), ((3, 3, 7), 2), ((6,), 0)):
            ratios = channel_ratios(list(rng.uniform(0.5, 500, shape[axis])))
            sums = rng.integers(-(2**20), 2**20, shape).astype(np.int32)
            sums.flat[:3] = 2**30, -(2**30), 0
            w = rng.integers(-127, 128, shape).astype(np.int32 if len(shape) == 1 else np.int8)
            remainder = rng.integers(-128, 128, shape).astype(np.int8)
            for rounding in ("nearest", "stochastic", "residual"):
                op = cls(axis, rounding, 7)
                extra = {"stochastic": a_seed(), "residual": remainder}.get(rounding)
                beside = () if extra is None or w.dtype == np.int32 else (extra,)
                for exponent, rate in ((-24, 0.05), (-55, 1.999), (5, 0.01), (-20, 0.0)):
                    scalars = i32(exponent), np.array(rate, np.float32)
                    result.append(Example(op, (w, sums, *scalars, *ratios, *beside)))
        return result


def _take_apart(rate: float) -> tuple[int, int]:
    """A float32 as mantissa and shift, the mantissa of 15 bits rounded to nearest."""
    if abs(rate) < 2.0**-126:
        return 0, 141
    fraction, power = math.frexp(abs(float(np.float32(rate))))
    return (round(fraction * (1 << 24)) + 256) >> 9, 15 - power


def _shifted(xp: Namespace, product: Array, shift: Array, bits: Array | None) -> Array:
    """product / 2^shift, with random bits or half a step added before it is rounded down; for
    negative shifts the product times 2^-shift.
    """
    right = xp.clip(shift, 0, 62)
    if bits is None:
        added = xp.where(
            right > 0, xp.bitwise_left_shift(0 * right + 1, xp.clip(right - 1, 0, 61)), 0 * right
        )
    else:
        added = xp.bitwise_right_shift(bits, 32 - right)
    return xp.where(
        shift >= 0,
        xp.bitwise_right_shift(product + added, right),
        product * xp.bitwise_left_shift(0 * right + 1, xp.clip(-shift, 0, 15)),
    )


def _steps(xp: Namespace, product: Array, shift: Array, bits: Array | None) -> Array:
    """kg_ig_steps of ig_step.h."""
    product = xp.bitwise_right_shift(product, xp.clip(shift - STEP_BITS, 0, 31))
    shift = xp.clip(shift, -15, STEP_BITS)
    limited = xp.clip(product, -_LARGEST, _LARGEST)
    small = _shifted(xp, product, xp.clip(shift, 0, STEP_BITS), bits)
    large = _shifted(xp, limited, xp.clip(shift, -15, 0), None)
    return xp.where(shift >= 0, xp.clip(small, -_LARGEST, _LARGEST), large)
