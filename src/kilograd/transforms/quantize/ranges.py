"""Ranges of activations: what calibration data says, and how much of it int8 should cover.

    real = scale (q - zero_point),   scale = (high - low) / 255,   low <= 0 <= high

Three ways to choose low and high from the histogram of a value: all of it ("min_max"), all but the
outermost values ("percentile"), or what makes the expected squared error least ("mse").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.types import Quantization

BINS = 2048
"""Bins on each side of zero; at least half of them lie below the largest magnitude."""

KEPT_FRACTION = 0.9999
"""The fraction of values that "percentile" keeps inside the range."""

CANDIDATES = 128
"""Ends that "mse" tries on each side of zero."""

SAMPLE = 1 << 17
"""How many numbers of an input are quantised to try ranges."""

LEVELS = 255
"""Steps from the smallest int8 to the largest."""

Range = tuple[float, float]


class Histogram:
    """Counts of the numbers seen, in bins whose width is a power of two and doubles on demand.

    The counts do not depend on how the numbers are cut into batches, but for the width: it is that
    of the largest magnitude so far. Zeros are counted apart: int8 has an exact zero.
    """

    def __init__(self) -> None:
        """Nothing seen."""
        self.minimum = math.inf
        self.maximum = -math.inf
        self.zeros = 0
        self.counts = np.zeros(2 * BINS, np.int64)
        self.width = 0.0

    def add(self, array: np.ndarray) -> None:
        """Count every element; raises InputError where one is not finite."""
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError("it is not finite on the calibration data")
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        peak = max(-low, high)
        if peak > 0:
            self._widen(2.0 ** (math.frexp(peak)[1] + 1) / (2 * BINS))
        values = array[array != 0].astype(np.float64)
        self.zeros += array.size - values.size
        if values.size:
            places = np.floor(values / self.width).astype(np.int64) + BINS
            self.counts += np.bincount(places, minlength=2 * BINS)

    def _widen(self, width: float) -> None:
        self.width = self.width or width
        while self.width < width:
            pairs = self.counts.reshape(BINS, 2).sum(axis=1)
            self.counts = np.pad(pairs, (BINS // 2, BINS // 2))
            self.width *= 2

    @property
    def centers(self) -> np.ndarray:
        """The middle of every bin."""
        return np.asarray((np.arange(-BINS, BINS) + 0.5) * self.width)


def min_max(seen: Histogram) -> Range:
    """Everything that was seen."""
    return seen.minimum, seen.maximum


def percentile(seen: Histogram) -> Range:
    """All but a fraction (1 - KEPT_FRACTION) / 2 on either side, to the precision of a bin."""
    counts = seen.counts.copy()
    counts[BINS] += seen.zeros
    total = int(counts.sum())
    outside = (1 - KEPT_FRACTION) / 2 * total
    below = np.cumsum(counts)
    first = int(np.searchsorted(below, outside, side="right"))
    last = int(np.searchsorted(below, total - outside, side="left"))
    low, high = (first - BINS) * seen.width, (last + 1 - BINS) * seen.width
    return max(low, seen.minimum), min(high, seen.maximum)


def least_squares(seen: Histogram) -> Range:
    """The range with the least expected squared error, over a grid of both ends.

    Inside the range rounding costs scale² / 12 a value, zero nothing; outside, the squared distance
    to the range.
    """
    fractions = np.linspace(1 / CANDIDATES, 1, CANDIDATES)
    lows = fractions * seen.minimum if seen.minimum < 0 else np.zeros(1)
    highs = fractions * seen.maximum if seen.maximum > 0 else np.zeros(1)
    cut_below, cost_below = _beyond(-seen.centers[::-1], seen.counts[::-1], -lows)
    cut_above, cost_above = _beyond(seen.centers, seen.counts, highs)
    inside = seen.counts.sum() - cut_below[:, None] - cut_above
    step = (highs - lows[:, None]) / LEVELS
    error = inside * step**2 / 12 + cost_below[:, None] + cost_above
    best = np.unravel_index(int(np.argmin(error)), error.shape)
    return float(lows[best[0]]), float(highs[best[1]])


def _beyond(
    centers: np.ndarray, counts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For every end: how many values are larger, and the sum of their squared distances to it."""
    moments = [np.cumsum((counts * centers**power)[::-1])[::-1] for power in range(3)]
    number, first, second = (np.append(moment, 0.0) for moment in moments)
    places = np.searchsorted(centers, ends, side="right")
    squares = second[places] - 2 * ends * first[places] + ends**2 * number[places]
    return number[places], np.maximum(squares, 0)


def input_range(values: np.ndarray, choice: Range) -> Range:
    """The best of a few ranges for what arrives from outside: `choice`, all of it, and what suits
    numbers on a grid, as pixels are, by the squared error over a sample of `values`.

    At the grid's own step, 256 levels are exact where the grid holds zero. Where zero falls between
    two levels, as for (pixel - 127.5) / 127.5, every value would be a tie and a quarter of the
    levels be lost; a range longer by one part in 254 keeps 255 of them.
    """
    rng = np.random.default_rng(0)
    sample = rng.choice(values.reshape(-1), min(values.size, SAMPLE), replace=False)
    levels = np.unique(sample)
    low, high = float(levels[0]), float(levels[-1])
    candidates = [choice, (low, high), (low * 255 / 254, high * 255 / 254)]
    if len(levels) > 1:
        step = float(np.diff(levels).min())
        if (high - low) / step < LEVELS + 0.5:
            candidates.append((low, low + LEVELS * step))
    errors = [squared_error(sample, ends) for ends in candidates]
    best = int(np.argmin(errors))
    return candidates[best] if errors[best] < 0.9 * errors[0] else choice


def squared_error(values: np.ndarray, ends: Range) -> float:
    """The mean squared error of `values` in int8."""
    q = quantization(*ends)
    inverse = np.float32(1 / q.scales[0])
    whole = np.clip(np.rint(values * inverse) + q.zero_point, -128, 127)
    real = q.scales[0] * (whole.astype(np.float64) - q.zero_point)
    return float(np.mean((values - real) ** 2))


RANGES: Mapping[str, Callable[[Histogram], Range]] = {
    "min_max": min_max,
    "percentile": percentile,
    "mse": least_squares,
}
"""The methods by name."""


def quantization(low: float, high: float) -> Quantization:
    """Scale and zero point of int8 for [low, high], extended to hold zero, which is exact.

    A range of nothing but zero becomes [-1, 1]: any scale serves, and this one can be trained
    through.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < np.finfo(np.float32).tiny * LEVELS:
        low, high = -1.0, 1.0
    scale = float(np.float32((high - low) / LEVELS))
    zero_point = round(-128 - low / scale)
    return Quantization((scale,), max(-128, min(127, zero_point)))
