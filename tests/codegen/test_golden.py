"""Generated C as its maintainer reads it, and that it builds wherever it is put.

`pytest tests/codegen --update-golden` rewrites the files of `golden/`; review the difference.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.codegen.golden_programs import PROGRAMS

GOLDEN = Path(__file__).parent / "golden"
STRICT = ["-Wall", "-Wextra", "-Werror"]
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no cc here")


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_learns(output: str) -> None:
    losses = [float(text) for text in re.findall(r"step \d+: loss (\S+)", output)]
    assert len(losses) == 5
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert "saved and restored" in output


@pytest.mark.parametrize("name", PROGRAMS)
def test_generated_code_is_the_golden_one(name: str, update_golden: bool):
    files = PROGRAMS[name]().sources.files
    for file in (f"{name}.h", f"{name}.c"):
        path = GOLDEN / file
        if update_golden:
            path.write_text(files[file], encoding="utf-8")
        assert files[file] == path.read_text(encoding="utf-8"), (
            f"{path} differs; run pytest with --update-golden and review the difference"
        )
        assert max(map(len, files[file].splitlines())) <= 120


def test_every_process_writes_the_same_bytes():
    root = Path(__file__).parents[2]
    hashes = {
        run(sys.executable, "-m", "tests.codegen.golden_programs", cwd=root, PYTHONHASHSEED=seed)
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


@needs_cc
@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize("name", PROGRAMS)
def test_make_builds_the_example(name: str, tmp_path: Path):
    PROGRAMS[name]().save(tmp_path / "project")
    flags = " ".join(["-O1", *STRICT])
    run("make", "CC=cc", cwd=tmp_path / "project", CFLAGS=flags)
    assert_learns(run(f"./{name}_example", cwd=tmp_path / "project"))


@needs_cc
@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake here")
def test_cmake_builds_the_example(tmp_path: Path):
    PROGRAMS["picture"]().save(tmp_path / "project")
    flags = " ".join(STRICT)
    run("cmake", "-S", "project", "-B", "build", f"-DCMAKE_C_FLAGS={flags}", cwd=tmp_path)
    run("cmake", "--build", "build", cwd=tmp_path)
    assert_learns(run("build/picture_example", cwd=tmp_path))


@pytest.mark.skipif(shutil.which("c++") is None, reason="no c++ here")
def test_the_header_is_cpp_too(tmp_path: Path):
    PROGRAMS["dense"]().save(tmp_path / "project")
    (tmp_path / "main.cpp").write_text(
        '#include "dense.h"\nint main() { static dense_t net; dense_init(&net); return 0; }\n'
    )
    run("cc", "-std=c99", "-O1", "-fno-strict-aliasing", *STRICT, "-Iproject", "-c",
        "project/dense.c", cwd=tmp_path)  # fmt: skip
    run("c++", *STRICT, "-Iproject", "main.cpp", "dense.o", "-o", "program", cwd=tmp_path)
    run("./program", cwd=tmp_path)


@needs_cc
def test_two_networks_link_into_one_program(tmp_path: Path):
    sources = []
    for name, build in PROGRAMS.items():
        build().save(tmp_path / name)
        run("cc", "-std=c99", "-O1", "-fno-strict-aliasing", *STRICT, f"-I{name}", "-c",
            f"{name}/{name}.c", cwd=tmp_path)  # fmt: skip
        sources.append(f"{name}.o")
    (tmp_path / "both.c").write_text(
        '#include "dense.h"\n#include "picture.h"\n'
        "static dense_t a;\nstatic picture_t b;\n"
        "int main(void) {\n  dense_init(&a);\n  picture_init(&b);\n"
        "  if (dense_predict(&a, dense_input(&a)) != KG_OK) return 1;\n"
        "  return picture_predict(&b, picture_input(&b)) != KG_OK;\n}\n"
    )
    run("cc", *STRICT, "-Idense", "-Ipicture", "both.c", *sources, "-o", "both", cwd=tmp_path)
    run("./both", cwd=tmp_path)
