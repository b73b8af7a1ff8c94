"""Random operands of quantised layers, for examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kilograd.ir.types import DType, Quantization, TensorType
from kilograd.ops.requantize import quantize_multipliers


def quantised_weight(
    rng: np.random.Generator, axis: int, channels: int, *shapes: Sequence[int]
) -> tuple[list[np.ndarray], list[TensorType], np.ndarray]:
    """Random weight parts, their types, and their scales; parts along `axis` share out the
    channels, others have them all.
    """
    scales = rng.uniform(0.002, 0.02, channels)
    arrays = [rng.integers(-127, 128, shape).astype(np.int8) for shape in shapes]
    types, begin = [], 0
    for array in arrays:
        count = array.shape[axis]
        own = scales[begin : begin + count]
        begin += count if count < channels else 0
        meaning = Quantization(tuple(float(scale) for scale in own), 0, axis)
        types.append(TensorType(array.shape, DType.I8, meaning))
    return arrays, types, scales


def output_constants(
    rng: np.random.Generator, scales: np.ndarray, x_scale: float, scale: float
) -> tuple[list[np.ndarray], list[TensorType]]:
    """Bias, multiplier and shift of a layer, and their types."""
    wide = scales * x_scale
    bias = rng.integers(-3000, 3000, scales.size).astype(np.int32)
    meaning = Quantization(tuple(float(value) for value in wide), 0, 0)
    arrays = [bias, *quantize_multipliers([float(value) for value in wide / scale])]
    plain = TensorType(bias.shape, DType.I32)
    return arrays, [TensorType(bias.shape, DType.I32, meaning), plain, plain]
