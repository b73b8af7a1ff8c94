"""Operators that move elements: reshape, permute, concatenate, slice, pad, expand.

Those that only re-lay elements take weights too, and keep track of the parameter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kilograd.errors import UnsupportedError
from kilograd.frontend.lowering import moved
from kilograd.frontend.lowering.context import Lowering, Weight, axis_of
from kilograd.frontend.lowering.moved import Activation, Moved, Source
from kilograd.ir import Value
from kilograd.ops.reduce import Spread
from kilograd.ops.shape import Concat, Pad, Slice


def shape_of(x: Source) -> tuple[int, ...]:
    """The shape of an activation or a weight."""
    return x.type.shape if isinstance(x, Value) else x.shape


def reshape(low: Lowering, x: Source, shape: Sequence[int]) -> Source:
    """`shape`, in which one -1 stands for what is left."""
    size = math.prod(shape_of(x))
    if -1 in shape:
        rest = math.prod(size_ for size_ in shape if size_ != -1)
        shape = [size // max(rest, 1) if size_ == -1 else size_ for size_ in shape]
    if isinstance(x, Weight):
        return x.reshape(*shape)
    shape = tuple(shape)
    if isinstance(x, Value) and (not shape or shape[0] == 1 or shape == x.type.shape):
        return low.reshape(x, *shape)
    if isinstance(x, Value):
        reason = (
            f"it gives shape {list(shape)} for one sample {list(x.type.shape)}: the leading "
            "dimension has to stay the batch (flatten with x.flatten(1), and squeeze and permute "
            "only the dimensions behind the first)"
        )
        x = moved.lift(low, x, reason)
    return moved.reshape(low, x, shape)


def flatten(low: Lowering, x: Source, start: int = 0, end: int = -1) -> Source:
    """Dimensions start to end (both included) as one."""
    shape = shape_of(x)
    start, end = start % len(shape), end % len(shape)
    merged = math.prod(shape[start : end + 1])
    return reshape(low, x, (*shape[:start], merged, *shape[end + 1 :]))


def squeeze(low: Lowering, x: Source, axes: Sequence[int] | None = None) -> Source:
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


def unsqueeze(low: Lowering, x: Source, axes: Sequence[int]) -> Source:
    """Insert dimensions of size 1 so that they are `axes` of the result."""
    rank = len(shape_of(x)) + len(axes)
    chosen = {axis % rank for axis in axes}
    rest = iter(shape_of(x))
    return reshape(low, x, [1 if axis in chosen else next(rest) for axis in range(rank)])


def permute(low: Lowering, x: Source, axes: Sequence[int]) -> Source:
    """Dimension i of the result is dimension axes[i]."""
    rank = len(shape_of(x))
    order = tuple(axis % rank for axis in axes)
    if isinstance(x, Weight):
        return x.permute(*order)
    if isinstance(x, Value):
        if not order or order[0] == 0:
            return low.permute(x, *order)
        reason = (
            f"it permutes the dimensions to {list(order)}: the batch has to come back to the "
            "leading one before anything but attention, linear layers and elementwise functions "
            "reads it"
        )
        x = moved.lift(low, x, reason)
    return moved.permute(low, x, order)


def transpose(low: Lowering, x: Source, first: int, second: int) -> Source:
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


def concat(low: Lowering, xs: Sequence[Source], axis: int) -> Value:
    """Operands side by side along `axis`; empty ones are skipped."""
    xs = [x for x in xs if math.prod(shape_of(x))]
    for x in xs:
        if isinstance(x, Moved):
            raise moved.Misplaced(x)
    axis = axis_of(axis, len(shape_of(xs[0])))
    values = [low.value(x) for x in xs if not isinstance(x, Moved)]
    return values[0] if len(values) == 1 else low.builder.add(Concat(axis), *values)


def slice_axis(
    low: Lowering, x: Activation, axis: int, start: int | None, stop: int | None, step: int = 1
) -> Activation:
    """Python slicing of one axis."""
    if isinstance(x, Moved):
        axis %= len(x.shape)
        y = slice_axis(low, x.value, axis + 1, start, stop, step)
        assert isinstance(y, Value)
        return x.carry(y, moved.along(x, axis, y.type.shape[axis + 1]))
    rank, axis = x.type.rank, axis % x.type.rank
    begin, end, step = slice(start, stop, step).indices(x.type.shape[axis])
    if (begin, end, step) == (0, x.type.shape[axis], 1):
        return x
    if step < 1:
        raise UnsupportedError(f"it slices with a step of {step}; only steps forward are supported")
    if begin >= end:
        raise UnsupportedError(f"the slice [{begin}, {end}) of axis {axis} of {x.type} is empty")
    return low.builder.add(Slice(axis_of(axis, rank), begin, end, step), x)


def select(low: Lowering, x: Activation, axis: int, index: int) -> Activation:
    """One element of an axis, and the axis dropped."""
    rank = len(shape_of(x))
    axis = axis % rank if isinstance(x, Moved) else axis_of(axis, rank)
    index %= shape_of(x)[axis]
    picked = slice_axis(low, x, axis, index, index + 1)
    shape = shape_of(picked)
    result = reshape(low, picked, (*shape[:axis], *shape[axis + 1 :]))
    assert not isinstance(result, Weight)
    return result


def split(low: Lowering, x: Activation, axis: int, sizes: Sequence[int]) -> tuple[Activation, ...]:
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
            cut = slice_axis(low, x, axis, max(-before, 0), size - max(-after, 0))
            assert isinstance(cut, Value)
            x = cut
    grown = tuple((max(before, 0), max(after, 0)) for before, after in pads)
    if not any(map(any, grown)):
        return x
    if any(grown[0]):
        raise UnsupportedError(f"it pads dimension 0, the batch, by {grown[0]}")
    return low.builder.add(Pad(grown, float(value)), x)
