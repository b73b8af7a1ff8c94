"""The problem in the largest unit of bytes that loses nothing.

Alignments are multiples of g, their greatest common divisor, so sizes may be rounded up to g, all
but the topmost buffer's. In an allocation where every buffer rests on another or on 0, offsets then
are sums of rounded sizes, rounded up to alignments: multiples of the unit found here. Only such
allocations have to be looked for, because pushing buffers down never raises the height.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kilograd.planning.allocation.timeline import IntArray, Timeline


@dataclass(frozen=True)
class Grid:
    """A timeline whose sizes and alignments are counted in units of `unit_bytes`."""

    timeline: Timeline
    unit_bytes: int
    size: IntArray
    alignment: IntArray

    @classmethod
    def of(cls, timeline: Timeline) -> Grid:
        """Choose the unit for a timeline of at least one buffer."""
        alignments = sorted({buffer.alignment_bytes for buffer in timeline.buffers})
        grain = math.gcd(*alignments)
        rounded = timeline.size_bytes + -timeline.size_bytes % grain
        unit = math.gcd(*rounded.tolist())
        while foreign := [a for a in alignments if unit % a and a % unit]:
            unit = math.gcd(unit, foreign[0])
        in_units = [max(b.alignment_bytes // unit, 1) for b in timeline.buffers]
        return cls(timeline, unit, rounded // unit, np.array(in_units, np.int64))

    @cached_property
    def _remainders(self) -> list[int]:
        return sorted(set((self.timeline.size_bytes % self.unit_bytes).tolist()))

    def height_at_most(self, bytes_: int) -> int:
        """The greatest height in bytes, up to `bytes_`, that buffers on the grid can end at."""
        return max(bytes_ - (bytes_ - rest) % self.unit_bytes for rest in self._remainders)

    def height_above(self, bytes_: int) -> int:
        """The least height in bytes, greater than `bytes_`, that buffers on the grid can end at."""
        least = bytes_ + 1
        return min(least + (rest - least) % self.unit_bytes for rest in self._remainders)

    def highest(self, capacity_bytes: int) -> IntArray:
        """For each buffer the greatest offset in units; negative where there is no room."""
        highest = (capacity_bytes - self.timeline.size_bytes) // self.unit_bytes
        return np.where(self.timeline.pinned, np.minimum(highest, 0), highest)

    def capacity(self, capacity_bytes: int) -> int:
        """A number of units that holds every allocation of at most `capacity_bytes`."""
        return -(-self.height_at_most(capacity_bytes) // self.unit_bytes)

    def offsets_bytes(self, offsets: IntArray) -> dict[str, int]:
        """Offsets in units to bytes by name."""
        pairs = zip(self.timeline.buffers, offsets.tolist(), strict=True)
        return {buffer.name: offset * self.unit_bytes for buffer, offset in pairs}

    def twins(self, order: IntArray) -> IntArray:
        """For each position of `order`, the last one before it with an equal buffer, or -1."""
        positions: dict[tuple[int, ...], int] = {}
        twins = []
        for position, index in enumerate(order.tolist()):
            buffer = self.timeline.buffers[index]
            kind = (
                buffer.first,
                buffer.last,
                buffer.size_bytes,
                buffer.alignment_bytes,
                buffer.at_bottom,
            )
            twins.append(positions.get(kind, -1))
            positions[kind] = position
        return np.array(twins, np.int64)
