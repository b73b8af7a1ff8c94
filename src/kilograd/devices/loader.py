"""Read device files: a name, a path to a TOML file or a `Device` becomes a checked `Device`."""

from __future__ import annotations

import difflib
import functools
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kilograd.devices.kernels import KernelTable, read_table, table_of_cpu
from kilograd.devices.storage import Storage
from kilograd.errors import InputError

Cpu = Literal["cortex-m7", "cortex-m4", "cortex-m0plus", "cortex-a72", "cortex-a57", "host"]

HOSTED_CPUS: tuple[Cpu, ...] = ("cortex-a72", "cortex-a57", "host")
"""Processors with an operating system: no firmware is linked for them, their programs run on the
computer that compiles, with the same bits.
"""

_FPU_OF_CPU: dict[Cpu, str] = {
    "cortex-m7": "single",
    "cortex-m4": "single",
    "cortex-m0plus": "none",
    "cortex-a72": "double",
    "cortex-a57": "double",
    "host": "double",
}


@dataclass(frozen=True)
class MemoryMap:
    """The two memories of a microcontroller, each one contiguous range of addresses."""

    sram_base: int
    sram_bytes: int
    flash_base: int
    flash_bytes: int


class Device(BaseModel):
    """What the compiler knows of a device; `None` means that nobody has published the figure.

    Only a hosted processor (`HOSTED_CPUS`) may leave out the memories; it then has no limits.
    Time and energy come from instruction counts (`cycles_per_instruction`, `joules_per_cycle`), or,
    where no instructions can be counted, from published rates (`flop_per_second`,
    `flop_per_joule`). `kernels` is the path of a table that `kilograd calibrate` wrote; without it
    the one of the processor is used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    cpu: Cpu
    fpu: Literal["none", "single", "double"]
    clock_hz: int | None = Field(default=None, gt=0)
    sram_base: int | None = Field(default=None, ge=0, lt=2**32)
    sram_bytes: int | None = Field(default=None, gt=0)
    flash_base: int | None = Field(default=None, ge=0, lt=2**32)
    flash_bytes: int | None = Field(default=None, gt=0)
    cycles_per_instruction: float | None = Field(default=None, gt=0)
    cycles_quality: str = "unknown"
    joules_per_cycle: float | None = Field(default=None, gt=0)
    joules_source: str = "unknown"
    flop_per_second: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    flop_per_joule: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    kernels: str | None = None
    sources: tuple[str, ...] = ()
    storage: tuple[Storage, ...] = ()

    @model_validator(mode="after")
    def _check_consistency(self) -> Device:
        if self.fpu != _FPU_OF_CPU[self.cpu]:
            raise ValueError(
                f'cpu = "{self.cpu}" goes with fpu = "{_FPU_OF_CPU[self.cpu]}", not "{self.fpu}"'
            )
        names = [storage.name for storage in self.storage]
        if len(set(names)) != len(names):
            raise ValueError(f"two storages have the same name: {', '.join(names)}")
        if self.is_host:
            if self.kernels is not None:
                raise ValueError(f'"kernels" counts instructions, which cpu = "{self.cpu}" has not')
            return self
        if self.flop_per_second is not None or self.flop_per_joule is not None:
            raise ValueError(
                '"flop_per_second" and "flop_per_joule" are for processors whose instructions '
                'cannot be counted; give "cycles_per_instruction" and "joules_per_cycle"'
            )
        for field in ("sram_base", "sram_bytes", "flash_base", "flash_bytes", "clock_hz"):
            if getattr(self, field) is None:
                raise ValueError(
                    f'"{field}" is missing; only cpu = {" or ".join(map(repr, HOSTED_CPUS))} '
                    "may leave it out"
                )
        memory = self.memory_map()
        for base, size in (
            (memory.sram_base, memory.sram_bytes),
            (memory.flash_base, memory.flash_bytes),
        ):
            if base % 8 or size % 8:
                raise ValueError(f"{size} bytes at {base:#x}: base and size must be multiples of 8")
            if base + size > 2**32:
                raise ValueError(f"{size} bytes at {base:#x} end beyond the 32-bit address space")
        if (
            memory.sram_base < memory.flash_base + memory.flash_bytes
            and memory.flash_base < memory.sram_base + memory.sram_bytes
        ):
            raise ValueError("SRAM and flash overlap")
        return self

    @property
    def is_host(self) -> bool:
        """Whether programs for it run on the computer that compiles, without memory limits and
        without a linked image: the host itself, and application processors.
        """
        return self.cpu in HOSTED_CPUS

    def storage_named(self, name: str | None = None) -> Storage | None:
        """The storage of that name; without a name the first one, None where there is none.

        Raises:
            InputError: the device has no storage of that name.
        """
        if name is None:
            return self.storage[0] if self.storage else None
        for storage in self.storage:
            if storage.name == name:
                return storage
        known = ", ".join(storage.name for storage in self.storage)
        raise InputError(
            f"device '{self.name}' has no storage '{name}'; "
            + (f"it has {known}" if known else "it has none: describe it in a [[storage]] table")
        )

    def memory_map(self) -> MemoryMap:
        """Return addresses and sizes in bytes.

        Raises:
            InputError: the device is the host, which has no fixed memories.
        """
        if (
            self.sram_base is None
            or self.sram_bytes is None
            or self.flash_base is None
            or self.flash_bytes is None
        ):
            raise InputError(
                f"device '{self.name}' has no SRAM and flash of a fixed size, so no firmware can "
                f"be linked for it; choose a microcontroller: {', '.join(_board_names())}"
            )
        return MemoryMap(self.sram_base, self.sram_bytes, self.flash_base, self.flash_bytes)

    def kernel_table(self) -> KernelTable | None:
        """What each operator takes in instructions; None for a processor without a table.

        Raises:
            InputError: the file that `kernels` names is missing, no table, or of another processor.
        """
        if self.kernels is None:
            return None if self.is_host else table_of_cpu(self.cpu)
        table = read_table(Path(self.kernels))
        if table.cpu != self.cpu:
            raise InputError(
                f"device '{self.name}' has cpu = \"{self.cpu}\", but the kernel table "
                f"{self.kernels} is of {table.cpu}; write one with `kilograd calibrate`"
            )
        return table

    def seconds(self, instructions: int) -> float | None:
        """Estimated time of a number of instructions; None where the device has no estimate.

        `cycles_quality` says how far to trust it.
        """
        if self.clock_hz is None or self.cycles_per_instruction is None:
            return None
        return instructions * self.cycles_per_instruction / self.clock_hz

    def joules(self, instructions: int) -> float | None:
        """Estimated energy of a number of instructions; None where there is no estimate."""
        if self.cycles_per_instruction is None or self.joules_per_cycle is None:
            return None
        return instructions * self.cycles_per_instruction * self.joules_per_cycle


def names() -> list[str]:
    """Names of the devices that come with kilograd, sorted."""
    files = resources.files(__package__).iterdir()
    return sorted(file.name[: -len(".toml")] for file in files if file.name.endswith(".toml"))


def load(device: str | Path | Device) -> Device:
    """Return the device of that name, or the one that a TOML file describes.

    Args:
        device: a name from `names()`, the path of a `.toml` file, or a `Device`.

    Raises:
        InputError: the name is unknown, or the file is missing, unreadable or not a device.
    """
    if isinstance(device, Device):
        return device
    if not isinstance(device, str | Path):
        raise InputError(f"{device!r} is no device; pass a name, the path of a file, or a Device")
    if isinstance(device, Path) or device.endswith(".toml"):
        path = Path(device)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the device file {path}: {error}") from error
        return _parse(text, str(path), path.parent)
    if device not in names():
        raise InputError(_unknown(device))
    return _load_builtin(device)


def _board_names() -> list[str]:
    return [name for name in names() if not _load_builtin(name).is_host]


@functools.cache
def _load_builtin(name: str) -> Device:
    text = (resources.files(__package__) / f"{name}.toml").read_text(encoding="utf-8")
    return _parse(text, f"{name}.toml", None)


def _parse(text: str, where: str, folder: Path | None) -> Device:
    try:
        content = tomllib.loads(text)
        if folder is not None and isinstance(content.get("kernels"), str):
            content["kernels"] = str((folder / content["kernels"]).absolute())
        device = Device.model_validate(content)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not TOML: {error}") from error
    except ValidationError as error:
        problems = "\n".join(
            f"  {'.'.join(map(str, item['loc'])) or 'device'}: {item['msg']}"
            for item in error.errors()
        )
        raise InputError(f"{where} does not describe a device:\n{problems}") from error
    device.kernel_table()
    return device


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), names(), n=1)
    guess = f"did you mean '{near[0]}'? " if near else ""
    return (
        f"there is no device '{name}'; {guess}Known devices: {', '.join(names())}. "
        "A device of your own is a TOML file: pass its path."
    )
