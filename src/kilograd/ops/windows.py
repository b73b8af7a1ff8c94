"""What the pooling operators share: windows, their limits, and calls image by image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.operator import Argument, Call, Operand, Operands
from kilograd.ir.types import DType, TensorType

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

NO_PADDING: Padding = ((0, 0), (0, 0))
MAX_INDEXED_TAPS = 255


def image_shape(name: str, x: TensorType) -> tuple[int, int, int, int]:
    """N, H, W, C of an f32 image; raises InputError for anything else."""
    if x.rank != 4 or x.dtype is not DType.F32:
        raise InputError(f"{name}: takes an f32 image [N,H,W,C], not {x}")
    n, h, w, c = x.shape
    return n, h, w, c


def window_count(
    name: str, size: int, kernel: int, stride: int, padding: Pair, dilation: int
) -> int:
    """Windows along one axis; raises InputError where one has no tap inside."""
    extent = (kernel - 1) * dilation + 1
    count = (size + sum(padding) - extent) // stride + 1
    if min(kernel, stride, dilation) < 1 or min(padding) < 0 or count < 1:
        raise InputError(
            f"{name}: a kernel of {kernel} (dilation {dilation}, stride {stride}) does not fit "
            f"{size} positions padded by {padding}"
        )
    for start in (i * stride - padding[0] for i in range(count)):
        if not any(0 <= start + k * dilation < size for k in range(kernel)):
            raise InputError(
                f"{name}: the window at {start} (kernel {kernel}, dilation {dilation}) has no "
                f"position inside 0..{size - 1}; padding {padding} is too large"
            )
    return count


def ceil_mode_extra(size: int, kernel: int, stride: int, padding: Pair, dilation: int = 1) -> int:
    """How far ceil_mode lets windows reach beyond the padding along one axis, in PyTorch and ONNX:
    one more window where positions are left over, unless it would start behind the image.
    """
    extent = (kernel - 1) * dilation + 1
    last = -(-(size + sum(padding) - extent) // stride)
    if last * stride >= size + padding[0]:
        last -= 1
    return max(0, last * stride + extent - size - sum(padding))


def check_taps(name: str, taps: int) -> None:
    """Raise InputError where a u8 index cannot count the taps of a window."""
    if taps > MAX_INDEXED_TAPS:
        raise InputError(
            f"{name}: training needs windows of at most {MAX_INDEXED_TAPS} positions, this one has "
            f"{taps}; pool in two steps, or use average pooling"
        )


def adaptive_windows(size: int, count: int) -> list[tuple[int, int]]:
    """PyTorch's adaptive windows [floor(i size / count), ceil((i + 1) size / count))."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def image_calls(
    operands: Operands, function: str, images: Sequence[Operand | str], rest: Sequence[Argument]
) -> list[Call]:
    """One call of pool.h for each image of the batch: operands (or "NULL") first, then the rest."""
    batch = operands.inputs[0].type.shape[0]

    def image(item: Operand | str, n: int) -> Argument:
        return item.offset(n * item.type.size // batch) if isinstance(item, Operand) else item

    return [
        Call("pool.h", function, (*(image(item, n) for item in images), *rest))
        for n in range(batch)
    ]


def distinct(seed: int, *shape: int) -> np.ndarray:
    """Distinct numbers, so that no maximum is a tie and none is near another."""
    numbers = np.random.default_rng(seed).permutation(int(np.prod(shape)))
    return (numbers.reshape(shape) / 8 - 3).astype(np.float32)


def widest(size: int, count: int) -> int:
    """The size of the largest adaptive window."""
    return max(stop - start for start, stop in adaptive_windows(size, count))


def adaptive_taps(shape: Sequence[int], output: Pair) -> int:
    """Positions in all adaptive windows of an image."""
    rows, columns = (
        sum(stop - start for start, stop in adaptive_windows(size, count))
        for size, count in zip(shape[1:3], output, strict=True)
    )
    return shape[0] * rows * columns
