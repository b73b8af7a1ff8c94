"""Draws the pictures of the concept pages from programs that it compiles.

    python docs/make_concepts.py

Writes memory-by-update.svg, live-bytes.svg and sparse-update.svg. Needs kilograd[torch]. The
network is ResNet-8 of the zoo, float32; the figures are those of the run that drew them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from make_pictures import EDGE, INK, PALE, line, text

import kilograd as kg
from kilograd import Program, zoo
from kilograd.planning.facts import Phase

DOCS = Path(__file__).parent

SPECS = {
    "everything": kg.update.all(),
    "all biases": kg.update.biases(),
    "sparse": [
        kg.update.biases(6),
        {"blocks.2.conv2.0.weight": kg.update.channels(0.25), "classifier.*": kg.update.full()},
    ],
    "last layer": kg.update.last(1),
}
"""What each picture compares; "sparse" is that of docs/sparse-update.md."""

PARTS = {
    "input": "#59636e",
    "activation": "#8ab8e0",
    "saved activation": "#2b6cb0",
    "gradient of an activation": "#e08a2c",
    "gradient of a weight": "#2f9e66",
    "state": "#7b5ea7",
}
TOLD = {
    "input": "sample and label",
    "activation": "activations on their way forward",
    "saved activation": "activations saved for the backward pass",
    "gradient of an activation": "gradients of activations",
    "gradient of a weight": "gradients of weights",
    "state": "state: trained weights",
}
LINES = {"everything": "#b3261e", "all biases": "#e08a2c", "sparse": "#2b6cb0", "last layer": INK}


def main() -> None:
    """Compile ResNet-8 for each spec, and draw."""
    model, example = zoo.create("resnet8")
    programs = {name: kg.compile(model, example, update=spec) for name, spec in SPECS.items()}
    for name, picture in (
        ("memory-by-update.svg", memory_by_update(programs)),
        ("live-bytes.svg", live_bytes(programs)),
        ("sparse-update.svg", sparse_update(programs["sparse"])),
    ):
        (DOCS / name).write_text(picture, encoding="utf-8")


def memory_by_update(programs: dict[str, Program]) -> str:
    """A bar a spec: the arena at its peak by kind, and the state."""
    rows, left, right, top = list(programs.items()), 110.0, 850.0, 76.0
    largest = max(p.memory.sram_bytes for p in programs.values())
    parts = [
        text(
            20,
            26,
            "Memory of one training step of ResNet-8, by what is trained",
            size=15,
            bold=True,
        ),
        text(20, 46, "the arena at its peak, and the state beside it; float32, host", color=PALE),
    ]
    for index, (name, program) in enumerate(rows):
        y, x = top + 52 * index, left
        parts.append(text(left - 10, y + 22, name, anchor="end", bold=True))
        uses = {use.name: use.size_bytes for use in program.figures.arena}
        uses["state"] = program.memory.state_bytes
        for kind, color in PARTS.items():
            width = (right - left) * uses.get(kind, 0) / largest
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="34" fill="{color}">'
                f"<title>{TOLD.get(kind, kind)}: {uses.get(kind, 0):,} bytes</title></rect>"
            )
            x += width
        parts.append(text(x + 8, y + 22, f"{program.memory.sram_bytes:,} bytes"))
    parts += legend([(PARTS[kind], TOLD[kind]) for kind in TOLD], top + 52 * len(rows) + 18)
    return svg(340, parts)


def live_bytes(programs: dict[str, Program]) -> str:
    """Live bytes of the arena over the operators of the step, a line a spec."""
    left, right, top, bottom = 70.0, 940.0, 66.0, 336.0
    highest = max(s.live_bytes for p in programs.values() for s in p.figures.steps)
    longest = max(len(p.figures.steps) for p in programs.values())
    parts = [
        text(
            20,
            26,
            "Bytes alive in the arena during one training step of ResNet-8",
            size=15,
            bold=True,
        ),
        text(
            20,
            46,
            "operators in order of execution; a dot is where the backward pass begins",
            color=PALE,
        ),
    ]

    def y(size: float) -> float:
        return bottom - (bottom - top) * size / highest

    for size in range(0, highest, 102400):
        parts.append(line(left, y(size), right, y(size), "#d8dee4"))
        parts.append(text(left - 8, y(size) + 4, f"{size // 1024} KB", color=PALE, anchor="end"))
    for name, program in programs.items():
        steps, scale = program.figures.steps, (right - left) / longest
        points = []
        for step in steps:
            height = f"{y(step.live_bytes):.1f}"
            points += [f"{left + scale * step.index:.1f},{height}"]
            points += [f"{left + scale * (step.index + 1):.1f},{height}"]
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{LINES[name]}" '
            'stroke-width="2.2" stroke-linejoin="round"/>'
        )
        turn = next(step for step in steps if step.phase is Phase.BACKWARD)
        x = left + scale * turn.index
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y(turn.live_bytes):.1f}" r="4.5" fill="{LINES[name]}"/>'
        )
    parts += legend([(LINES[name], name) for name in programs], bottom + 36)
    return svg(400, parts)


def sparse_update(program: Program) -> str:
    """A column a layer: its forward pass, what it saves, its backward pass, what is trained."""
    layers = [layer for layer in program.figures.layers if layer.parameters]
    saved = {layer.name: layer.saved_bytes for layer in program.figures.layers}
    left, top, width = 116.0, 78.0, 812.0 / len(layers)
    lanes = ("forward", "saved", "backward", "trained")
    parts = [
        text(20, 26, "A sparse update of ResNet-8", size=15, bold=True),
        text(
            20, 46,
            "layers with parameters, in order; the gradient stops where nothing before is trained",
            color=PALE,
        ),
        *(text(20, top + 24 + 58 * lane, name, bold=True) for lane, name in enumerate(lanes)),
    ]  # fmt: skip
    for index, layer in enumerate(layers):
        x, box = left + width * index, width - 8
        back = bool(layer.nodes[Phase.BACKWARD])
        parts.append(cell(x, top, box, PARTS["activation"], layer.type.removeprefix("f32"), INK))
        kept = saved[layer.name] + _sum_behind(program, layer.name)
        if kept:
            parts.append(cell(x, top + 58, box, PARTS["saved activation"], f"{kept:,} B", EDGE))
        if back:
            parts.append(
                cell(x, top + 116, box, PARTS["gradient of an activation"], "gradient", INK)
            )
        trained = [p for p in layer.parameters if p.trained]
        share = " + ".join(_share(p.name, p.trained, p.elements) for p in trained)
        if share:
            parts.append(cell(x, top + 174, box, PARTS["gradient of a weight"], share, EDGE))
        parts.append(
            f'<text x="{x + box / 2:.1f}" y="{top + 238}" font-size="11" fill="{INK}" '
            f'text-anchor="end" transform="rotate(-28 {x + box / 2:.1f} {top + 238})">'
            f"{layer.name}</text>"
        )
    return svg(386, parts)


def _sum_behind(program: Program, name: str) -> int:
    """Bytes that the sum of a residual block saves; they count for its last convolution here."""
    block = name.removesuffix(".conv2.0")
    return sum(x.saved_bytes for x in program.figures.layers if x.name == block != name)


def _share(name: str, trained: int, elements: int) -> str:
    kind = "bias" if name.endswith("bias") else "weight"
    return kind if trained == elements else f"{trained / elements:.0%} {kind}"


def cell(x: float, y: float, width: float, color: str, label: str, ink: str) -> str:
    """A box with a label in it."""
    rows = label.split(" + ") if len(label) > 13 else [label]
    size = min(12, int(1.75 * width / max(len(row) for row in rows)))
    middle, first = x + width / 2, y + 24 - 7 * (len(rows) - 1)
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="40" rx="4" fill="{color}"/>' + (
        "".join(
            text(middle, first + 14 * index, row, color=ink, size=size, anchor="middle")
            for index, row in enumerate(rows)
        )
    )


def legend(entries: Sequence[tuple[str, str]], y: float) -> Iterator[str]:
    """Colours and what they stand for, wrapped to the width of the picture."""
    x = 20.0
    for color, name in entries:
        width = 32 + 6.4 * len(name)
        if x + width > 950:
            x, y = 20.0, y + 22
        yield f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{color}"/>'
        yield text(x + 18, y, name)
        x += width + 8


def svg(height: int, parts: Sequence[str]) -> str:
    """A picture 960 pixels wide."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {height}" width="960" '
        f'height="{height}" font-family="Helvetica, Arial, sans-serif" font-size="12">'
    )
    return (
        "\n".join([head, f'<rect width="960" height="{height}" fill="{EDGE}"/>', *parts, "</svg>"])
        + "\n"
    )


if __name__ == "__main__":
    main()
