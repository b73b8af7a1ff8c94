"""Greedy placement in several orders, each by first fit and by best fit.

Each buffer in turn goes into a gap between the placed buffers that it lives together with: the
lowest that it fits (first fit) or the tightest (best fit). Which order wins depends on the problem,
so all are tried and the lowest height is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kilograd.planning.allocation.problem import height_bytes
from kilograd.planning.allocation.timeline import IntArray, Timeline

_UNBOUNDED = np.iinfo(np.int64).max // 4


def best_heuristic(timeline: Timeline, target_bytes: int) -> dict[str, int]:
    """Offsets of the lowest greedy placement; stops at the first of at most `target_bytes`."""
    best: dict[str, int] = {}
    best_height = _UNBOUNDED
    for order in _orders(timeline):
        for tightest in (False, True):
            offsets = _place(timeline, order, tightest=tightest)
            height = height_bytes(timeline.buffers, offsets)
            if height < best_height:
                best, best_height = offsets, height
            if best_height <= target_bytes:
                return best
    return best


def _orders(timeline: Timeline) -> Iterator[IntArray]:
    size, lifetime = timeline.size_bytes, timeline.lifetime
    yield timeline.order(size, lifetime)
    yield timeline.order(size * lifetime, size)
    yield timeline.order(lifetime, size)
    yield timeline.order(timeline.peak_bytes, size, lifetime)
    yield timeline.order(timeline.peak_bytes, lifetime, size)
    yield timeline.order(timeline.conflicts * size, size)
    yield timeline.order(-timeline.first, lifetime, size)


def _place(timeline: Timeline, order: IntArray, *, tightest: bool) -> dict[str, int]:
    """Put the buffers one by one into the arena; the placed ones are kept sorted by offset."""
    count = len(order)
    first, last, start, end = (np.zeros(count, np.int64) for _ in range(4))
    offsets: dict[str, int] = {}
    for used, index in enumerate(order.tolist()):
        buffer = timeline.buffers[index]
        own_first, own_last = timeline.first[index], timeline.last[index]
        live = (first[:used] < own_last) & (last[:used] > own_first)
        offset = _gap(
            start[:used][live],
            end[:used][live],
            buffer.size_bytes,
            buffer.alignment_bytes,
            tightest=tightest,
        )
        offsets[buffer.name] = offset
        at = int(np.searchsorted(start[:used], offset))
        inserted = (own_first, own_last, offset, offset + buffer.size_bytes)
        for column, value in zip((first, last, start, end), inserted, strict=True):
            column[at + 1 : used + 1] = column[at:used]
            column[at] = value
    return offsets


def _gap(
    start: IntArray, end: IntArray, size_bytes: int, alignment_bytes: int, *, tightest: bool
) -> int:
    """The offset of a gap between the intervals [start, end), which are sorted by start."""
    if not len(start):
        return 0
    lower = np.zeros(len(start) + 1, np.int64)
    np.maximum.accumulate(end, out=lower[1:])
    if alignment_bytes > 1:
        lower += -lower % alignment_bytes
    room = np.append(start, _UNBOUNDED) - lower
    fits = room >= size_bytes
    gap = np.where(fits, room, _UNBOUNDED + 1).argmin() if tightest else fits.argmax()
    return int(lower[gap])
