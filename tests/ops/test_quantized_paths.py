"""Random quantised layers on emulated microcontrollers: kernels with 16-bit multiply-accumulates
(Cortex-M7 and M4) and the portable ones (M7, and M0+, which faults on unaligned words) give the
integers of the reference.
"""

from __future__ import annotations

import numpy as np
import pytest

from kilograd.ops.q_stream import QStream
from tests.conformance.c_cases import Case
from tests.ops.device_cases import MACHINES, build_machine, layer_examples, run_on

CASES = [
    Case(i, str(example.op), example)
    for i, example in enumerate([*layer_examples(), *QStream.examples()])
]


@pytest.fixture(scope="module", params=MACHINES.values(), ids=MACHINES)
def machine(request, tmp_path_factory):
    return build_machine(*request.param, CASES, tmp_path_factory.mktemp("paths"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.index}-{case.example.op.name}")
def test_reference_on_the_device(case: Case, machine):
    (expected,) = case.example.op.reference(np, *case.example.inputs)
    np.testing.assert_array_equal(run_on(machine, case)[0], expected)
