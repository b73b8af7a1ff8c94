"""The fifteen published sparse schemes in int8, beside the figures of their paper.

    python benchmarks/schemes.py [NETWORK[-LABEL] ...] [--peak] [--not-atomic]
                                 [--precision float32]

Input 3 x 128 x 128, ten classes, batch 1. SRAM is that of the linked program on a Cortex-M7 with
memory enough for all of them: arena, state, other data and the worst case of the stack. MACs are of
the forward pass and of the rest of a training step; instructions those of one training step and of
one prediction, counted by the emulator; `loss` is that of one sample in its first and its eighth
step. `label` and `model` are the paper's: its name of the scheme, and its analytic memory model,
which leaves out the forward pass. --peak prints below each row what makes the arena's peak, by
tensor, and the largest tensors of the state.

Weights are the released ones where $KILOGRAD_DATA (or ../shared/data) has them, else random, which
changes no figure but the instructions, a little. Calibration takes 64 crops of scikit-image's
pictures. Figures are in bytes and millions; nothing is asserted.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.quantization import crops, data_directory
from tests.agreement.networks import BIG_M7

import kilograd as kg
from kilograd import zoo
from kilograd.planning.explain import describe_peak, describe_state

RESOLUTION = 128
CLASSES = 10
STEPS = 8
HEADER = (
    "network", "label", "model B", "SRAM B", "arena", "state", "data", "stack", "flash B",
    "MACs fwd M", "bwd M", "step M instr.", "predict M instr.", "loss",
)  # fmt: skip


def build(scheme: zoo.Scheme) -> zoo.TinyNet:
    torch.manual_seed(0)
    path = data_directory() / "models" / f"{scheme.network}.safetensors"
    weights = path if path.is_file() else None
    return scheme.build(num_classes=CLASSES, weights=weights, resolution=RESOLUTION)


def compile_scheme(
    scheme: zoo.Scheme, samples: np.ndarray, precision: str, atomic: bool
) -> kg.Program:
    calibration = {"calibration": samples} if precision == "int8" else {}
    return kg.compile(
        build(scheme),
        samples[:1],
        device=BIG_M7,
        update=scheme.spec(),
        optimizer=kg.SGD(lr=0.01, atomic=atomic),
        precision=precision,
        name=f"{scheme.network}_{scheme.label}",
        **calibration,
    )


def row(scheme: zoo.Scheme, program: kg.Program, sample: np.ndarray) -> tuple[str, ...]:
    memory, macs = program.memory, program.macs
    board = program.on_emulator()
    losses = [board.train_step(sample, 1) for _ in range(STEPS)]
    step = board.instructions or 0
    board.predict(sample)
    model = zoo.analytic_memory(scheme.build(resolution=RESOLUTION), scheme)
    return (
        scheme.network, scheme.label, f"{model.bytes:,.0f}", f"{memory.sram_bytes:,}",
        f"{memory.arena_bytes:,}", f"{memory.state_bytes:,}", f"{memory.data_bytes:,}",
        f"{memory.stack_bytes:,}", f"{memory.flash_bytes:,}", f"{macs.predict / 1e6:.1f}",
        f"{(macs.train_step - macs.predict) / 1e6:.1f}", f"{step / 1e6:.1f}",
        f"{(board.instructions or 0) / 1e6:.1f}", f"{losses[0]:.2f} to {losses[-1]:.2f}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="the published sparse schemes")
    parser.add_argument("schemes", nargs="*", metavar="NETWORK[-LABEL]", help="all by default")
    parser.add_argument("--precision", default="int8", choices=("int8", "float32"))
    parser.add_argument("--not-atomic", action="store_true", help="SGD(atomic=False)")
    parser.add_argument("--peak", action="store_true", help="explain the memory by tensor")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    samples = crops(False, RESOLUTION, 24)[0][:64]
    print("| " + " | ".join(HEADER) + " |")
    print("|" + "---|" * 2 + "---:|" * (len(HEADER) - 2), flush=True)
    for scheme in zoo.schemes():
        name = f"{scheme.network}-{scheme.label}"
        if arguments.schemes and not any(name.startswith(wanted) for wanted in arguments.schemes):
            continue
        start = time.perf_counter()
        program = compile_scheme(scheme, samples, arguments.precision, not arguments.not_atomic)
        print("| " + " | ".join(row(scheme, program, samples[:1])) + " |", flush=True)
        if arguments.peak:
            print(f"{describe_peak(program.train, 8)}\n{describe_state(program.train.graph, 5)}")
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
