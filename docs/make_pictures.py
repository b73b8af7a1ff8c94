"""Draws the demo: a recording of its terminal, and the arena during a training step.

    python docs/make_pictures.py            writes docs/demo.svg and docs/memory.svg

Needs what `make demo` needs. Figures and times in the pictures are those of the run that drew them.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from unittest.mock import patch

from recording import Recorder

from kilograd import Program, demo
from kilograd.execution import session
from kilograd.planning.lifetimes import Lifetime
from kilograd.planning.schedule import Schedule
from kilograd.stages import watched

DOCS = Path(__file__).parent

KINDS = {
    "input": ("#59636e", "input and label"),
    "activation": ("#3b82c4", "activations, forward"),
    "cotangent": ("#e08a2c", "gradients of activations"),
    "weight": ("#2f9e66", "gradients of weights, next weights"),
    "scratch": ("#b9a6d6", "scratch of one operator"),
}
INK, PALE, EDGE = "#1f2328", "#8c959f", "#ffffff"


def main() -> None:
    """Run the demo and draw both pictures."""
    console = Recorder(width=108)
    console.print("$ kilograd demo")
    busy, bar = console_busy(console), console_bar(console)
    with (
        tempfile.TemporaryDirectory() as scratch,
        contextlib.chdir(scratch),
        patch.object(session, "_progress", bar),
    ):
        program = demo.run(Path("build/demo"), "cortex-m7-256k", console, busy=busy)
    picture = console.picture(title="kilograd demo", name="demo")
    (DOCS / "demo.svg").write_text(picture, encoding="utf-8")
    (DOCS / "memory.svg").write_text(memory_map(program), encoding="utf-8")


def console_busy(console: Recorder) -> Callable[[str], AbstractContextManager[None]]:
    """What the command line shows while it compiles, as status lines of the recording."""

    @contextlib.contextmanager
    def busy(what: str) -> Iterator[None]:
        console.status_line(f"⠸ {what}")
        with watched(lambda stage: console.status_line(f"⠸ {what}: {stage}")):
            yield

    return busy


def console_bar(console: Recorder) -> Callable[[bool, int], AbstractContextManager[Any]]:
    """The bar of a session, as status lines of the recording."""

    @contextlib.contextmanager
    def progress(show: bool, total: int) -> Iterator[Callable[[str], None]]:
        done = 0

        def advance(text: str) -> None:
            nonlocal done
            done += 1
            bar = "━" * round(40 * done / total)
            if show:
                console.status_line(f"{bar:<40} {done}/{total} {text}")

        yield advance

    return progress


@dataclass(frozen=True)
class Frame:
    """Where the picture draws: pixels of the plot, and the scales of time and address."""

    left: float
    top: float
    width: float
    height: float
    steps: int
    arena_bytes: int

    def x(self, step: float) -> float:
        """Pixels of a node index."""
        return self.left + self.width * step / self.steps

    def y(self, address: float) -> float:
        """Pixels of a byte offset; offset 0 is at the bottom."""
        return self.top + self.height * (1 - address / self.arena_bytes)


def memory_map(program: Program) -> str:
    """The arena in a training step: time to the right, address upwards, a box a tensor."""
    schedule = program.train
    frame = Frame(64, 58, 876, 400, len(schedule.graph.nodes), schedule.arena_bytes)
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 540" width="960" height="540" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12">',
        f'<rect width="960" height="540" fill="{EDGE}"/>',
        text(64, 24, f"The arena during one training step of {program.name}", size=15, bold=True),
        text(
            64,
            42,
            f"a box is a tensor: as wide as it lives (in operators), as high as its bytes; "
            f"arena {schedule.arena_bytes:,} bytes, lower bound "
            f"{schedule.lifetimes.peak_bytes:,} bytes",
            color=PALE,
        ),
        *axes(frame, schedule),
        *(box(program, frame, buffer) for buffer in schedule.lifetimes.buffers),
        *labels(program, frame),
        *phases(frame, schedule),
        *legend({kind_of(program, buffer) for buffer in schedule.lifetimes.buffers}),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def kind_of(program: Program, buffer: Lifetime) -> str:
    """Which of KINDS a buffer is."""
    graph = program.train.graph
    if buffer.name in {value.name for value in graph.inputs}:
        return "input"
    if buffer.name in {value.name for value in program.gradients.values()}:
        return "weight"
    producer = {v.name: node for node in graph.nodes for v in node.outputs}.get(buffer.name)
    if producer is None:
        return "scratch"
    return "cotangent" if producer.location.backward else "activation"


def box(program: Program, frame: Frame, buffer: Lifetime) -> str:
    """The rectangle of a buffer, with its name and bytes as a tooltip."""
    offset = program.train.offsets[buffer.name]
    x, y = frame.x(buffer.first), frame.y(offset + buffer.size_bytes)
    width, height = frame.x(buffer.last) - x, frame.y(offset) - y
    color, _ = KINDS[kind_of(program, buffer)]
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}" '
        f'stroke="{EDGE}" stroke-width="0.6"><title>{escape(buffer.name)}: '
        f"{buffer.size_bytes:,} bytes at {offset:,}</title></rect>"
    )


def labels(program: Program, frame: Frame) -> Iterator[str]:
    """Names in the boxes that have room for them."""
    for buffer in program.train.lifetimes.buffers:
        offset = program.train.offsets[buffer.name]
        x, y = frame.x(buffer.first), frame.y(offset + buffer.size_bytes / 2)
        room = frame.x(buffer.last) - x
        height = frame.y(offset) - frame.y(offset + buffer.size_bytes)
        name = buffer.name.replace("d_", "d ", 1) if buffer.name[:2] == "d_" else buffer.name
        name = name.replace("blocks_", "block ").replace("_", " ")
        if height >= 13 and room >= 6.0 * len(name):
            yield text(x + 5, y + 4, name, color=EDGE, size=11)


def axes(frame: Frame, schedule: Schedule) -> Iterator[str]:
    """Addresses at the left, node indices below, the limits of the plot."""
    right, bottom = frame.left + frame.width, frame.top + frame.height
    for address in range(0, schedule.arena_bytes, 16384):
        y = frame.y(address)
        yield line(frame.left - 4, y, right, y, "#d8dee4")
        yield text(frame.left - 8, y + 4, f"{address // 1024} KB", color=PALE, anchor="end")
    yield line(frame.left, frame.top, right, frame.top, INK, dashed=True)
    for step in range(0, frame.steps + 1, 10):
        yield text(frame.x(step), bottom + 16, str(step), color=PALE, anchor="middle")


def phases(frame: Frame, schedule: Schedule) -> Iterator[str]:
    """Where forward ends, and where the updates begin."""
    nodes, bottom = schedule.graph.nodes, frame.top + frame.height
    backward = next(i for i, node in enumerate(nodes) if node.location.backward)
    steps = {value for value in schedule.graph.updates.values()}
    update = next(i for i, node in enumerate(nodes) if any(v in steps for v in node.outputs))
    checks = next(i for i, node in enumerate(nodes) if node.op.name == "sgd_check")
    marks = [
        (0, backward, "forward"),
        (backward, update, "backward"),
        (update, len(nodes), "update"),
    ]
    if backward < checks < update and all(n.op.check for n in nodes[checks:update]):
        marks[1:2] = [(backward, checks, "backward"), (checks, update, "check")]
    for first, last, name in marks:
        x, middle = frame.x(first), (frame.x(first) + frame.x(last)) / 2
        if first:
            yield line(x, frame.top - 4, x, bottom + 4, INK, dashed=True)
        yield text(middle, bottom + 32, name, anchor="middle", bold=True)


def legend(used: set[str]) -> Iterator[str]:
    """The colours that appear."""
    x, y = 64.0, 520.0
    for color, name in (KINDS[kind] for kind in KINDS if kind in used):
        width = 26 + 6.1 * len(name)
        if x + width > 950:
            x, y = 64.0, y + 22
        yield f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{color}"/>'
        yield text(x + 18, y, name)
        x += width + 10


def line(x1: float, y1: float, x2: float, y2: float, color: str, *, dashed: bool = False) -> str:
    """A thin line."""
    dash = ' stroke-dasharray="3 3"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"{dash}/>'


def text(
    x: float,
    y: float,
    content: str,
    *,
    color: str = INK,
    size: int = 12,
    anchor: str = "start",
    bold: bool = False,
) -> str:
    """A line of text."""
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" font-size="{size}" '
        f'text-anchor="{anchor}"{weight}>{escape(content)}</text>'
    )


if __name__ == "__main__":
    main()
