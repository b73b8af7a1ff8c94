"""When each tensor lives and which tensors share memory.

Time is the index of the running node. A buffer lives in the half-open interval from the node that
defines it to behind the last node that reads it; inputs live from 0, outputs to the end. Values
share a buffer where an operator is an alias, and where it may run in place over an input that
nobody reads later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kilograd.errors import CompilerBug
from kilograd.ir import Graph, Node, Value
from kilograd.ops.page import Paging

ALIGNMENT_BYTES = 4


def aligned(size_bytes: int) -> int:
    """What a buffer of that size takes of the arena, and a tensor of the state structure."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@dataclass(frozen=True)
class Lifetime:
    """A buffer of the arena: `size_bytes` in [first, last) of node indices."""

    name: str
    size_bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Lifetimes:
    """The buffers of an ordered graph.

    `root` maps every value to the value whose memory it uses: a state, a constant, the owner of a
    buffer, or, for a page in storage, itself; scalar arguments are absent. `scratch` maps a node
    index to the name of its scratch buffer.
    """

    buffers: tuple[Lifetime, ...]
    root: Mapping[Value, Value]
    scratch: Mapping[int, str]

    @property
    def peak_bytes(self) -> int:
        """The largest sum of live bytes: no allocation of these buffers is smaller."""
        return max((total for _, total in self.profile()), default=0)

    def profile(self) -> list[tuple[int, int]]:
        """Live bytes from each point in time where they change."""
        changes: dict[int, int] = {}
        for buffer in self.buffers:
            size = aligned(buffer.size_bytes)
            changes[buffer.first] = changes.get(buffer.first, 0) + size
            changes[buffer.last] = changes.get(buffer.last, 0) - size
        total, result = 0, []
        for time in sorted(changes):
            total += changes[time]
            result.append((time, total))
        return result


def measure(graph: Graph) -> Lifetimes:
    """The lifetimes of an ordered program whose scalar results lie with the caller."""
    return lifetimes(graph, by_pointer=frozenset(v for v in graph.outputs if not v.type.rank))


def lifetimes(graph: Graph, *, by_pointer: frozenset[Value] = frozenset()) -> Lifetimes:
    """The lifetimes of an ordered graph.

    Values in `by_pointer` are written to memory of the caller and need no buffer. Raises
    CompilerBug where the order overwrites a state that is still read.
    """
    count = len(graph.nodes)
    last_use: dict[Value, int] = {}
    for index, node in enumerate(graph.nodes):
        for value in node.inputs:
            last_use[value] = index
    for value in graph.results():
        last_use[value] = count
    fixed = {*graph.state, *graph.constants, *by_pointer}
    root: dict[Value, Value] = {value: value for value in fixed}
    first: dict[Value, int] = {}
    end: dict[Value, int] = {}
    for value in graph.inputs:
        if value.type.rank:
            root[value], first[value], end[value] = value, 0, last_use.get(value, 0)
    next_state = {value: state for state, value in graph.updates.items()}
    last_read = _last_reads(graph, last_use)
    for index, node in enumerate(graph.nodes):
        for position, value in enumerate(node.outputs):
            if value in by_pointer:
                continue
            if isinstance(node.op, Paging) and node.op.writes:
                root[value] = value
                continue
            if value in next_state:
                _check_overwrite(graph, index, next_state[value], last_read)
                root[value] = next_state[value]
                continue
            owner = _shared_with(node, position, root, end, index)
            if owner is None:
                _check_mutation(node, position)
                owner = value
                first[value], end[value] = index, last_use.get(value, index)
            elif owner in end:
                end[owner] = max(end[owner], last_use.get(value, index))
            root[value] = owner
    buffers = [Lifetime(v.name, v.type.bytes, first[v], end[v] + 1) for v in first]
    scratch: dict[int, str] = {}
    for index, node in enumerate(graph.nodes):
        size = node.op.cost(*(value.type for value in node.inputs)).scratch_bytes
        if size:
            scratch[index] = f"scratch of node {index}"
            buffers.append(Lifetime(scratch[index], size, index, index + 1))
    return Lifetimes(tuple(buffers), root, scratch)


def _shared_with(
    node: Node, position: int, root: dict[Value, Value], end: dict[Value, int], index: int
) -> Value | None:
    """The owner of the buffer that this output takes over, if there is one."""
    if node.op.alias:
        return root[node.inputs[0]]
    size = node.outputs[position].type.bytes
    for output, source in node.op.in_place:
        if output != position or source >= len(node.inputs):
            continue
        value = node.inputs[source]
        owner = root.get(value)
        if owner is None or end.get(owner) != index or value.type.bytes != size:
            continue
        if owner.type.bytes != size:
            continue
        others = (v for v in node.inputs if v != value)
        if all(root.get(other) != owner for other in others):
            return owner
    return None


def _check_mutation(node: Node, position: int) -> None:
    """An operator that always overwrites an input has to find nobody who reads it later."""
    overwritten = (source for output, source in node.op.in_place if output == position)
    if node.op.mutates and any(source < len(node.inputs) for source in overwritten):
        raise CompilerBug(f"{node.op} overwrites what is read later: {node.inputs}")


def _last_reads(graph: Graph, last_use: Mapping[Value, int]) -> dict[Value, int]:
    """The last use of each value's memory, its views under other shapes included."""
    result = dict(last_use)
    for node in reversed(graph.nodes):
        if node.op.alias:
            view, source = node.outputs[0], node.inputs[0]
            result[source] = max(result.get(source, -1), result.get(view, -1))
    return result


def _check_overwrite(graph: Graph, index: int, state: Value, last_use: Mapping[Value, int]) -> None:
    if last_use.get(state, index) > index:
        reader = graph.nodes[last_use[state]] if last_use[state] < len(graph.nodes) else None
        raise CompilerBug(f"{state} is overwritten by node {index} and read later by {reader}")
