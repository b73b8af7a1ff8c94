"""Planned programs on the emulator, in exactly the SRAM they were planned for: the same bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import kilograd as kg
from kilograd import zoo
from kilograd.compiler import draft
from kilograd.devices import Device, load
from kilograd.fitting import sram_bytes
from kilograd.program import Program
from tests.agreement.networks import NARROW, Network, data_folder
from tests.agreement.samples import draw_sample

STEPS = 5
QUICK = kg.Planning(time_limit=5, gap=0.1)
M7 = load("stm32f746")


def sized(device: Device, sram: int) -> Device:
    """The device with so much SRAM, in whole double words, and room for any flash image."""
    return device.model_copy(update={"sram_bytes": sram // 8 * 8, "flash_bytes": 16 * 1024**2})


def same_bits(program: Program, reference: Program, samples: list[Any], lr: float = 0.01) -> None:
    """The planned program on its device and the plain one on the host learn the same."""
    assert program.plans and not reference.plans
    device, host = program.on_emulator(), reference.on_host(optimize="-O1")
    for index, (x, y) in enumerate(samples):
        assert device.train_step(x, y, lr) == host.train_step(x, y, lr), f"step {index}"
    ours, theirs = device.raw_state(), host.raw_state()
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
    np.testing.assert_array_equal(device.predict(samples[0][0]), host.predict(samples[0][0]))


@pytest.mark.parametrize("share", [0.5, 0.25])
@pytest.mark.parametrize("network", NARROW, ids=str)
def test_networks_learn_in_a_share_of_their_sram(network: Network, share: float):
    model, example = network.build()
    roomy = sized(M7, 16 * 1024**2)
    plain = kg.compile(model, example, device=roomy, name="net")
    device = sized(M7, int(plain.memory.sram_bytes * share))
    program = kg.compile(model, example, device=device, planning=QUICK, name="net")
    assert program.memory.sram_bytes <= device.memory_map().sram_bytes
    samples = [draw_sample("cross_entropy", model, example, index) for index in range(STEPS)]
    same_bits(program, plain, samples)


@pytest.mark.parametrize("network", NARROW[::2], ids=str)
def test_networks_learn_in_the_least_sram_that_was_found(network: Network):
    model, example = network.build()
    drafted = draft(model, example, device=sized(M7, 16 * 1024**2), planning=QUICK, name="net")
    fitter = drafted.fitter(drafted.forms[0])
    program = fitter.as_found(fitter.lean())
    least = sram_bytes(program)
    assert least < drafted.program.memory.sram_bytes / 4
    program = replace(program, device=sized(M7, least + 7))
    samples = [draw_sample("cross_entropy", model, example, index) for index in range(STEPS)]
    same_bits(program, drafted.program, samples)


def test_an_int8_scheme_learns_in_half_its_sram():
    weights = data_folder() / "models/mcunet-5fps.safetensors"
    if not weights.is_file():
        pytest.skip(f"no weights at {weights}; set KILOGRAD_DATA")
    options = {"resolution": 64, "weights": weights, "num_classes": 10}
    model, example = zoo.create("mcunet_5fps", **options)
    rng = np.random.default_rng(1)
    calibration = rng.standard_normal((8, *example.shape[1:])).astype(np.float32)
    options = {
        "update": zoo.scheme("mcunet-5fps", "124kb"),
        "precision": "int8",
        "calibration": calibration,
        "planning": QUICK,
        "name": "net",
    }
    plain = kg.compile(model, example, device=M7, **options)
    budget = kg.Budget(sram=plain.memory.sram_bytes // 2)
    program = kg.compile(model, example, device=M7, budget=budget, **options)
    assert program.memory.sram_bytes <= plain.memory.sram_bytes // 2
    samples = [draw_sample("cross_entropy", model, example, index) for index in range(2)]
    same_bits(program, plain, samples)


def motions() -> nn.Module:
    """Of the size of a network that tells gestures apart by an accelerometer."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 6), (6, 12), (12, 16), (16, 24)):
        layers += [nn.Conv1d(inputs, outputs, 5, stride=2, padding=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 4))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_board_of_32_kb_learns_what_it_could_not(precision: str):
    model, example = motions(), np.zeros((1, 3, 256), np.float32)
    rng = np.random.default_rng(0)
    options: dict[str, Any] = {"optimizer": kg.SGD(momentum=0.9), "name": "motions"}
    if precision == "int8":
        calibration = rng.standard_normal((16, 3, 256)).astype(np.float32)
        options |= {"precision": "int8", "calibration": calibration}
    with pytest.raises(kg.InfeasibleError, match="mkr1000"):
        off = kg.Planning(recompute=False, page=False)
        kg.compile(model, example, device="mkr1000", planning=off, **options)
    program = kg.compile(model, example, device="mkr1000", planning=QUICK, **options)
    assert program.memory.sram_bytes <= 32 * 1024
    samples = [(rng.standard_normal((1, 3, 256)).astype(np.float32), i % 4) for i in range(3)]
    same_bits(program, kg.compile(model, example, **options), samples)
