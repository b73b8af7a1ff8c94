"""Small programs of different kinds that the tests of the layouts package."""

from __future__ import annotations

import functools
import inspect

import numpy as np
import pytest
import torch
from torch import nn

import kilograd as kg


@functools.cache
def classifier(name: str = "faces", device: str = "host") -> kg.Program:
    """A convolution with a layout of its own, three classes."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )
    return kg.compile(
        model, torch.zeros(1, 2, 4, 4), device=device, optimizer=kg.SGD(lr=0.1), name=name
    )


@functools.cache
def autoencoder(name: str = "noises", device: str = "host") -> kg.Program:
    """Linear layers that learn from their own input."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 6))
    return kg.compile(model, torch.zeros(1, 6), device=device, loss="autoencoder", name=name)


@functools.cache
def regression(name: str = "angles") -> kg.Program:
    """A one-dimensional convolution with targets of the output's shape."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 3, padding=1))
    return kg.compile(model, torch.zeros(1, 2, 5), loss="mse", name=name)


@functools.cache
def quantised(loss: str = "cross_entropy") -> kg.Program:
    """int8 from input to head: its samples are scaled before they are sent."""
    if "calibration" not in inspect.signature(kg.compile).parameters:
        pytest.skip("compile has no int8")
    torch.manual_seed(0)
    outputs = 3 if loss == "cross_entropy" else 6
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, outputs))
    calibration = np.random.default_rng(1).standard_normal((20, 6)).astype(np.float32)
    options = {"precision": "int8", "calibration": calibration}
    return kg.compile(model, torch.zeros(1, 6), loss=loss, name="gestures", **options)


PROGRAMS = {"classifier": classifier, "autoencoder": autoencoder, "regression": regression}


def samples(program: kg.Program, count: int = 4) -> tuple[np.ndarray, np.ndarray | None]:
    """Inputs, and targets for the loss of the program."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, *program.ports.inputs[0].shape[1:])).astype(np.float32)
    if program.loss is kg.Loss.AUTOENCODER:
        return x, None
    if program.loss is kg.Loss.CROSS_ENTROPY:
        return x, np.arange(count) % program.ports.outputs[0].shape[1]
    shape = (count, *program.ports.outputs[0].shape[1:])
    return x, rng.standard_normal(shape).astype(np.float32)
