"""Random quantised layers, and chains of layers, on emulated microcontrollers: kernels with 16-bit
multiply-accumulates (Cortex-M7 and M4) and the portable ones (M7, and M0+, which faults on
unaligned words) give the integers of the reference.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

import numpy as np
import pytest

from kilograd import devices
from kilograd.errors import InputError
from kilograd.execution.image import Image
from kilograd.execution.toolchain import toolchain
from kilograd.ir import DType, Example, TensorType
from kilograd.ops.q_conv import QConv2d, q_conv_example
from kilograd.ops.q_depthwise import QDepthwiseConv2d, q_depthwise_example
from kilograd.ops.q_linear import QLinear, q_linear_example
from kilograd.ops.q_stream import QStream
from tests.conformance.c_cases import RUNTIME, Case, c_function

emulator = pytest.importorskip("kilograd.execution.emulator")
GUARD = b"\xa5" * 16


@dataclass(frozen=True)
class Geometry:
    """A random convolution that fits its image."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    how: tuple


def geometry(rng: random.Random, kernels: tuple[int, ...]) -> Geometry:
    while True:
        kernel = rng.choice(kernels), rng.choice(kernels)
        stride = (rng.choice((1, 1, 2, 3)),) * 2 if rng.random() < 0.8 else (1, 2)
        dilation = (rng.choice((1, 1, 1, 2)), rng.choice((1, 1, 1, 2)))
        padding = tuple((rng.randint(0, k - 1), rng.randint(0, k)) for k in kernel)
        size = rng.randint(1, 9), rng.randint(1, 11)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        if all(n + sum(p) >= r for n, p, r in zip(size, padding, reach, strict=True)):
            return Geometry(size, kernel, (stride, padding, dilation))


def meaning(rng: random.Random) -> tuple[float, int, int]:
    scale = rng.choice((0.02, 0.1, 0.5, 1e-3, 1e-5))
    return scale, rng.randint(-128, 127), rng.choice((-128, 127, rng.randint(-128, 127)))


def limits(rng: random.Random) -> dict[str, int]:
    return {} if rng.random() < 0.7 else {"low": rng.randint(-128, 0), "high": rng.randint(1, 127)}


def examples() -> list[Example]:
    rng, result = random.Random(0), []
    for seed in range(24):
        g, groups = geometry(rng, (1, 1, 2, 3)), rng.choice((1, 1, 1, 2, 3))
        parts = [rng.randint(1, 11) for _ in range(rng.choice((1, 1, 2)))]
        channels_out = groups * rng.randint(1, 6)
        op = QConv2d(*meaning(rng), *g.how, groups=groups, parts=len(parts), **limits(rng))
        weights = [(channels_out, *g.kernel, part) for part in parts]
        result.append(q_conv_example(seed, op, (1, *g.size, groups * sum(parts)), *weights))
    for seed in range(24):
        g = geometry(rng, (1, 2, 3, 5, 7))
        if rng.random() < 0.6:  # what has loops of its own
            k, s = rng.choice((3, 5, 7)), rng.choice((1, 2))
            pads = tuple((rng.randint(0, k - 1), k) for _ in range(2))
            g = Geometry(g.size, (k, k), ((s, s), pads, (1, 1)))
        parts = [rng.randint(1, 9) for _ in range(rng.choice((1, 1, 2)))]
        op = QDepthwiseConv2d(*meaning(rng), *g.how, parts=len(parts), **limits(rng))
        weights = [(*g.kernel, part) for part in parts]
        result.append(q_depthwise_example(seed, op, (1, *g.size, sum(parts)), *weights))
    for seed in range(8):
        parts = [rng.randint(1, 40) for _ in range(rng.choice((1, 2)))]
        op = QLinear(*meaning(rng), parts=len(parts), **limits(rng))
        channels_out = rng.randint(1, 9)
        weights = [(channels_out, part) for part in parts]
        result.append(q_linear_example(seed, op, (rng.randint(1, 4), sum(parts)), *weights))
    return [*result, *QStream.examples()]


CASES = [Case(i, str(example.op), example) for i, example in enumerate(examples())]


MACHINES = {
    "m7": ("stm32f746", ()),
    "m7-portable": ("stm32f746", ("-DKG_PORTABLE",)),
    "m4": ("nrf52840", ()),
    "m0plus": ("rp2040", ()),
}


@pytest.fixture(scope="module", params=MACHINES.values(), ids=MACHINES)
def machine(request, tmp_path_factory):
    name, extra = request.param
    directory = tmp_path_factory.mktemp("paths")
    text = "".join(f'#include "kilograd/{name}.h"\n' for name in ("q_conv", "q_stream"))
    source = directory / "cases.c"
    source.write_text(text + "".join(map(c_function, CASES)))
    device = devices.load(name)
    exports = tuple(f"case_{case.index}" for case in CASES)
    flags = ("-Wno-unused-function", *extra)
    try:
        image = toolchain().firmware(
            [source], [RUNTIME], device, directory / "cases.elf", exports=exports, extra_flags=flags
        )
    except InputError as error:
        pytest.skip(str(error))
    return emulator.Emulator(Image(image), device)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.index}-{case.example.op.name}")
def test_reference_on_the_device(case: Case, machine):
    op, types = case.example.op, case.types
    (result,) = op.infer(*types)
    scratch = TensorType((op.cost(*types).scratch_bytes,), DType.U8)
    base = at = 0x2000_4000
    places = []
    for i, type_ in enumerate((*types, result, scratch)):
        data = np.asarray(case.example.inputs[i]).tobytes() if i < len(types) else b""
        machine.write(at, data.ljust(type_.bytes, b"\xff") + GUARD)
        places.append(at)
        # Tensors of bytes may start anywhere in an arena of words.
        at += -(-(type_.bytes + len(GUARD)) // 4) * 4
    machine.write(at, struct.pack(f"<{len(places)}I", *places))
    reserved = at + 4 * len(places) - machine.symbol("_ebss")
    assert base > machine.symbol("_ebss")
    assert machine.call(f"case_{case.index}", at, reserved_bytes=reserved).value == 0
    for place, type_ in zip(places, (*types, result, scratch), strict=True):
        assert machine.read(place + type_.bytes, len(GUARD)) == GUARD, f"wrote past {type_}"
    data = machine.read(places[len(types)], result.bytes)
    (expected,) = op.reference(np, *case.example.inputs)
    np.testing.assert_array_equal(np.frombuffer(data, np.int8).reshape(result.shape), expected)
