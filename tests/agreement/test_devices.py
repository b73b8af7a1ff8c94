"""The same bits on every processor and from every compiler, in exactly the device's SRAM."""

from __future__ import annotations

import shutil
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import kilograd as kg
from kilograd import zoo
from kilograd.execution.session import Session
from kilograd.program import Program

DEVICES = ["cortex-m7-256k", "nrf52840", "rp2040"]


def conv_net() -> nn.Module:
    """Dense, strided, depthwise and pointwise convolutions, an activation of each kind, a gate."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU6(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Hardswish(),
        nn.Conv2d(6, 8, 1), nn.Sigmoid(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * 3 * 3, 4),
    ).eval()  # fmt: skip


@cache
def network(name: str) -> tuple[Any, torch.Tensor]:
    if name == "conv_net":
        return conv_net(), torch.zeros(1, 1, 12, 12)
    return zoo.create(name)


def compiled(name: str, device: str) -> Program:
    model, example = network(name)
    optimizer = kg.SGD(lr=0.05, momentum=0.9, weight_decay=1e-3)
    update: dict[str, Any] = {"*": kg.update.full()}
    if name == "mlp":
        update["hidden.0.weight"] = kg.update.channels(0.25)
    return kg.compile(model, example, device=device, update=update, optimizer=optimizer, name=name)


def three_steps(session: Session, name: str) -> tuple[list[float], bytes, bytes]:
    """Losses, the state after them, and a prediction."""
    _, example = network(name)
    rng = np.random.default_rng(0)
    losses = []
    for label in (1, 0, 1):
        x = rng.standard_normal(example.shape).astype(np.float32)
        losses.append(session.train_step(x, label))
    state = b"".join(array.tobytes() for array in session.raw_state().values())
    return losses, state, session.predict(x).tobytes()


@cache
def on_host(name: str) -> tuple[list[float], bytes, bytes]:
    return three_steps(compiled(name, "host").on_host(), name)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["mlp", "conv_net"])
def test_devices_agree_with_the_host(name: str, device: str):
    program = compiled(name, device)
    board = program.on_emulator()
    result = three_steps(board, name)
    assert result == on_host(name)
    assert 0 < board.stack_bytes <= program.memory.stack_bytes
    assert program.memory.sram_bytes <= program.device.memory_map().sram_bytes


@pytest.mark.parametrize("device", DEVICES)
def test_the_program_runs_in_the_sram_it_asks_for(device: str):
    """A device with no byte more than the summary says: anything below its stack would fault."""
    roomy = compiled("conv_net", device)
    needed = -(-roomy.memory.sram_bytes // 8) * 8
    small = kg.Device(**{**roomy.device.model_dump(), "name": "small", "sram_bytes": needed})
    board = compiled("conv_net", small).on_emulator()
    assert three_steps(board, "conv_net") == on_host("conv_net")


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="no arm-none-eabi-gcc here")
@pytest.mark.parametrize("device", DEVICES)
def test_gcc_for_arm_gives_the_same_bits(device: str):
    board = compiled("conv_net", device).on_emulator(toolchain="gnu")
    assert three_steps(board, "conv_net") == on_host("conv_net")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no cc here")
@pytest.mark.parametrize("name", ["mlp", "conv_net", "tcn"])
def test_the_systems_compiler_gives_the_same_bits(name: str):
    session = compiled(name, "host").on_host(toolchain="cc", optimize="-O2")
    assert three_steps(session, name) == on_host(name)


@pytest.mark.parametrize("name", ["conv_net", "lenet", "se_net"])
def test_no_undefined_behaviour(name: str):
    """A sanitised library ends the process at undefined behaviour."""
    program = compiled(name, "host")
    assert three_steps(program.on_host(sanitize=True, optimize="-O1"), name) == on_host(name)
