"""Print how many instructions the gradients of quantised layers take on an emulated Cortex-M0+ and
Cortex-M7, in float32 and in integers.

python benchmarks/integer_gradients.py
"""

import struct
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from tests.conformance.c_cases import RUNTIME, Case, c_function

from kilograd import devices
from kilograd.execution.emulator import Emulator
from kilograd.execution.image import Image
from kilograd.execution.toolchain import toolchain
from kilograd.ir import DType, Example, TensorType
from kilograd.ops import ig_conv, ig_depthwise, ig_step, q_conv_grad, q_depthwise_grad
from kilograd.ops.ig_narrow import a_seed, i32, random_gradient
from kilograd.ops.q_examples import quantised_weight
from kilograd.ops.q_optimizer import QSgdStep
from kilograd.ops.q_types import activation

BOARDS = {"stm32f746": "M7", "rp2040": "M0+"}
SRAM_BYTES = 4 << 20  # whole layers side by side, more than the devices have
ONE = ((1, 1), (1, 1))


def typed(op: object, arrays: Sequence[np.ndarray], known: dict[int, TensorType]) -> Example:
    """An example whose types are those of the arrays, but for the known ones."""
    plain = [TensorType(np.shape(a), DType.of(np.asarray(a))) for a in arrays]
    types = tuple(known.get(i, type_) for i, type_ in enumerate(plain))
    return Example(op, tuple(arrays), types=types)


def conv(size: int, channels: tuple[int, int], kernel: int, stride: int = 1) -> list[Example]:
    """Input and weight gradient of a convolution of a square image, float32 then integer."""
    rng, pad = np.random.default_rng(0), kernel // 2
    (w,), (w_type,), scales = quantised_weight(
        rng, 0, channels[1], (channels[1], kernel, kernel, channels[0])
    )
    how = ((stride, stride), ((pad, pad), (pad, pad)))
    count = (size + 2 * pad - kernel) // stride + 1
    d_y = (1, count, count, channels[1])
    real, g = rng.standard_normal(d_y).astype(np.float32), random_gradient(0, d_y)
    x = rng.integers(-128, 128, (1, size, size, channels[0])).astype(np.int8)
    x_type = activation(x.shape, 0.05, -7)
    multiplier, unit = ig_conv.scale_multipliers(list(scales), kernel * kernel * channels[1])
    integers = (g, i32(-7), w, multiplier, i32(16), a_seed())
    weight = (0.05, -7, (kernel, kernel), *how)
    side = (size, size)
    return [
        typed(
            q_conv_grad.QConv2dGradInput(side, *how), (real, w, scales.astype(np.float32)),
            {1: w_type},
        ),
        typed(ig_conv.IntegerConv2dGradInput(side, *how, unit=unit), integers, {2: w_type}),
        typed(q_conv_grad.QConv2dGradWeight(*weight), (x, real), {0: x_type}),
        typed(ig_conv.IntegerConv2dGradWeight(*weight), (x, g), {0: x_type}),
    ]  # fmt: skip


def depthwise(size: int, channels: int, kernel: int, stride: int = 1) -> list[Example]:
    """Input and weight gradient of a depthwise convolution, float32 then integer."""
    rng, pad = np.random.default_rng(0), kernel // 2
    (w,), (w_type,), scales = quantised_weight(rng, 2, channels, (kernel, kernel, channels))
    how = ((stride, stride), ((pad, pad), (pad, pad)))
    count = (size + 2 * pad - kernel) // stride + 1
    d_y = (1, count, count, channels)
    real, g = rng.standard_normal(d_y).astype(np.float32), random_gradient(0, d_y)
    x = rng.integers(-128, 128, (1, size, size, channels)).astype(np.int8)
    x_type = activation(x.shape, 0.05, -7)
    multiplier, unit = ig_depthwise.channel_multipliers(list(scales), kernel * kernel)
    integers = (g, i32(-7), w, multiplier, i32(19), a_seed())
    weight = (0.05, -7, (kernel, kernel), *how)
    side = (size, size)
    return [
        typed(
            q_depthwise_grad.QDepthwiseConv2dGradInput(side, *how),
            (real, w, scales.astype(np.float32)), {1: w_type},
        ),
        typed(
            ig_depthwise.IntegerDepthwiseConv2dGradInput(side, *how, unit=unit), integers,
            {2: w_type},
        ),
        typed(q_depthwise_grad.QDepthwiseConv2dGradWeight(*weight), (x, real), {0: x_type}),
        typed(ig_depthwise.IntegerDepthwiseConv2dGradWeight(*weight), (x, g), {0: x_type}),
    ]  # fmt: skip


def linear(inputs: int, outputs: int) -> list[Example]:
    """Input and weight gradient of a fully connected layer, float32 then integer."""
    rng = np.random.default_rng(0)
    (w,), (w_type,), scales = quantised_weight(rng, 0, outputs, (outputs, inputs))
    real = rng.standard_normal((1, outputs)).astype(np.float32)
    g = random_gradient(0, (1, outputs))
    x = rng.integers(-128, 128, (1, inputs)).astype(np.int8)
    x_type = activation(x.shape, 0.05, -7)
    multiplier, unit = ig_conv.scale_multipliers(list(scales), outputs)
    integers = (g, i32(-7), w, multiplier, i32(16), a_seed())
    return [
        typed(
            q_conv_grad.QLinearGradInput(), (real, w, scales.astype(np.float32)), {1: w_type}
        ),
        typed(ig_conv.IntegerLinearGradInput(unit=unit), integers, {2: w_type}),
        typed(q_conv_grad.QLinearGradWeight(0.05, -7), (x, real), {0: x_type}),
        typed(ig_conv.IntegerLinearGradWeight(0.05, -7), (x, g), {0: x_type}),
    ]  # fmt: skip


