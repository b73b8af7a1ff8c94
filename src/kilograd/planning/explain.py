"""Says what makes the peak of a schedule."""

from __future__ import annotations

from dataclasses import dataclass

from kilograd.ir import Graph, Node, Value
from kilograd.planning.schedule import Schedule


@dataclass(frozen=True)
class PeakMember:
    """A buffer that is alive at the peak: its bytes, the value that owns it, and the node that
    defines it.
    """

    size_bytes: int
    name: str
    value: Value | None
    node: Node | None


def peak(schedule: Schedule) -> tuple[int, list[PeakMember]]:
    """The node index at which most bytes are alive, and what is alive there, largest first."""
    profile = schedule.lifetimes.profile()
    if not profile:
        return 0, []
    time = max(profile, key=lambda point: point[1])[0]
    owners = {value.name: value for value in schedule.graph.values()}
    producers = schedule.graph.producers()
    members = []
    for buffer in schedule.lifetimes.buffers:
        if buffer.first <= time < buffer.last:
            value = owners.get(buffer.name)
            node = producers.get(value) if value else None
            members.append(PeakMember(buffer.size_bytes, buffer.name, value, node))
    return time, sorted(members, key=lambda m: (-m.size_bytes, m.name))


def describe_peak(schedule: Schedule, limit: int = 5) -> str:
    """The largest tensors alive at the peak, one a line, with the layer that each comes from."""
    time, members = peak(schedule)
    lines = []
    for member in members[:limit]:
        where = str(member.node.location) if member.node else "input"
        shape = str(member.value.type) if member.value else "scratch"
        lines.append(f"  {member.size_bytes:>10,} B  %{member.name} {shape}  {where}")
    rest = sum(member.size_bytes for member in members[limit:])
    if rest:
        lines.append(f"  {rest:>10,} B  in {len(members) - limit} smaller ones")
    if schedule.graph.nodes:
        node = schedule.graph.nodes[min(time, len(schedule.graph.nodes) - 1)]
        lines.append(f"  while running {node.op.name} of {node.location}")
    return "\n".join(lines)


def describe_state(graph: Graph, limit: int = 3) -> str:
    """The largest tensors of the learned state, one a line, under the user's names."""
    tensors = sorted(graph.state.items(), key=lambda item: -item[0].type.bytes)
    lines = [
        f"  {value.type.bytes:>10,} B  {data.origin.name if data.origin else value} {value.type}"
        for value, data in tensors[:limit]
    ]
    rest = sum(value.type.bytes for value, _ in tensors[limit:])
    if rest:
        lines.append(f"  {rest:>10,} B  in {len(tensors) - limit} smaller ones")
    return "\n".join(lines)
