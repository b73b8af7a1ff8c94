"""Smart watch activities, learned from scratch on an emulated Cortex-M0+ with under 32 KB of SRAM.

    python benchmarks/gestures.py [--seeds N] [--emulate] [--quick]

BasicMotions: 40 + 40 recordings of 100 steps of six axes, four activities. A 1-D CNN starts from
random weights, quantised with the training samples as calibration data, and learns in int8 on
single samples: with integer gradients from beginning to end on the emulated RP2040, with float32
gradients, which this processor computes in software, 20 steps there and all of them on the host
(--emulate: on the device). The 20 steps have to agree in every bit. The baseline is PyTorch in
float32: the same first weights, the same order of samples, the same schedule.

Rates come from a small grid, the same for all rows: ten of the training samples, drawn by the seed,
judge networks that learn from the other thirty (on the host); the best mean over the seeds is used
to learn from all forty. The recordings come from $KILOGRAD_DATA, or ../shared/data beside the
repository.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_data import (
    Log,
    Split,
    data_file,
    learn,
    percent,
    table,
)
from torch import nn

import kilograd as kg
from kilograd.execution.session import Session
from kilograd.program import Program

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples" / "gestures"))
from motions import MotionNet, fresh, read_archive

RATES = (0.003, 0.01, 0.03, 0.1)
EPOCHS = 20
HELD_OUT = 10
COMPARED_STEPS, QUICK_STEPS = 20, 3


def recordings() -> tuple[Split, Split]:
    return read_archive(data_file("gestures/basic_motions.npz"))


def halves(train: Split, seed: int) -> tuple[Split, Split]:
    """What to learn from and what to judge by when rates are chosen."""
    order = np.random.default_rng(seed).permutation(len(train[0]))
    count = min(HELD_OUT, len(order) // 4)
    judged, learned = order[:count], order[count:]
    return (train[0][learned], train[1][learned]), (train[0][judged], train[1][judged])


class TorchSession:
    """The baseline, with the part of a session's face that `learn` uses."""

    def __init__(self, model: MotionNet) -> None:
        self._model = model

    def fit(self, x: Any, y: Any, *, lr: float, seed: int, progress: bool = False) -> None:
        """One epoch of SGD on single samples, in the order that a session draws from `seed`."""
        optimizer = torch.optim.SGD(self._model.parameters(), lr=lr)
        for index in np.random.default_rng(seed).permutation(len(x)):
            optimizer.zero_grad()
            logits = self._model(torch.tensor(x[index : index + 1]))
            nn.functional.cross_entropy(logits, torch.tensor(y[index : index + 1])).backward()
            optimizer.step()

    def accuracy(self, x: np.ndarray, y: np.ndarray) -> float:
        with torch.no_grad():
            return float(np.mean(self._model(torch.tensor(x)).argmax(1).numpy() == y))

    def loss(self, x: np.ndarray, y: np.ndarray) -> float:
        with torch.no_grad():
            return float(nn.functional.cross_entropy(self._model(torch.tensor(x)), torch.tensor(y)))


def build(train: Split, seed: int, gradients: str, rounding: str) -> Program:
    options = {"gradients": gradients} if gradients != "float32" else {}
    return kg.compile(
        fresh(seed),
        train[0][:1],
        device="rp2040",
        budget=kg.Budget(sram="32KB"),
        precision="int8",
        calibration=train[0],
        optimizer=kg.SGD(rounding=rounding),
        name="motions",
        **options,
    )


def chosen_rate(name: str, make: Any, train: Split, seeds: int, epochs: int, log: Log) -> float:
    """The rate with the best mean accuracy on held-out training samples, then the least loss."""
    sessions = [make(seed) for seed in range(seeds)]
    merits: dict[float, tuple[float, float]] = {}
    for lr in RATES:
        accuracies, losses = [], []
        for seed, session in enumerate(sessions):
            learned, judged = halves(train, seed)
            session = session() if callable(session) else session
            if isinstance(session, Session):
                session.reset()
            finite = learn(session, learned, epochs, lr, seed)
            accuracies.append(session.accuracy(*judged) if finite else 0.0)
            losses.append(session.loss(*judged) if finite else math.inf)
        merits[lr] = float(np.mean(accuracies)), -float(np.mean(losses))
        log(f"{name}: rate {lr:g}: held out {percent(accuracies)}, loss {np.mean(losses):.3f}")
    return max(merits, key=lambda lr: merits[lr])


