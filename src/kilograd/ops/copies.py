"""Strided copies as calls of shape.h, and the arithmetic of packed tensors."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from kilograd.ir.operator import Call, Operand
from kilograd.ir.types import DType, TensorType


def merge_axes(
    shape: Sequence[int], axes: Sequence[int], size: int
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """The same permutation without axes of size 1, axes that travel together merged, and the run at
    the end that stays in place as one element: shape, axes, bytes an element.
    """
    runs: list[list[int]] = []
    kept = [axis for axis in range(len(shape)) if shape[axis] > 1]
    place = {axis: i for i, axis in enumerate(kept)}
    for axis in (place[axis] for axis in axes if axis in place):
        if runs and runs[-1][-1] + 1 == axis:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    if runs and runs[-1][-1] == len(kept) - 1:
        size *= math.prod(shape[kept[axis]] for axis in runs.pop())
    order = sorted(runs)
    merged = tuple(math.prod(shape[kept[axis]] for axis in run) for run in order)
    return merged, tuple(order.index(run) for run in runs), size


def packed_steps(shape: Sequence[int], size: int) -> tuple[int, ...]:
    """Bytes from one element of a packed tensor to the next, per axis."""
    return tuple(size * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def copy_grid(
    y: Operand, x: Operand, shape: Sequence[int], x_steps: Sequence[int], y_steps: Sequence[int],
    size: int,
) -> Call:  # fmt: skip
    """A call of kg_copy_grid, filled up to six axes."""

    def literal(numbers: Sequence[int], fill: int) -> str:
        padded = [fill] * (6 - len(numbers)) + list(numbers)
        return f"(const int32_t[6]){{{', '.join(map(str, padded))}}}"

    arguments = (y, x, literal(shape, 1), literal(x_steps, 0), literal(y_steps, 0), size)
    return Call("shape.h", "kg_copy_grid", arguments)


def around(type_: TensorType, axis: int) -> tuple[int, int, int]:
    """Element counts before, on and after one axis."""
    axis %= type_.rank
    return (
        math.prod(type_.shape[:axis]),
        type_.shape[axis],
        math.prod(type_.shape[axis + 1 :]),
    )


def copy_rows(y: Operand, x: Operand, rows: int, size: int, x_pitch: int, y_pitch: int) -> Call:
    """A call of kg_copy_rows, sizes in bytes."""
    return Call("shape.h", "kg_copy_rows", (y, x, rows, size, x_pitch, y_pitch))


def fill(y: Operand, value: float) -> Call:
    """A call that sets every element of y to `value`."""
    if value == 0:
        return Call("shape.h", "kg_zero", (y, y.type.bytes))
    if y.type.dtype.bytes == 1:
        return Call("shape.h", "kg_fill_bytes", (y, int(value) & 0xFF, y.type.bytes))
    is_float = y.type.dtype is DType.F32
    raw = struct.pack("<f", value) if is_float else struct.pack("<q", int(value))[:4]
    bits = f"0x{int.from_bytes(raw, 'little'):08x}u"
    return Call("shape.h", "kg_fill_words", (y, bits, y.type.size))
