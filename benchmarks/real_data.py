"""What the accuracy benchmarks share: where data are, seeds' means and spreads, markdown tables."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from kilograd.errors import NonFiniteError
from kilograd.execution.session import Session

BUILD = Path(__file__).resolve().parents[1] / "build" / "accuracy"
"""Where pretrained weights are kept; git ignores it."""

Split = tuple[np.ndarray, np.ndarray]
"""Inputs and labels."""


def data_directory() -> Path:
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("KILOGRAD_DATA", default))


def data_file(name: str) -> Path:
    """A file of the data folder; ends the program with a message where it is absent."""
    path = data_directory() / name
    if not path.is_file():
        sys.exit(
            f"{path} is not there. This benchmark needs data that are no part of the project: set "
            "KILOGRAD_DATA to the folder that holds them, or put it at ../shared/data beside the "
            "repository."
        )
    return path


def learn(session: Session, split: Split, epochs: int, lr: float, seed: int) -> bool:
    """Train with a rate that falls along half a cosine, by epoch; False where it diverged."""
    for epoch in range(epochs):
        rate = lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        try:
            session.fit(*split, lr=rate, seed=1000 * seed + epoch, progress=False)
        except NonFiniteError:
            return False
    return True


def percent(values: Iterable[float]) -> str:
    """Mean and standard deviation over runs, of shares in percent."""
    runs = 100 * np.array(list(values))
    spread = f" ± {runs.std(ddof=1):.1f}" if len(runs) > 1 else ""
    return f"{runs.mean():.1f}{spread}"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


class Log:
    """Progress on stderr, with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self, text: str) -> None:
        print(f"{time.perf_counter() - self._start:7.0f} s  {text}", file=sys.stderr, flush=True)
