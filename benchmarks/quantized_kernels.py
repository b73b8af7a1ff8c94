"""Print how many instructions the quantised kernels take on an emulated Cortex-M7, and that each
result is the reference's.

PYTHONPATH=src:. python benchmarks/quantized_kernels.py
"""

import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tests.conformance.c_cases import RUNTIME, Case, c_function

from kilograd import devices
from kilograd.execution.emulator import Emulator
from kilograd.execution.image import Image
from kilograd.execution.toolchain import toolchain
from kilograd.ir import DType, Example, TensorType
from kilograd.ops import q_conv_grad, q_depthwise_grad
from kilograd.ops.q_conv import QConv2d, q_conv_example
from kilograd.ops.q_convert import Dequantize, QMask, Quantize
from kilograd.ops.q_depthwise import QDepthwiseConv2d, q_depthwise_example
from kilograd.ops.q_elementwise import QAdd, QMul
from kilograd.ops.q_linear import QLinear, q_linear_example
from kilograd.ops.q_pool import QAvgPool2d, QMaxPool2d, QMean
from kilograd.ops.q_types import activation

ONE, TWO, THREE = (((k, k), (k, k)) for k in (1, 2, 3))
SRAM_BYTES = 8 << 20  # whole layers side by side, more than the device has
IMAGE = (1, 32, 32, 8)


def conv(op: QConv2d, size: int, channels_in: int, channels_out: int, kernel: int = 1) -> Example:
    """A convolution over a square image."""
    weight = (channels_out, kernel, kernel, channels_in)
    return q_conv_example(0, op, (1, size, size, channels_in), weight)


def depthwise(op: QDepthwiseConv2d, size: int, channels: int, kernel: int) -> Example:
    """A depthwise convolution over a square image."""
    return q_depthwise_example(0, op, (1, size, size, channels), (kernel, kernel, channels))


def grads(forward: Example) -> list[Example]:
    """The gradients of x and of the weight of a convolution with one weight part."""
    op, types = forward.op, forward.types or ()
    (y,) = op.infer(*types)
    d_y = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
    size, weight = types[0].shape[1:3], forward.inputs[1]
    scales = np.array(types[1].quantization.scales, np.float32)
    how = {"stride": op.stride, "padding": op.padding, "dilation": op.dilation}
    plain = TensorType(y.shape)
    x_scale = types[0].quantization.scales[0]
    if isinstance(op, QConv2d):
        d_x = q_conv_grad.QConv2dGradInput(size, **how)
        d_w = q_conv_grad.QConv2dGradWeight(x_scale, op.x_zero_point, weight.shape[1:3], **how)
    else:
        d_x = q_depthwise_grad.QDepthwiseConv2dGradInput(size, **how)
        d_w = q_depthwise_grad.QDepthwiseConv2dGradWeight(
            x_scale, op.x_zero_point, weight.shape[:2], **how
        )
    return [
        Example(
            d_x, (d_y, weight, scales), 2e-6, types=(plain, types[1], TensorType(scales.shape))
        ),
        Example(d_w, (forward.inputs[0], d_y), 2e-6, types=(types[0], plain)),
    ]


def layers() -> list[tuple[str, Example]]:
    """Layers of the size that small networks have."""
    scale = (0.2, 3, -5)
    forward = [
        ("1x1 8 to 16, 16x16", conv(QConv2d(*scale), 16, 8, 16)),
        ("1x1 16 to 96, 16x16", conv(QConv2d(*scale), 16, 16, 96)),
        ("1x1 96 to 24, 16x16", conv(QConv2d(*scale), 16, 96, 24)),
        ("1x1 240 to 40, 8x8", conv(QConv2d(*scale), 8, 240, 40)),
        ("3x3/2 3 to 16, 64x64", conv(QConv2d(*scale, (2, 2), ONE), 64, 3, 16, 3)),
        ("3x3 32 to 32, 16x16", conv(QConv2d(*scale, padding=ONE), 16, 32, 32, 3)),
        ("linear 640 to 128", q_linear_example(0, QLinear(*scale), (1, 640), (128, 640))),
        ("depthwise 3x3 32, 64x64", depthwise(QDepthwiseConv2d(*scale, padding=ONE), 64, 32, 3)),
        ("depthwise 3x3 96, 16x16", depthwise(QDepthwiseConv2d(*scale, padding=ONE), 16, 96, 3)),
        (
            "depthwise 3x3/2 96, 16x16",
            depthwise(QDepthwiseConv2d(*scale, (2, 2), ONE), 16, 96, 3),
        ),
        ("depthwise 5x5 96, 16x16", depthwise(QDepthwiseConv2d(*scale, padding=TWO), 16, 96, 5)),
        ("depthwise 7x7 48, 16x16", depthwise(QDepthwiseConv2d(*scale, padding=THREE), 16, 48, 7)),
    ]
    backward = [
        (f"{what} of {name}", example)
        for name, layer in forward
        if not isinstance(layer.op, QLinear)
        for what, example in zip(("d_x", "d_w"), grads(layer), strict=True)
        if layer.inputs[0].size < 1 << 16
    ]
    return forward + backward


