"""What each node of a graph takes in instructions, time and energy on a device.

    instructions = fit of the operator's kernel (`kilograd.devices.kernels`)
    seconds      = instructions * cycles per instruction / clock
    joules       = instructions * cycles per instruction * joules per cycle

Processors whose instructions cannot be counted have published rates instead:

    seconds = FLOP / (FLOP per second), joules = FLOP / (FLOP per joule), FLOP = 2 MACs,
    or one per element written where an operator has no MACs
"""

from __future__ import annotations

from collections.abc import Sequence

from kilograd.devices import Cost, Cpu, Device
from kilograd.devices.kernels import Feature, KernelTable, table_of_cpu
from kilograd.errors import InputError
from kilograd.ir import Graph, Node, Value


def node_costs(graph: Graph, device: Device) -> tuple[Cost | None, ...]:
    """Estimated time and energy of one run of each node, in order.

    All are None where the device lacks an estimate of either; see `node_seconds` for time alone.
    """
    seconds, joules = node_seconds(graph, device), node_joules(graph, device)
    return tuple(
        None if s is None or j is None else Cost(s, j) for s, j in zip(seconds, joules, strict=True)
    )


def node_seconds(graph: Graph, device: Device) -> tuple[float | None, ...]:
    """Estimated time of one run of each node; None where the device has no estimate."""
    if device.is_host:
        rate = device.flop_per_second
        return tuple(None if rate is None else _flop(node) / rate for node in graph.nodes)
    return tuple(device.seconds(count) for count in device_instructions(graph, device))


def node_joules(graph: Graph, device: Device) -> tuple[float | None, ...]:
    """Estimated energy of one run of each node; None where the device has no estimate."""
    if device.is_host:
        rate = device.flop_per_joule
        return tuple(None if rate is None else _flop(node) / rate for node in graph.nodes)
    return tuple(device.joules(count) for count in device_instructions(graph, device))


def device_instructions(graph: Graph, device: Device) -> tuple[int, ...]:
    """As `node_instructions`, by the device's own kernel table where it has one."""
    return node_instructions(graph, device.cpu, device.kernel_table())


def node_instructions(graph: Graph, cpu: Cpu, table: KernelTable | None = None) -> tuple[int, ...]:
    """Estimated instructions of one run of each node, by the table of the processor or another.

    Operators that move nothing take none; those that the table does not know are estimated by its
    generic kernel.

    Raises:
        InputError: there is no table for the processor.
    """
    table = table or table_of_cpu(cpu)
    if table is None:
        raise InputError(f'no instructions can be counted for cpu = "{cpu}"')
    return tuple(_instructions(node, table) for node in graph.nodes)


def features(node: Node) -> dict[Feature, float]:
    """What the instructions of a node are proportional to; see `kilograd.devices.kernels`."""
    cost = node.op.cost(*(value.type for value in node.inputs))
    return {
        "start": 1.0,
        "mac": cost.macs,
        "run_of_input": cost.macs / _last(node.inputs, 0),
        "run_of_operand": cost.macs / _last(node.inputs, 1),
        "run_of_output": cost.macs / _last(node.outputs, 0),
        "read": cost.bytes_read,
        "write": cost.bytes_written,
    }


def kernel_name(node: Node) -> str:
    """The kernel that runs a node, as tables name it: operator and type of its result."""
    result = (*node.outputs, *node.inputs)[0]
    return f"{node.op.name}/{result.type.dtype.text}"


def _instructions(node: Node, table: KernelTable) -> int:
    if node.op.alias:
        return 0
    kernel = table.kernels.get(kernel_name(node), table.generic)
    amounts = features(node)
    return round(sum(per * amounts[name] for name, per in kernel.instructions.items()))


def _last(values: Sequence[Value], index: int) -> int:
    """The last dimension of a value; 1 where there is none."""
    shape = values[index].type.shape if index < len(values) else ()
    return max(shape[-1], 1) if shape else 1


def _flop(node: Node) -> int:
    if node.op.alias:
        return 0
    cost = node.op.cost(*(value.type for value in node.inputs))
    return 2 * cost.macs or sum(value.type.size for value in node.outputs)
