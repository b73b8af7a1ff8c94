"""Compiles a few lines of C against the runtime headers into a shared library."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

RUNTIME = Path(__file__).parents[2] / "src/kilograd/runtime/include"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-Wno-unused-function")
FLAGS = ("-std=c99", "-O2", "-ffp-contract=off", "-fno-math-errno", *WARNINGS)


def compile_c(source: Path, output: Path, *flags: str) -> None:
    """Run the C compiler; a warning fails the test."""
    command = [
        sys.executable, "-m", "ziglang", "cc", *FLAGS, *flags, f"-I{RUNTIME}", str(source),
        "-o", str(output),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-8000:]


def build_library(text: str, directory: Path, *flags: str) -> ctypes.CDLL:
    """The library of this C text, for this machine."""
    source, library = directory / "test.c", directory / "test.so"
    source.write_text(text)
    compile_c(source, library, "-mcpu=native", "-shared", "-fPIC", *flags)
    return ctypes.CDLL(str(library))
