"""Every command through the real command line, and a wrong use of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kilograd import demo_data


def kilograd(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kilograd.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120"},
    )


def test_devices():
    assert "stm32f746" in kilograd("devices").stdout
    known = json.loads(kilograd("devices", "--json").stdout)
    assert {"host", "rp2040"} <= {device["name"] for device in known}


def test_operators():
    assert "conv2d" in kilograd("operators").stdout
    assert "depthwise_conv2d" in json.loads(kilograd("operators", "--json").stdout)


def test_compile_writes_a_project(tmp_path):
    output = tmp_path / "firmware"
    done = kilograd(
        "compile", demo_data.model_path(), "-o", output, "--device", "cortex-m7-256k",
        "--update", "last:1", "--name", "faces", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed == json.loads((output / "manifest.json").read_text())
    assert printed["memory"]["sram_bytes"] <= 262_144
    assert {"faces.c", "faces.h", "Makefile", "CMakeLists.txt", "main.c"} <= set(os.listdir(output))


def test_report_writes_a_page(tmp_path):
    pytest.importorskip("altair")
    done = kilograd(
        "report", demo_data.model_path(), "-o", tmp_path / "page.html", "--device", "stm32f746",
        "--update", "last:1", "--count",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Fits the device" in page and "instructions of a training step" in page
    again = kilograd("report", demo_data.model_path(), "-o", tmp_path)
    assert again.returncode == 1 and "cannot write the report" in again.stderr


def test_demo_tells_its_story(tmp_path):
    done = kilograd("demo", "--output", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert "before learning" in done.stdout and "after learning" in done.stdout
    assert "instructions" in done.stdout and "SRAM" in done.stdout
    assert (tmp_path / "demo/face_detector.c").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compile", "none.onnx", "-o", "out"), "none.onnx"),
        (("compile", "MODEL", "-o", "out", "--device", "stm32f7"), "stm32f746"),
        (("compile", "MODEL", "-o", "out", "--update", "last:many"), "--update"),
        (("compile", "MODEL", "-o", "out", "--loss", "hinge"), "cross_entropy"),
        (("compile", "MODEL", "-o", "out", "--momentum", "2"), "momentum"),
        (("compile", "MODEL", "-o", "full"), "not empty"),
        (("demo", "--device", "host"), "host"),
        (("demo", "--device", "abacus"), "abacus"),
        (("devices", "--jason"), "--jason"),
        (("operators", "extra"), "extra"),
        (("fly",), "fly"),
    ],
)
def test_wrong_use_is_one_message(arguments, message, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious.txt").write_text("keep me")
    arguments = [demo_data.model_path() if a == "MODEL" else a for a in arguments]
    done = kilograd(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert (tmp_path / "full/precious.txt").read_text() == "keep me"
    assert not (tmp_path / "out").exists()
