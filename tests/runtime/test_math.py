"""The elementary functions of math.h against float64, in units in the last place."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest

from tests.runtime.c_library import build_library

FUNCTIONS = ("exp", "expm1", "log", "log1p", "sigmoid", "tanh", "erf", "sqrt", "soft_sqrt")
TEXT = '#include "kilograd/math.h"\n' + "".join(
    f"void map_{name}(float *y, const float *x, int32_t n)"
    f" {{ for (int32_t i = 0; i < n; ++i) y[i] = kg_{name}_f32(x[i]); }}\n"
    for name in FUNCTIONS
)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build_library(TEXT, tmp_path_factory.mktemp("math"))


def call(library: ctypes.CDLL, name: str, x: np.ndarray) -> np.ndarray:
    x, y = np.ascontiguousarray(x, np.float32), np.empty(len(x), np.float32)
    library[f"map_{name}"](
        y.ctypes.data_as(ctypes.c_void_p), x.ctypes.data_as(ctypes.c_void_p), len(x)
    )
    return y


def floats(low: float, high: float, count: int = 1_000_000) -> np.ndarray:
    """`count` floats between two of one sign, evenly spread over the bit patterns."""
    first, last = np.sort(np.array([low, high], np.float32).view(np.uint32))
    return np.linspace(first, last, count).astype(np.uint32).view(np.float32)


def error_ulps(y: np.ndarray, truth: np.ndarray) -> float:
    """The largest distance in units in the last place of the truth (of the smallest normal below
    it).
    """
    unit = np.spacing(np.maximum(np.abs(truth), 2.0**-126).astype(np.float32)).astype(np.float64)
    return float(np.max(np.abs(y.astype(np.float64) - truth) / unit))


erf = np.vectorize(math.erf, otypes=[np.float64])
BOTH = ((-1e-30, -88.0), (1e-30, 88.0))
CASES = [
    ("exp", np.exp, ((-1e-10, -103.9), (1e-10, 88.72)), 1.5),
    ("expm1", np.expm1, ((-1e-30, -100.0),), 1.5),
    ("log", np.log, ((1e-45, 0.5), (0.5, 2.0), (2.0, 3.4e38)), 1.5),
    ("log1p", np.log1p, ((1e-30, 0.5), (0.5, 2.0), (2.0, 3e38)), 1.5),
    ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), ((-1e-10, -87.0), (1e-10, 100.0)), 2.5),
    ("tanh", np.tanh, BOTH, 2.5),
    ("erf", erf, ((-1e-30, -5.0), (1e-30, 5.0)), 2.0),
]


@pytest.mark.parametrize("name, function, ranges, bound", CASES, ids=[case[0] for case in CASES])
def test_error_is_bounded(library, name, function, ranges, bound):
    for low, high in ranges:
        x = floats(low, high, 200_000 if name == "erf" else 1_000_000)
        worst = error_ulps(call(library, name, x), function(x.astype(np.float64)))
        print(name, low, high, worst)
        assert worst <= bound


@pytest.mark.parametrize("name", ["sqrt", "soft_sqrt"])
def test_square_root_is_correctly_rounded(library, name):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 0x7F800001, 2_000_000).astype(np.uint32).view(np.float32)
    squares = (rng.integers(0, 1 << 24, 100_000).astype(np.float64) ** 2).astype(np.float32)
    edges = np.array([0.0, -0.0, 1e-45, 1.1754942e-38, 3.4028235e38, np.inf], np.float32)
    for values in (x, squares, edges):
        y = call(library, name, values)
        np.testing.assert_array_equal(y.view(np.uint32), np.sqrt(values).view(np.uint32))
    assert np.isnan(call(library, name, np.array([-1.0, -1e-45, -np.inf, np.nan]))).all()


SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("exp", [1, 1, np.inf, 0, np.nan]),
        ("log", [-np.inf, -np.inf, np.inf, np.nan, np.nan]),
        ("sigmoid", [0.5, 0.5, 1, 0, np.nan]),
        ("tanh", [0.0, -0.0, 1, -1, np.nan]),
        ("erf", [0.0, -0.0, 1, -1, np.nan]),
    ],
)
def test_special_values(library, name, expected):
    np.testing.assert_array_equal(call(library, name, np.array(SPECIAL)), np.float32(expected))


def test_exp_reaches_infinity_and_zero_where_float_does(library):
    y = call(library, "exp", np.array([88.72283, 88.72284, 89.5, -103.97207, -103.98, -1e9]))
    truth = np.float32(3.4028e38), np.inf, np.inf, np.float32(1e-45), 0, 0
    np.testing.assert_allclose(y, truth, rtol=1e-4)
