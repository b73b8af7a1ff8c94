"""Print what a page costs the processor: instructions of one page in, one page out, and one page
out of the next value of a stored state, which is read back, by size, on emulated devices.

PYTHONPATH=src:. python benchmarks/pages.py

The storage's own time is not in it: it answers at once. Nearly all is the checksum.
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


def main() -> None:
    """A table by device and block size."""
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
