"""Buffers as arrays over sections, the stretches of time in which the live set does not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from kilograd.planning.allocation.problem import Buffer

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Timeline:
    """Section numbers and byte counts, an element a buffer in the order of `buffers`."""

    buffers: tuple[Buffer, ...]
    first: IntArray
    last: IntArray
    size_bytes: IntArray
    sections: int

    @classmethod
    def of(cls, buffers: Sequence[Buffer]) -> Timeline:
        """Number the sections of the buffers' steps from 0."""
        steps = np.unique([step for b in buffers for step in (b.first, b.last)])
        return cls(
            buffers=tuple(buffers),
            first=np.searchsorted(steps, [b.first for b in buffers]).astype(np.int64),
            last=np.searchsorted(steps, [b.last for b in buffers]).astype(np.int64),
            size_bytes=np.array([b.size_bytes for b in buffers], np.int64),
            sections=max(len(steps) - 1, 0),
        )

    @cached_property
    def live_bytes(self) -> IntArray:
        """Sum of the sizes that live in each section."""
        changes = np.zeros(self.sections + 1, np.int64)
        np.add.at(changes, self.first, self.size_bytes)
        np.subtract.at(changes, self.last, self.size_bytes)
        return np.cumsum(changes)[:-1]

    @cached_property
    def peak_bytes(self) -> IntArray:
        """For each buffer, the most bytes that live at once during its life."""
        pairs = zip(self.first, self.last, strict=True)
        return np.array([self.live_bytes[first:last].max() for first, last in pairs], np.int64)

    @cached_property
    def conflicts(self) -> IntArray:
        """For each buffer, how many others it lives together with."""
        ended = np.searchsorted(np.sort(self.last), self.first, side="right")
        begun = np.searchsorted(np.sort(self.first), self.last, side="left")
        return begun - ended - 1

    @cached_property
    def lifetime(self) -> IntArray:
        """For each buffer, the steps that it lives."""
        return np.array([b.last - b.first for b in self.buffers], np.int64)

    @cached_property
    def pinned(self) -> npt.NDArray[np.bool_]:
        """For each buffer, whether it is pinned to the bottom."""
        return np.array([b.at_bottom for b in self.buffers], np.bool_)

    def order(self, *keys: IntArray | FloatArray) -> IntArray:
        """Indices by descending keys, the first key deciding; pinned buffers come before all.

        Ties go to the earlier, then to the one that comes first in `buffers`.
        """
        columns = [self.pinned.astype(np.int64), *keys, -self.first]
        return np.lexsort([-column for column in reversed(columns)]).astype(np.int64)


def components(buffers: Sequence[Buffer]) -> list[list[Buffer]]:
    """Groups that never live together, in the order of time: separate problems in one arena."""
    groups: list[list[Buffer]] = []
    end = 0
    for buffer in sorted(buffers, key=lambda b: (b.first, b.last, b.name)):
        if not groups or buffer.first >= end:
            groups.append([])
            end = buffer.last
        groups[-1].append(buffer)
        end = max(end, buffer.last)
    return groups
