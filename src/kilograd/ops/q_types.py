"""What the quantised operators share: the meaning of int8 types, checked."""

from __future__ import annotations

from collections.abc import Sequence

from kilograd.errors import InputError
from kilograd.ir.types import DType, Quantization, TensorType

LOW, HIGH = -128, 127
"""The range of int8; a clamp to it is none."""

MAX_TERMS = 32768
"""Products a sum may have: 2^15 * 255 * 127 and a bias of up to 2^30 stay below 2^31."""

MAX_BIAS = 1 << 30
"""The largest magnitude of a quantised bias."""


def activation(
    shape: Sequence[int], scale: float, zero_point: int, dtype: DType = DType.I8
) -> TensorType:
    """The type of an int8 activation: real = scale * (q - zero_point)."""
    return TensorType(tuple(shape), dtype, Quantization((scale,), zero_point))


def check_output(
    name: str, scale: float, zero_point: int, low: int = LOW, high: int = HIGH
) -> None:
    """Raise InputError for a quantisation or a clamp that int8 has not."""
    if not (scale > 0 and LOW <= zero_point <= HIGH and LOW <= low <= high <= HIGH):
        raise InputError(
            f"{name}: scale {scale}, zero point {zero_point} and the bounds [{low}, {high}] are "
            f"not a positive scale and numbers in [{LOW}, {HIGH}]"
        )


def check_activation(name: str, x: TensorType, zero_point: int | None = None) -> float:
    """The scale of an int8 activation; raises InputError for any other type, or when its zero
    point is not the given one.
    """
    q = x.quantization
    if x.dtype is not DType.I8 or q is None or q.axis is not None or len(q.scales) != 1:
        raise InputError(f"{name}: takes int8 with one scale, not {x} ({q})")
    if zero_point is not None and q.zero_point != zero_point:
        raise InputError(f"{name}: is for the zero point {zero_point}; {x} has {q.zero_point}")
    return q.scales[0]


def check_weight(name: str, weight: TensorType, axis: int) -> tuple[float, ...]:
    """The scales of a symmetric int8 weight with one scale a channel along `axis`."""
    q = weight.quantization
    if (
        weight.dtype is not DType.I8
        or q is None
        or q.zero_point != 0
        or q.axis != axis
        or len(q.scales) != weight.shape[axis]
    ):
        raise InputError(
            f"{name}: takes an int8 weight with zero point 0 and one scale for each of its "
            f"channels (axis {axis}), not {weight} ({q})"
        )
    return q.scales


def check_channels(name: str, channels: int, *vectors: TensorType) -> None:
    """Raise InputError unless bias, multiplier and shift are i32 [channels]."""
    for vector in vectors:
        if vector.shape != (channels,) or vector.dtype is not DType.I32:
            raise InputError(
                f"{name}: bias, multiplier and shift are i32[{channels}], not {vector}"
            )


def check_terms(name: str, terms: int) -> None:
    """Raise InputError for sums that might leave int32."""
    if terms > MAX_TERMS:
        raise InputError(
            f"{name}: sums of {terms} products may overflow 32 bits; at most {MAX_TERMS} are "
            "supported: leave this layer in float32"
        )