def compare(host: Session, board: Session, train: Split, lr: float, steps: int) -> None:
    """The first steps give the same losses and the same state on host and device."""
    for x, y in list(zip(*train, strict=True))[:steps]:
        losses = [session.train_step(x, int(y), lr=lr) for session in (host, board)]
        assert losses[0] == losses[1], f"losses differ: {losses}"
    ours, theirs = host.raw_state(), board.raw_state()
    for name in ours:
        assert np.array_equal(ours[name], theirs[name]), f"{name} differs"


def measure(
    gradients: str, rounding: str, data: tuple[Split, Split], seeds: int, epochs: int,
    emulate: bool, log: Log,
) -> list[object]:  # fmt: skip
    """A row of the table: int8, on the device or with its bits on the host."""
    train, test = data
    name = f"int8, {gradients} gradients, {rounding}"
    programs = [build(train, seed, gradients, rounding) for seed in range(seeds)]
    hosts = [program.on_host() for program in programs]
    lr = chosen_rate(name, lambda seed: hosts[seed], train, seeds, epochs, log)
    before, after = [], []
    for seed, program in enumerate(programs):
        board = program.on_emulator()
        hosts[seed].reset()
        compare(hosts[seed], board, train, lr, COMPARED_STEPS if epochs == EPOCHS else QUICK_STEPS)
        instructions, stack = board.instructions, board.stack_bytes
        session = board if emulate else hosts[seed]
        session.reset()
        before.append(session.accuracy(*test))
        learn(session, train, epochs, lr, seed)
        after.append(session.accuracy(*test))
        log(f"{name}, seed {seed}: before {before[-1]:.3f}, after {after[-1]:.3f}")
    memory = programs[0].memory
    log(f"stack used by a step: {stack} of {memory.stack_bytes} bytes")
    figures = (memory.sram_bytes, memory.flash_bytes, instructions)
    accuracies = (percent(before), percent(after))
    place = "emulator" if emulate else "host"
    return [name, place, f"{lr:g}", *accuracies, *(f"{figure:,}" for figure in figures)]


def baseline(data: tuple[Split, Split], seeds: int, epochs: int, log: Log) -> list[object]:
    """A row of the table: float32 in PyTorch."""
    train, test = data

    def make(seed: int) -> Any:
        return lambda: TorchSession(fresh(seed))

    lr = chosen_rate("float32", make, train, seeds, epochs, log)
    before, after = [], []
    for seed in range(seeds):
        session = TorchSession(fresh(seed))
        before.append(session.accuracy(*test))
        learn(session, train, epochs, lr, seed)
        after.append(session.accuracy(*test))
        log(f"float32, seed {seed}: before {before[-1]:.3f}, after {after[-1]:.3f}")
    return ["float32", "PyTorch", f"{lr:g}", percent(before), percent(after), "", "", ""]


def main() -> None:
    parser = argparse.ArgumentParser(description="activities learned from scratch on an M0+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--emulate", action="store_true", help="learn on the device with float32 gradients, too"
    )
    parser.add_argument("--roundings", nargs="+", default=["stochastic", "residual", "nearest"])
    parser.add_argument("--gradients", nargs="+", default=["int8", "float32"])
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds")
    arguments = parser.parse_args()
    data_file("gestures/basic_motions.npz")
    torch.set_num_threads(1)
    data, log, epochs = recordings(), Log(), EPOCHS
    if arguments.quick:
        (x, y), test = data
        data = ((x[::4], y[::4]), (test[0][::8], test[1][::8]))
        epochs, arguments.seeds, arguments.roundings = 2, 1, ["stochastic"]
    rows = [baseline(data, arguments.seeds, epochs, log)]
    for gradients in arguments.gradients:
        for rounding in arguments.roundings:
            emulate = arguments.emulate or (gradients == "int8" and not arguments.quick)
            rows.append(measure(gradients, rounding, data, arguments.seeds, epochs, emulate, log))
    header = ("method", "runs on", "rate", "before, %", "after, %", "SRAM, B", "flash, B",
              "instructions a step")  # fmt: skip
    print(f"\nrp2040, {epochs} epochs of {len(data[0][0])} samples, {arguments.seeds} seeds\n")
    print(table(header, rows), flush=True)


if __name__ == "__main__":
    main()
