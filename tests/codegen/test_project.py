"""The generated project: the same bytes every time, builds without warnings, runs, links beside
another.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kilograd as kg
from kilograd import zoo
from kilograd.execution.toolchain import toolchain

ZIG = f"{sys.executable} -m ziglang cc"
GOLDEN = Path(__file__).parent / "golden"


def program(name: str, as_name: str | None = None) -> kg.Program:
    model, example = zoo.create(name)
    loss = "autoencoder" if name == "autoencoder" else "cross_entropy"
    update = kg.update.last(2)
    return kg.compile(model, example, update=update, loss=loss, name=as_name or name)


@pytest.mark.parametrize("name", ["mlp", "lenet"])
def test_golden_source(name: str, request: pytest.FixtureRequest):
    """The C is reviewed as text: `pytest tests/codegen --update-golden` accepts a change."""
    sources = program(name).sources.files
    for suffix in ("c", "h"):
        path = GOLDEN / f"{name}.{suffix}.txt"
        # The identity of checkpoints depends on weights, which are PyTorch's to draw.
        text = re.sub(r"0x[0-9a-f]{8}u", "0xIDENTITYu", sources[f"{name}.{suffix}"])
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert text == path.read_text(), "accept with pytest tests/codegen --update-golden"


def test_the_same_bytes_in_another_process(tmp_path: Path):
    script = (
        "from tests.codegen.test_project import program\n"
        "import sys; program('mlp').save(sys.argv[1])"
    )
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / seed)],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
        )
    first, second = tmp_path / "1", tmp_path / "2"
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


@pytest.mark.parametrize("name", ["mlp", "autoencoder"])
def test_make_builds_an_example_that_learns(name: str, tmp_path: Path):
    directory = program(name).save(tmp_path / "project")
    flags = "-O1 -Wall -Wextra -Werror -Wconversion -Wshadow -fno-sanitize=undefined"
    build = ["make", "-C", str(directory), f"CC={ZIG}", f"CFLAGS={flags}"]
    subprocess.run(build, check=True, capture_output=True)
    done = subprocess.run(
        [directory / f"{name}_example"], capture_output=True, text=True, check=True
    )
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines() if "loss" in line]
    assert len(losses) == 5 and losses[-1] < losses[0]
    assert "saved and restored" in done.stdout


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no system compiler")
def test_cmake_builds_it(tmp_path: Path):
    directory = program("mlp").save(tmp_path / "project")
    build = str(tmp_path / "build")
    for command in (["cmake", "-S", str(directory), "-B", build], ["cmake", "--build", build]):
        subprocess.run(command, check=True, capture_output=True)
    subprocess.run([Path(build) / "mlp_example"], check=True, capture_output=True)


def test_two_networks_link_into_one_program(tmp_path: Path):
    first, second = program("mlp", "alpha"), program("lenet", "beta")
    for one in (first, second):
        for name, text in one.sources.files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (tmp_path / "both.c").write_text(
        '#include "alpha.h"\n#include "beta.h"\n'
        "static alpha_t a;\nstatic beta_t b;\n"
        "int main(void) {\n"
        "  float loss = 0.0f;\n"
        "  alpha_init(&a);\n  beta_init(&b);\n"
        "  for (int i = 0; i < ALPHA_INPUT_SIZE; ++i) alpha_input(&a)[i] = 0.5f;\n"
        "  for (int i = 0; i < BETA_INPUT_SIZE; ++i) beta_input(&b)[i] = 0.5f;\n"
        "  *alpha_target(&a) = 1;\n  *beta_target(&b) = 2;\n"
        "  if (alpha_train_step(&a, alpha_input(&a), alpha_target(&a), 0.1f, 0, &loss)) return 1;\n"
        "  if (beta_train_step(&b, beta_input(&b), beta_target(&b), 0.1f, 0, &loss)) return 2;\n"
        "  return 0;\n}\n"
    )
    zig = toolchain("zig")
    sources = [tmp_path / name for name in ("both.c", "alpha.c", "beta.c")]
    zig.executable(sources, [tmp_path], tmp_path / "both", optimize="-O1")
    subprocess.run([tmp_path / "both"], check=True)


def test_the_header_is_cpp_too(tmp_path: Path):
    directory = program("mlp").save(tmp_path / "project")
    source = tmp_path / "main.cpp"
    source.write_text('#include "mlp.h"\nint main() { return mlp_input(nullptr) != nullptr; }\n')
    command = [
        *ZIG.replace(" cc", " c++").split(),
        "-fsyntax-only",
        "-Wall",
        "-Werror",
        f"-I{directory}",
    ]
    subprocess.run([*command, str(source)], check=True)