def steps(shape: tuple[int, ...]) -> list[Example]:
    """A step of a weight, rounded at random, along a float32 and along an integer gradient."""
    rng = np.random.default_rng(0)
    (w,), (w_type,), scales = quantised_weight(rng, 0, shape[0], shape)
    real = rng.standard_normal(shape).astype(np.float32)
    sums = rng.integers(-(2**17), 2**17, shape).astype(np.int32)
    ratios = ig_step.channel_ratios([0.05 / scale for scale in scales])
    rate = np.array(0.01, np.float32)
    return [
        typed(
            QSgdStep(0), (w, real, rate, scales.astype(np.float32), a_seed()), {0: w_type}
        ),
        typed(ig_step.IntegerStep(0), (w, sums, i32(-18), rate, *ratios, a_seed()), {0: w_type}),
    ]  # fmt: skip


LAYERS = {
    "1x1 16 to 96, 16x16": conv(16, (16, 96), 1),
    "1x1 96 to 24, 16x16": conv(16, (96, 24), 1),
    "1x1 240 to 40, 8x8": conv(8, (240, 40), 1),
    "3x3/2 3 to 16, 32x32": conv(32, (3, 16), 3, 2),
    "3x3 32 to 32, 16x16": conv(16, (32, 32), 3),
    "linear 640 to 128": linear(640, 128),
    "depthwise 3x3 96, 16x16": depthwise(16, 96, 3),
    "depthwise 3x3/2 96, 16x16": depthwise(16, 96, 3, 2),
    "depthwise 5x5 48, 16x16": depthwise(16, 48, 5),
}


def firmware(cases: Sequence[Case], directory: Path, board: str) -> Emulator:
    """A device that runs the cases."""
    device = devices.load(board).model_copy(update={"sram_bytes": SRAM_BYTES})
    headers = sorted(path.name for path in (RUNTIME / "kilograd").glob("*.h"))
    source = directory / f"{board}.c"
    source.write_text(
        "".join(f'#include "kilograd/{name}"\n' for name in headers)
        + "".join(map(c_function, cases))
    )
    exports = tuple(f"case_{case.index}" for case in cases)
    elf = toolchain().firmware(
        [source], [RUNTIME], device, directory / f"{board}.elf", exports=exports,
        extra_flags=["-Wno-unused-function"],
    )  # fmt: skip
    return Emulator(Image(elf), device)


def run(machine: Emulator, case: Case) -> int:
    """Instructions of a case whose results are right."""
    op, types = case.example.op, case.types
    results = op.infer(*types)
    scratch = TensorType((op.cost(*types).scratch_bytes,), DType.U8)
    base = at = machine.symbol("_ebss") // 64 * 64 + 64
    places = []
    for i, type_ in enumerate((*types, *results, scratch)):
        if i < len(types):
            machine.write(at, np.asarray(case.example.inputs[i]).tobytes())
        places.append(at)
        at += -(-type_.bytes // 64) * 64
    machine.write(at, struct.pack(f"<{len(places)}I", *places))
    done = machine.call(f"case_{case.index}", at, reserved_bytes=at + 64 - base + 64)
    expected = op.reference(np, *case.example.inputs)
    if not op.mutates:
        for place, type_, truth in zip(places[len(types) :], results, expected, strict=False):
            array = np.frombuffer(machine.read(place, type_.bytes), type_.dtype.numpy)
            wrong = np.abs(array.reshape(type_.shape) - np.asarray(truth)).max()
            assert wrong <= (1e-4 * np.abs(truth).max() if array.dtype == np.float32 else 0), op
    return int(done.instructions)


def main() -> None:
    """Measure and print."""
    rows = [
        (f"{what} of {name}", pair)
        for name, examples in LAYERS.items()
        for what, pair in (("d_x", examples[:2]), ("d_w", examples[2:]))
    ]
    rows.append(("step of 32x3x3x32", steps((32, 3, 3, 32))))
    cases = [
        Case(2 * i + j, name, example)
        for i, (name, pair) in enumerate(rows)
        for j, example in enumerate(pair)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        machines = {board: firmware(cases, Path(scratch), board) for board in BOARDS}
    print("instructions a multiply-accumulate (a weight for steps), float32 and integer")
    print(f"{'layer':36} " + "  ".join(f"{name:>8}: float  int ratio" for name in BOARDS.values()))
    for row, (name, _) in enumerate(rows):
        text = ""
        for machine in machines.values():
            pair = cases[2 * row : 2 * row + 2]
            real, whole = (run(machine, case) for case in pair)
            work = pair[1].example.op.cost(*pair[1].types).macs
            text += f"{real / work:15.2f} {whole / work:5.2f} {real / whole:5.1f} "
        print(f"{name:36} {text}")


if __name__ == "__main__":
    main()
