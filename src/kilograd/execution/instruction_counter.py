"""Exact instruction counts at full speed: a block hook in C, built on first use.

Unicorn's own limit, `emu_start(count=...)`, cannot be read back, and a hook in Python costs a
microsecond a block; this one costs a few nanoseconds.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kilograd.execution.build_cache import cache_directory
from kilograd.execution.image import Image
from kilograd.execution.toolchain import toolchain

_SOURCE = Path(__file__).with_name("instruction_counter.c")


class _CounterStruct(ctypes.Structure):
    """`InstructionCounter` in instruction_counter.c."""

    _fields_ = (
        ("executed", ctypes.c_uint64),
        ("limit", ctypes.c_uint64),
        ("code", ctypes.c_void_p),
        ("base", ctypes.c_uint32),
        ("halfwords", ctypes.c_uint32),
        ("block_bytes", ctypes.c_void_p),
        ("block_instructions", ctypes.c_void_p),
        ("instructions", ctypes.c_void_p),
        ("stop", ctypes.c_void_p),
        ("limit_reached", ctypes.c_uint32),
    )


@dataclass(frozen=True)
class Block:
    """A basic block: straight-line Thumb code at an address, and how often it was entered."""

    address: int
    code: bytes
    runs: int


class InstructionCounter:
    """Counts for one emulator; `callback` and `user_data` are what its block hook takes."""

    def __init__(self, image: Image, stop: ctypes.c_void_p) -> None:
        """Prepare counters for the flash of an image.

        Args:
            image: what will run.
            stop: the C function that ends the emulation, given the engine.
        """
        self._image = image
        self._base = min(segment.address for segment in image.segments)
        halfwords = (image.flash_bytes + 1) // 2
        code = bytearray(2 * halfwords)
        for segment in image.segments:
            offset = segment.address - self._base
            code[offset : offset + len(segment.data)] = segment.data
        self._code = np.frombuffer(bytes(code), np.dtype("<u2"))
        self._block_bytes = np.zeros(halfwords, np.uint32)
        self._block_instructions = np.zeros(halfwords, np.uint32)
        self._instructions: npt.NDArray[np.uint64] = np.zeros(halfwords, np.uint64)
        self._struct = _CounterStruct(
            code=self._code.ctypes.data,
            base=self._base,
            halfwords=halfwords,
            block_bytes=self._block_bytes.ctypes.data,
            block_instructions=self._block_instructions.ctypes.data,
            instructions=self._instructions.ctypes.data,
            stop=stop,
        )
        self.callback = ctypes.cast(_library().kg_count_block, ctypes.c_void_p)
        self.user_data = ctypes.byref(self._struct)

    def clear(self, limit: int) -> None:
        """Set all counts to zero and the number of instructions to stop at."""
        self._struct.executed = 0
        self._struct.limit = limit
        self._struct.limit_reached = 0
        self._instructions.fill(0)

    @property
    def executed(self) -> int:
        """Instructions since `clear`."""
        return int(self._struct.executed)

    @property
    def limit_reached(self) -> bool:
        """Whether the limit ended the emulation."""
        return bool(self._struct.limit_reached)

    def uncount_block(self, address: int) -> None:
        """Take back the block at an address, which was entered but will not run."""
        index = (address - self._base) // 2
        instructions = int(self._block_instructions[index])
        self._struct.executed -= instructions
        self._instructions[index] -= np.uint64(instructions)

    def blocks(self) -> list[Block]:
        """The basic blocks that ran since `clear`, by address."""
        result = []
        for index in map(int, np.flatnonzero(self._instructions)):
            size = int(self._block_bytes[index])
            code = self._code[index : index + size // 2].tobytes()
            runs = int(self._instructions[index]) // int(self._block_instructions[index])
            result.append(Block(self._base + 2 * index, code, runs))
        return result

    def per_function(self) -> dict[str, int]:
        """Instructions since `clear` by function, most first."""
        totals: dict[str, int] = {}
        for index in np.flatnonzero(self._instructions):
            where = self._image.function_at(self._base + 2 * int(index))
            name = where[0] if where else "?"
            totals[name] = totals.get(name, 0) + int(self._instructions[index])
        return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))


@functools.cache
def _library() -> ctypes.CDLL:
    output = cache_directory() / "instruction_counter.so"
    return ctypes.CDLL(str(toolchain("zig").shared_library([_SOURCE], [], output)))
