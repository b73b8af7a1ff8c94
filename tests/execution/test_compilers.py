"""The generated project builds without a warning, and computes the same bits, with GCC and zig."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
import torch
from torch import nn

import kilograd as kg

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no cc")


def program() -> kg.Program:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 5),
    )  # fmt: skip
    return kg.compile(model, torch.zeros(1, 3, 8, 8), optimizer=kg.SGD(lr=0.1, momentum=0.9))


def test_the_same_bits_with_the_systems_compiler():
    compiled = program()
    x = np.random.default_rng(0).standard_normal((3, 3, 8, 8))
    states = []
    for toolchain in ("zig", "cc"):
        session = compiled.on_host(toolchain=toolchain)
        session.fit(x, [0, 1, 2], shuffle=False, progress=False)
        states.append(session.raw_state())
    assert all(states[0][name].tobytes() == array.tobytes() for name, array in states[1].items())


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_the_makefile_builds_an_example_that_runs(tmp_path):
    directory = program().save(tmp_path / "project")
    command = ["make", "CC=cc", "CFLAGS=-O1 -Wall -Wextra -Werror"]
    built = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    ran = subprocess.run(
        [directory / "sequential_example"], cwd=directory, capture_output=True, text=True
    )
    assert ran.returncode == 0 and "step 4: loss" in ran.stdout and "restored" in ran.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("gradients", ["float32", "int8"])
def test_the_makefile_builds_int8_without_a_warning(tmp_path, gradients: str):
    """With the flags of the Makefile, which inline more than -O1."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    compiled = kg.compile(
        model, x[:1], precision="int8", calibration=x, head="float32", gradients=gradients
    )
    directory = compiled.save(tmp_path / "project")
    command = [
        "make",
        "CC=cc",
        "CFLAGS=-O2 -Wall -Wextra -Werror",
        "sequential_example",
        "examples",
    ]
    built = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
