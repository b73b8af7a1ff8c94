"""The firmware examples of every layout, run on this computer: the framework is a stub, the network
is the real one, and what it answers are the bits of a session.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kilograd as kg
from tests.codegen.networks import PROGRAMS, classifier, quantised, samples

STUBS = Path(__file__).parent / "stubs"
EXAMPLES = ("learn_from_serial", "keep_in_flash", "learn_by_button")
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
REQUIRED = ("-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing")
ZIG = (sys.executable, "-m", "ziglang")

# Layout, where an example lies, where the network lies, stubs, flags.
BOARDS = {
    "plain": ("plain", "examples/{}.c", ".", "plain", ()),
    "arduino-esp32": ("arduino", "examples/{}/{}.ino", "src", "arduino", ("ESP32",)),
    "arduino-mbed": ("arduino", "examples/{}/{}.ino", "src", "arduino", ("MBED", "RP2040")),
    "arduino-rp2040": ("arduino", "examples/{}/{}.ino", "src", "arduino", ("RP2040",)),
    "arduino-avr": ("arduino", "examples/{}/{}.ino", "src", "arduino", ("AVR",)),
    "platformio": ("platformio", "examples/{}/src/main.cpp", "src", "arduino", ("STM32",)),
    "esp-idf": ("esp-idf", "examples/{}/main/main.c", "src", "esp_idf", ()),
    "zephyr": ("zephyr", "samples/{}/src/main.c", "src", "zephyr", ()),
    "cmsis-pack": ("cmsis-pack", "templates/{}.c", "source", "cmsis_pack", ()),
}


def example_path(root: Path, board: str, example: str) -> Path:
    layout, pattern = BOARDS[board][:2]
    title = "".join(word.capitalize() for word in example.split("_"))
    return root / (pattern.format(*[title if layout == "arduino" else example] * 2))


def flags(root: Path, board: str) -> list[str]:
    _, _, sources, stubs, architectures = BOARDS[board]
    return [
        *WARNINGS,
        "-fno-sanitize=undefined",
        "-D_DEFAULT_SOURCE",
        *(f"-DARDUINO_ARCH_{name}" for name in architectures),
        f"-I{root / sources}",
        f"-I{STUBS}",
        f"-I{STUBS / stubs}",
    ]


def compile_example(root: Path, board: str, example: str, output: Path) -> None:
    """Compile an example against the stubs of its framework."""
    source = example_path(root, board, example)
    is_cpp = source.suffix != ".c"
    language = ["-x", "c++", "-std=c++11", "-fno-exceptions"] if is_cpp else ["-x", "c", "-std=c99"]
    what = ["-c", "-o", str(output)]
    command = [*ZIG, "c++" if is_cpp else "cc", *language, *flags(root, board), *what, str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def build(program: kg.Program, board: str, example: str, directory: Path) -> Path:
    root = program.save(directory / "package", layout=BOARDS[board][0])
    sources, object_file = root / BOARDS[board][2], directory / "example.o"
    compile_example(root, board, example, object_file)
    network = directory / "network.o"
    subprocess.run(
        [*ZIG, "cc", "-c", "-std=c99", *WARNINGS, *REQUIRED, "-O1", "-mcpu=native",
         "-fno-sanitize=undefined", f"-I{sources}", str(sources / f"{program.name}.c"),
         "-o", str(network)],
        check=True,
    )  # fmt: skip
    executable = directory / example
    link = [*ZIG, "cc", str(object_file), str(network), "-fno-sanitize=undefined"]
    subprocess.run([*link, "-o", str(executable)], check=True)
    return executable


def talk(executable: Path, data: bytes) -> bytes:
    done = subprocess.run([executable], input=data, capture_output=True, cwd=executable.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def request(program: kg.Program, command: bytes, x: np.ndarray, y: object = None) -> bytes:
    interface = program.interface
    data = interface.input.to_program(x[None]).astype("<f4").tobytes()
    if y is None:
        return command + data
    if program.loss is kg.Loss.CROSS_ENTROPY:
        return command + data + struct.pack("<i", y)
    return command + data + interface.output.to_program(np.asarray(y)[None]).astype("<f4").tobytes()


@pytest.mark.parametrize("board", BOARDS)
def test_learning_from_a_serial_stream(board: str, tmp_path: Path):
    program = classifier()
    x, y = samples(program)
    session = program.on_host()
    losses = [session.train_step(*pair) for pair in zip(x, y, strict=True)]
    output = program.interface.output.to_program(session.predict(x[0]))
    executable = build(program, board, "learn_from_serial", tmp_path)
    steps = [request(program, b"L", *pair) for pair in zip(x, y, strict=True)]
    answers = talk(executable, b"?\n" + b"".join(steps) + request(program, b"P", x[0]))
    sizes, answers = struct.unpack("<3I", answers[:12]), answers[12:]
    assert sizes == (x[0].nbytes, 4 * 3, 4)
    replies = struct.unpack("<" + "Bf" * len(x), answers[: 5 * len(x)])
    assert replies[::2] == (0,) * len(x) and list(replies[1::2]) == losses
    assert answers[5 * len(x) :] == b"\0" + output.astype("<f4").tobytes()


@pytest.mark.parametrize("board", BOARDS)
def test_what_was_learned_is_in_flash_after_a_restart(board: str, tmp_path: Path):
    program = classifier()
    x, y = samples(program)
    session = program.on_host()
    question = request(program, b"P", x[0])

    def answer() -> bytes:
        output = program.interface.output.to_program(session.predict(x[0]))
        return b"\0" + output.astype("<f4").tobytes()

    executable = build(program, board, "keep_in_flash", tmp_path)
    assert talk(executable, question) == answer(), "an empty flash leaves the compiled network"
    learned = talk(executable, request(program, b"L", x[0], y[0]) + b"S")
    assert learned[0] == 0 and learned[-1] == 0
    session.train_step(x[0], y[0])
    assert talk(executable, question) == answer()
    assert talk(executable, b"R") == b"\0"
    session.reset()
    assert talk(executable, question) == answer()


@pytest.mark.parametrize("board", ["plain", "arduino-avr", "esp-idf", "zephyr", "cmsis-pack"])
def test_learning_by_a_button(board: str, tmp_path: Path):
    executable = build(classifier(), board, "learn_by_button", tmp_path)
    quiet, press = b"0" * 110, b"11111" + b"00000"
    said = talk(executable, quiet + (press * 2 + quiet) * 40 + quiet).decode().splitlines()
    assert said[0].startswith("class ")
    assert all(line.startswith("learned class 1, loss ") for line in said[1:41])
    losses = [float(line.split()[-1]) for line in said[1:41]]
    assert losses[-1] < losses[0] / 4
    assert said[-1] == "class 1"
    bounce = b"1" + b"0" + b"1111" + quiet
    assert talk(executable, bounce * 2).decode().count("learned class 0") == 2
    assert "there is no such class" in talk(executable, press * 4 + quiet * 2).decode()


@pytest.mark.parametrize("kind", ["autoencoder", "regression"])
def test_other_losses_in_every_framework(kind: str, tmp_path: Path):
    program = PROGRAMS[kind]()
    for board in ("plain", "arduino-avr", "esp-idf", "zephyr", "cmsis-pack"):
        root = program.save(tmp_path / board, layout=BOARDS[board][0])
        for example in EXAMPLES:
            compile_example(root, board, example, tmp_path / "example.o")


@pytest.mark.parametrize("kind", ["autoencoder", "regression"])
def test_other_losses_learn_by_a_button(kind: str, tmp_path: Path):
    executable = build(PROGRAMS[kind](), "plain", "learn_by_button", tmp_path)
    quiet, press = b"0" * 110, b"11111" + b"00000"
    said = talk(executable, quiet + (press + quiet) * 60 + quiet).decode().splitlines()
    losses = [float(line.split()[-1]) for line in said if "loss" in line]
    assert len(losses) == 60 and losses[-1] < losses[0]
    assert said[0].startswith("error" if kind == "autoencoder" else "output")


@pytest.mark.parametrize("loss", ["cross_entropy", "autoencoder"])
def test_int8_samples_in_every_framework(loss: str, tmp_path: Path):
    program = quantised(loss)
    for board in ("plain", "arduino-avr", "esp-idf", "zephyr", "cmsis-pack"):
        root = program.save(tmp_path / board, layout=BOARDS[board][0])
        for example in EXAMPLES:
            compile_example(root, board, example, tmp_path / "example.o")
    executable = build(program, "plain", "learn_by_button", tmp_path)
    quiet, press = b"0" * 110, b"11111" + b"00000"
    said = talk(executable, quiet + (press + quiet) * 60 + quiet).decode().splitlines()
    losses = [float(line.split()[-1]) for line in said if "loss" in line]
    assert len(losses) == 60 and losses[-1] < losses[0]


@pytest.mark.parametrize("kind", [*PROGRAMS, "int8"])
def test_the_script_streams_samples(kind: str, tmp_path: Path):
    """What the script prints are the losses and outputs of a session."""
    program = quantised() if kind == "int8" else PROGRAMS[kind]()
    x, y = samples(program)
    np.savez(tmp_path / "samples.npz", **({"x": x} if y is None else {"x": x, "y": y}))
    executable = build(program, "plain", "keep_in_flash", tmp_path)
    script = tmp_path / "package/examples/stream.py"
    arguments = [str(executable), "samples.npz", "--epochs", "2", "--save"]
    done = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    session = program.on_host()
    losses = session.fit(x, y, epochs=2, shuffle=False, progress=False).losses
    lines = done.stdout.splitlines()
    assert [float(line.split()[-1]) for line in lines[: len(losses)]] == pytest.approx(losses)
    if program.loss is kg.Loss.CROSS_ENTROPY:
        classes = np.argmax(session.predict(x), axis=1)
        assert lines[len(losses) : -1] == [f"class {label}" for label in classes]
    assert lines[-1] == "saved" and (tmp_path / f"{program.name}.checkpoint").is_file()


def test_the_script_refuses_another_network(tmp_path: Path):
    executable = build(PROGRAMS["autoencoder"](), "plain", "learn_from_serial", tmp_path / "other")
    script = classifier().save(tmp_path / "faces") / "examples/stream.py"
    x, y = samples(classifier())
    np.savez(tmp_path / "samples.npz", x=x, y=y)
    done = subprocess.run(
        [sys.executable, str(script), str(executable), str(tmp_path / "samples.npz")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0 and "another network" in done.stderr
