"""Builds the C project of a program: a library for this computer, or an image for a device."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from kilograd.devices import Device
from kilograd.execution.image import Image
from kilograd.execution.toolchain import toolchain as find_toolchain

SESSION_FUNCTIONS = tuple(
    f"kg_session_{name}"
    for name in ("init", "input", "output", "target", "predict", "train_step", "save", "load")
)
"""What a session calls on the emulator; `kg_session_target` is absent for an autoencoder."""

STORAGE_FUNCTIONS = tuple(f"kg_session_storage_{name}" for name in ("read", "write", "erase"))
"""What a network that pages calls through pointers; the emulator does their work."""

_FLAGS = ("-fno-strict-aliasing",)


def write_files(files: Mapping[str, str | bytes], directory: Path) -> None:
    """Write files by relative path, text as UTF-8."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_bytes(content))


def as_bytes(content: str | bytes) -> bytes:
    """The content of a file."""
    return content.encode() if isinstance(content, str) else content


def build_host_library(
    files: Mapping[str, str],
    sources: tuple[str, ...],
    output: Path,
    *,
    toolchain: str,
    sanitize: bool,
    optimize: str = "-O3",
) -> Path:
    """A shared library of the C files named in `sources`."""
    with tempfile.TemporaryDirectory(prefix="kilograd-build-") as scratch:
        directory = Path(scratch)
        write_files(files, directory)
        return find_toolchain(toolchain).shared_library(
            [directory / name for name in sources],
            [directory],
            output,
            sanitize=sanitize,
            optimize=optimize,
            extra_flags=_FLAGS,
        )


def build_firmware(
    files: Mapping[str, str],
    sources: tuple[str, ...],
    device: Device,
    *,
    exports: tuple[str, ...] = SESSION_FUNCTIONS,
    toolchain: str = "zig",
) -> Image:
    """The image of a program with its session harness; raises InfeasibleError when it does not
    fit.
    """
    with tempfile.TemporaryDirectory(prefix="kilograd-build-") as scratch:
        directory = Path(scratch)
        write_files(files, directory)
        output = find_toolchain(toolchain).firmware(
            [directory / name for name in sources],
            [directory],
            device,
            directory / "firmware.elf",
            exports=exports,
            extra_flags=(*_FLAGS, "-DKG_HARNESS_INSTANCE"),
        )
        return Image(output)
