"""The offset problem: buffers with lifetimes and sizes, and what an answer to it is.

Buffer i owns the bytes [offset_i, offset_i + size_i) of the arena during the steps [first_i,
last_i). Two buffers that live at the same step share no byte; offset_i is a multiple of the
buffer's alignment, and 0 where the buffer is pinned to the bottom; the height
max(offset_i + size_i) is what the arena costs, and is at most the capacity where there is one.
"""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from kilograd.errors import InfeasibleError, InputError

_SHOWN = 5


@dataclass(frozen=True)
class Buffer:
    """`size_bytes` bytes that live during the steps first .. last - 1.

    `at_bottom` pins the offset to 0.

    Raises `InputError` when the lifetime holds no step, or size or alignment is not positive.
    """

    name: str
    size_bytes: int
    first: int
    last: int
    alignment_bytes: int = 1
    at_bottom: bool = False

    def __post_init__(self) -> None:
        """Reject what no allocation could mean."""
        if self.first >= self.last:
            raise InputError(
                f"buffer '{self.name}' lives during [{self.first}, {self.last}), which holds no "
                f"step; `last` is the step behind its last use, at least {self.first + 1}"
            )
        if self.size_bytes <= 0:
            raise InputError(
                f"buffer '{self.name}' has {self.size_bytes} bytes; leave empty tensors out"
            )
        if self.alignment_bytes <= 0:
            raise InputError(
                f"buffer '{self.name}' asks for an alignment of {self.alignment_bytes} bytes; "
                "use 1 where any address will do"
            )

    def overlaps(self, other: Buffer) -> bool:
        """Whether both live at some step."""
        return self.first < other.last and other.first < self.last


@dataclass(frozen=True)
class AllocationProblem:
    """Buffers to place, and the bytes there are for them (None: as few as possible).

    Raises `InputError` for names that repeat, a capacity that is not positive, or two buffers that
    are both pinned to the bottom at one step; `InfeasibleError` for a buffer that is larger than
    the capacity.
    """

    buffers: tuple[Buffer, ...]
    capacity_bytes: int | None = None

    def __post_init__(self) -> None:
        """Reject problems that are ill-formed or hopeless at sight."""
        counts = Counter(buffer.name for buffer in self.buffers)
        repeated = sorted(name for name, count in counts.items() if count > 1)
        if repeated:
            raise InputError(
                f"{len(repeated)} buffer names occur more than once: {_listed(repeated)}; "
                "a tensor with several lifetimes is several buffers, each with its own name"
            )
        pinned = sorted((b for b in self.buffers if b.at_bottom), key=lambda b: b.first)
        for before, after in itertools.pairwise(pinned):
            if before.overlaps(after):
                raise InputError(
                    f"buffers '{before.name}' and '{after.name}' are both pinned to offset 0 "
                    f"and both live at step {after.first}; unpin one of them"
                )
        if self.capacity_bytes is not None:
            self._check_capacity(self.capacity_bytes)

    def _check_capacity(self, capacity_bytes: int) -> None:
        if capacity_bytes <= 0:
            raise InputError(f"the capacity is {capacity_bytes} bytes; it has to be positive")
        large = [b for b in self.buffers if b.size_bytes > capacity_bytes]
        if large:
            shown = _listed([f"'{b.name}' with {b.size_bytes} bytes" for b in large])
            raise InfeasibleError(
                f"{len(large)} buffers are larger than the arena of {capacity_bytes} bytes: "
                f"{shown}; it has to hold at least {max(b.size_bytes for b in large)} bytes"
            )


@dataclass(frozen=True)
class Allocation:
    """An answer: where each buffer begins, and how good that is known to be.

    `lower_bound_bytes` is a height that no allocation is below; `method` names the solver that
    found the offsets, "heuristic", "search" or "cp-sat", and "none" for a problem without buffers.
    """

    offsets: Mapping[str, int]
    height_bytes: int
    lower_bound_bytes: int
    method: str

    def __post_init__(self) -> None:
        """Freeze the offsets."""
        object.__setattr__(self, "offsets", MappingProxyType(dict(self.offsets)))

    @property
    def proven(self) -> bool:
        """Whether it is certain that no allocation is lower."""
        return self.height_bytes == self.lower_bound_bytes


def height_bytes(buffers: Sequence[Buffer], offsets: Mapping[str, int]) -> int:
    """Where the highest of the placed buffers ends; 0 without buffers."""
    return max((offsets[b.name] + b.size_bytes for b in buffers), default=0)


def load_csv(path: str | Path, capacity_bytes: int | None = None) -> AllocationProblem:
    """Read MiniMalloc's format: a CSV file with the columns id, lower, upper (half-open), size.

    Raises `InputError` when a column is missing or a field is not an integer.
    """
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"id", "lower", "upper", "size"} - set(reader.fieldnames or ())
        if missing:
            raise InputError(
                f"{path}: the header has no column {', '.join(sorted(missing))}; "
                "it has to name id, lower, upper and size"
            )
        buffers = tuple(_read_row(path, line, row) for line, row in enumerate(reader, start=2))
    return AllocationProblem(buffers, capacity_bytes)


def _read_row(path: str | Path, line: int, row: dict[str, str]) -> Buffer:
    try:
        first, last, size_bytes = (int(row[column]) for column in ("lower", "upper", "size"))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}, line {line}: lower, upper and size have to be integers, not "
            f"{row['lower']!r}, {row['upper']!r} and {row['size']!r}"
        ) from error
    return Buffer(row["id"], size_bytes, first, last)


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
