"""Checks an allocation against the problem alone; knows of no solver."""

from __future__ import annotations

from kilograd.planning.allocation.problem import (
    Allocation,
    AllocationProblem,
    Buffer,
    height_bytes,
)


def validate(problem: AllocationProblem, allocation: Allocation) -> list[str]:
    """Every rule that the allocation breaks, a sentence each; empty when it is right."""
    offsets = allocation.offsets
    names = {buffer.name for buffer in problem.buffers}
    broken = [f"buffer '{b.name}' has no offset" for b in problem.buffers if b.name not in offsets]
    broken += [f"offset {offsets[n]} is for '{n}', no buffer" for n in offsets if n not in names]
    placed = [buffer for buffer in problem.buffers if buffer.name in offsets]
    for buffer in placed:
        broken += _broken_alone(buffer, offsets[buffer.name], problem.capacity_bytes)
    broken += _shared_bytes(placed, allocation)
    height = height_bytes(placed, offsets)
    if allocation.height_bytes != height:
        broken.append(
            f"the height is said to be {allocation.height_bytes} bytes, "
            f"but the highest buffer ends at {height}"
        )
    if allocation.lower_bound_bytes > height:
        broken.append(
            f"the lower bound of {allocation.lower_bound_bytes} bytes is above the height of "
            f"{height} bytes"
        )
    return broken


def _broken_alone(buffer: Buffer, offset: int, capacity_bytes: int | None) -> list[str]:
    end = offset + buffer.size_bytes
    broken = []
    if offset < 0:
        broken.append(f"buffer '{buffer.name}' begins at {offset}, below the arena")
    if offset % buffer.alignment_bytes:
        broken.append(
            f"buffer '{buffer.name}' begins at {offset}, which is no multiple of its alignment "
            f"of {buffer.alignment_bytes} bytes"
        )
    if buffer.at_bottom and offset != 0:
        broken.append(f"buffer '{buffer.name}' is pinned to offset 0 but begins at {offset}")
    if capacity_bytes is not None and end > capacity_bytes:
        broken.append(
            f"buffer '{buffer.name}' ends at {end}, {end - capacity_bytes} bytes above the "
            f"capacity of {capacity_bytes}"
        )
    return broken


def _shared_bytes(placed: list[Buffer], allocation: Allocation) -> list[str]:
    """Pairs that live at one step and share a byte, by a sweep over the steps."""
    offsets = allocation.offsets
    live: list[Buffer] = []
    broken = []
    for buffer in sorted(placed, key=lambda b: (b.first, b.name)):
        live = [other for other in live if other.last > buffer.first]
        start, end = offsets[buffer.name], offsets[buffer.name] + buffer.size_bytes
        for other in live:
            other_start = offsets[other.name]
            other_end = other_start + other.size_bytes
            if start < other_end and other_start < end:
                broken.append(
                    f"buffers '{other.name}' at [{other_start}, {other_end}) and '{buffer.name}' "
                    f"at [{start}, {end}) share bytes, and both live at step {buffer.first}"
                )
        live.append(buffer)
    return broken
