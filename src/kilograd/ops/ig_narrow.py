"""Integer gradients: what an int8 gradient is, and how sums become one.

An int8 gradient g in [-127, 127] has an exponent i32[] beside it and stands for g 2^exponent. An
operator that makes one computes int32 sums of at most 2^30 in units of 2^unit and gives

    g        = clamp((sum + noise) >> shift, -127, 127),   noise uniform in [0, 2^shift)
    exponent = unit + shift
    wanted   = the smallest shift with which no sum would have been cut off

so that the mean of g 2^exponent over the noise is the sum. `shift` is a state less the headroom of
the gradient that the sums are of, the bits that its largest number could have more; the state is
the shift that earlier steps wanted for a gradient without headroom. It belongs to the layer, not to
the sample: how large a gradient is reaches the exponents from the loss. Without headroom, a layer
whose shift is too large would make the next one round its sums to almost nothing, and so on: twenty
layers below, there is only noise. `ig_narrow.h` is the same in C.

Integer gradients with an exponent a tensor are those of Wang et al., "NITI: Training Integer Neural
Networks Using Integer-only Arithmetic", TPDS 2022; that ranges of earlier steps serve is shown by
Fournarakis and Nagel, "In-Hindsight Quantization Range Estimation for Quantized Training", 2021;
and training on Cortex-M with all tensors quantised by Deutel et al., "On-Device Training of Fully
Quantized Deep Neural Networks on Cortex-M Microcontrollers", TCAD 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from array_api_compat import device

from kilograd.errors import InputError
from kilograd.ir.operator import Argument, Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType
from kilograd.ops.random import SEED, draw32

MAX_SHIFT = 24
"""KG_IG_MAX_SHIFT of ig_narrow.h."""

MAX_SUM = 1 << 30
"""The largest magnitude of a sum."""

GRADIENT_LIMIT = 127
SCALAR = TensorType((), DType.I32)


def gradient(shape: Sequence[int]) -> TensorType:
    """The type of an int8 gradient."""
    return TensorType(tuple(shape), DType.I8)


def scalar(xp: Namespace, number: int, like: Array) -> Array:
    """An i32[] beside `like`."""
    return xp.asarray(number, dtype=xp.int32, device=device(like))


def noise(xp: Namespace, seed: Array, salt: int, shape: Sequence[int], bits: int) -> Array:
    """Random integers in [0, 2^bits), as int64."""
    return xp.bitwise_right_shift(draw32(xp, seed, salt, shape), 32 - bits)


def headroom(xp: Namespace, g: Array) -> int:
    """How many bits smaller than 7 the largest magnitude is; 0 where all are zero."""
    whole = xp.astype(g, xp.int64)
    seen = int(xp.max(xp.where(whole < 0, -1 - whole, whole)))
    return 7 - seen.bit_length() if seen else 0


def narrow(
    xp: Namespace, sums: Array, unit: int, shift: Array, room: int, seed: Array, salt: int
) -> tuple[Array, Array, Array]:
    """g, exponent and wanted of int64 sums in units of 2^unit, of a gradient with so much
    headroom.
    """
    places = min(max(int(shift) - room, 0), MAX_SHIFT)
    rounded = xp.bitwise_right_shift(sums + noise(xp, seed, salt, sums.shape, places), places)
    g = xp.astype(xp.clip(rounded, -GRADIENT_LIMIT, GRADIENT_LIMIT), xp.int8)
    seen = int(xp.max(xp.where(sums < 0, -1 - sums, sums)))
    wanted = max(seen.bit_length() - 7, 0) + room
    return g, scalar(xp, unit + places, sums), scalar(xp, wanted, sums)


def check_gradient(name: str, g: TensorType, *scalars: TensorType) -> None:
    """Raise InputError unless `g` is i8 and the scalars are i32[]."""
    if g.dtype is not DType.I8 or any(one != SCALAR for one in scalars):
        raise InputError(f"{name}: takes an int8 gradient and i32[], not {g} and {scalars}")


def check_seed(name: str, seed: TensorType) -> None:
    """Raise InputError unless `seed` is u32[1]."""
    if seed != SEED:
        raise InputError(f"{name}: takes a seed {SEED}, not {seed}")


def random_gradient(seed: int, shape: Sequence[int]) -> np.ndarray:
    """A gradient for examples, with both ends of its range in it."""
    g = np.random.default_rng(seed).integers(-127, 128, tuple(shape)).astype(np.int8)
    g.flat[0], g.flat[-1] = -127, 127
    return g


def i32(number: int) -> np.ndarray:
    """An i32[] for examples."""
    return np.array(number, np.int32)


def a_seed(number: int = 4321) -> np.ndarray:
    """A seed for examples."""
    return np.array([number], np.uint32)


@dataclass(frozen=True)
class ShiftStep(Operator):
    """Inputs shift and wanted i32[]: the shift of the next step, `wanted` where that is more, else
    one less at most. Always runs in place.
    """

    name: ClassVar[str] = "shift_step"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    mutates: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """i32[]."""
        if types != (SCALAR, SCALAR):
            raise InputError(f"{self.name}: takes two i32[], not {types}")
        return (SCALAR,)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        shift, wanted = map(int, arrays)
        return (scalar(xp, wanted if wanted >= shift else shift - 1, arrays[0]),)

    def cost(self, *types: TensorType) -> Cost:
        """Two words."""
        return Cost(bytes_read=8, bytes_written=4)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        arguments: tuple[Argument, ...] = operands.inputs
        return [Call("ig_narrow.h", "kg_shift_step", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """More, less, the same."""
        return [Example(cls(), (i32(a), i32(b))) for a, b in ((3, 9), (9, 3), (4, 4))]
