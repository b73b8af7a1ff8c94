"""Programs and reports that several tests look at."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

import kilograd as kg
from kilograd import zoo
from kilograd.execution.session import History
from kilograd.figures import Figures
from kilograd.planning.facts import Gap, GapKind
from kilograd.planning.front import FrontPoint

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


def paged_figures() -> Figures:
    """The figures of `sparse_lenet` as if one activation were paged out and another computed again:
    data of a plan, on buffers that the schedule has.
    """
    told = sparse_lenet().figures
    buffers = []
    for facts in told.buffers:
        leaves = {"relu": (6, 30), "relu_2": (10, 36)}.get(facts.name)
        if leaves is None:
            buffers.append(facts)
            continue
        life = facts.lifetime
        again = replace(life, name=f"{facts.name}.again", first=leaves[1])
        buffers.append(replace(facts, lifetime=replace(life, last=leaves[0])))
        buffers.append(replace(facts, lifetime=again, writer=leaves[1]))
    gaps = (
        Gap("relu", "relu", "relu.again", 6, 30, GapKind.PAGED),
        Gap("relu_2", "relu_2", "relu_2.again", 10, 36, GapKind.RECOMPUTED),
    )
    return replace(told, buffers=tuple(buffers), gaps=gaps)


def fronts() -> dict[str, list[FrontPoint]]:
    """A front of a planner, by energy, and one of a search, by gain."""
    plans = [
        FrontPoint(f"{k} KB", k * 1024, seconds=1 + 40 / k, joules=2e-3 + 0.2 / k, chosen=k == 64)
        for k in range(48, 128, 8)
    ]
    plans.append(FrontPoint("greedy", 72 * 1024, seconds=3.0, joules=0.02))
    schemes = [FrontPoint(f"scheme {k}", 40_000 + 9_000 * k, gain=k**0.5) for k in range(8)]
    schemes.append(FrontPoint("head", 50_000, gain=0.2, chosen=True))
    return {"energy of the plan": plans, "search for a scheme": schemes}


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
