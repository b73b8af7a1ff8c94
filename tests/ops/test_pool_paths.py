"""The scalar and the vector path of the pooling kernels give the same bits, NaN included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kilograd.ir import Example
from kilograd.ops.pool import AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from tests.conformance.c_cases import Case, build, run


def hard_cases() -> list[Case]:
    rng = np.random.default_rng(0)
    cases: list[Case] = []
    for operator in (MaxPool2d, AdaptiveMaxPool2d, AvgPool2d):
        for example in operator.examples():
            shape = example.inputs[0].shape
            x = rng.integers(-3, 4, shape).astype(np.float32)
            x[rng.random(shape) < 0.1] = np.nan
            x[rng.random(shape) < 0.1] = -0.0
            x[rng.random(shape) < 0.1] = -np.inf
            name = f"{operator.name}-{len(cases)}"
            cases.append(Case(len(cases), name, Example(example.op, (x,))))
    return cases


CASES = hard_cases()


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    return [
        build(CASES, tmp_path_factory.mktemp("paths"), flags) for flags in ((), ("-DKG_SCALAR",))
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_paths_agree(case, libraries):
    (_, vector), (_, scalar) = (run(library, case, ()) for library in libraries)
    for a, b in zip(vector, scalar, strict=True):
        nan = np.isnan(a) if a.dtype == np.float32 else np.zeros(a.shape, bool)
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a[~nan].view(np.uint8), b[~nan].view(np.uint8))
    if isinstance(case.example.op, MaxPool2d):
        expected = replace(case.example.op, index=False).reference(np, *case.example.inputs)[0]
        np.testing.assert_array_equal(vector[0], expected)
