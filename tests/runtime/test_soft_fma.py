"""kg_soft_fma_f32 gives the bits of the hardware's fused multiply-add."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from tests.runtime.c_library import build_library

TEXT = """
#include "kilograd/base.h"
#include "kilograd/soft_fma.h"
#ifndef __FMA__
#error this machine has no fused multiply-add to compare with
#endif
/* The number of differences, the last of them in *where. */
int32_t differences(const uint32_t *a, const uint32_t *b, const uint32_t *c, int32_t n, int32_t *where) {
  int32_t count = 0;
  for (int32_t i = 0; i < n; ++i) {
    const float x = kg_from_bits_f32(a[i]), y = kg_from_bits_f32(b[i]), z = kg_from_bits_f32(c[i]);
    const float soft = kg_soft_fma_f32(x, y, z), hard = __builtin_fmaf(x, y, z);
    if (kg_bits_f32(soft) != kg_bits_f32(hard) && (soft == soft || hard == hard)) {
      *where = i;
      ++count;
    }
  }
  return count;
}
"""  # noqa: E501
N = 1_000_000


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build_library(TEXT, tmp_path_factory.mktemp("fma"))


def any_bits(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 1 << 32, N, dtype=np.uint32)


def near_one(rng: np.random.Generator, spread: int) -> np.ndarray:
    """Exponents within `spread` of zero, either sign."""
    exponent = rng.integers(127 - spread, 128 + spread, N, dtype=np.uint32) << 23
    return exponent | (any_bits(rng) & np.uint32(0x807FFFFF))


def sparse(rng: np.random.Generator) -> np.ndarray:
    """Significands with few bits at either end, so that sums tie and carry."""
    few = rng.integers(0, 8, N, dtype=np.uint32)
    ends = np.where(rng.integers(0, 2, N) == 1, few, np.uint32(0x7FFFFF) - few)
    top = rng.integers(0, 8, N, dtype=np.uint32) << 20
    return (near_one(rng, 30) & np.uint32(0xFF800000)) | ends.astype(np.uint32) ^ top


def uniform(rng: np.random.Generator):
    return any_bits(rng), any_bits(rng), any_bits(rng)


def aligned(rng: np.random.Generator):
    return near_one(rng, 3), near_one(rng, 3), near_one(rng, 30)


def ties(rng: np.random.Generator):
    return sparse(rng), sparse(rng), sparse(rng)


def as_bits(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32).view(np.uint32)


def cancellation(rng: np.random.Generator):
    """c is -a b rounded, give or take a unit."""
    a, b = near_one(rng, 20), near_one(rng, 20)
    product = as_bits(-(a.view(np.float32) * b.view(np.float32)))
    return a, b, product + rng.integers(0, 3, N, dtype=np.uint32) - np.uint32(1)


def subnormal_results(rng: np.random.Generator):
    a = near_one(rng, 30).view(np.float32) * np.float32(2.0**-60)
    b = near_one(rng, 30).view(np.float32) * np.float32(2.0**-80)
    return as_bits(a), as_bits(b), any_bits(rng) & np.uint32(0x81FFFFFF)


def subnormal_factors(rng: np.random.Generator):
    a = any_bits(rng) & np.uint32(0x807FFFFF)
    return a, near_one(rng, 60), any_bits(rng) & np.uint32(0x83FFFFFF)


def overflow(rng: np.random.Generator):
    a = near_one(rng, 2).view(np.float32) * np.float32(2.0**63)
    b = near_one(rng, 2).view(np.float32) * np.float32(2.0**63)
    return as_bits(a), as_bits(b), any_bits(rng) | np.uint32(0x7E000000)


def specials(rng: np.random.Generator):
    numbers = [0.0, 1e-45, 1.1754942e-38, 1.1754944e-38, 1.0, 0.99999994, 3.4028235e38]
    values = as_bits(np.array([*numbers, *(-x for x in numbers), np.inf, -np.inf, np.nan]))
    return tuple(np.ascontiguousarray(x.ravel()) for x in np.meshgrid(values, values, values))


@pytest.mark.parametrize(
    "draw",
    [
        uniform, aligned, ties, cancellation, subnormal_results, subnormal_factors, overflow,
        specials,
    ],
)  # fmt: skip
def test_equals_hardware(library, draw):
    with np.errstate(all="ignore"):
        a, b, c = draw(np.random.default_rng(0))
    where = ctypes.c_int32(0)
    count = library.differences(
        *(x.ctypes.data_as(ctypes.c_void_p) for x in (a, b, c)), len(a), ctypes.byref(where)
    )
    worst = [hex(int(x[where.value])) for x in (a, b, c)]
    assert count == 0, f"{count} of {len(a)} differ, such as fma({', '.join(worst)})"
