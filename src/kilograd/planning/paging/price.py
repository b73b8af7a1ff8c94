"""What a planned program costs: its operators by the device's estimates, its pages by the
storage's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kilograd.devices import Device, Storage
from kilograd.devices.costs import Cost
from kilograd.ir import Graph, Node
from kilograd.ops.page import PageIn, PageOut
from kilograd.ops.stored_step import CHUNK_BYTES, StoredSgdStep
from kilograd.planning.costs import node_joules, node_seconds

_CHECKSUM_INSTRUCTIONS = 4.01
_CHECKSUM_INSTRUCTIONS_M0 = 6.03
"""Of a page's checksum for each byte, counted on the emulator."""


def checksum_instructions(device: Device, size_bytes: int) -> int:
    """What the checksum of a page of that many bytes takes."""
    is_m0 = device.cpu == "cortex-m0plus"
    return round((_CHECKSUM_INSTRUCTIONS_M0 if is_m0 else _CHECKSUM_INSTRUCTIONS) * size_bytes)


@dataclass(frozen=True)
class Mover:
    """Moves tensors between the RAM of a device and its storage, and sums their checksums."""

    storage: Storage
    device: Device

    def read(self, size_bytes: int) -> Cost:
        """Time and energy to read a tensor of that many bytes."""
        return self._with_checksum(self.storage.read_cost(size_bytes), size_bytes)

    def write(self, size_bytes: int) -> Cost:
        """Time and energy to write a tensor of that many bytes."""
        return self._with_checksum(self.storage.write_cost(size_bytes), size_bytes)

    def keep(self, size_bytes: int) -> Cost:
        """Time and energy to write the next value of a state, which is read back."""
        written, read = self.write(size_bytes), self.read(size_bytes)
        return Cost(written.seconds + read.seconds, written.joules + read.joules)

    def _with_checksum(self, cost: Cost, size_bytes: int) -> Cost:
        count = checksum_instructions(self.device, size_bytes)
        seconds, joules = self.device.seconds(count), self.device.joules(count)
        return Cost(cost.seconds + (seconds or 0.0), cost.joules + (joules or 0.0))


def node_prices(graph: Graph, device: Device, storage: Storage | None) -> tuple[Cost, ...]:
    """Time and energy of each node, pages included.

    Where the device has no estimate of time, operators are compared by their multiply-accumulates
    and the bytes that they read and write, as seconds; where it has none of energy, by their time,
    as joules.
    """
    mover = Mover(storage, device) if storage else None
    prices = []
    seconds, joules = node_seconds(graph, device), node_joules(graph, device)
    for node, s, j in zip(graph.nodes, seconds, joules, strict=True):
        if isinstance(node.op, PageIn | PageOut) and mover:
            prices.append(_move(graph, node, mover))
            continue
        moved = Cost(0.0, 0.0)
        if isinstance(node.op, StoredSgdStep) and mover:
            moved = chunked(mover, [value.type.bytes for value in node.outputs])
        if s is None:
            cost = node.op.cost(*(v.type for v in node.inputs))
            s = float(cost.macs + cost.bytes_read + cost.bytes_written) * (not node.op.alias)
        prices.append(Cost(moved.seconds + s, moved.joules + (s if j is None else j)))
    return tuple(prices)


def _move(graph: Graph, node: Node, mover: Mover) -> Cost:
    size = node.inputs[0].type.bytes
    if isinstance(node.op, PageIn):
        return mover.read(size)
    kept = node.outputs[0] in graph.updates.values()
    return mover.keep(size) if kept else mover.write(size)


def chunked(mover: Mover, sizes: Sequence[int]) -> Cost:
    """Time and energy to read tensors of storage and write their next values in chunks."""
    parts = []
    for size in sizes:
        whole, rest = divmod(size, CHUNK_BYTES)
        for count, chunk in ((whole, CHUNK_BYTES), (1, rest)):
            for cost in (mover.read(chunk), mover.keep(chunk)) if count and chunk else ():
                parts.append(Cost(count * cost.seconds, count * cost.joules))
    return total(tuple(parts))


def total(prices: tuple[Cost, ...]) -> Cost:
    """The sum of prices."""
    return Cost(sum(p.seconds for p in prices), sum(p.joules for p in prices))
