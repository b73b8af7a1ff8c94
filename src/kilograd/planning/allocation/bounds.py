"""Heights that no allocation is below: the live bytes of each step, alignment where it is certain.

Take the buffers that live at a step and whose alignment g divides, and sort them by offset. Their
offsets are multiples of g, so every one but the topmost keeps ceil(size / g) g bytes to itself:

    height >= sum_i ceil(size_i / g) g - max_i (ceil(size_i / g) g - size_i)

The bound is the greatest over g, among the alignments and their greatest common divisor.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

from kilograd.planning.allocation.problem import Buffer


def lower_bound_bytes(buffers: Sequence[Buffer]) -> int:
    """The greatest bound of any step; 0 without buffers."""
    return max((bound for _, bound in bound_profile(buffers)), default=0)


def bound_profile(buffers: Sequence[Buffer]) -> list[tuple[int, int]]:
    """(step, bound in bytes at that step) for every step at which a buffer begins to live."""
    alignments = {buffer.alignment_bytes for buffer in buffers}
    steps = sorted({buffer.first for buffer in buffers})
    profiles = [
        _profile([b for b in buffers if b.alignment_bytes % grain == 0], grain, steps)
        for grain in alignments | {math.gcd(*alignments)}
    ]
    return list(zip(steps, map(max, zip(*profiles, strict=True)), strict=True))


def _profile(buffers: Sequence[Buffer], grain: int, steps: Sequence[int]) -> list[int]:
    """The formula with g = grain at each step."""
    arrivals = sorted(buffers, key=lambda b: b.first, reverse=True)
    departures = sorted(buffers, key=lambda b: b.last, reverse=True)
    rounded_bytes = 0
    paddings: list[tuple[int, int]] = []  # heap of (-padding, last); the dead leave when on top
    bounds = []
    for step in steps:
        while departures and departures[-1].last <= step:
            gone = departures.pop()
            rounded_bytes -= gone.size_bytes + -gone.size_bytes % grain
        while arrivals and arrivals[-1].first <= step:
            come = arrivals.pop()
            padding = -come.size_bytes % grain
            rounded_bytes += come.size_bytes + padding
            heapq.heappush(paddings, (-padding, come.last))
        while paddings and paddings[0][1] <= step:
            heapq.heappop(paddings)
        bounds.append(rounded_bytes + (paddings[0][0] if paddings else 0))
    return bounds
