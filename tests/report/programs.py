"""Programs and reports that several tests look at."""

from __future__ import annotations

import functools

import numpy as np

import kilograd as kg
from kilograd import zoo
from kilograd.execution.session import History

SPARSE = [
    kg.update.biases(),
    kg.update.last(2),
    {"features.3.weight": kg.update.channels(0.5), "hidden.1.bias": kg.update.none()},
]


@functools.cache
def sparse_lenet() -> kg.Program:
    """LeNet with some biases, two layers and half of a weight trained, for a Cortex-M7."""
    model, example = zoo.create("lenet")
    return kg.compile(model, example, device="stm32f746", update=SPARSE, optimizer=kg.SGD(lr=0.02))


@functools.cache
def full_mlp() -> kg.Program:
    """A multilayer perceptron trained whole with momentum, for a Cortex-M4."""
    model, example = zoo.create("mlp")
    return kg.compile(model, example, device="nrf52840", optimizer=kg.SGD(momentum=0.9))


@functools.cache
def sample(name: str) -> tuple[np.ndarray, int]:
    """One input of a network of the zoo, and a class."""
    return np.asarray(zoo.create(name)[1]), 1


@functools.cache
def short_runs() -> dict[str, History]:
    """Two runs of LeNet on noise."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, *sample("lenet")[0].shape[1:])).astype(np.float32)
    y = np.arange(12) % 10
    session = sparse_lenet().on_host(optimize="-O1")
    runs = {}
    for rate in (0.02, 0.005):
        session.reset()
        runs[f"rate {rate}"] = session.fit(
            x, y, lr=rate, epochs=3, validation=(x, y), progress=False
        )
    return runs
