"""What each node of a graph takes in instructions, time and energy on a device.

    instructions = fit of the operator's kernel (`kilograd.devices.kernels`)
    seconds      = instructions * cycles per instruction / clock
    joules       = instructions * cycles per instruction * joules per cycle

Processors whose instructions cannot be counted have published rates instead:

    seconds = FLOP / (FLOP per second), joules = FLOP / (FLOP per joule), FLOP = 2 MACs,
    or one per element written where an operator has no MACs
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from kilograd.devices import Cost, Cpu, Device
from kilograd.devices.kernels import Feature, KernelTable, table_of_cpu
from kilograd.errors import InputError
from kilograd.ir import Graph, Node
from kilograd.ir.operator import Operator
from kilograd.ir.types import TensorType
from kilograd.ops.q_stream import OPERANDS, QStream
from kilograd.ops.stored_step import StoredSgdStep

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


@dataclass(frozen=True)
class Estimate:
    """What nodes take: instructions, time, energy; None where nothing is known."""

    instructions: int | None
    seconds: float | None
    joules: float | None

    @property
    def cost(self) -> Cost | None:
        """Time and energy, None unless both are known."""
        if self.seconds is None or self.joules is None:
            return None
        return Cost(self.seconds, self.joules)

    def __str__(self) -> str:
        """`12.3 ms, 0.41 mJ, 1,234 instructions`; what is known of it."""
        parts = [] if self.seconds is None else [_with_unit(self.seconds, "s")]
        parts += [] if self.joules is None else [_with_unit(self.joules, "J")]
        parts += [] if self.instructions is None else [f"{self.instructions:,} instructions"]
        return ", ".join(parts) or "a price that nobody has estimated"


def node_costs(graph: Graph, device: Device) -> tuple[Cost | None, ...]:
    """Estimated time and energy of one run of each node, in order; None where the device lacks an
    estimate of either.
    """
    return tuple(estimate.cost for estimate in node_estimates(graph, device))


def node_estimates(graph: Graph, device: Device) -> tuple[Estimate, ...]:
    """Estimated instructions, time and energy of one run of each node, in order."""
    if device.is_host:
        return tuple(_by_rates(node, device) for node in graph.nodes)
    counts = node_instructions(graph, device.cpu, device.kernel_table())
    return tuple(of_instructions(count, device) for count in counts)


def of_instructions(count: int, device: Device) -> Estimate:
    """The estimate of a number of instructions, counted or predicted."""
    return Estimate(count, device.seconds(count), device.joules(count))


def total(estimates: Iterable[Estimate]) -> Estimate:
    """The sum of estimates, whatever their order: of each quantity that is known of all of them."""
    known = tuple(estimates)
    instructions = [each.instructions for each in known if each.instructions is not None]
    seconds = [each.seconds for each in known if each.seconds is not None]
    joules = [each.joules for each in known if each.joules is not None]
    return Estimate(
        sum(instructions) if len(instructions) == len(known) else None,
        math.fsum(seconds) if len(seconds) == len(known) else None,
        math.fsum(joules) if len(joules) == len(known) else None,
    )


def in_words(estimate: Estimate) -> str:
    """`about 2,350,000 instructions, 12 ms, 18 mJ`, as far as it is known; empty if nothing is."""
    parts = []
    if estimate.instructions is not None:
        parts.append(f"{rounded(estimate.instructions):,} instructions")
    if estimate.seconds is not None:
        parts.append(with_prefix(estimate.seconds, "s"))
    if estimate.joules is not None:
        parts.append(with_prefix(estimate.joules, "J"))
    return f"about {', '.join(parts)}" if parts else ""


def rounded(count: int) -> int:
    """A number of instructions to three figures, which is more than an estimate has."""
    return int(float(f"{count:.3g}"))


def with_prefix(amount: float, unit: str, figures: int = 2) -> str:
    """An amount to so many figures with an SI prefix: `12 ms`, `0.34 nJ`, `150 s`."""
    if amount == 0:
        return f"0 {unit}"
    scale, prefix = next(
        ((scale, prefix) for scale, prefix in _PREFIXES if amount >= 0.995 * scale), _PREFIXES[-1]
    )
    digits = amount / scale
    return f"{float(f'{digits:.{figures}g}'):.{max(figures, 6)}g} {prefix}{unit}"


def _with_unit(amount: float, unit: str) -> str:
    """An amount to three figures: `2 s`, `12.3 ms`, `0.4 us`."""
    for prefix, scale in (("", 1.0), ("m", 1e-3)):
        if amount >= scale:
            return f"{amount / scale:.3g} {prefix}{unit}"
    return f"{amount / 1e-6:.3g} u{unit}"


def quality(device: Device) -> tuple[str, ...]:
    """How far to trust the estimates of a device, a sentence for each quantity that it has."""
    sentences = []
    table = device.kernel_table()
    if table is not None:
        sentences.append(
            f"instructions: fitted on the emulator's counts for {table.cpu}{_within(table)}"
        )
    if device.cycles_per_instruction is not None or device.flop_per_second is not None:
        sentences.append(f"time: {device.cycles_quality}")
    if device.joules_per_cycle is not None or device.flop_per_joule is not None:
        sentences.append(f"energy: {device.joules_source}")
    return tuple(sentences)


def _within(table: KernelTable) -> str:
    """How well a table predicted networks that it was not fitted on."""
    if table.step_error is None or table.node_error is None:
        return ""
    return (
        f"; up to {table.step_error:.0%} off for a step and {table.node_error:.0%} summed over its "
        "operators in networks that were held out, more for small shapes"
    )


def node_instructions(graph: Graph, cpu: Cpu, table: KernelTable | None = None) -> tuple[int, ...]:
    """Estimated instructions of one run of each node, by the table of the processor or another.

    Operators that move nothing take none; those that the table does not know are estimated by its
    generic kernel, and streams as the sum of their stages.

    Raises:
        InputError: there is no table for the processor.
    """
    table = table or table_of_cpu(cpu)
    if table is None:
        raise InputError(f'no instructions can be counted for cpu = "{cpu}"')
    return tuple(
        round(sum(_instructions(work, table) for work in works(node))) for node in graph.nodes
    )


@dataclass(frozen=True)
class Work:
    """A run of a kernel: its name in tables, and what its instructions are proportional to (see
    `kilograd.devices.kernels`).
    """

    kernel: str
    features: Mapping[Feature, float]


def works(node: Node) -> tuple[Work, ...]:
    """The kernels that a node runs: none for an alias, its stages for a stream, step and check for
    a step in chunks, else one.
    """
    types = [value.type for value in node.inputs]
    if node.op.alias:
        return ()
    if isinstance(node.op, StoredSgdStep):
        return tuple(_work(op, parts, op.infer(*parts)) for op, parts in node.op.parts(*types))
    if not isinstance(node.op, QStream):
        return (_work(node.op, types, [value.type for value in node.outputs]),)
    images = pairwise(node.op.images(*types))
    own = [types[first : first + OPERANDS] for first in range(1, len(types), OPERANDS)]
    return tuple(
        _work(stage, [x, *operands], [y])
        for stage, (x, y), operands in zip(node.op.stages, images, own, strict=True)
    )


def _work(op: Operator, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Work:
    cost, result = op.cost(*inputs), (*outputs, *inputs)[0]
    return Work(
        f"{op.name}/{result.dtype.text}",
        {
            "start": 1.0,
            "mac": cost.macs,
            "run_of_input": cost.macs / _last(inputs, 0),
            "run_of_operand": cost.macs / _last(inputs, 1),
            "run_of_output": cost.macs / _last(outputs, 0),
            "line_of_input": _lines(inputs),
            "line_of_output": _lines(outputs),
            "read": cost.bytes_read,
            "write": cost.bytes_written,
        },
    )


def _instructions(work: Work, table: KernelTable) -> float:
    kernel = table.kernels.get(work.kernel, table.generic)
    return sum(per * work.features[name] for name, per in kernel.instructions.items())


def _lines(types: Sequence[TensorType]) -> float:
    """The size of the first operand over its last dimension but one, where it has one."""
    if not types:
        return 0.0
    return types[0].size / max(types[0].shape[-2] if len(types[0].shape) > 1 else 1, 1)


def _last(types: Sequence[TensorType], index: int) -> int:
    """The last dimension of an operand; 1 where there is none."""
    shape = types[index].shape if index < len(types) else ()
    return max(shape[-1], 1) if shape else 1


def _by_rates(node: Node, device: Device) -> Estimate:
    flop = _flop(node)
    per_second, per_joule = device.flop_per_second, device.flop_per_joule
    return Estimate(
        None,
        None if per_second is None else flop / per_second,
        None if per_joule is None else flop / per_joule,
    )


def _flop(node: Node) -> int:
    if node.op.alias:
        return 0
    cost = node.op.cost(*(value.type for value in node.inputs))
    return 2 * cost.macs or sum(value.type.size for value in node.outputs)
