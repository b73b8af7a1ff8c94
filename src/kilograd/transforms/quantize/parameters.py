"""Weights, biases and constants as integers."""

from __future__ import annotations

import math

import numpy as np

from kilograd.ir.graph import Tensor
from kilograd.ir.origin import Quantized, Step
from kilograd.ir.types import Quantization
from kilograd.ops.q_types import MAX_BIAS

WEIGHT_LIMIT = 127

SMALLEST_RATIO = 2.0**-10
"""No channel's scale is smaller than this fraction of the largest scale of its tensor."""


def after(tensor: Tensor, *steps: Step) -> Tensor:
    """The tensor and its origin after some more steps."""
    array, origin = tensor.array, tensor.origin
    for step in steps:
        array = step.apply(array)
        origin = origin.then(step) if origin else None
    return Tensor(np.ascontiguousarray(array), origin)


def weight_scales(weight: np.ndarray, axis: int) -> np.ndarray:
    """One scale a channel, max |w| / 127 but at least `SMALLEST_RATIO` of the tensor's largest;
    float32 numbers in float64.

    A dead channel, whose weights would all round to zero even so, gets the median of the others, so
    that training can revive it. A tensor of zeros gets the scale of +-1 / sqrt(fan in), the size of
    fresh weights.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    peaks = np.abs(weight.astype(np.float64)).max(axis=others)
    largest = float(peaks.max())
    if largest == 0:
        peaks = np.full_like(peaks, 1 / math.sqrt(weight.size / weight.shape[axis]))
    floor = largest * SMALLEST_RATIO
    dead = peaks < floor / (2 * WEIGHT_LIMIT)
    limited = np.maximum(peaks, floor)
    scales = np.where(dead, np.median(limited[~dead]), limited) / WEIGHT_LIMIT
    return np.asarray(scales, np.float32).astype(np.float64)


def raised_for_bias(scales: np.ndarray, bias: np.ndarray, x_scale: float) -> np.ndarray:
    """The weight scales, raised where the bias would not fit int32 at scale x_scale * scale."""
    needed = np.abs(bias.astype(np.float64)) / (x_scale * MAX_BIAS)
    return np.where(needed > scales, np.asarray(needed * 1.0001, np.float32), scales).astype(
        np.float64
    )


def quantized_weight(weight: Tensor, axis: int, scales: np.ndarray) -> tuple[Tensor, Quantization]:
    """int8 in [-127, 127] at one scale a channel along `axis`."""
    shape = [1] * weight.array.ndim
    shape[axis] = -1
    step = Quantized(scales.reshape(shape), WEIGHT_LIMIT)
    return after(weight, step), Quantization(tuple(map(float, scales)), 0, axis)


def quantized_bias(bias: Tensor, scales: np.ndarray) -> tuple[Tensor, Quantization]:
    """int32 [O] at one scale a channel, limited to +-2^30."""
    step = Quantized(scales, MAX_BIAS)
    return after(bias, step), Quantization(tuple(map(float, scales)), 0, 0)


def quantized_constant(constant: Tensor) -> tuple[Tensor, Quantization]:
    """int8 with one scale and zero point 0, as the operand of a sum or product."""
    peak = float(np.abs(constant.array).max()) or 1.0
    scale = float(np.float32(peak / WEIGHT_LIMIT))
    step = Quantized(np.array(scale), WEIGHT_LIMIT)
    return after(constant, step), Quantization((scale,))
