"""The project of a program that pages: its C as text, its image, its examples with a storage."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest

import kilograd as kg
from kilograd import zoo
from kilograd.codegen.layouts import LAYOUTS
from kilograd.codegen.wrapping import COLUMNS
from tests.codegen.networks import classifier, quantised, samples
from tests.codegen.test_firmware_examples import build, compile_example, request, talk
from tests.codegen.test_project import GOLDEN, ZIG
from tests.paging import Geometry, paged

SD_CARD = Geometry(block_bytes=512)


def moved(program: kg.Program) -> kg.Program:
    return paged(program, pages=lambda _: True, stored=lambda _: True, geometry=SD_CARD)


def test_golden_source_of_a_paged_program(request: pytest.FixtureRequest):
    """`pytest tests/codegen --update-golden` accepts a change."""
    model, example = zoo.create("mlp")
    plain = kg.compile(model, example, update=kg.update.last(2), name="mlp")
    sources = paged(
        plain,
        pages=lambda value: value.name == "relu",
        stored=lambda value: value.name in ("hidden_0_weight", "hidden_2_weight"),
        geometry=SD_CARD,
    ).sources.files
    for suffix in ("c", "h"):
        path = GOLDEN / f"mlp_paged.{suffix}.txt"
        text = re.sub(r"0x[0-9a-f]{8}u", "0xIDENTITYu", sources[f"mlp.{suffix}"])
        if request.config.getoption("--update-golden"):
            path.write_text(text)
        assert text == path.read_text(), "accept with pytest tests/codegen --update-golden"
        assert max(map(len, text.splitlines())) <= COLUMNS


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_image_lies_beside_the_project(layout: str, tmp_path: Path):
    program = moved(classifier())
    assert program.storage is not None
    root = program.save(tmp_path / "package", layout=layout)
    assert (root / "faces_storage.bin").read_bytes() == program.storage.image
    assert "faces_storage.bin" in (root / "README.md").read_text()
    told = json.loads((root / "manifest.json").read_text())["storage"]
    assert told["image_bytes"] == len(program.storage.image)
    assert f"#define FACES_STORAGE_BYTES {told['bytes']}\n" in program.sources.files["faces.h"]
    archive = program.save(tmp_path / "package.zip", layout=layout) if layout == "plain" else None
    if archive:
        with zipfile.ZipFile(archive) as files:
            assert files.read("faces/faces_storage.bin") == program.storage.image


@pytest.mark.parametrize("kind", ["classifier", "quantised"])
def test_make_builds_an_example_that_learns(kind: str, tmp_path: Path):
    program = moved(classifier() if kind == "classifier" else quantised())
    plain = classifier() if kind == "classifier" else quantised()
    losses = []
    for one in (program, plain):
        directory = one.save(tmp_path / f"project{len(losses)}")
        flags = "-O1 -Wall -Wextra -Werror -Wconversion -Wshadow"
        build = ["make", "-C", str(directory), f"CC={ZIG}", f"CFLAGS={flags}"]
        subprocess.run(build, check=True, capture_output=True)
        done = subprocess.run(
            [f"./{one.name}_example"], capture_output=True, text=True, check=True, cwd=directory
        )
        losses.append([line for line in done.stdout.splitlines() if "saved" not in line])
    assert losses[0] == losses[1] and len(losses[0]) == 6
    image = (tmp_path / "project0" / f"{program.name}_storage.bin").read_bytes()
    assert image[: program.storage.image_bytes] == program.storage.image
    (tmp_path / "project0" / f"{program.name}_storage.bin").unlink()
    directory = tmp_path / "project0"
    lost = subprocess.run([f"./{program.name}_example"], capture_output=True, cwd=directory)
    assert lost.returncode and b"storage.bin" in lost.stderr


def test_what_was_learned_outlives_a_restart(tmp_path: Path):
    """The weights in the file that stands for the card, the rest in the one for the flash."""
    program = moved(classifier())
    x, y = samples(program)
    session = program.on_host()
    executable = build(program, "plain", "keep_in_flash", tmp_path)
    shutil.copy(tmp_path / "package" / "faces_storage.bin", tmp_path)
    steps = b"".join(request(program, b"L", *pair) for pair in zip(x, y, strict=True))
    learned = talk(executable, steps + b"S")
    losses = [session.train_step(*pair) for pair in zip(x, y, strict=True)]
    assert list(struct.unpack("<" + "Bf" * len(x), learned[:-1])[1::2]) == losses
    answer = talk(executable, request(program, b"P", x[0]))
    output = program.interface.output.to_program(session.predict(x[0]))
    assert answer == b"\0" + output.astype("<f4").tobytes()
    # A card that lost a bit is an error, never an answer.
    card = bytearray((tmp_path / "faces_storage.bin").read_bytes())
    bank = 2 if len(x) % 2 == 0 else 1
    card[program.storage.offset(next(iter(program.storage.initial)), bank)] ^= 1
    (tmp_path / "faces_storage.bin").write_bytes(card)
    assert talk(executable, request(program, b"P", x[0])) == b"\6"


@pytest.mark.parametrize(
    ("board", "example"),
    [
        ("arduino-avr", "learn_by_button"),
        ("arduino-esp32", "keep_in_flash"),
        ("platformio", "learn_from_serial"),
        ("esp-idf", "learn_from_serial"),
        ("zephyr", "keep_in_flash"),
        ("cmsis-pack", "learn_by_button"),
    ],
)
def test_examples_of_boards_ask_for_the_storage(board: str, example: str, tmp_path: Path):
    program = moved(classifier())
    layout = "arduino" if board.startswith("arduino") else board
    root = program.save(tmp_path / "package", layout=layout)
    compile_example(root, board, example, tmp_path / "example.o")
    assert b"faces_storage" in (tmp_path / "example.o").read_bytes()


def test_header_and_drivers_are_cpp_too(tmp_path: Path):
    root = moved(classifier()).save(tmp_path / "package")
    source = tmp_path / "main.cpp"
    source.write_text(
        '#include "faces.h"\n'
        '#include "kilograd/storage_blocks.h"\n#include "kilograd/storage_file.h"\n'
        '#include "kilograd/storage_flash.h"\n#include "kilograd/storage_ram.h"\n'
        "static faces_t net;\nstatic uint8_t memory[FACES_STORAGE_BYTES];\n"
        "int main() { static kg_storage_t storage = kg_ram_storage(memory, sizeof memory);\n"
        "  return faces_init(&net, &storage); }\n"
    )
    command = [*ZIG.replace(" cc", " c++").split(), "-c", "-std=c++11", "-Wall", "-Wextra"]
    command += ["-Wconversion", "-Wshadow", "-Werror", f"-I{root}", str(source)]
    subprocess.run([*command, "-o", str(tmp_path / "main.o")], check=True)


def test_tensors_called_like_members(tmp_path: Path):
    """A model may call a tensor as the project calls something of its own."""
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bank, self.stored_crcs, self.paging = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            return self.paging(self.stored_crcs(self.bank(x)).relu())

    import torch

    plain = kg.compile(Model(), torch.zeros(1, 4), name="net")
    program = paged(plain, pages=lambda _: True, stored=lambda v: "bank" in v.name)
    assert program.on_host(optimize="-O1").train_step(torch.ones(1, 4), 1) > 0
