"""C compilers behind one small protocol: sources in; shared library, executable or firmware out.

| name   | compiler                      | builds for                                  |
|--------|-------------------------------|---------------------------------------------|
| `zig`  | `python -m ziglang cc`        | host and every device; the default          |
| `gnu`  | `arm-none-eabi-gcc`           | devices                                     |
| `cc`   | the system's `cc`             | host; the one with an address sanitizer     |

All of them compile with contraction off and without fast-math, so that a float result does not
depend on which of them, or which machine, computed it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from kilograd.devices import Device
from kilograd.errors import CompilerBug, InfeasibleError, InputError
from kilograd.execution import build_cache
from kilograd.execution.linking import linker_script, overflow_message

STARTUP_SOURCE = Path(__file__).with_name("startup.c")
"""Vector table and start-up code that `firmware` links in."""

_COMMON_FLAGS = (
    "-std=c99",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    "-Werror",
    "-ffp-contract=off",
    "-fno-math-errno",
)
_FIRMWARE_FLAGS = (
    "-ffreestanding",
    "-ffunction-sections",
    "-fdata-sections",
    "-fomit-frame-pointer",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-fno-sanitize=undefined",
    "-Wl,--gc-sections",
    "-Wl,-z,max-page-size=16",
)

_ZIG_TARGETS = {
    "cortex-m7": ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m7+fp_armv8d16sp"),
    "cortex-m4": ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp"),
    "cortex-m0plus": ("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0plus"),
}
_GNU_TARGETS = {
    "cortex-m7": ("-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"),
    "cortex-m4": ("-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    "cortex-m0plus": ("-mcpu=cortex-m0plus", "-mfloat-abi=soft"),
}


class Toolchain(Protocol):
    """A C compiler and linker.

    Every method writes `output` atomically and returns it. A source that does not compile is a
    `CompilerBug` with the compiler's message, because the user did not write that C.
    """

    @property
    def name(self) -> str:
        """The name that `toolchain` knows it by."""
        ...

    def version(self) -> str:
        """One line that identifies the compiler; part of every cache key."""
        ...

    def shared_library(
        self,
        sources: Sequence[Path],
        include_dirs: Sequence[Path],
        output: Path,
        *,
        sanitize: bool = False,
        optimize: str = "-O3",
        extra_flags: Sequence[str] = (),
    ) -> Path:
        """Build a library for this computer, to be loaded with `ctypes`.

        With `sanitize`, undefined behaviour ends the process with a message; an address sanitizer
        needs `executable`, since its runtime must be loaded before Python.

        Raises:
            CompilerBug: the sources do not compile.
            InputError: this toolchain does not build for the host.
        """
        ...

    def executable(
        self,
        sources: Sequence[Path],
        include_dirs: Sequence[Path],
        output: Path,
        *,
        sanitize: bool = False,
        optimize: str = "-O3",
        extra_flags: Sequence[str] = (),
    ) -> Path:
        """Build a program for this computer.

        With `sanitize` it stops at undefined behaviour and, with the toolchain `cc`, at an access
        out of bounds.

        Raises:
            CompilerBug: the sources do not compile.
            InputError: this toolchain does not build for the host.
        """
        ...

    def firmware(
        self,
        sources: Sequence[Path],
        include_dirs: Sequence[Path],
        device: Device,
        output: Path,
        *,
        optimize: str = "-O2",
        exports: Sequence[str] = (),
        stack_bytes: int = 0,
        startup: bool = True,
        extra_flags: Sequence[str] = (),
    ) -> Path:
        """Link an ELF image for a device.

        Args:
            sources: C files.
            include_dirs: directories of headers.
            device: a microcontroller.
            output: path of the ELF file.
            optimize: the optimisation flag.
            exports: functions to keep though nothing calls them, such as those an emulator calls.
            stack_bytes: the stack that must be left beside the static data.
            startup: link kilograd's start-up code, which defines `_start` and the vector table.
            extra_flags: passed to the compiler as they are.

        Raises:
            InfeasibleError: the program does not fit the device's memories.
            CompilerBug: the sources do not compile.
            InputError: this toolchain does not build for that device.
        """
        ...


class _CommandLine:
    """What compilers with a GNU command line have in common."""

    name: str
    _install_hint: str
    _libraries: Sequence[str] = ()

    def version(self) -> str:
        """One line that identifies the compiler."""
        return _version(tuple(self._command()))

    def shared_library(
        self,
        sources: Sequence[Path],
        include_dirs: Sequence[Path],
        output: Path,
        *,
        sanitize: bool = False,
        optimize: str = "-O3",
        extra_flags: Sequence[str] = (),
    ) -> Path:
        flags = ["-shared", "-fPIC", *self._host_flags()]
        if sanitize:
            flags += self._sanitizers(address=False)
        flags += [optimize, *extra_flags]
        return self._build(flags, sources, include_dirs, output, _host_identity())

    def executable(
        self,
        sources: Sequence[Path],
        include_dirs: Sequence[Path],
        output: Path,
        *,
        sanitize: bool = False,
        optimize: str = "-O3",
        extra_flags: Sequence[str] = (),
    ) -> Path:
        flags = [*self._host_flags()]
        if sanitize:
            flags += self._sanitizers(address=True)
        flags += [optimize, *extra_flags]
        return self._build(flags, sources, include_dirs, output, _host_identity())

    def firmware(
        self,
        sources: Sequence[Path],
        include_dirs: Sequence[Path],
        device: Device,
        output: Path,
        *,
        optimize: str = "-O2",
        exports: Sequence[str] = (),
        stack_bytes: int = 0,
        startup: bool = True,
        extra_flags: Sequence[str] = (),
    ) -> Path:
        script = linker_script(device, exports, stack_bytes)
        flags = [*self._target_flags(device), *_FIRMWARE_FLAGS, optimize, *extra_flags]
        all_sources = [*sources, *([STARTUP_SOURCE] if startup else [])]
        with tempfile.TemporaryDirectory(prefix="kilograd-link-") as scratch:
            script_path = Path(scratch) / "link.ld"
            script_path.write_text(script, encoding="utf-8")
            return self._build(
                flags,
                all_sources,
                include_dirs,
                output,
                script,
                ["-T", str(script_path), *self._libraries],
                device,
            )

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _host_flags(self) -> list[str]:
        raise InputError(f"toolchain '{self.name}' builds for devices only; use 'zig' or 'cc'")

    def _target_flags(self, device: Device) -> list[str]:
        raise InputError(f"toolchain '{self.name}' builds for the host only; use 'zig' or 'gnu'")

    def _sanitizers(self, *, address: bool) -> list[str]:
        raise NotImplementedError

    def _build(
        self,
        flags: Sequence[str],
        sources: Sequence[Path],
        include_dirs: Sequence[Path],
        output: Path,
        identity: str,
        link_flags: Sequence[str] = (),
        device: Device | None = None,
    ) -> Path:
        """Run the compiler unless the cache has the result; `identity` joins the cache key."""
        all_flags = [*_COMMON_FLAGS, *flags]
        key = build_cache.build_key([self.version(), identity, *all_flags], sources, include_dirs)
        if build_cache.fetch(key, output):
            return output
        includes = [f"-I{directory}" for directory in include_dirs]
        with build_cache.publish(key, output) as built:
            arguments = [*all_flags, *includes, *map(str, sources), *link_flags, "-o", str(built)]
            result = subprocess.run(
                [*self._command(), *arguments], capture_output=True, text=True, check=False
            )
            if result.returncode != 0:
                self._explain_failure(result.stderr, arguments, device)
        return output

    def _explain_failure(
        self, message: str, arguments: Sequence[str], device: Device | None
    ) -> None:
        overflow = overflow_message(device, message) if device is not None else None
        if overflow is not None:
            raise InfeasibleError(overflow)
        raise CompilerBug(
            f"the C compiler rejects the generated code ({self.version()}):\n"
            f"{message.strip()}\ncommand: {self.name} {' '.join(arguments)}"
        )

    def _missing(self) -> InputError:
        return InputError(f"toolchain '{self.name}' is not installed: {self._install_hint}")


class ZigToolchain(_CommandLine):
    """Clang and LLD as `zig cc`, which pip installs; builds for the host and for every device."""

    name = "zig"
    _install_hint = "pip install ziglang"

    def _command(self) -> list[str]:
        if importlib.util.find_spec("ziglang") is None:
            raise self._missing()
        return [sys.executable, "-m", "ziglang", "cc"]

    def _host_flags(self) -> list[str]:
        # Without an explicit choice zig instruments unoptimised builds.
        return ["-mcpu=native", "-fno-sanitize=undefined"]

    def _target_flags(self, device: Device) -> list[str]:
        device.memory_map()
        # With -Os zig strips all symbols unless debug information is asked for; the linker script
        # drops the latter.
        return [*_ZIG_TARGETS[device.cpu], "-g"]

    def _sanitizers(self, *, address: bool) -> list[str]:
        # zig ships a runtime for undefined behaviour only; asking for addresses fails to link.
        return ["-fsanitize=undefined", "-g"]


class GnuArmToolchain(_CommandLine):
    """The Arm GNU toolchain, `arm-none-eabi-gcc`; it builds for devices."""

    name = "gnu"
    _install_hint = (
        "`apt install gcc-arm-none-eabi`, `brew install --cask gcc-arm-embedded`, or "
        "developer.arm.com; or use the default toolchain, 'zig'"
    )
    _libraries = ("-lm",)

    def _command(self) -> list[str]:
        path = shutil.which("arm-none-eabi-gcc")
        if path is None:
            raise self._missing()
        return [path]

    def _target_flags(self, device: Device) -> list[str]:
        device.memory_map()
        # newlib-nano supplies memcpy and fmaf; its start files are not used.
        return [
            *_GNU_TARGETS[device.cpu],
            "-mthumb",
            "-nostartfiles",
            "--specs=nano.specs",
            "--specs=nosys.specs",
        ]


class SystemToolchain(_CommandLine):
    """The system's `cc`, GCC or Clang; it builds for the host."""

    name = "cc"
    _install_hint = (
        "`apt install build-essential` or `xcode-select --install`; or use the default toolchain, "
        "'zig'"
    )

    def _command(self) -> list[str]:
        path = shutil.which("cc")
        if path is None:
            raise self._missing()
        return [path]

    def _host_flags(self) -> list[str]:
        return ["-march=native"]

    def _sanitizers(self, *, address: bool) -> list[str]:
        kinds = "address,undefined" if address else "undefined"
        return [f"-fsanitize={kinds}", "-fno-sanitize-recover=all", "-g"]


_TOOLCHAINS = {cls.name: cls for cls in (ZigToolchain, GnuArmToolchain, SystemToolchain)}


def toolchain(name: str = "zig") -> Toolchain:
    """Return the toolchain of that name, having checked that it is installed.

    Raises:
        InputError: there is no toolchain of that name, or it is not installed.
    """
    if name not in _TOOLCHAINS:
        raise InputError(f"there is no toolchain '{name}'; choose from {', '.join(_TOOLCHAINS)}")
    found = _TOOLCHAINS[name]()
    found.version()
    return found


@functools.cache
def _version(command: tuple[str, ...]) -> str:
    result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise InputError(f"{' '.join(command)} does not run: {result.stderr.strip()}")
    return result.stdout.splitlines()[0].strip()


@functools.cache
def _host_identity() -> str:
    """What `native` means here: a cache may be shared with a machine of another kind."""
    cpuinfo = Path("/proc/cpuinfo")
    text = f"{platform.platform()} {platform.processor()}"
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        facts = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
        text += "\n".join(sorted(facts))
    return hashlib.sha256(text.encode()).hexdigest()
