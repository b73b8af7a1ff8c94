"""Print what streaming int8 convolutions saves and costs on an emulated Cortex-M7: SRAM, flash,
instructions of a prediction and of a training step, with and without, and that the bits are the
same.

PYTHONPATH=src:. python benchmarks/streaming.py [network ...]

The head alone is trained, besides mcunet_5fps with the update that fits 49 KB of gradients.
Calibration and samples are random: neither memory nor instructions depend on them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from tests.agreement.networks import BIG_M7, data_folder
from torch import nn

import kilograd as kg
from kilograd import compiler, zoo
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


def main() -> None:
    """Measure and print."""
    wanted = sys.argv[1:] or list(SIZES)
    print("| network | SRAM | arena | flash | predict, instructions | train step, instructions |")
    print("|---|---|---|---|---|---|")
    for name in wanted:
        report(name, "head", head)
        if name == "mcunet_5fps":
            report(name, "sparse", sparse)


if __name__ == "__main__":
    main()
