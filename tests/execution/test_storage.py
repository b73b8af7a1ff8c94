"""Programs whose tensors lie in secondary storage: the same bits as unpaged, on host and boards,
and no wrong weight whatever goes wrong.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from tests.paging import Geometry, paged
from torch import nn

import kilograd as kg
from kilograd import zoo
from kilograd.execution.session import Session
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
def program(name: str, device: str = "host") -> Program:
    """A float and an int8 network; the latter has constants, and rounds at random."""
    if name == "float":
        return kg.compile(
            conv_net(), torch.zeros(1, 1, 12, 12), device=device,
            optimizer=kg.SGD(lr=0.05, momentum=0.9), name="net",
        )  # fmt: skip
    model, example = zoo.create("lenet")
    calibration = np.random.default_rng(1).standard_normal((16, *example.shape[1:]))
    return kg.compile(
        model, example, device=device, precision="int8",
        calibration=calibration.astype(np.float32), update=kg.update.last(2), name="net",
    )  # fmt: skip


@cache
def moved(name: str, geometry: Geometry, device: str = "host") -> Program:
    """All of it in storage: every tensor of a step, every constant and state."""
    return paged(
        program(name, device), pages=lambda _: True, stored=lambda _: True, geometry=geometry
    )


def sample(compiled: Program, index: int) -> tuple[np.ndarray, int]:
    rng = np.random.default_rng(index)
    return rng.standard_normal(compiled.ports.inputs[0].shape).astype(np.float32), index % 3


def learn(session: Session, compiled: Program, steps: int = STEPS) -> list[float]:
    return [session.train_step(*sample(compiled, index)) for index in range(steps)]


def bits(session: Session) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in session.raw_state().items()}


@cache
def expected(name: str) -> tuple[list[float], dict[str, bytes], bytes]:
    """Losses, weights and a prediction of the program that does not page."""
    compiled = program(name)
    session = compiled.on_host()
    losses = learn(session, compiled)
    return losses, bits(session), session.predict(sample(compiled, 9)[0]).tobytes()


def agrees(session: Session, name: str) -> None:
    losses, state, output = expected(name)
    compiled = program(name)
    assert learn(session, compiled) == losses
    assert bits(session) == state
    assert session.predict(sample(compiled, 9)[0]).tobytes() == output


@pytest.mark.parametrize("geometry", [SD_CARD, NOR_FLASH, PSRAM], ids=["sd", "nor", "psram"])
@pytest.mark.parametrize("name", ["float", "int8"])
def test_a_paged_program_computes_the_same_bits(name: str, geometry: Geometry):
    compiled = moved(name, geometry)
    session = compiled.on_host(optimize="-O1", poison=True)
    agrees(session, name)
    assert session.traffic.reads > 10 and session.traffic.read_bytes > 1000
    before, after = program(name).sources, compiled.sources
    assert after.state_bytes < before.state_bytes
    assert len(after.files["net_tables.h"]) < len(before.files["net_tables.h"]) / 2


@pytest.mark.parametrize("device", ["cortex-m7-256k", "rp2040"])
@pytest.mark.parametrize("name", ["float", "int8"])
def test_boards_compute_the_same_bits(name: str, device: str):
    compiled = moved(name, SD_CARD, device)
    board = compiled.on_emulator()
    agrees(board, name)
    assert board.traffic.read_bytes % 512 == 0 and board.traffic.reads > 10
    memory = compiled.memory
    assert 0 < board.stack_bytes <= memory.stack_bytes
    assert memory.flash_bytes < program(name, device).memory.flash_bytes or name == "float"


def test_a_board_pages_in_the_sram_it_asks_for():
    """With not a byte more than the summary says, checksums and driver included."""
    roomy = moved("float", SD_CARD, "rp2040")
    needed = -(-roomy.memory.sram_bytes // 8) * 8
    assert needed < program("float", "rp2040").memory.sram_bytes / 2
    small = kg.Device(**{**roomy.device.model_dump(), "name": "small", "sram_bytes": needed})
    agrees(replace(roomy, device=small).on_emulator(), "float")
