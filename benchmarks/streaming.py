"""Print what streaming int8 convolutions saves and costs on an emulated Cortex-M7: SRAM, flash,
instructions of a prediction and of a training step, with and without, and that the bits are the
same.

PYTHONPATH=src:. python benchmarks/streaming.py [network ...]
PYTHONPATH=src:. python benchmarks/streaming.py chains

The head alone is trained, besides mcunet_5fps with the update that fits 49 KB of gradients.
Calibration and samples are random: neither memory nor instructions depend on them.
With `chains`, single chains in bands of some heights, compared with their stages one by one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from quantized_kernels import firmware, run
from tests.agreement.networks import BIG_M7, data_folder
from tests.conformance.c_cases import Case
from torch import nn

import kilograd as kg
from kilograd import compiler, zoo
from kilograd.ir import Example
from kilograd.ops.q_stream import OPERANDS, dense_stage, depthwise_stage, stream_example
from kilograd.planning import order
from kilograd.program import Program
from kilograd.update import channels, full

SIZES: dict[str, dict[str, Any]] = {
    "mcunet_5fps": {"weights": "models/mcunet-5fps.safetensors", "num_classes": 10},
    "mbv2_w035": {"weights": "models/mbv2-w0.35.safetensors", "num_classes": 10},
    "proxyless_w03": {"weights": "models/proxyless-w0.3.safetensors", "num_classes": 10},
    "resnet8": {},
    "mobilenetv1_025": {},
    "dscnn": {},
}
SHARES = {23: 0, 24: 0.25, 27: 0.5, 30: 0.5, 33: 0, 39: 0}
"""Trained share of the weights of MCUNet's convolutions, by number (Lin et al., 2022)."""


def head(model: nn.Module) -> dict[str, Any]:
    """The last linear layer."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return {linear[-1]: full()}


def sparse(model: nn.Module) -> dict[str, Any]:
    """The head, the last 20 biases of convolutions, and shares of a few weights."""
    convs = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    biases = {f"{name}.bias": full() for name in convs[-20:]}
    weights = {f"{convs[i]}.weight": channels(share) for i, share in SHARES.items() if share}
    return {**biases, **weights, **head(model)}


def compiled(model: nn.Module, example: Any, update: Any, streamed: bool) -> Program:
    """The int8 program."""
    rng = np.random.default_rng(0)
    calibration = rng.uniform(-1, 1, (8, *example.shape[1:])).astype(np.float32)

    def build() -> Program:
        return kg.compile(
            model, example, device=BIG_M7, precision="int8", calibration=calibration, update=update
        )

    if streamed:
        return build()
    with (
        mock.patch.object(order, "narrow", lambda graph: graph),
        mock.patch.object(compiler, "plan_streams", lambda graphs: graphs),
    ):
        return build()


def measure(program: Program, example: Any) -> tuple[list[int], list[bytes]]:
    """SRAM, arena, flash, instructions of both functions; and what they compute in three steps."""
    board, rng = program.on_emulator(), np.random.default_rng(1)
    bits, instructions = [], [0, 0]
    for step in range(3):
        x = rng.uniform(-1, 1, example.shape[1:]).astype(np.float32)
        bits.append(np.asarray(board.predict(x)).tobytes())
        instructions[0] = board.instructions
        bits.append(np.float32(board.train_step(x, step % 2, lr=0.01)).tobytes())
        instructions[1] = board.instructions
    bits += [np.asarray(array).tobytes() for array in board.raw_state().values()]
    memory = program.memory
    return [memory.sram_bytes, memory.arena_bytes, memory.flash_bytes, *instructions], bits


def report(name: str, what: str, choose: Callable[[nn.Module], Any]) -> None:
    """A row of figures."""
    options = dict(SIZES[name])
    if "weights" in options:
        options["weights"] = data_folder() / options["weights"]
    torch.manual_seed(0)
    model, example = zoo.create(name, **options)
    rows = []
    for streamed in (False, True):
        rows.append(measure(compiled(model, example, choose(model), streamed), example))
    (plain, bits), (less, others) = rows
    assert bits == others, f"{name}: streaming changes the result"
    figures = " | ".join(
        f"{a:,} -> {b:,} ({100 * (b / a - 1):+.1f} %)" for a, b in zip(plain, less, strict=True)
    )
    print(f"| {name}, {what} | {figures} |", flush=True)


ONE, THREE = (((k, k), (k, k)) for k in (1, 3))
CHAINS = {
    "64x64: 1x1 8 to 32, 3x3/2, 1x1 to 16": (
        (64, 64, 8),
        (dense_stage(32, 1), depthwise_stage(3, 2, ONE), dense_stage(16, 1)),
    ),
    "32x32: 1x1 16 to 96, 3x3, 1x1 to 16": (
        (32, 32, 16),
        (dense_stage(96, 1), depthwise_stage(3, 1, ONE), dense_stage(16, 1)),
    ),
    "32x32: 1x1 16 to 48, 7x7, 1x1 to 16": (
        (32, 32, 16),
        (dense_stage(48, 1), depthwise_stage(7, 1, THREE), dense_stage(16, 1)),
    ),
}


def stages_of(chain: Example) -> list[Example]:
    """The stages of a chain, each with the image that it gets there."""
    x, result = chain.inputs[0], []
    images = chain.op.images(*chain.types)
    for i, (op, image) in enumerate(zip(chain.op.stages, images, strict=False)):
        own = slice(1 + OPERANDS * i, 1 + OPERANDS * (i + 1))
        operands = (x, *chain.inputs[own])
        result.append(Example(op, operands, types=(image, *chain.types[own])))
        (x,) = op.reference(np, *operands)
    return result


def report_chains() -> None:
    """Instructions and scratch for several heights of a band."""
    for name, (shape, parts) in CHAINS.items():
        rows = (1, 2, 4, 8, 16)
        streams = [stream_example(0, shape, parts, count) for count in rows]
        plain = stages_of(streams[0])
        cases = [Case(i, name, example) for i, example in enumerate((*plain, *streams))]
        with tempfile.TemporaryDirectory() as scratch:
            machine = firmware(cases, Path(scratch), ())
            counts = [run(machine, case)[0] for case in cases]
        whole = sum(counts[: len(plain)])
        print(f"{name}: {whole:,} instructions in operators of their own")
        for count, stream, instructions in zip(rows, streams, counts[len(plain) :], strict=True):
            room = stream.op.cost(*stream.types).scratch_bytes
            print(f"  {count:2} rows: {100 * (instructions / whole - 1):+5.1f} %, {room:7,} B")


def main() -> None:
    """Measure and print."""
    wanted = sys.argv[1:] or list(SIZES)
    if wanted == ["chains"]:
        report_chains()
        return
    print("| network | SRAM | arena | flash | predict, instructions | train step, instructions |")
    print("|---|---|---|---|---|---|")
    for name in wanted:
        report(name, "head", head)
        if name == "mcunet_5fps":
            report(name, "sparse", sparse)


if __name__ == "__main__":
    main()
