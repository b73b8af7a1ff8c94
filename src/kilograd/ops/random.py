"""Counter-based random numbers: a hash of (seed of the step, salt of the tensor, element index).

The seed is a state tensor u32[1] that each training step advances, so it is in the checkpoint, a
repeated computation draws the same numbers, and host and device agree. `random.h` is the same in C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType

SEED = TensorType((1,), DType.U32)
_MASK = 0xFFFFFFFF


def hash32(xp: Namespace, x: Array) -> Array:
    """Wellons' "lowbias32" of integers in [0, 2^32), held as int64."""
    x = xp.bitwise_xor(x, xp.bitwise_right_shift(x, 16))
    x = _product(xp, x, 0x7FEB352D)
    x = xp.bitwise_xor(x, xp.bitwise_right_shift(x, 15))
    x = _product(xp, x, 0x846CA68B)
    return xp.bitwise_xor(x, xp.bitwise_right_shift(x, 16))


def _product(xp: Namespace, x: Array, factor: int) -> Array:
    """x factor mod 2^32, in two halves that stay below 2^63."""
    low = xp.bitwise_and(x, 0xFFFF) * factor
    high = xp.bitwise_left_shift(xp.bitwise_and(xp.bitwise_right_shift(x, 16) * factor, 0xFFFF), 16)
    return xp.bitwise_and(low + high, _MASK)


def draw32(xp: Namespace, seed: Array, salt: int, shape: Sequence[int]) -> Array:
    """Random integers in [0, 2^32), as int64, for a tensor of this shape."""
    start = xp.astype(xp.reshape(seed, (-1,))[:1], xp.int64)
    key = hash32(xp, xp.bitwise_xor(start, hash32(xp, start * 0 + salt)))
    count = int(np.prod(shape))
    counter = xp.cumulative_sum(xp.ones_like(key) + xp.zeros((count,), dtype=xp.int64)) - 1
    return xp.reshape(hash32(xp, xp.bitwise_and(key + counter, _MASK)), tuple(shape))


def uniform(xp: Namespace, seed: Array, salt: int, shape: Sequence[int]) -> Array:
    """Random float32 in [0, 1) with 24 bits."""
    bits = xp.bitwise_right_shift(draw32(xp, seed, salt, shape), 8)
    return xp.astype(bits, xp.float32) * 2.0**-24


@dataclass(frozen=True)
class AdvanceSeed(Operator):
    """Input seed u32[1]; the seed of the next step. Always runs in place."""

    name: ClassVar[str] = "advance_seed"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    mutates: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The type of the seed."""
        if types != (SEED,):
            raise InputError(f"{self.name}: takes {SEED}, not {types}")
        return (SEED,)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """seed + 1 mod 2^32."""
        following = (xp.astype(arrays[0], xp.int64) + 1) % 2**32
        return (xp.astype(following, xp.uint32),)

    def cost(self, *types: TensorType) -> Cost:
        """One word."""
        return Cost(bytes_read=4, bytes_written=4)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        return [Call("random.h", "kg_advance_u32", (operands.inputs[0],))]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Both ends."""
        return [Example(cls(), (np.array([n], np.uint32),)) for n in (0, 2**32 - 1)]
