"""What is known of each buffer of a schedule: what it is for, who writes it, who keeps it alive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from kilograd.ir import Graph, Node, Value
from kilograd.planning.lifetimes import Lifetime
from kilograd.planning.schedule import Schedule

LOSS = "loss"
"""The layer of the nodes that compute the loss."""


UPDATE = "update of "
"""How the layer of the nodes begins that check and update a state; its name follows."""


class Kind(Enum):
    """What a buffer of the arena is for; the value is what reports call it."""

    INPUT = "input"
    ACTIVATION = "activation"
    SAVED = "saved activation"
    COTANGENT = "gradient of an activation"
    GRADIENT = "gradient of a weight"
    SCRATCH = "scratch"


class Phase(Enum):
    """What a node of a training step does; the value is what reports call it."""

    FORWARD = "forward"
    BACKWARD = "backward"
    CHECK = "check"
    UPDATE = "update"


@dataclass(frozen=True)
class BufferFacts:
    """A buffer, at `offset_bytes` in the arena.

    `values` share its memory, in order of definition; the first owns it (none for scratch).
    `writer` is the index of the node that makes it live, None for inputs. `readers` are the indices
    of the nodes that read any of its values. `keeper` is the last of them: the one that keeps it
    alive. It is None where nobody reads the buffer, or where it has to outlive the function.
    """

    lifetime: Lifetime
    offset_bytes: int
    kind: Kind
    values: tuple[Value, ...]
    writer: int | None
    readers: tuple[int, ...]
    keeper: int | None

    @property
    def name(self) -> str:
        """The name of the buffer."""
        return self.lifetime.name


class GapKind(Enum):
    """What becomes of a tensor between two of its uses; the value is what reports say."""

    PAGED = "paged out"
    RECOMPUTED = "dropped, and computed again"


@dataclass(frozen=True)
class Gap:
    """A tensor that leaves the arena and comes back: `before` and `after` are the names of the
    buffers that hold it. Node `first` is the first without it, node `last` brings it back.
    """

    tensor: str
    before: str
    after: str
    first: int
    last: int
    kind: GapKind


def phases(graph: Graph) -> tuple[Phase, ...]:
    """What each node does in its function."""
    steps = set(graph.updates.values())

    def phase(node: Node) -> Phase:
        if node.op.check:
            return Phase.CHECK
        if node.op.may_fail:
            return Phase.BACKWARD
        if any(value in steps for value in node.outputs) or updated_state(node) is not None:
            return Phase.UPDATE
        return Phase.BACKWARD if node.location.backward else Phase.FORWARD

    return tuple(phase(node) for node in graph.nodes)


def updated_state(node: Node) -> str | None:
    """The name of the state that a node helps to check or to update, None for other nodes."""
    layer = node.location.layer
    return layer.removeprefix(UPDATE) if layer.startswith(UPDATE) else None


def buffer_facts(schedule: Schedule) -> tuple[BufferFacts, ...]:
    """The facts of every buffer, in the order of the schedule."""
    graph, lives = schedule.graph, schedule.lifetimes
    sharing: dict[str, list[Value]] = {}
    for value in graph.values():
        root = lives.root.get(value)
        if root is not None:
            sharing.setdefault(root.name, []).append(value)
    reads: dict[Value, list[int]] = {}
    written: dict[Value, int] = {}
    for index, node in enumerate(graph.nodes):
        for value in dict.fromkeys(node.inputs):
            reads.setdefault(value, []).append(index)
        for value in node.outputs:
            written[value] = index
    scratch = {name: index for index, name in lives.scratch.items()}
    gradients, backward = weight_gradients(graph), gradient_nodes(graph)
    results = set(graph.results())
    facts = []
    for buffer in lives.buffers:
        values = tuple(sharing.get(buffer.name, ())) if buffer.name not in scratch else ()
        readers = sorted({index for value in values for index in reads.get(value, ())})
        kept = bool(readers) and not any(value in results for value in values)
        facts.append(
            BufferFacts(
                lifetime=buffer,
                offset_bytes=schedule.offsets[buffer.name],
                kind=_kind(graph, values, written, reads, gradients, backward),
                values=values,
                writer=scratch.get(buffer.name, written.get(values[0]) if values else None),
                readers=tuple(readers),
                keeper=readers[-1] if kept else None,
            )
        )
    return tuple(facts)


def gradient_nodes(graph: Graph) -> set[int]:
    """The indices of the nodes that compute with gradients: the backward nodes of the loss, and
    what follows from them. A slice that is cut for the backward pass while the forward pass runs
    is none.
    """
    reached: set[Value] = set()
    result = set()
    for index, node in enumerate(graph.nodes):
        seed = node.location.backward and node.location.layer == LOSS
        if seed or any(value in reached for value in node.inputs):
            result.add(index)
            reached.update(node.outputs)
    return result


def weight_gradients(graph: Graph) -> set[Value]:
    """The values from which the optimiser steps, and what it makes of them before the update."""
    known = {*graph.state, *graph.constants, *graph.inputs}
    steps = [node for node in graph.nodes if updated_state(node) is not None]
    return {value for node in steps for value in (*node.inputs, *node.outputs)} - known


def _kind(
    graph: Graph,
    values: tuple[Value, ...],
    written: Mapping[Value, int],
    reads: Mapping[Value, list[int]],
    gradients: set[Value],
    backward: set[int],
) -> Kind:
    if not values:
        return Kind.SCRATCH
    if values[0] in graph.inputs:
        return Kind.INPUT
    if any(value in gradients for value in values):
        return Kind.GRADIENT
    if written[values[0]] in backward:
        return Kind.COTANGENT
    saved = any(index in backward for value in values for index in reads.get(value, ()))
    return Kind.SAVED if saved else Kind.ACTIVATION
