"""Activities that a smart watch sees: recordings of six axes over time, and a network for them.

BasicMotions of the UEA archive (timeseriesclassification.com): 40 recordings to learn from and 40
to judge by, of 100 steps of accelerometer and gyroscope.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kilograd.zoo.model import ZooModel

NAMES = ("Standing", "Running", "Walking", "Badminton")

SIDES = ("train", "test")

Split = tuple[np.ndarray, np.ndarray]
"""Inputs float32 [N, 6, 100] and labels int64 [N]."""


class MotionNet(ZooModel):
    """Three strided convolutions over time: [N, 6, 100] -> [N, 4]."""

    def __init__(self, widths: tuple[int, ...] = (6, 12, 16, 24)) -> None:
        super().__init__()
        self.input_shape = (6, 100)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv1d(inputs, outputs, 5, stride=2, padding=2), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.classifier = nn.Linear(widths[-1], 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.features(x))
        return y


def fresh(seed: int) -> MotionNet:
    """He et al. 2015, the first weights of a network with ReLU and without batch norm."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MotionNet()
        for module in model.modules():
            if isinstance(module, nn.Conv1d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
    return model.eval()


def read_archive(path: Path) -> tuple[Split, Split]:
    """An .npz file with `x_train` and `x_test` [N, 100, 6], and `y_train` and `y_test` [N]."""
    with np.load(path) as file:
        sides = [(file[f"x_{side}"].transpose(0, 2, 1), file[f"y_{side}"]) for side in SIDES]
    return _scaled(sides)


def read_folder(path: Path) -> tuple[Split, Split]:
    """The archive's own files, `BasicMotions_TRAIN.ts` and `BasicMotions_TEST.ts`.

    Below `@data` a line is a recording: axes apart by colons, steps by commas, the activity last.
    """
    sides = []
    for side in SIDES:
        text = (path / f"BasicMotions_{side.upper()}.ts").read_text(encoding="utf-8")
        lines = text.lower().partition("@data")[2].split()
        *_, labels = zip(*(line.split(":") for line in lines), strict=True)
        x = [[axis.split(",") for axis in line.split(":")[:-1]] for line in lines]
        known = [name.lower() for name in NAMES]
        sides.append((np.array(x, np.float32), np.array([known.index(label) for label in labels])))
    return _scaled(sides)


def _scaled(sides: list[Split]) -> tuple[Split, Split]:
    """Each axis with mean 0 and deviation 1 over the recordings to learn from."""
    mean, deviation = (f(sides[0][0], axis=(0, 2))[:, None] for f in (np.mean, np.std))
    train, test = (
        (((x - mean) / deviation).astype(np.float32), y.astype(np.int64)) for x, y in sides
    )
    return train, test
