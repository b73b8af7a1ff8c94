"""Every command as a process of its own, right and wrong, and what an interruption leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from kilograd import cli, compiler, demo_data, saving, stages
from kilograd.errors import InputError

MODEL = str(demo_data.model_path())

RIGHT: dict[str, tuple[str, ...]] = {
    "compile": (MODEL, "-o", "out", "--device", "stm32f746", "--update", "last:1"),
    "train": (MODEL, "--data", "faces.npz", "--update", "last:1"),
    "evaluate": (MODEL, "--data", "faces.npz"),
    "report": (MODEL, "-o", "page.html"),
    "init": (MODEL, "-o", "new.toml"),
    "demo": ("--output", "demo"),
    "devices": (),
    "operators": (),
    "explain peak": (MODEL,),
    "explain value": (MODEL, "--of", "loss"),
    "explain weight": (MODEL, "--of", "classifier.*"),
    "explain layer": (MODEL, "--of", "classifier"),
    "explain plan": (MODEL,),
    "plan": (MODEL, "--device", "stm32f746", "--update", "last:1"),
    "calibrate": ("nrf52840", "--network", "mlp"),
    "search": (
        MODEL,
        "--data",
        "faces.npz",
        "--test",
        "faces.npz",
        "--device",
        "stm32f746",
        "--method",
        "fast",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--front",
        "1",
        "--jobs",
        "1",
        "--store",
        "kept",
    ),
}
"""Arguments that work; `--json` is added, which every command takes."""

WRONG: dict[str, tuple[tuple[str, ...], int, str]] = {
    "compile": ((MODEL, "-o", "out", "--device", "rp2040", "--sram", "1KB"), 3, "1,024"),
    "train": ((MODEL, "--data", "faces.npz", "--on", "mars"), 2, "there are host, emulator"),
    "evaluate": ((MODEL, "--data", "missing.npz"), 2, "missing.npz"),
    "report": ((MODEL, "--curve", "kilograd.txt"), 2, "cannot read the curve kilograd.txt"),
    "init": (("missing.onnx",), 2, "missing.onnx"),
    "demo": (("--device", "host"), 2, "host"),
    "devices": (("--all",), 2, "--all"),
    "operators": (("conv2d",), 2, "conv2d"),
    "explain peak": ((MODEL, "--of", "everything"), 2, "there are train and predict"),
    "explain value": ((MODEL, "--of", "lost"), 2, "loss"),
    "explain weight": ((MODEL, "--of", "clasifier.weight"), 2, "classifier.weight"),
    "explain layer": ((MODEL,), 2, "--of"),
    "explain plan": ((MODEL, "--storage", "tape"), 2, "tape"),
    "plan": ((MODEL, "--device", "rp2040", "--output", "plan.txt"), 2, "has to end in .json"),
    "calibrate": (("nrf52840", "--network", "gpt"), 2, "'gpt' is not among the networks"),
    "search": ((MODEL, "--quick", "--method", "fast"), 2, "contradict each other"),
}
"""Arguments that do not, the exit status, and a part of the message."""


def commands(app: typer.Typer, prefix: str = "") -> Iterator[str]:
    """Every command of the application, sub-commands with the name of their group."""
    for command in app.registered_commands:
        assert command.callback is not None
        yield prefix + (command.name or command.callback.__name__)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance, f"{prefix}{group.name} ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = demo_data.load()
    np.savez(tmp_path / "faces.npz", x=data.train_x[:8], y=data.train_y[:8])
    return tmp_path


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kilograd.cli", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env={**os.environ, "COLUMNS": "160", **environment},
        # Whoever runs the tests in the background of a shell ignores the signal, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_every_command_is_here():
    assert set(commands(cli.app)) == set(RIGHT) == set(WRONG)


@pytest.mark.parametrize("command", RIGHT)
def test_right_use_is_one_json_document(command: str, folder: Path):
    if command == "report":
        pytest.importorskip("altair")
    code, out, err = run(folder, *command.split(), *RIGHT[command], "--json")
    assert code == 0, err
    assert json.loads(out)


@pytest.mark.parametrize("command", WRONG)
def test_wrong_use_has_a_status_and_a_message(command: str, folder: Path):
    arguments, expected, message = WRONG[command]
    before = sorted(folder.rglob("*"))
    code, out, err = run(folder, *command.split(), *arguments)
    assert code == expected, (out, err)
    assert message in err and "Traceback" not in err and out == ""
    assert sorted(folder.rglob("*")) == before


# Options of a compilation ------------------------------------------------------------------------


def test_options_of_int8_reach_the_program(folder: Path):
    data = demo_data.load()
    np.savez(folder / "calibration.npz", x=data.pretrain_x[:8])
    code, out, err = run(
        folder, "compile", MODEL, "-o", "out", "--device", "rp2040", "--precision", "int8",
        "--calibration", "calibration.npz", "--head", "int8", "--ranges", "percentile",
        "--headroom", "2", "--gradients", "int8", "--classes", "1,new,0", "--rounding", "residual",
        "--rounding-seed", "3", "--no-qas", "--update", "last:1", "--json",
    )  # fmt: skip
    assert code == 0, err
    told = json.loads(out)
    assert told["precision"] == "int8" and told["output"]["user_shape"] == [1, 3]
    for words in ("--head int8", "--ranges percentile", "--headroom 2.0", "--gradients int8",
                  "--classes 1,new,0", "--rounding residual", "--rounding-seed 3",
                  "--no-qas"):  # fmt: skip
        assert words in told["command"]


def test_the_run_file_says_the_same(folder: Path):
    data = demo_data.load()
    np.savez(folder / "calibration.npz", x=data.pretrain_x[:8])
    (folder / "kilograd.toml").write_text(
        f'model = "{MODEL}"\noutput = "out"\nprecision = "int8"\ncalibration = "calibration.npz"\n'
        'head = "int8"\nranges = "percentile"\nheadroom = 2.0\ngradients = "int8"\n'
        'classes = [1, "new", 0]\n[optimizer]\nrounding = "residual"\nseed = 3\nqas = false\n'
    )
    code, out, err = run(folder, "compile", "--json")
    assert code == 0, err
    told = json.loads(out)["command"]
    assert "--classes 1,new,0" in told and "--no-qas" in told and "--headroom 2.0" in told
    code, out, err = run(folder, "compile", "-o", "other", "--classes", "5", "--qas", "--json")
    assert code == 0, err
    told = json.loads(out)["command"]
    assert "--classes 5" in told and "--no-qas" not in told and "--rounding residual" in told


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--classes", "many"), "--classes 'many': write how many"),
        (("--classes", "0,7"), "7 is none of the network's 2 classes"),
        (("--head", "int8"), "head='int8' is for precision='int8'"),
        (("--ranges", "mse"), "ranges='mse' is for precision='int8'"),
        (("--headroom", "2"), "headroom=2.0 is for precision='int8'"),
        (("--gradients", "int8"), "gradients='int8' is for precision='int8'"),
        (("--rounding", "up"), "rounding='up' is unknown"),
        (("--mean", "grey"), "--mean 'grey': write a number"),
    ],
)
def test_a_wrong_option(flags: tuple[str, ...], message: str, folder: Path):
    code, out, err = run(folder, "compile", MODEL, "-o", "out", *flags)
    assert code == 2 and message in err and not (folder / "out").exists(), (out, err)


def test_samples_are_scaled_as_the_flags_say(folder: Path):
    scaled = ("--mean", "0.5", "--std", "0.25")
    plain = run(folder, "evaluate", MODEL, "--data", "faces.npz", "--json")
    by_flag = run(folder, "evaluate", MODEL, "--data", "faces.npz", *scaled, "--json")
    x, y = (np.load(folder / "faces.npz")[name] for name in "xy")
    np.savez(folder / "scaled.npz", x=(x - 0.5) / 0.25, y=y)
    by_hand = run(folder, "evaluate", MODEL, "--data", "scaled.npz", "--json")
    losses = [json.loads(out)["loss"] for _, out, _ in (plain, by_flag, by_hand)]
    assert losses[1] == pytest.approx(losses[2], rel=1e-5) and losses[0] != losses[1]


def test_the_report_draws_curves_of_training(folder: Path):
    pytest.importorskip("altair")
    code, _, err = run(folder, "train", MODEL, "--data", "faces.npz", "--update", "last:1")
    assert code == 0, err
    code, _, err = run(folder, "report", MODEL, "--update", "last:1", "--curve", "curve.json")
    assert code == 0, err
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert 'id="losses"' in page and 'data-chart="validation"' in page
    assert 'data-chart="confusion-0"' in page
    whole = json.loads((folder / "curve.json").read_text())
    assert sum(map(sum, whole["confusion"])) == sum(map(sum, whole["before"]["confusion"])) == 8
    (folder / "skewed.json").write_text(json.dumps({**whole, "confusion": [[1, 2]]}))
    code, _, err = run(folder, "report", MODEL, "-o", "x.html", "--curve", "skewed.json")
    assert code == 2 and "skewed.json: confusion has to be a square" in err
    (folder / "half.json").write_text('{"losses": [1.0]}')
    code, _, err = run(folder, "report", MODEL, "-o", "x.html", "--curve", "half.json")
    assert code == 2 and "half.json is no curve" in err and not (folder / "x.html").exists()


# Interruption ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["compile", "report", "explain peak"])
@pytest.mark.parametrize("stage", ["import", "order", "fit"])
def test_ctrl_c_behind_a_stage_leaves_nothing(command: str, stage: str, folder: Path):
    before = sorted(folder.iterdir())
    own = {"compile": ("-o", "out"), "report": ("-o", "page.html")}.get(command, ())
    arguments = (*command.split(), MODEL, *own, "--device", "stm32f746")
    process = start(folder, *arguments, KILOGRAD_DEBUG="1")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"kilograd {stage} "):
            break
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    # Behind the last stage the work may be done before the signal arrives.
    if process.returncode == 0 and stage == "fit":
        return
    assert process.returncode == 130, (out, err)
    assert "Traceback" not in err and sorted(folder.iterdir()) == before


@pytest.mark.parametrize("moment", ["write_bytes", "replace"])
def test_a_file_is_whole_or_as_it_was(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "report.html"
    target.write_text("before")

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            saving.write_file(target, b"after", "the report")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert target.read_text() == "before"
    saving.write_file(target, b"after", "the report")
    assert target.read_text() == "after"
    with pytest.raises(InputError, match="cannot write the report to"):
        saving.write_file(tmp_path / "no" / "x", b"", "the report")


@pytest.mark.parametrize("moment", [0, 1, 2])
def test_a_project_is_whole_or_as_it_was(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Interrupted before its files, before the old project moves, and before the new one does."""
    program = compiler.compile(MODEL)
    target = tmp_path / "firmware"
    program.save(target)
    (target / "face_detector.c").write_text("old")
    write, rename, calls = saving.write_files, Path.rename, []

    def interrupted_write(files: Any, path: Path) -> None:
        if moment == 0:
            raise KeyboardInterrupt
        write(files, path)

    def interrupted_rename(self: Path, to: Path) -> Path:
        calls.append(to)
        if len(calls) == moment:
            raise KeyboardInterrupt
        return rename(self, to)

    with monkeypatch.context() as patch:
        patch.setattr(saving, "write_files", interrupted_write)
        patch.setattr(Path, "rename", interrupted_rename)
        with pytest.raises(KeyboardInterrupt):
            program.save(target, force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["firmware"]
    assert (target / "face_detector.c").read_text() == "old"


# Progress and completion -------------------------------------------------------------------------


def test_a_watch_sees_the_stages_and_only_within():
    seen: list[str] = []
    with stages.watched(seen.append):
        compiler.compile(MODEL)
    compiler.compile(MODEL)
    assert seen[0] == "import" and seen[-1] == "fit" and len(seen) == len(set(seen)) > 6


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_each_shell(shell: str, folder: Path):
    switch = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script, _ = start(folder, "--show-completion", shell, **switch).communicate(timeout=60)
    assert "_KILOGRAD_COMPLETE" in script and "kilograd" in script


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("kilograd ev", {"evaluate"}),
        ("kilograd explain w", {"weight"}),
        ("kilograd compile --he", {"--head", "--headroom", "--help"}),
        ("kilograd compile --device cortex-m7-2", {"cortex-m7-256k"}),
        ("kilograd train --on e", {"emulator"}),
        ("kilograd compile --layout p", {"plain", "platformio"}),
        ("kilograd report --ranges m", {"min_max", "mse"}),
    ],
)
def test_completion_knows_commands_and_flags(words: str, expected: set[str], folder: Path):
    at = str(len(words.split()) - 1)
    asked = {"_KILOGRAD_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": at}
    out, _ = start(folder, **asked).communicate(timeout=60)
    assert set(out.split()) == expected
