"""Clip masks as bits: what the backward pass of a limited int8 result needs where the result itself
is not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from array_api_compat import device

from kilograd.errors import InputError
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType
from kilograd.ops.q_types import HIGH, LOW, activation


@dataclass(frozen=True)
class PackMask(Operator):
    """Input y i8; u8 [ceil(size / 8)] whose bit i % 8 of byte i / 8 is low < y[i] < high."""

    name: ClassVar[str] = "pack_mask"
    low: int = LOW
    high: int = HIGH

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """u8 [ceil(size / 8)]."""
        (y,) = types
        if y.dtype is not DType.I8:
            raise InputError(f"{self.name}: takes i8, not {y}")
        return (TensorType((-(-y.size // 8),), DType.U8),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition, for one sample."""
        y = xp.reshape(arrays[0], (-1,))
        inside = xp.astype((y > self.low) & (y < self.high), xp.int32)
        rest = xp.zeros((-inside.shape[0] % 8,), dtype=xp.int32, device=device(inside))
        padded = xp.concat([inside, rest])
        rows = xp.reshape(padded, (-1, 8))
        packed = rows[:, 0]
        for bit in range(1, 8):
            packed = packed + rows[:, bit] * (1 << bit)
        return (xp.astype(packed, xp.uint8),)

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        return Cost(bytes_read=types[0].bytes, bytes_written=-(-types[0].size // 8))

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (y,), (bits,) = operands.inputs, operands.outputs
        return [Call("q_mask.h", "kg_pack_mask_s8", (bits, y, y.type.size, self.low, self.high))]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every int8, whole range and part of it; sizes that fill no byte."""
        every = np.arange(-128, 128, dtype=np.int8).reshape(1, -1)
        ops = (cls(), cls(-20, 99))
        arrays = (every, every[:, 100:103], every[:, 3:12])
        return [
            Example(op, (y,), types=(activation(y.shape, 0.1, 3),)) for op in ops for y in arrays
        ]


@dataclass(frozen=True)
class MaskBits(Operator):
    """Inputs d_y f32, or i8 where gradients are integers, and bits u8 [ceil(size / 8)] of PackMask:
    d_y where its bit is set, else 0; in place over d_y.
    """

    name: ClassVar[str] = "mask_bits"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The type of d_y."""
        d_y, bits = types
        known = d_y.dtype in (DType.F32, DType.I8)
        if not known or bits != TensorType((-(-d_y.size // 8),), DType.U8):
            raise InputError(
                f"{self.name}: takes f32 or i8 and a bit an element, not {d_y}, {bits}"
            )
        return (d_y,)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition, for one sample."""
        d_y, bits = arrays
        whole = xp.astype(bits, xp.int32)
        columns = [xp.bitwise_and(xp.bitwise_right_shift(whole, bit), 1) for bit in range(8)]
        flags = xp.reshape(xp.stack(columns, axis=-1), (-1,))[: int(np.prod(d_y.shape))]
        return (xp.where(xp.reshape(flags, d_y.shape) > 0, d_y, xp.zeros_like(d_y)),)

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        return Cost(bytes_read=sum(t.bytes for t in types), bytes_written=types[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (d_y, bits), (d_x,) = operands.inputs, operands.outputs
        arguments = (d_x, d_y, bits, d_y.type.size)
        if d_y.type.dtype is DType.I8:
            return [Call("ig_elementwise.h", "kg_ig_mask_bits", arguments)]
        return [Call("q_mask.h", "kg_mask_bits_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Sizes that fill the last byte and that do not."""
        rng = np.random.default_rng(0)
        result = []
        for size in (1, 8, 29):
            d_y = rng.standard_normal((1, size)).astype(np.float32)
            bits = rng.integers(0, 256, -(-size // 8)).astype(np.uint8)
            result.append(Example(cls(), (d_y, bits)))
            result.append(Example(cls(), ((d_y * 50).astype(np.int8), bits)))
        return result
