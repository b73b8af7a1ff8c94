"""Integer gradients on emulated microcontrollers: kernels with 16-bit multiply-accumulates
(Cortex-M7) and the portable ones (M7, and M0+, which faults on unaligned words) give the integers
of the reference.
"""

from __future__ import annotations

import struct

import numpy as np
import pytest

from kilograd import devices
from kilograd.execution.image import Image
from kilograd.execution.toolchain import toolchain
from kilograd.ir import DType, TensorType
from tests.conformance.c_cases import RUNTIME, Case, all_cases, c_function

emulator = pytest.importorskip("kilograd.execution.emulator")
GUARD = b"\xa5" * 16
CASES = [
    case
    for case in all_cases()
    if case.name.startswith(("integer_", "gradient_")) and "dequantize" not in case.name
]
MACHINES = {
    "m7": ("stm32f746", ()),
    "m7-portable": ("stm32f746", ("-DKG_PORTABLE",)),
    "m0plus": ("rp2040", ()),
}


@pytest.fixture(scope="module", params=MACHINES.values(), ids=MACHINES)
def machine(request, tmp_path_factory):
    name, extra = request.param
    directory = tmp_path_factory.mktemp("paths")
    headers = sorted(path.name for path in (RUNTIME / "kilograd").glob("ig_*.h"))
    source = directory / "cases.c"
    source.write_text(
        "".join(f'#include "kilograd/{header}"\n' for header in headers)
        + "".join(map(c_function, CASES))
    )
    device = devices.load(name)
    image = toolchain().firmware(
        [source], [RUNTIME], device, directory / "cases.elf",
        exports=tuple(f"case_{case.index}" for case in CASES),
        extra_flags=("-Wno-unused-function", *extra),
    )  # fmt: skip
    return emulator.Emulator(Image(image), device)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reference_on_the_device(case: Case, machine):
    op, types = case.example.op, case.types
    results = op.infer(*types)
    scratch = TensorType((op.cost(*types).scratch_bytes,), DType.U8)
    at = 0x2000_4000
    assert at > machine.symbol("_ebss")
    places = []
    for i, type_ in enumerate((*types, *results, scratch)):
        data = np.asarray(case.example.inputs[i]).tobytes() if i < len(types) else b""
        machine.write(at, data.ljust(type_.bytes, b"\xff") + GUARD)
        places.append(at)
        at += -(-(type_.bytes + len(GUARD)) // 4) * 4
    if op.mutates:
        for output, source in op.in_place[: len(results)]:
            places[len(types) + output] = places[source]
    machine.write(at, struct.pack(f"<{len(places)}I", *places))
    reserved = at + 4 * len(places) - machine.symbol("_ebss")
    assert machine.call(f"case_{case.index}", at, reserved_bytes=reserved).value == 0
    for place, type_ in zip(places, (*types, *results, scratch), strict=True):
        assert machine.read(place + type_.bytes, len(GUARD)) == GUARD, f"wrote past {type_}"
    expected = op.reference(np, *case.example.inputs)
    for place, type_, truth in zip(places[len(types) :], results, expected, strict=False):
        array = np.frombuffer(machine.read(place, type_.bytes), type_.dtype.numpy)
        np.testing.assert_array_equal(array.reshape(type_.shape), truth)
