"""Kernel tables against the emulator: networks in no fit, and the command that measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("unicorn")

import kilograd as kg
from kilograd import zoo
from kilograd.calibrate import FITTED, HELD_OUT, Network, calibrate, check
from kilograd.devices.kernels import read_table, table_of_cpu
from kilograd.errors import InputError
from kilograd.planning.costs import works

STEP = {"stm32f746": 0.12, "nrf52840": 0.12, "rp2040": 0.30}
"""How far predicted instructions of a step may be from counted ones, as a share of them. What a
float takes without an FPU depends on the number: zeros are quick.
"""

NODES = {"stm32f746": 0.22, "nrf52840": 0.22, "rp2040": 0.32}
"""The sum over nodes of |predicted - counted|, as a share of the step."""

FLOAT, INT8 = {"precision": "float32"}, {"precision": "int8"}
INTEGER = {"precision": "int8", "gradients": "int8"}
BY_NAME = {network.name: network for network in HELD_OUT}


@pytest.mark.parametrize(
    ("device", "name", "form"),
    [
        ("stm32f746", "tcn", FLOAT),
        ("stm32f746", "tcn", INT8),
        ("stm32f746", "face_detector", INTEGER),
        ("nrf52840", "face_detector", FLOAT),
        ("nrf52840", "tcn", INTEGER),
        ("rp2040", "face_detector", INT8),
        ("rp2040", "tcn", INTEGER),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else value,
)
def test_steps_that_are_in_no_fit(device: str, name: str, form: dict[str, str]) -> None:
    found = check(device, BY_NAME[name], form)
    assert abs(found.step_error) < STEP[device]
    assert found.node_error < NODES[device]


def test_a_wrong_table_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tolerance tells a table of the same processor that is a quarter off."""
    table = table_of_cpu("cortex-m7")
    assert table is not None
    off = table.model_copy(
        update={
            "kernels": {
                name: kernel.model_copy(
                    update={"instructions": {k: 1.25 * v for k, v in kernel.instructions.items()}}
                )
                for name, kernel in table.kernels.items()
            }
        }
    )
    monkeypatch.setattr("kilograd.devices.loader.table_of_cpu", lambda cpu: off)
    assert check("stm32f746", BY_NAME["tcn"], FLOAT).step_error > STEP["stm32f746"]


def test_streams_are_the_sum_of_their_stages() -> None:
    model, example = zoo.create("mobilenetv1_025", resolution=64)
    x = np.random.default_rng(0).standard_normal((4, *example.shape[1:])).astype(np.float32)
    program = kg.compile(
        model, example, device="stm32f746", precision="int8", calibration=x,
        update=kg.update.last(1),
    )  # fmt: skip
    graph = program.train.graph
    streams = [i for i, node in enumerate(graph.nodes) if len(works(node)) > 1]
    assert streams
    counts = program.instructions_by_node(example, 0)
    estimates = [step.estimate.instructions for step in program.figures.steps]
    for index in streams:
        assert estimates[index] == pytest.approx(counts[index], rel=0.25)
    board = program.on_emulator()
    board.predict(example)
    assert program.figures.predict.instructions == pytest.approx(
        board.instructions, rel=STEP["stm32f746"]
    )


def test_networks_of_the_fit_are_not_held_out() -> None:
    fitted = {network.name for network in FITTED}
    assert not fitted & {network.name for network in HELD_OUT}
    assert len(HELD_OUT) >= 2


def test_only_what_can_be_emulated_is_calibrated() -> None:
    for device in ("host", "rpi4"):
        with pytest.raises(InputError, match=rf"'{device}' has cpu = .*cannot be counted; choose"):
            calibrate(device)
        with pytest.raises(InputError, match="cannot be counted"):
            check(device, Network("mlp"), FLOAT)


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kilograd.cli", "calibrate", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "COLUMNS": "120"},
    )


MINE = """
name = "mine"
title = "A board with less memory than the networks that are measured"
cpu = "cortex-m4"
fpu = "single"
clock_hz = 120_000_000
sram_base = 0x2000_0000
sram_bytes = 1_024
flash_base = 0x0800_0000
flash_bytes = 8_192
"""


def test_the_command_measures_a_device_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE, encoding="utf-8")
    done = command(
        tmp_path, *("mine.toml", "-o", "kernels.json", "--json"),
        *("--network", "mlp", "--network", "tcn"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    table = read_table(tmp_path / "kernels.json")
    assert told["table"] == json.loads((tmp_path / "kernels.json").read_text())
    assert table.cpu == "cortex-m4" and table.networks[0] == "mlp()"
    assert {"linear/f32", "q_linear/i8", "sgd_step/f32"} <= set(table.kernels)
    assert "conv2d/f32" not in table.kernels
    forms = [(row["network"], row["precision"], row["gradients"]) for row in told["held_out"]]
    assert forms == [
        ("tcn()", "float32", "float32"),
        ("tcn()", "int8", "float32"),
        ("tcn()", "int8", "int8"),
    ]
    for row in told["held_out"]:
        assert row["step_error"] == pytest.approx(row["predicted"] / row["counted"] - 1)
    # A table of perceptrons knows no convolutions, and says so.
    assert table.step_error == pytest.approx(
        max(abs(row["step_error"]) for row in told["held_out"]), rel=1e-2
    )
    path = tmp_path / "with.toml"
    path.write_text(MINE + 'kernels = "kernels.json"\n', encoding="utf-8")
    assert kg.devices.load(path).kernel_table() == table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument"),
        (("abacus",), "there is no device 'abacus'"),
        (("host",), "cannot be counted"),
        (("stm32f746", "--network", "gpt"), "'gpt' is not among the networks"),
        (("stm32f746", "--network", "tcn"), "nothing to fit"),
        (("stm32f746", "-o", "no/kernels.json"), "there is no directory"),
    ],
)
def test_wrong_use(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = command(tmp_path, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())
