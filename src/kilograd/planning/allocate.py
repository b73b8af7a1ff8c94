"""Offsets for the two functions of a program, which share one arena and the place of the input."""

from __future__ import annotations

from kilograd.errors import CompilerBug
from kilograd.ir import Graph
from kilograd.planning.lifetimes import ALIGNMENT_BYTES, Lifetimes, lifetimes
from kilograd.planning.schedule import Schedule


def allocate(graph: Graph) -> Schedule:
    """The schedule of an ordered graph: its first input lies at offset 0, scalar results with the
    caller.
    """
    lives = lifetimes(
        graph, by_pointer=frozenset(value for value in graph.outputs if not value.type.rank)
    )
    offsets = _first_fit(lives, graph.inputs[0].name)
    height = max((offsets[buffer.name] + buffer.size_bytes for buffer in lives.buffers), default=0)
    height = -(-height // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return Schedule(graph, lives, offsets, height)


def _first_fit(lives: Lifetimes, bottom: str) -> dict[str, int]:
    placed: list[tuple[int, int, int, int]] = []
    offsets: dict[str, int] = {}
    order = sorted(lives.buffers, key=lambda b: (b.name != bottom, -b.size_bytes, b.first, b.name))
    for buffer in order:
        size = -(-buffer.size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        offset = 0
        for start, stop, first, last in sorted(placed):
            if (
                first < buffer.last
                and buffer.first < last
                and start < offset + size
                and stop > offset
            ):
                offset = stop
        offsets[buffer.name] = offset
        placed.append((offset, offset + size, buffer.first, buffer.last))
    if offsets.get(bottom, 0) != 0:
        raise CompilerBug(f"the input {bottom} is not at offset 0")
    return offsets
