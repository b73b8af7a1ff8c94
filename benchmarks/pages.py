"""Print what a page costs the processor: instructions of one page in, one page out, and one page
out of the next value of a stored state, which is read back, by size, on emulated devices.

PYTHONPATH=src:. python benchmarks/pages.py

The storage's own time is not in it: it answers at once. Nearly all is the checksum. Then, for a
linear layer of 256 inputs and 64 outputs with momentum whose weight is in storage (blocks of 512),
what the length of the chunks of its step costs: bytes of the arena, transfers, instructions of the
training step on a Cortex-M7.
"""

from __future__ import annotations

import numpy as np
import torch
from tests.paging import Geometry, paged
from torch import nn

import kilograd as kg
from kilograd.ops.page import PageIn, PageOut

DEVICES = ("stm32f746", "nrf52840", "rp2040")
SIZES = (16, 64, 256, 4096, 65536)
KINDS = ("page in", "page out", "page out, read back")


def costs(device: str, geometry: Geometry) -> dict[tuple[str, int], int]:
    """Instructions by kind and bytes, of the first such page in a training step."""
    torch.manual_seed(0)
    layers = (nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))
    plain = kg.compile(nn.Sequential(*layers), torch.zeros(1, 256), device=device, name="net")
    program = paged(plain, pages=lambda _: True, stored=lambda _: True, geometry=geometry)
    graph = program.train.graph
    counts = program.instructions_by_node(np.ones((1, 256), np.float32), 1)
    found: dict[tuple[str, int], int] = {}
    for node, count in zip(graph.nodes, counts, strict=True):
        if isinstance(node.op, PageIn | PageOut):
            kind = "page in" if isinstance(node.op, PageIn) else "page out"
            if node.outputs[0] in graph.updates.values():
                kind = "page out, read back"
            found.setdefault((kind, node.inputs[0].type.bytes), count)
    return found


def chunks() -> None:
    """The step of a stored weight, whole and in chunks."""
    torch.manual_seed(0)
    optimizer = kg.SGD(lr=0.1, momentum=0.9)
    x = np.ones((1, 256), np.float32)
    plain = kg.compile(nn.Linear(256, 64), x, device="stm32f746", optimizer=optimizer, name="net")
    print(f"\n{'chunk':>8}{'arena':>10}{'reads':>8}{'writes':>8}{'instructions':>14}")
    for size in (None, 512, 1024, 4096, 16384):
        program = paged(
            plain,
            stored=lambda value: value.type.bytes > 1000,
            geometry=Geometry(512),
            chunk_bytes=size,
        )
        board = program.on_emulator()
        board.train_step(x, 1)
        moves = board.traffic
        print(
            f"{size or 'whole':>8}{program.arena_bytes:>10,}{moves.reads:>8}{moves.writes:>8}"
            f"{board.instructions:>14,}"
        )


def main() -> None:
    """A table by device and block size, and one by length of chunks."""
    chunks()
    for device in DEVICES:
        for geometry in (Geometry(1), Geometry(512)):
            found = costs(device, geometry)
            print(f"\n{device}, blocks of {geometry.block_bytes} bytes")
            print(f"{'bytes':>8}" + "".join(f"{kind:>22}" for kind in KINDS))
            for size in SIZES:
                row = [found.get((kind, size)) for kind in KINDS]
                text = "".join(f"{'' if count is None else f'{count:,}':>22}" for count in row)
                print(f"{size:>8,}{text}")


if __name__ == "__main__":
    main()
