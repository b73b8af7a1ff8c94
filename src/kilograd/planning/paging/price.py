"""What a planned program costs: its operators by the device's estimates, its pages by the
storage's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kilograd.devices import Device, Storage
from kilograd.devices.costs import Cost, total
from kilograd.ir import Graph, Node, Value
from kilograd.ops.page import PageIn, Paging
from kilograd.ops.stored_step import CHUNK_BYTES, StoredSgdStep
from kilograd.planning.costs import Estimate, node_estimates, of_instructions

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
        return total((self.write(size_bytes), self.read(size_bytes)))

    def _with_checksum(self, cost: Cost, size_bytes: int) -> Cost:
        count = checksum_instructions(self.device, size_bytes)
        seconds, joules = self.device.seconds(count), self.device.joules(count)
        return Cost(cost.seconds + (seconds or 0.0), cost.joules + (joules or 0.0))


def step_estimates(graph: Graph, device: Device, storage: Storage | None) -> tuple[Estimate, ...]:
    """Estimated instructions, time and energy of each node, pages included."""
    mover = Mover(storage, device) if storage else None
    estimates = node_estimates(graph, device)
    if mover is None:
        return estimates
    kept = frozenset(graph.updates.values())
    return tuple(
        _moved(node, estimate, mover, kept) if isinstance(node.op, Paging) else estimate
        for node, estimate in zip(graph.nodes, estimates, strict=True)
    )


def _moved(node: Node, own: Estimate, mover: Mover, kept: frozenset[Value]) -> Estimate:
    """A page takes the transfer and its checksum; a step in chunks takes them beside its own
    work.
    """
    device, sizes = mover.device, [value.type.bytes for value in node.outputs]
    if isinstance(node.op, StoredSgdStep):
        cost, passes = chunked(mover, sizes), 3
    else:
        own = of_instructions(0, device) if not device.is_host else Estimate(None, 0.0, 0.0)
        if isinstance(node.op, PageIn):
            cost, passes = mover.read(sizes[0]), 1
        elif node.outputs[0] in kept:
            cost, passes = mover.keep(sizes[0]), 2
        else:
            cost, passes = mover.write(sizes[0]), 1
    more = passes * checksum_instructions(device, sum(sizes))
    return Estimate(
        None if own.instructions is None else own.instructions + more,
        None if own.seconds is None else own.seconds + cost.seconds,
        None if own.joules is None else own.joules + cost.joules,
    )


def node_prices(graph: Graph, device: Device, storage: Storage | None) -> tuple[Cost, ...]:
    """Time and energy of each node, pages included, for comparisons.

    Where the device has no estimate of time, operators are compared by their multiply-accumulates
    and the bytes that they read and write, as seconds; where it has none of energy, by their time,
    as joules.
    """
    prices = []
    for node, estimate in zip(graph.nodes, step_estimates(graph, device, storage), strict=True):
        seconds, joules = estimate.seconds, estimate.joules
        if seconds is None:
            cost = node.op.cost(*(v.type for v in node.inputs))
            moved = cost.bytes_read + cost.bytes_written
            seconds = float(cost.macs + moved) * (not node.op.alias)
        prices.append(Cost(seconds, seconds if joules is None else joules))
    return tuple(prices)


def chunked(mover: Mover, sizes: Sequence[int]) -> Cost:
    """Time and energy to read tensors of storage and write their next values in chunks."""
    parts = []
    for size in sizes:
        whole, rest = divmod(size, CHUNK_BYTES)
        for count, chunk in ((whole, CHUNK_BYTES), (1, rest)):
            for cost in (mover.read(chunk), mover.keep(chunk)) if count and chunk else ():
                parts.append(Cost(count * cost.seconds, count * cost.joules))
    return total(parts)
