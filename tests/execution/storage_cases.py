"""Two small networks with what they have in secondary storage, and what they have to compute."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from tests.paging import Geometry, paged
from torch import nn

import kilograd as kg
from kilograd import zoo
from kilograd.execution.session import Session
from kilograd.ir import Value
from kilograd.program import Program

SD_CARD = Geometry(block_bytes=512)
NOR_FLASH = Geometry(block_bytes=1, erase_bytes=4096)
PSRAM = Geometry(block_bytes=4)
STEPS = 5


def conv_net() -> nn.Module:
    """Dense, strided, depthwise and pointwise convolutions and what lies between them."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU6(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Hardswish(),
        nn.Conv2d(6, 8, 1), nn.Sigmoid(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * 3 * 3, 4),
    ).eval()  # fmt: skip


@cache
def program(name: str, device: str = "host", atomic: bool = True) -> Program:
    """A float and an int8 network; the latter has constants, and rounds at random."""
    if name == "float":
        return kg.compile(
            conv_net(), torch.zeros(1, 1, 12, 12), device=device,
            optimizer=kg.SGD(lr=0.05, momentum=0.9, atomic=atomic), name="net",
        )  # fmt: skip
    model, example = zoo.create("lenet")
    calibration = np.random.default_rng(1).standard_normal((16, *example.shape[1:]))
    return kg.compile(
        model, example, device=device, precision="int8",
        calibration=calibration.astype(np.float32), update=kg.update.last(2),
        optimizer=kg.SGD(lr=0.05, atomic=atomic), name="net",
    )  # fmt: skip


@cache
def moved(name: str, geometry: Geometry, device: str = "host") -> Program:
    """All of it in storage: every tensor of a step, every constant and state."""
    return paged(
        program(name, device), pages=lambda _: True, stored=lambda _: True, geometry=geometry
    )


@cache
def half_moved(name: str, geometry: Geometry, device: str = "host") -> Program:
    """Weights and their momentum in storage, biases and theirs in SRAM; half of the pages."""

    def is_weight(value: Value) -> bool:
        return "weight" in value.name

    def every_other(value: Value) -> bool:
        return sum(map(ord, value.name)) % 2 == 0

    return paged(program(name, device), pages=every_other, stored=is_weight, geometry=geometry)


@cache
def in_chunks(geometry: Geometry, device: str = "host") -> Program:
    """The float network, with steps of its stored weights in chunks of 160 bytes or a block."""
    return paged(
        program("float", device),
        stored=lambda value: "weight" in value.name,
        geometry=geometry,
        chunk_bytes=160,
    )


def sample(compiled: Program, index: int) -> tuple[np.ndarray, int]:
    """Input and class of a step."""
    rng = np.random.default_rng(index)
    return rng.standard_normal(compiled.ports.inputs[0].shape).astype(np.float32), index % 3


def learn(session: Session, compiled: Program, steps: int = STEPS) -> list[float]:
    """The losses of so many steps from the session's first."""
    first = session.step
    return [session.train_step(*sample(compiled, first + index)) for index in range(steps)]


def bits(session: Session) -> dict[str, bytes]:
    """All that was learned."""
    return {name: array.tobytes() for name, array in session.raw_state().items()}


@cache
def expected(name: str, steps: int = STEPS) -> tuple[list[float], dict[str, bytes], bytes]:
    """Losses, weights and a prediction of the program that does not page."""
    compiled = program(name)
    session = compiled.on_host()
    losses = learn(session, compiled, steps)
    return losses, bits(session), session.predict(sample(compiled, 9)[0]).tobytes()


def agrees(session: Session, name: str) -> None:
    """Five steps and a prediction have to be those of the program that does not page."""
    losses, state, output = expected(name)
    compiled = program(name)
    assert learn(session, compiled) == losses
    assert bits(session) == state
    assert session.predict(sample(compiled, 9)[0]).tobytes() == output
