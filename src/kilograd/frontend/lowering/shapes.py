"""Operators that move elements: reshape, permute, concatenate, slice, pad, expand.

Those that only re-lay elements take weights too, and keep track of the parameter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kilograd.errors import UnsupportedError
from kilograd.frontend.lowering.context import Lowering, Operand, Weight, axis_of
from kilograd.ir import Value
from kilograd.ops.reduce import Spread
from kilograd.ops.shape import Concat, Pad, Slice


def shape_of(x: Operand) -> tuple[int, ...]:
    """The shape of an activation or a weight."""
    return x.shape if isinstance(x, Weight) else x.type.shape


def reshape(low: Lowering, x: Operand, shape: Sequence[int]) -> Operand:
    """`shape`, in which one -1 stands for what is left."""
    size = math.prod(shape_of(x))
    if -1 in shape:
        rest = math.prod(size_ for size_ in shape if size_ != -1)
        shape = [size // max(rest, 1) if size_ == -1 else size_ for size_ in shape]
    if isinstance(x, Weight):
        return x.reshape(*shape)
    return low.reshape(x, *shape)


def flatten(low: Lowering, x: Operand, start: int = 0, end: int = -1) -> Operand:
    """Dimensions start to end (both included) as one."""
    shape = shape_of(x)
    start, end = start % len(shape), end % len(shape)
    merged = math.prod(shape[start : end + 1])
    return reshape(low, x, (*shape[:start], merged, *shape[end + 1 :]))


def squeeze(low: Lowering, x: Operand, axes: Sequence[int] | None = None) -> Operand:
    """Drop the dimensions of size 1 among `axes` (default: all)."""
    shape = shape_of(x)
    chosen = range(len(shape)) if axes is None else [axis % len(shape) for axis in axes]
    kept = [size for axis, size in enumerate(shape) if axis not in chosen or size != 1]
    if isinstance(x, Value) and 0 in chosen:
        raise UnsupportedError(
            "squeeze drops the batch dimension as well; name the dimensions to drop, "
            "as in x.squeeze(-1)"
        )
    return reshape(low, x, kept)


def unsqueeze(low: Lowering, x: Operand, axes: Sequence[int]) -> Operand:
    """Insert dimensions of size 1 so that they are `axes` of the result."""
    rank = len(shape_of(x)) + len(axes)
    chosen = {axis % rank for axis in axes}
    rest = iter(shape_of(x))
    return reshape(low, x, [1 if axis in chosen else next(rest) for axis in range(rank)])


def permute(low: Lowering, x: Operand, axes: Sequence[int]) -> Operand:
    """Dimension i of the result is dimension axes[i]."""
    rank = len(shape_of(x))
    order = tuple(axis % rank for axis in axes)
    return x.permute(*order) if isinstance(x, Weight) else low.permute(x, *order)


def transpose(low: Lowering, x: Operand, first: int, second: int) -> Operand:
    """Two dimensions swapped."""
    rank = len(shape_of(x))
    axes = list(range(rank))
    if rank:
        axes[first], axes[second] = axes[second], axes[first]
    return permute(low, x, axes)


def expand(low: Lowering, x: Value, shape: Sequence[int]) -> Value:
    """Repeat dimensions of size 1; -1 keeps a size, and extra dimensions come in front."""
    have = x.type.shape
    extra = len(shape) - len(have)
    if extra:
        raise UnsupportedError(f"it expands {x.type} to more dimensions, {list(shape)}")
    sizes = [old if size == -1 else size for old, size in zip(have, shape, strict=True)]
    if sizes[0] != 1:
        raise UnsupportedError(f"it expands the batch dimension of {x.type} to {sizes[0]}")
    for axis, (old, size) in enumerate(zip(have, sizes, strict=True)):
        if old != size:
            x = low.builder.add(Spread((axis,), (size,), keep=True), x)
    return x


def concat(low: Lowering, xs: Sequence[Operand], axis: int) -> Value:
    """Operands side by side along `axis`; empty ones are skipped."""
    xs = [x for x in xs if math.prod(shape_of(x))]
    axis = axis_of(axis, len(shape_of(xs[0])))
    values = [low.value(x) for x in xs]
    return values[0] if len(values) == 1 else low.builder.add(Concat(axis), *values)


def slice_axis(
    low: Lowering, x: Value, axis: int, start: int | None, stop: int | None, step: int = 1
) -> Value:
    """Python slicing of one axis."""
    rank, axis = x.type.rank, axis % x.type.rank
    begin, end, step = slice(start, stop, step).indices(x.type.shape[axis])
    if (begin, end, step) == (0, x.type.shape[axis], 1):
        return x
    if step < 1:
        raise UnsupportedError(f"it slices with a step of {step}; only steps forward are supported")
    if begin >= end:
        raise UnsupportedError(f"the slice [{begin}, {end}) of axis {axis} of {x.type} is empty")
    return low.builder.add(Slice(axis_of(axis, rank), begin, end, step), x)


def select(low: Lowering, x: Value, axis: int, index: int) -> Value:
    """One element of an axis, and the axis dropped."""
    axis = axis_of(axis, x.type.rank)
    size = x.type.shape[axis]
    index %= size
    picked = slice_axis(low, x, axis, index, index + 1)
    shape = picked.type.shape
    return low.reshape(picked, *shape[:axis], *shape[axis + 1 :])


def split(low: Lowering, x: Value, axis: int, sizes: Sequence[int]) -> tuple[Value, ...]:
    """Pieces of these sizes along an axis."""
    pieces, begin = [], 0
    for size in sizes:
        pieces.append(slice_axis(low, x, axis, begin, begin + size))
        begin += size
    return tuple(pieces)


def pad(low: Lowering, x: Value, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Value:
    """`pads` is (before, after) for every axis; negative amounts cut."""
    for axis, (before, after) in enumerate(pads):
        if before < 0 or after < 0:
            size = x.type.shape[axis]
            x = slice_axis(low, x, axis, max(-before, 0), size - max(-after, 0))
    grown = tuple((max(before, 0), max(after, 0)) for before, after in pads)
    if not any(map(any, grown)):
        return x
    if any(grown[0]):
        raise UnsupportedError(f"it pads dimension 0, the batch, by {grown[0]}")
    return low.builder.add(Pad(grown, float(value)), x)
