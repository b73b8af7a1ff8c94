"""Pools and nearest-neighbour up-sampling over one or two spatial dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from kilograd.errors import InputError, UnsupportedError
from kilograd.frontend.lowering.context import Lowering
from kilograd.ir import Value
from kilograd.ops.pool import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from kilograd.ops.reduce import Reduce
from kilograd.ops.resize import UpsampleNearest2d, nearest_sources

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


def spatial(items: Sequence[int], rank: int, fill: int) -> Pair:
    """Numbers given for the spatial dimensions as a pair; a row of pixels has height 1 (`fill`
    for the missing one).
    """
    wanted = rank - 2
    if len(items) == 1:
        items = [*items] * wanted
    if len(items) != wanted or wanted not in (1, 2):
        raise UnsupportedError(
            f"it has {len(items)} spatial dimensions on an input with {rank} dimensions; kilograd "
            "works on one or two, behind batch and channels"
        )
    return (items[0], items[1]) if wanted == 2 else (fill, items[0])


def spatial_padding(items: Sequence[Pair], rank: int) -> Padding:
    """(before, after) of the spatial dimensions as ((top, bottom), (left, right))."""
    if len(items) == 1:
        items = [*items] * (rank - 2)
    return (items[0], items[1]) if rank == 4 else ((0, 0), items[0])


def ceil_padding(
    sizes: Sequence[int], kernel: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> Padding:
    """The padding after which rounding the output size down gives what rounding it up gives.

    A window that starts in the padding behind the input is dropped, as PyTorch and ONNX do.
    """
    result: list[Pair] = []
    for size, k, s, (before, after), d in zip(
        sizes, kernel, stride, padding, dilation, strict=True
    ):
        extent = d * (k - 1) + 1
        count = -((size + before + after - extent) // -s) + 1
        if (count - 1) * s >= size + before:
            count -= 1
        result.append((before, max(after, (count - 1) * s + extent - size - before)))
    return (result[0], result[1])


def max_pool(
    low: Lowering,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[Pair],
    dilation: Sequence[int],
    ceil: bool,
) -> Value:
    """Largest element of each window; padding never wins."""
    rank = x.type.rank
    pair = spatial(kernel, rank, 1)
    steps, spread = spatial(stride, rank, 1), spatial(dilation, rank, 1)
    pads = spatial_padding(padding, rank)
    y = low.channels_last(x)
    if ceil:
        pads = ceil_padding(y.type.shape[1:3], pair, steps, pads, spread)
    result = _with_index(low, MaxPool2d(pair, steps, pads, spread), y)
    return low.channels_first(result, rank)


def _with_index(low: Lowering, op: MaxPool2d | AdaptiveMaxPool2d, y: Value) -> Value:
    """The maxima; their index, which only training reads, is left out for windows too large."""
    try:
        return low.builder.add_multi(op, y)[0]
    except InputError:
        return low.builder.add_multi(replace(op, index=False), y)[0]


def avg_pool(
    low: Lowering,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[Pair],
    ceil: bool,
    include_pad: bool,
    divisor: int = 0,
) -> Value:
    """Mean of each window, over the whole window with `include_pad`, else over the input in it;
    `divisor`, unless 0, replaces the count.
    """
    rank = x.type.rank
    pair, steps = spatial(kernel, rank, 1), spatial(stride, rank, 1)
    pads = spatial_padding(padding, rank)
    y = low.channels_last(x)
    extra = (0, 0)
    if ceil:
        grown = ceil_padding(y.type.shape[1:3], pair, steps, pads, (1, 1))
        extra = (grown[0][1] - pads[0][1], grown[1][1] - pads[1][1])
    op = AvgPool2d(pair, steps, pads, include_pad, extra, divisor)
    return low.channels_first(low.builder.add(op, y), rank)


def adaptive_pool(low: Lowering, x: Value, output: Sequence[int | None], kind: str) -> Value:
    """Mean (`kind` "avg") or maximum ("max") over a grid of nearly equal cells; None keeps a
    size.
    """
    rank = x.type.rank
    y = low.channels_last(x)
    sizes = x.type.shape[2:]
    if len(output) == 1:
        output = [*output] * len(sizes)
    wanted = [size if o is None else o for o, size in zip(output, sizes, strict=True)]
    pair = spatial(wanted, rank, 1)
    if pair == y.type.shape[1:3]:
        return x
    if kind == "avg" and pair == (1, 1):
        return low.channels_first(low.builder.add(Reduce((1, 2), mean=True, keep=True), y), rank)
    if kind == "avg":
        return low.channels_first(low.builder.add(AdaptiveAvgPool2d(pair), y), rank)
    return low.channels_first(_with_index(low, AdaptiveMaxPool2d(pair), y), rank)


def global_max(low: Lowering, x: Value, axes: Sequence[int], keep: bool) -> Value:
    """The maximum over all spatial axes, the only ones it is supported for."""
    rank = x.type.rank
    if sorted(axis % rank for axis in axes) != list(range(2, rank)) or rank not in (3, 4):
        raise UnsupportedError(
            f"it takes the maximum of {x.type} over axes {list(axes)}; only the maximum over all "
            "spatial axes is supported"
        )
    y = adaptive_pool(low, x, (1,) * (rank - 2), "max")
    return y if keep else low.reshape(y, *y.type.shape[:2])


def upsample_nearest(
    low: Lowering,
    x: Value,
    output: Sequence[int],
    scales: Sequence[float] | None = None,
    source: Callable[[int, int], int] | None = None,
) -> Value:
    """Nearest-neighbour resizing to the spatial sizes `output`.

    `scales` are input pixels an output pixel where they are not size / output. `source(axis, i)` is
    the input index that the framework reads for output index i of a spatial axis, where that may
    be another one than the operator's; raises UnsupportedError if it is.
    """
    rank = x.type.rank
    if rank not in (3, 4) or len(output) != rank - 2:
        raise UnsupportedError(f"it resizes {x.type}; one or two spatial dimensions are supported")
    steps = [0.0] * (rank - 2)
    for axis, (size, wanted) in enumerate(zip(x.type.shape[2:], output, strict=True)):
        plain = nearest_sources(size, wanted, 0.0)
        given = 0.0 if scales is None else scales[axis]
        if not np.array_equal(plain, nearest_sources(size, wanted, given)):
            steps[axis] = given
        reads = nearest_sources(size, wanted, steps[axis])
        if source is not None and any(source(axis, i) != reads[i] for i in range(wanted)):
            raise UnsupportedError(
                f"nearest-neighbour resizing from {size} to {wanted} pixels with this coordinate "
                "mode reads other pixels than floor(i * size / output); use a whole factor"
            )
    pair = spatial(output, rank, 1)
    y = low.channels_last(x)
    if pair == y.type.shape[1:3]:
        return x
    op = UpsampleNearest2d(pair, (steps[0], steps[1]) if rank == 4 else (0.0, steps[0]))
    return low.channels_first(low.builder.add(op, y), rank)
