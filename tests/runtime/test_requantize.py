"""kg_requantize and ops.requantize are the formula, exactly: near ties, at the ends, everywhere."""

from __future__ import annotations

import ctypes
import math
from fractions import Fraction

import numpy as np
import pytest

from kilograd.errors import InputError
from kilograd.ops.requantize import LIMIT, quantize_multiplier, requantize
from tests.runtime.c_library import build_library

TEXT = """
#include "kilograd/requantize.h"
void run(const int32_t *sums, const int32_t *multiplier, const int32_t *shift, int32_t *result, int32_t n) {
  for (int32_t i = 0; i < n; ++i) {
    result[i] = kg_requantize(sums[i], multiplier[i], shift[i]);
  }
}
"""  # noqa: E501


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build_library(TEXT, tmp_path_factory.mktemp("requantize"))


def in_c(library, sums: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    arrays = [np.ascontiguousarray(a, np.int32) for a in (sums, multiplier, shift)]
    result = np.empty_like(arrays[0])
    library.run(*(ctypes.c_void_p(a.ctypes.data) for a in (*arrays, result)), result.size)
    return result


def exact(total: int, multiplier: int, shift: int) -> int:
    rounded = math.floor(Fraction(total * multiplier, 2**shift) + Fraction(1, 2))
    return max(-LIMIT, min(LIMIT, rounded))


def cases() -> np.ndarray:
    """Sums on both sides of ties, at the ends of int32 and at random, for every shift."""
    rng = np.random.default_rng(0)
    rows = []
    for shift in range(1, 63):
        for multiplier in (1 << 30, (1 << 31) - 1, int(rng.integers(1 << 30, 1 << 31))):
            sums = {0, 1, -1, 2**31 - 1, -(2**31)}
            sums |= {int(rng.integers(-(2**31), 2**31)) >> int(rng.integers(31)) for _ in range(20)}
            for half in (-2.5, -1.5, -0.5, 0.5, 1.5, 100.5, -127.5):
                tie = math.floor(Fraction(half) * 2**shift / multiplier)
                sums |= {tie - 1, tie, tie + 1}
            rows += [(s, multiplier, shift) for s in sorted(sums) if -(2**31) <= s < 2**31]
    return np.array(rows, np.int64)


def test_both_are_the_formula(library):
    rows = cases()
    expected = np.array([exact(*map(int, row)) for row in rows])
    columns = [column.astype(np.int32) for column in rows.T]
    np.testing.assert_array_equal(requantize(np, *columns), expected)
    np.testing.assert_array_equal(in_c(library, *columns), expected)


def test_ties_go_up():
    half = (np.int32(1 << 30), np.int32(31))
    sums = np.array([-3, -2, -1, 0, 1, 2, 3], np.int32)
    np.testing.assert_array_equal(requantize(np, sums, *half), [-1, -1, 0, 0, 1, 1, 2])


@pytest.mark.parametrize("real", [1e-3, 0.25, 0.5, 1.0, 1.7, 3e5, 2.0**-32, 1 - 2.0**-40])
def test_multipliers_are_close(real: float):
    multiplier, shift = quantize_multiplier(real)
    assert 1 << 30 <= multiplier < 1 << 31 and 1 <= shift <= 62
    assert abs(multiplier / 2.0**shift - real) <= real * 2.0**-31


@pytest.mark.parametrize("real", [0.0, -1.0, math.inf, math.nan, 2.0**30])
def test_impossible_factors_are_rejected(real: float):
    with pytest.raises(InputError, match="scale ratio"):
        quantize_multiplier(real)
