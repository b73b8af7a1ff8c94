"""An ordered graph with an offset in the arena for every buffer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kilograd.ir import Graph, Value
from kilograd.planning.lifetimes import Lifetimes


@dataclass(frozen=True)
class Schedule:
    """One function, ready to be written as C; `offsets` are bytes from the start of the arena, by
    buffer name.
    """

    graph: Graph
    lifetimes: Lifetimes
    offsets: Mapping[str, int]
    arena_bytes: int

    def offset(self, value: Value) -> int:
        """The offset of the buffer that a value uses."""
        return self.offsets[self.lifetimes.root[value].name]
