"""Secondary storage of a session: memory or a file that behaves like an SD card or flash would.

A storage keeps to its geometry: transfers start and end with its blocks, and where it is flash,
writing turns ones to zeros only, so that a program that forgets to erase reads back garbage. It
counts what it moves, and fails on request.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, Protocol, TypeVar, runtime_checkable

from kilograd.errors import CompilerBug, InputError
from kilograd.planning.storage import LARGEST_BYTES, Geometry, StoragePlan

T = TypeVar("T")


@dataclass(frozen=True)
class Fault:
    """What goes wrong at a transfer, counted from 0 from when the fault was set.

    `on` is the kind of transfer. "fail" moves nothing and says so, "short" moves one block less,
    "flip" inverts a bit and says that all is well; an erase can only fail. `lasting` faults do not
    end with the transfer at `at`.
    """

    on: Literal["read", "write", "erase"]
    at: int
    how: Literal["fail", "short", "flip"] = "fail"
    lasting: bool = False
    bit: int = 0
    """Which bit is inverted, modulo the bits of the transfer."""


@runtime_checkable
class Figures(Geometry, Protocol):
    """A geometry that knows time and power, as `kilograd.devices.Storage` does."""

    read_seconds: float
    read_bytes_per_second: float
    write_seconds: float
    write_bytes_per_second: float
    erase_seconds: float
    watts: float


@dataclass(frozen=True)
class Traffic:
    """Transfers that were asked of a storage, their bytes, and by its figures time and energy (0
    where it has none).
    """

    reads: int = 0
    writes: int = 0
    erases: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    erased_bytes: int = 0
    seconds: float = 0.0
    joules: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        """Both together."""
        return Traffic(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class SessionStorage(ABC):
    """Base of the storages that sessions can have; see the module."""

    def __init__(self, geometry: Geometry, faults: Iterable[Fault] = ()) -> None:
        """Blocks and size as of `geometry`, time and energy by it where it has the figures."""
        self.size_bytes = geometry.size_bytes
        self.block_bytes = geometry.block_bytes
        self.erase_bytes = geometry.erase_bytes
        self._figures = geometry if isinstance(geometry, Figures) else None
        self.traffic = Traffic()
        """All transfers so far; set it to `Traffic()` to count anew."""
        self.faults = tuple(faults)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults that are set; setting them counts transfers anew."""
        return self._faults

    @faults.setter
    def faults(self, faults: Iterable[Fault]) -> None:
        self._faults = tuple(faults)
        self._seen = {"read": 0, "write": 0, "erase": 0}

    @abstractmethod
    def peek(self, offset: int, size_bytes: int) -> bytes:
        """The content, as a debugger would see it: no transfer, no fault. Never written is 0xFF."""

    @abstractmethod
    def poke(self, offset: int, data: bytes) -> None:
        """Change the content, as `peek`."""

    # What the program calls --------------------------------------------------------------------

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Up to `size_bytes` bytes; fewer are an error."""
        self._check(offset, size_bytes, self.block_bytes, "read")
        fault = self._next_fault("read")
        self._count("read", size_bytes)
        moved = self._moved(fault, size_bytes)
        data = self.peek(offset, moved)
        return _flipped(data, fault)

    def write(self, offset: int, data: bytes) -> int:
        """The number of bytes written; fewer than there are is an error."""
        self._check(offset, len(data), self.block_bytes, "write")
        fault = self._next_fault("write")
        self._count("write", len(data))
        moved = self._moved(fault, len(data))
        data = _flipped(data[:moved], fault)
        if self.erase_bytes:
            before = self.peek(offset, moved)
            data = bytes(old & new for old, new in zip(before, data, strict=True))
        self.poke(offset, data)
        return moved

    def erase(self, offset: int, size_bytes: int) -> bool:
        """Whether whole erase blocks have become 0xFF."""
        self._check(offset, size_bytes, self.erase_bytes or 1, "erase")
        fault = self._next_fault("erase")
        self._count("erase", size_bytes)
        if fault is not None:
            return False
        self.poke(offset, b"\xff" * size_bytes)
        return True

    # Inside ------------------------------------------------------------------------------------

    def _check(self, offset: int, size_bytes: int, unit: int, kind: str) -> None:
        if offset % unit or size_bytes % unit or offset + size_bytes > self.size_bytes:
            raise CompilerBug(
                f"the program asks to {kind} {size_bytes} bytes at {offset} of a storage of "
                f"{self.size_bytes} bytes in blocks of {unit}"
            )

    def _next_fault(self, kind: str) -> Fault | None:
        number = self._seen[kind]
        self._seen[kind] += 1
        return next(
            (
                fault
                for fault in self._faults
                if fault.on == kind
                and (number == fault.at or (fault.lasting and number > fault.at))
            ),
            None,
        )

    def _moved(self, fault: Fault | None, size_bytes: int) -> int:
        if fault is None or fault.how == "flip":
            return size_bytes
        return size_bytes - self.block_bytes if fault.how == "short" else 0

    def _count(self, kind: str, size_bytes: int) -> None:
        seconds = self._seconds(kind, size_bytes)
        watts = self._figures.watts if self._figures else 0.0
        if kind == "read":
            moved = Traffic(reads=1, read_bytes=size_bytes)
        elif kind == "write":
            moved = Traffic(writes=1, written_bytes=size_bytes)
        else:
            moved = Traffic(erases=1, erased_bytes=size_bytes)
        self.traffic += replace(moved, seconds=seconds, joules=seconds * watts)

    def _seconds(self, kind: str, size_bytes: int) -> float:
        figures = self._figures
        if figures is None:
            return 0.0
        if kind == "read":
            return figures.read_seconds + size_bytes / figures.read_bytes_per_second
        if kind == "write":
            return figures.write_seconds + size_bytes / figures.write_bytes_per_second
        return figures.erase_seconds * (size_bytes // (self.erase_bytes or size_bytes))


def _flipped(data: bytes, fault: Fault | None) -> bytes:
    if fault is None or fault.how != "flip" or not data:
        return data
    byte, bit = divmod(fault.bit % (8 * len(data)), 8)
    changed = bytearray(data)
    changed[byte] ^= 1 << bit
    return bytes(changed)


class MemoryStorage(SessionStorage):
    """A storage in the memory of this process, gone with it."""

    def __init__(self, geometry: Geometry, faults: Iterable[Fault] = ()) -> None:
        """Erased: every byte is 0xFF."""
        super().__init__(geometry, faults)
        self._content = bytearray()

    def peek(self, offset: int, size_bytes: int) -> bytes:
        """See `SessionStorage`."""
        return bytes(self._content[offset : offset + size_bytes]).ljust(size_bytes, b"\xff")

    def poke(self, offset: int, data: bytes) -> None:
        """See `SessionStorage`."""
        missing = offset + len(data) - len(self._content)
        self._content += b"\xff" * max(missing, 0)
        self._content[offset : offset + len(data)] = data


class FileStorage(SessionStorage):
    """A storage in a file, which outlives the session as a card or a flash chip does."""

    def __init__(self, path: str | Path, geometry: Geometry, faults: Iterable[Fault] = ()) -> None:
        """Open the file; one that does not exist is made.

        Raises InputError where it cannot be opened for reading and writing.
        """
        super().__init__(geometry, faults)
        self.path = Path(path)
        try:
            self.path.touch()
            self._file = self.path.open("r+b", buffering=0)
        except OSError as error:
            raise InputError(f"cannot open the storage {path}: {error}") from error

    def peek(self, offset: int, size_bytes: int) -> bytes:
        """See `SessionStorage`."""
        self._file.seek(offset)
        return self._file.read(size_bytes).ljust(size_bytes, b"\xff")

    def poke(self, offset: int, data: bytes) -> None:
        """See `SessionStorage`."""
        end = self._file.seek(0, 2)
        if end < offset:
            self._file.write(b"\xff" * (offset - end))
        self._file.seek(offset)
        self._file.write(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def install(storage: SessionStorage, plan: StoragePlan) -> None:
    """Write the image of a program to the start of a storage that does not hold it yet.

    Raises InputError where the storage is too small or its blocks are too large for the program.
    """
    if storage.size_bytes < plan.size_bytes:
        raise InputError(
            f"the program needs {plan.size_bytes:,} bytes of storage, this one has "
            f"{storage.size_bytes:,}"
        )
    units = (plan.block_bytes, plan.unit_bytes)
    for unit, mine in zip(units, (storage.block_bytes, storage.erase_bytes or 1), strict=True):
        if unit % mine:
            raise InputError(
                f"the program was compiled for a storage with blocks of {unit:,} bytes, which is "
                f"no multiple of the {mine:,} of this one"
            )
    if storage.peek(0, plan.image_bytes) != plan.image:
        storage.poke(0, plan.image)


READ = ctypes.CFUNCTYPE(
    ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32
)
ERASE = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)


class _StorageStruct(ctypes.Structure):
    """`kg_storage_t` of kilograd/storage.h."""

    _fields_ = (
        ("context", ctypes.c_void_p),
        ("read", READ),
        ("write", READ),
        ("erase", ERASE),
        ("size_bytes", ctypes.c_uint32),
        ("block_bytes", ctypes.c_uint32),
        ("erase_bytes", ctypes.c_uint32),
    )


class HostDriver:
    """A `kg_storage_t` of this process whose functions are those of a Python storage."""

    def __init__(self, storage: SessionStorage) -> None:
        """Wrap a storage; `pointer` is what C takes."""
        self.storage = storage
        self._error: BaseException | None = None
        self._struct = _StorageStruct(
            None,
            READ(self._read),
            READ(self._write),
            ERASE(self._erase),
            min(storage.size_bytes, LARGEST_BYTES),
            storage.block_bytes,
            storage.erase_bytes,
        )
        self.pointer = ctypes.byref(self._struct)

    def raise_pending(self) -> None:
        """Raise what a callback raised, which cannot pass through C."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _read(self, _context: int, offset: int, to: int, size_bytes: int) -> int:
        data = self._guarded(lambda: self.storage.read(offset, size_bytes), b"")
        ctypes.memmove(to, data, len(data))
        return len(data)

    def _write(self, _context: int, offset: int, source: int, size_bytes: int) -> int:
        data = ctypes.string_at(source, size_bytes)
        return self._guarded(lambda: self.storage.write(offset, data), 0)

    def _erase(self, _context: int, offset: int, size_bytes: int) -> bool:
        return self._guarded(lambda: self.storage.erase(offset, size_bytes), False)

    def _guarded(self, run: Callable[[], T], failed: T) -> T:
        try:
            return run()
        except BaseException as error:
            self._error = error
            return failed
