"""Print what int8 gradients cost in accuracy, and what they save on a Cortex-M0+.

PYTHONPATH=src python benchmarks/integer_training.py [--seeds 3]

    digits    scikit-learn's digits: a CNN that was trained on upright digits learns digits that lie
              on their side
    motions   four activities from a smart watch's six axes (../shared/data/gestures): a 1-D CNN
              learns from scratch
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import kilograd as kg

SHARED = Path(__file__).parents[2] / "shared/data"


@dataclass(frozen=True)
class Task:
    """A network and what it has to learn: inputs and labels for training and for the test."""

    model: nn.Module
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    epochs: int
    rate: float


def pretrained(model: nn.Module, x: np.ndarray, y: np.ndarray, epochs: int) -> nn.Module:
    """The model, trained in PyTorch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(16):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(
                model(torch.tensor(x[batch])), torch.tensor(y[batch])
            )
            loss.backward()
            optimizer.step()
    return model


def digits(seed: int) -> Task:
    """8x8 pictures."""
    data = load_digits()
    x = (data.images / 8 - 1).astype(np.float32)[:, None]
    y = data.target.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = order[:1200], order[1200:]
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    model = pretrained(model, x[train], y[train], 6)
    lying = np.rot90(x, 1, (2, 3)).copy()
    return Task(model, (lying[train], y[train]), (lying[test], y[test]), 4, 0.02)


def motions(seed: int) -> Task:
    """100 steps of 6 axes; half of the recordings are for training."""
    with np.load(SHARED / "gestures/basic_motions.npz") as data:
        x = np.concatenate([data["x_train"], data["x_test"]]).transpose(0, 2, 1)
        y = np.concatenate([data["y_train"], data["y_test"]]).astype(np.int64)
    x = (x - x.mean((0, 2), keepdims=True)) / x.std((0, 2), keepdims=True)
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = order[:40], order[40:]
    model = nn.Sequential(
        nn.Conv1d(6, 16, 7, stride=2, padding=3), nn.ReLU(),
        nn.Conv1d(16, 24, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv1d(24, 24, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 4),
    )  # fmt: skip
    for layer in model:  # activations keep their size through the layers, and so their ranges
        if isinstance(layer, nn.Conv1d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return Task(model, (x[train], y[train]), (x[test], y[test]), 40, 0.02)


def learned(task: Task, head: str, gradients: str, seed: int) -> tuple[float, float]:
    """Accuracy in percent before and after training. The host computes the device's bits."""
    (x, y), (x_test, y_test) = task.train, task.test
    program = kg.compile(
        task.model, x[:1], precision="int8", calibration=x[:100], head=head, gradients=gradients,
        optimizer=kg.SGD(lr=task.rate, seed=seed),
    )  # fmt: skip
    session = program.on_host()
    before = session.accuracy(x_test, y_test)
    session.fit(x, y, epochs=task.epochs)
    return 100 * before, 100 * session.accuracy(x_test, y_test)


def step(task: Task, head: str, gradients: str) -> tuple[int, int]:
    """Instructions of a training step on the emulated Cortex-M0+, and bytes of SRAM in all."""
    x, y = task.train
    program = kg.compile(
        task.model, x[:1], device="rp2040", precision="int8", calibration=x[:100], head=head,
        gradients=gradients,
    )  # fmt: skip
    board = program.on_emulator()
    board.train_step(x[0], y[0])
    return board.instructions, program.memory.sram_bytes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    tasks: dict[str, Callable[[int], Task]] = {"digits": digits, "motions": motions}
    print(f"{'task':8} {'head':8} {'gradients':9}  accuracy, %: before, after each seed; mean")
    for name, make in tasks.items():
        made = []
        for seed in seeds:
            torch.manual_seed(seed)
            made.append(make(seed))
        for head in ("float32", "int8"):
            for gradients in ("float32", "int8"):
                pairs = [
                    learned(task, head, gradients, seed)
                    for seed, task in zip(seeds, made, strict=True)
                ]
                before, after = (np.array(column) for column in zip(*pairs, strict=True))
                instructions, sram_bytes = step(made[0], head, gradients)
                each = ", ".join(f"{a:.1f}" for a in after)
                print(
                    f"{name:8} {head:8} {gradients:9}  {before.mean():5.1f}   {each}; "
                    f"{after.mean():.1f}   M0+: {instructions:,} instructions, {sram_bytes:,} B",
                    flush=True,
                )


if __name__ == "__main__":
    main()