def elementwise() -> list[tuple[str, Example]]:
    """One layer of each kind that does next to nothing to an element."""
    rng = np.random.default_rng(0)
    real = rng.standard_normal(IMAGE).astype(np.float32)
    a, b = rng.integers(-128, 128, (2, *IMAGE)).astype(np.int8)
    sources = ((0.07, 4), (0.05, -9))
    first, second = (activation(IMAGE, *source) for source in sources)
    gate = b[:, :1, :1]
    average = QAvgPool2d((2, 2), (2, 2), scale=0.07, zero_point=4, source=sources[0])
    return [
        ("quantize", Example(Quantize(0.05, 3), (real,))),
        ("dequantize", Example(Dequantize(*sources[0]), (a,), types=(first,))),
        ("mask", Example(QMask(), (real, a), types=(TensorType(IMAGE), first))),
        ("add", Example(QAdd(0.1, 3, sources), (a, b), types=(first, second))),
        (
            "multiply by a gate",
            Example(
                QMul(0.1, 3, sources), (a, gate),
                types=(first, activation(gate.shape, *sources[1])),
            ),
        ),
        ("mean over pixels", Example(QMean(0.05, 3, sources[0]), (a,), types=(first,))),
        ("average 2x2", Example(average, (a,), types=(first,))),
        ("maximum 2x2", Example(QMaxPool2d((2, 2), (2, 2), index=False), (a,), types=(first,))),
    ]  # fmt: skip


def firmware(cases: Sequence[Case], directory: Path, flags: Sequence[str]) -> Emulator:
    """A device that runs the cases."""
    device = devices.load("stm32f746").model_copy(update={"sram_bytes": SRAM_BYTES})
    headers = sorted(path.name for path in (RUNTIME / "kilograd").glob("q_*.h"))
    source = directory / "cases.c"
    source.write_text(
        "".join(f'#include "kilograd/{name}"\n' for name in headers)
        + "".join(map(c_function, cases))
    )
    exports = tuple(f"case_{case.index}" for case in cases)
    elf = toolchain().firmware(
        [source], [RUNTIME], device, directory / "cases.elf", exports=exports,
        extra_flags=["-Wno-unused-function", *flags],
    )  # fmt: skip
    return Emulator(Image(elf), device)


def run(machine: Emulator, case: Case) -> tuple[int, int]:
    """Instructions and stack bytes of a case whose result is right."""
    op, types = case.example.op, case.types
    (result,) = op.infer(*types)
    scratch = TensorType((op.cost(*types).scratch_bytes,), DType.U8)
    base = at = machine.symbol("_ebss") // 64 * 64 + 64
    places = []
    for i, type_ in enumerate((*types, result, scratch)):
        if i < len(types):
            machine.write(at, np.asarray(case.example.inputs[i]).tobytes())
        places.append(at)
        at += -(-type_.bytes // 64) * 64
    machine.write(at, struct.pack(f"<{len(places)}I", *places))
    done = machine.call(f"case_{case.index}", at, reserved_bytes=at + 64 - base + 64)
    data = machine.read(places[len(types)], result.bytes)
    array = np.frombuffer(data, result.dtype.numpy).reshape(result.shape)
    (expected,) = op.reference(np, *case.example.inputs)
    assert np.max(np.abs(array - expected)) <= 1e-4 * np.max(np.abs(expected)), op
    assert array.dtype != np.int8 or np.array_equal(array, expected), op
    return done.instructions, done.stack_bytes


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        names, examples = zip(*layers(), *elementwise(), strict=True)
        cases = [
            Case(i, name, example)
            for i, (name, example) in enumerate(zip(names, examples, strict=True))
        ]
        fast = firmware(cases, Path(scratch), ())
        portable = firmware(cases, Path(scratch), ("-DKG_PORTABLE",))
        print(f"{'layer':36} instructions    each   portable  stack bytes")
        for case in cases:
            instructions, stack_bytes = run(fast, case)
            plain, _ = run(portable, case)
            macs = case.example.op.cost(*case.types).macs
            work = macs or max(type_.size for type_ in case.types)
            unit = "multiply-accumulate" if macs else "element"
            print(
                f"{case.name:36} {instructions:12} {instructions / work:7.2f} {plain / work:10.2f} "
                f"{stack_bytes:12}  per {unit}"
            )


if __name__ == "__main__":
    main()
