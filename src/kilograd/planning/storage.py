"""Where pages lie in secondary storage.

    | constants | initial values | bank 1 | bank 2 | pages of the running call |
    |<-------- image ----------->|

A constant has one place, which holds it before the first step. A stored state has three, one in
each of three areas of the same layout: its initial value, which is never overwritten, and two banks
that take turns, so that the values before a step outlive the step. A page of a running call has one
place, which other pages take over when nobody reads it any more.

What lies in storage starts and ends with the blocks of the storage, be they of transfers or of
erasing: no two tensors share one.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kilograd.errors import CompilerBug, InfeasibleError
from kilograd.ir import Graph, Node, Tensor, Value
from kilograd.ir.printing import print_node
from kilograd.ops.page import Paging

BANKS = 2
"""The areas besides that of the initial values, which take turns."""

LARGEST_BYTES = 2**32 - 1
"""Offsets in C have 32 bits."""


class Geometry(Protocol):
    """What a plan has to know of a storage; `kilograd.devices.Storage` has it."""

    @property
    def size_bytes(self) -> int:
        """What is free for tensors."""

    @property
    def block_bytes(self) -> int:
        """Transfers start and end at multiples of this; 1 where they may start anywhere."""

    @property
    def erase_bytes(self) -> int:
        """What is erased at once, before it is written; 0 where writes need no erase."""


@dataclass(frozen=True)
class Page:
    """The place of a page: `offset` in bytes, and the index of its checksum in SRAM."""

    offset: int
    checksum: int


@dataclass(frozen=True, eq=False)
class StoragePlan:
    """Offsets in bytes of what lies in storage, by value.

    `initial` are the offsets of the initial values of the stored states; a bank holds its tensors
    `bank_bytes` further on for bank 1, twice that for bank 2. `pages` has the pages of each graph,
    in the order of the graphs that were placed, and `checksums` is the largest number of pages that
    exist at once. `tensors` are the data of constants and states. `size_bytes` is what the storage
    has to have.
    """

    block_bytes: int
    erase_bytes: int
    constants: Mapping[Value, int]
    initial: Mapping[Value, int]
    bank_bytes: int
    pages: tuple[Mapping[Value, Page], ...]
    checksums: int
    tensors: Mapping[Value, Tensor]
    size_bytes: int

    @property
    def image_bytes(self) -> int:
        """What has to be written to the start of the storage before the program runs."""
        return self._constant_bytes + self.bank_bytes

    @property
    def image(self) -> bytes:
        """Constants and initial values; gaps are 0xFF, as of erased flash."""
        result = bytearray(b"\xff" * self.image_bytes)
        for value, offset in (*self.constants.items(), *self.initial.items()):
            data = _data(self.tensors[value])
            result[offset : offset + len(data)] = data
        return bytes(result)

    @property
    def unit_bytes(self) -> int:
        """Everything in storage starts at multiples of this: whole blocks and erase blocks."""
        return _unit(self)

    @property
    def writes(self) -> bool:
        """Whether the program writes to the storage; constants alone are only read."""
        return bool(self.initial) or any(self.pages)

    def offset(self, state: Value, bank: int) -> int:
        """Where a state lies; bank 0 are the initial values."""
        return self.initial[state] + bank * self.bank_bytes

    def bank_offset(self, bank: int) -> int:
        """Where the area of a bank starts; bank 0 are the initial values."""
        return self._constant_bytes + bank * self.bank_bytes

    def crc(self, value: Value) -> int:
        """The CRC-32 of a constant, or of the initial value of a state."""
        return zlib.crc32(_data(self.tensors[value]))

    @property
    def _constant_bytes(self) -> int:
        unit = _unit(self)
        return sum(_padded(value.type.bytes, unit) for value in self.constants)


class _Blocks(Protocol):
    @property
    def block_bytes(self) -> int: ...

    @property
    def erase_bytes(self) -> int: ...


def place(graphs: Sequence[Graph], geometry: Geometry) -> StoragePlan | None:
    """A place for everything of these graphs that lies in storage, or None where nothing does.

    Raises InfeasibleError where the storage is too small, CompilerBug where a graph is not as
    `check_paging` wants it, its page nodes are made for another block size, or the graphs do not
    agree on what is stored.
    """
    constants: dict[Value, Tensor] = {}
    states: dict[Value, Tensor] = {}
    for graph in graphs:
        check_paging(graph, geometry.block_bytes)
        constants |= {v: t for v, t in graph.constants.items() if v in graph.stored}
        states |= {v: t for v, t in graph.state.items() if v in graph.stored}
    for graph in graphs:
        for value in {*graph.constants, *graph.state} - graph.stored:
            if value in constants or value in states:
                raise CompilerBug(f"{value} lies in storage for one function, not for another")
    unit = _unit(geometry)
    constant_offsets, end = _stacked(constants, 0, unit)
    initial, bank_end = _stacked(states, end, unit)
    bank_bytes = bank_end - end
    base = bank_end + BANKS * bank_bytes
    layouts = [_pages(graph, base, unit) for graph in graphs]
    if not (constants or states or any(pages for pages, _, _ in layouts)):
        return None
    size_bytes = max((top for _, top, _ in layouts), default=base)
    available = min(geometry.size_bytes, LARGEST_BYTES)
    if size_bytes > available:
        raise InfeasibleError(
            f"the program needs {size_bytes:,} bytes of storage, "
            f"{size_bytes - available:,} more than the {available:,} that "
            f"there are: constants {end:,}, stored states {(1 + BANKS) * bank_bytes:,} (initial "
            f"values and {BANKS} banks), pages of the running step {size_bytes - base:,}, all in "
            f"blocks of {unit:,}.\nWhat helps: a larger storage, more SRAM for the program, or "
            "training fewer layers."
        )
    return StoragePlan(
        block_bytes=geometry.block_bytes,
        erase_bytes=geometry.erase_bytes,
        constants=constant_offsets,
        initial=initial,
        bank_bytes=bank_bytes,
        pages=tuple(pages for pages, _, _ in layouts),
        checksums=max((count for _, _, count in layouts), default=0),
        tensors={**constants, **states},
        size_bytes=size_bytes,
    )


def check_paging(graph: Graph, block_bytes: int) -> None:
    """Raise CompilerBug unless pages and what is stored are read by operators that read storage,
    these read nothing else there, and the next value of every stored state is written to storage.
    """
    pages = {value for node in graph.nodes if _writes(node) for value in node.outputs}
    stored = {*graph.constants, *graph.state} & graph.stored
    for node in graph.nodes:
        for position, value in enumerate(node.inputs):
            is_read = isinstance(node.op, Paging) and node.op.reads(position)
            if (value in pages or value in stored) != is_read:
                where = "in storage" if not is_read else "not in storage"
                raise CompilerBug(f"{value} is {where}, which this node does not read: {_at(node)}")
        if isinstance(node.op, Paging) and node.op.block_bytes != block_bytes:
            raise CompilerBug(f"the storage has blocks of {block_bytes} bytes: {_at(node)}")
    for value in graph.outputs:
        if value in pages or value in stored:
            raise CompilerBug(f"the output {value} is in storage")
    for state, successor in graph.updates.items():
        if (successor in pages) != (state in stored):
            raise CompilerBug(f"{state} and its next value {successor} are not in one memory")
    idle = [state for state in stored if state in graph.state and state not in graph.updates]
    if graph.updates and idle:
        raise CompilerBug(f"the stored state {idle[0]} has no next value; make it a constant")


def _writes(node: Node) -> bool:
    return isinstance(node.op, Paging) and node.op.writes


def _at(node: Node) -> str:
    return print_node(node).strip()


def _unit(geometry: _Blocks) -> int:
    return math.lcm(geometry.block_bytes, geometry.erase_bytes or 1)


def _padded(size_bytes: int, unit: int) -> int:
    return -(-size_bytes // unit) * unit


def _stacked(values: Mapping[Value, Tensor], start: int, unit: int) -> tuple[dict[Value, int], int]:
    """Offsets of tensors one behind the other, and the end of the last."""
    offsets: dict[Value, int] = {}
    for value in values:
        offsets[value] = start
        start += _padded(value.type.bytes, unit)
    return offsets, start


def _pages(graph: Graph, base: int, unit: int) -> tuple[dict[Value, Page], int, int]:
    """First fit by lifetime for the pages of one graph: places, the end, the checksums needed."""
    successors = set(graph.updates.values())
    last = {value: index for index, node in enumerate(graph.nodes) for value in node.inputs}
    pages: dict[Value, Page] = {}
    alive: list[tuple[int, int, int, int]] = []  # last read, start, end, checksum
    top = base
    count = 0
    for index, node in enumerate(graph.nodes):
        if not _writes(node) or not successors.isdisjoint(node.outputs):
            continue
        (value,) = node.outputs
        alive = [page for page in alive if page[0] > index]
        size = _padded(value.type.bytes, unit)
        start = base
        for _, low, high, _ in sorted(alive, key=lambda page: page[1]):
            if start + size <= low:
                break
            start = max(start, high)
        taken = {page[3] for page in alive}
        checksum = next(i for i in range(len(taken) + 1) if i not in taken)
        alive.append((last.get(value, index), start, start + size, checksum))
        pages[value] = Page(start, checksum)
        top, count = max(top, start + size), max(count, checksum + 1)
    return pages, top, count


def _data(tensor: Tensor) -> bytes:
    return np.ascontiguousarray(tensor.array).tobytes()
