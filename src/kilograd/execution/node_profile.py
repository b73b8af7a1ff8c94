"""Counts the instructions of each node of a training step on the emulated device.

The program is built with a marker behind every node, a call that Python answers. What runs between
two markers belongs to the node between them. A marker costs its node two or three instructions and
keeps the C compiler from working across it, so the sum differs a little from that of the program
without markers; what reports tell as the total is the latter.
"""

from __future__ import annotations

from kilograd.devices import Device
from kilograd.execution.emulated import EmulatedBackend
from kilograd.execution.image import Image
from kilograd.execution.interface import Interface
from kilograd.execution.storage import SessionStorage

MARKER = "kg_mark"
MARKER_SOURCE = f"""
void {MARKER}(uint32_t node);
__attribute__((weak, noinline)) void {MARKER}(uint32_t node) {{ (void)node; }}
"""
"""The stand-in for the harness: weak, so that no caller may look into it."""


class MarkedBackend(EmulatedBackend):
    """An emulated device whose program was built with markers."""

    def __init__(
        self,
        interface: Interface,
        image: Image,
        device: Device,
        arena_bytes: int,
        storage: SessionStorage | None = None,
    ) -> None:
        """Power the device up and listen to the markers."""
        super().__init__(interface, image, device, arena_bytes, storage)
        self._passed: dict[int, int] = {}
        self._emulator.serve(MARKER, self._on_mark)

    def train_step(
        self, sample: bytes, target: bytes | None, learning_rate: float, step: int
    ) -> tuple[int, float]:
        """As `EmulatedBackend.train_step`, counting by node."""
        self._passed = {}
        return super().train_step(sample, target, learning_rate, step)

    @property
    def node_instructions(self) -> tuple[int, ...]:
        """Instructions of each node of the last training step, in order."""
        counts = [self._passed[node] for node in sorted(self._passed)]
        return tuple(b - a for a, b in zip([0, *counts], counts, strict=False))

    def _on_mark(self, node: int, *_: int) -> int:
        self._passed[node] = self._emulator.executed
        return 0
