"""A linked ELF image: what it occupies in flash and SRAM, its symbols, its worst-case stack.

flash   | .vectors .text .rodata | initial values of .data |
SRAM    | .data .bss | free | stack, grows down from _estack |
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from kilograd.errors import InputError
from kilograd.execution.stack_analysis import CodeMap, StackBound, worst_case_stack

_LINKER_SYMBOLS = ("_estack", "_sdata", "_edata", "_sidata", "_sbss", "_ebss")


@dataclass(frozen=True)
class Symbol:
    """A name in the image; the address of a function is without its Thumb bit."""

    name: str
    address: int
    size_bytes: int
    is_function: bool


@dataclass(frozen=True)
class Segment:
    """Bytes that are programmed into flash at `address`."""

    address: int
    data: bytes


class Image:
    """A firmware image that was linked with the script of `kilograd.execution.linking`."""

    def __init__(self, path: Path) -> None:
        """Read an ELF file.

        Raises:
            InputError: the file is missing, is not a 32-bit Arm image, or lacks the linker script's
                symbols.
        """
        self.path = path
        try:
            with path.open("rb") as stream:
                elf = ELFFile(stream)
                if elf.get_machine_arch() != "ARM" or elf.elfclass != 32:
                    raise InputError(f"{path} is an image for {elf.get_machine_arch()}, not Arm")
                self._read(elf)
        except OSError as error:
            raise InputError(f"cannot read the image {path}: {error}") from error
        except ELFError as error:
            raise InputError(f"{path} is not an ELF image: {error}") from error
        absent = [name for name in _LINKER_SYMBOLS if name not in self.symbols]
        if absent:
            raise InputError(
                f"{path} lacks the symbols {', '.join(absent)}; link it with kilograd's script"
            )

    def _read(self, elf: ELFFile) -> None:
        self.segments = tuple(
            Segment(segment["p_paddr"], segment.data())
            for segment in elf.iter_segments("PT_LOAD")
            if segment["p_filesz"]
        )
        table = elf.get_section_by_name(".symtab")
        if not isinstance(table, SymbolTableSection):
            raise InputError(f"{self.path} has no symbols; do not strip it")
        symbols: dict[str, Symbol] = {}
        names: dict[int, tuple[bool, int, str]] = {}
        mapping: list[tuple[int, bool]] = []
        for entry in table.iter_symbols():
            address = entry["st_value"]
            if entry.name[:2] in ("$t", "$d", "$a"):
                mapping.append((address, entry.name[:2] == "$t"))
                continue
            if not entry.name or entry["st_info"]["type"] in ("STT_FILE", "STT_SECTION"):
                continue
            is_function = entry["st_info"]["type"] == "STT_FUNC"
            is_local = entry["st_info"]["bind"] == "STB_LOCAL"
            symbol = Symbol(
                entry.name, address & ~1 if is_function else address, entry["st_size"], is_function
            )
            if not is_local or symbol.name not in symbols:
                symbols[symbol.name] = symbol
            if is_function:
                # Several names may share one address: prefer a public one, then the shortest.
                rank = (is_local, len(symbol.name), symbol.name)
                names[symbol.address] = min(names.get(symbol.address, rank), rank)
        self.symbols: Mapping[str, Symbol] = symbols
        self._mapping = tuple(sorted(set(mapping)))
        self._function_names = {address: rank[2] for address, rank in sorted(names.items())}
        self._function_starts = list(self._function_names)

    def symbol(self, name: str) -> Symbol:
        """Look a symbol up.

        Raises:
            InputError: the image has no such symbol; the linker drops what nothing refers to unless
                it is among the exports.
        """
        try:
            return self.symbols[name]
        except KeyError:
            raise InputError(
                f"{self.path.name} has no symbol '{name}'; functions that nothing calls must be "
                "among the exports when the firmware is linked"
            ) from None

    @property
    def flash_bytes(self) -> int:
        """Flash from the first to the last byte programmed: code, constants, .data's values."""
        start = min(segment.address for segment in self.segments)
        end = max(segment.address + len(segment.data) for segment in self.segments)
        return end - start

    @property
    def data_bytes(self) -> int:
        """SRAM of initialised variables."""
        return self.symbols["_edata"].address - self.symbols["_sdata"].address

    @property
    def bss_bytes(self) -> int:
        """SRAM of variables that start as zero."""
        return self.symbols["_ebss"].address - self.symbols["_sbss"].address

    @property
    def static_bytes(self) -> int:
        """All static SRAM, padding between .data and .bss included."""
        return self.symbols["_ebss"].address - self.symbols["_sdata"].address

    @property
    def stack_top(self) -> int:
        """The address just above the stack."""
        return self.symbols["_estack"].address

    def function_at(self, address: int) -> tuple[str, int] | None:
        """Return the function that holds a code address and the offset in it, or None."""
        index = bisect.bisect_right(self._function_starts, address & ~1) - 1
        if index < 0:
            return None
        start = self._function_starts[index]
        name = self._function_names[start]
        offset = (address & ~1) - start
        return (name, offset) if offset < self._function_end(index) - start else None

    def stack_bound(self, entry: str, indirect: tuple[str, ...] = ()) -> StackBound:
        """Bound the stack of a call of the function `entry`, over all that it may call.

        `indirect` names what calls through pointers may reach, as far as the image has it.

        Raises:
            InputError: there is no function of that name.
        """
        symbol = self.symbol(entry)
        if not symbol.is_function:
            raise InputError(f"'{entry}' in {self.path.name} is not a function")
        pointed = tuple(self.symbols[name].address for name in indirect if name in self.symbols)
        return worst_case_stack(self._code_map, symbol.address, pointed)

    @functools.cached_property
    def _code_map(self) -> CodeMap:
        functions = {
            start: (name, self._function_end(index))
            for index, (start, name) in enumerate(self._function_names.items())
        }
        chunks = tuple((segment.address, segment.data) for segment in self.segments)
        return CodeMap(chunks, functions, self._mapping)

    def _function_end(self, index: int) -> int:
        """Where a function ends; hand-written assembly may not say, then the next one bounds it."""
        start = self._function_starts[index]
        size_bytes = self.symbols[self._function_names[start]].size_bytes
        if size_bytes:
            return start + size_bytes
        if index + 1 < len(self._function_starts):
            return self._function_starts[index + 1]
        return max(segment.address + len(segment.data) for segment in self.segments)
