"""Says what makes the peak of a schedule, and why a value lies where it does."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kilograd.errors import InputError
from kilograd.ir import Graph, Node, Value
from kilograd.ops.page import Paging
from kilograd.planning.facts import BufferFacts, Kind, buffer_facts
from kilograd.planning.schedule import Schedule

if TYPE_CHECKING:
    from kilograd.planning.explain_plan import TensorPlan


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
            node = producers.get(value) if value else schedule.graph.nodes[buffer.first]
            members.append(PeakMember(buffer.size_bytes, buffer.name, value, node))
    return time, sorted(members, key=lambda m: (-m.size_bytes, m.name))


def describe_peak(schedule: Schedule, limit: int = 5) -> str:
    """The largest tensors alive at the peak, one a line, with the layer that each comes from."""
    time, members = peak(schedule)
    lines = []
    for member in members[:limit]:
        where = str(member.node.location) if member.node else "input"
        what = f"%{member.name} {member.value.type}" if member.value else member.name
        lines.append(f"  {member.size_bytes:>10,} B  {what}  {where}")
    lines += _smaller([member.size_bytes for member in members[limit:]])
    if schedule.graph.nodes:
        node = schedule.graph.nodes[min(time, len(schedule.graph.nodes) - 1)]
        lines.append(f"  while running {node.op.name} of {node.location}")
    return "\n".join(lines)


def describe_state(graph: Graph, limit: int = 3) -> str:
    """The largest tensors of the learned state in SRAM, one a line, under the user's names."""
    kept = [(value, data) for value, data in graph.state.items() if value not in graph.stored]
    tensors = sorted(kept, key=lambda item: -item[0].type.bytes)
    lines = [
        f"  {value.type.bytes:>10,} B  {data.origin.name if data.origin else value} {value.type}"
        for value, data in tensors[:limit]
    ]
    return "\n".join(lines + _smaller([value.type.bytes for value, _ in tensors[limit:]]))


def _smaller(sizes: list[int]) -> list[str]:
    """The line for what is not named."""
    ones = "one" if len(sizes) == 1 else "ones"
    return [f"  {sum(sizes):>10,} B  in {len(sizes)} smaller {ones}"] if sum(sizes) else []


@dataclass(frozen=True)
class LiveTensor:
    """A buffer that is alive at the peak: the values in it, its bytes and offset, the layer that
    writes it, what it is for, and the node that keeps it alive.
    """

    name: str
    type: str
    size_bytes: int
    offset_bytes: int
    layer: str
    kind: str
    kept_for: str


@dataclass(frozen=True)
class PeakExplanation:
    """The live set of a schedule where most bytes are alive, largest first, and what would lower
    it. `layers` are bytes of the live set by the layer that writes them. `away` are tensors that a
    plan keeps out of RAM meanwhile, a line each.
    """

    node: int
    running: str
    peak_bytes: int
    arena_bytes: int
    tensors: tuple[LiveTensor, ...]
    layers: tuple[tuple[str, int], ...]
    remedies: tuple[str, ...]
    away: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The explanation as text."""
        lines = [
            f"{self.peak_bytes:,} B are alive during {self.running}; "
            f"the arena has {self.arena_bytes:,} B",
            "",
            *(
                f"  {t.size_bytes:>10,} B  %{t.name} {t.type}  {t.layer}\n"
                f"                {t.kind}, kept for {t.kept_for}"
                for t in self.tensors
            ),
            "",
            "  by layer:",
            *(f"  {size:>10,} B  {layer}" for layer, size in self.layers),
            *(("", "  kept out of RAM by the plan:") if self.away else ()),
            *(f"    {line}" for line in self.away),
            "",
            "  what would lower it:",
            *(f"    {remedy}" for remedy in self.remedies),
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class ValueExplanation:
    """Where a value lies and why it is there.

    `place` is "arena", "state" (SRAM, from step to step), "flash", "storage" (secondary storage) or
    "argument" (of the C function). `plan` is what a plan does with it, None where it does nothing.
    `offset_bytes`, `first` and `last` (the half-open range of nodes in which its memory is in use)
    are None outside the arena. `shares` are the other values in the same memory.
    """

    name: str
    type: str
    size_bytes: int
    place: str
    producer: str
    readers: tuple[str, ...]
    offset_bytes: int | None = None
    first: int | None = None
    last: int | None = None
    kept_for: str = ""
    shares: tuple[str, ...] = ()
    overwrites: str = ""
    plan: TensorPlan | None = None

    def __str__(self) -> str:
        """The explanation as text."""
        lines = [f"%{self.name} {self.type}, {self.size_bytes:,} B, made by {self.producer}"]
        if self.offset_bytes is None:
            lines.append(f"  lies in {_PLACES[self.place]}")
        else:
            lines.append(
                f"  lies in the arena at {self.offset_bytes:,} to "
                f"{self.offset_bytes + self.size_bytes:,}, in use from node {self.first} up to "
                f"node {(self.last or 0) - 1}"
            )
            lines.append(f"  kept for {self.kept_for}")
        if self.overwrites:
            lines.append(f"  written in place of %{self.overwrites}")
        if self.shares:
            lines.append(f"  in the memory of {', '.join('%' + name for name in self.shares)} too")
        lines.append("  read by" if self.readers else "  read by nobody")
        lines += [f"    {reader}" for reader in self.readers]
        if self.plan is not None:
            lines += ["  planned:", *("    " + line for line in str(self.plan).splitlines())]
        return "\n".join(lines)


_PLACES = {
    "state": "the learned state, in SRAM from step to step",
    "flash": "flash, as a constant",
    "storage": "secondary storage",
    "argument": "an argument of the C function, or memory of its caller",
}


def explain_peak(schedule: Schedule) -> PeakExplanation:
    """The live set at the peak of a schedule, and what would lower it."""
    graph = schedule.graph
    time, _ = peak(schedule)
    live = [f for f in buffer_facts(schedule) if f.lifetime.first <= time < f.lifetime.last]
    live.sort(key=lambda facts: (-facts.lifetime.size_bytes, facts.name))
    layers: dict[str, int] = {}
    for facts in live:
        layer = _layer(graph, facts)
        layers[layer] = layers.get(layer, 0) + facts.lifetime.size_bytes
    return PeakExplanation(
        node=time,
        running=node_title(graph, time) if graph.nodes else "nothing",
        peak_bytes=schedule.lifetimes.peak_bytes,
        arena_bytes=schedule.arena_bytes,
        tensors=tuple(
            LiveTensor(
                name=facts.name,
                type=str(facts.values[0].type) if facts.values else "",
                size_bytes=facts.lifetime.size_bytes,
                offset_bytes=facts.offset_bytes,
                layer=_layer(graph, facts),
                kind=facts.kind.value,
                kept_for=kept_for(graph, facts),
            )
            for facts in live
        ),
        layers=tuple(sorted(layers.items(), key=lambda item: (-item[1], item[0]))),
        remedies=_remedies(schedule, live, time),
    )


def explain_value(schedule: Schedule, name: str) -> ValueExplanation:
    """Lifetime, place, producer and readers of a value, by its name with or without the `%`.

    Raises InputError for a name that the function does not have, with the nearest that it has.
    """
    graph, lives = schedule.graph, schedule.lifetimes
    values = {value.name: value for value in graph.values()}
    value = values.get(name.removeprefix("%"))
    if value is None:
        raise InputError(unknown("value", name.removeprefix("%"), list(values)))
    writer = next((i for i, node in enumerate(graph.nodes) if value in node.outputs), None)
    readers = tuple(i for i, node in enumerate(graph.nodes) if value in node.inputs)
    root = lives.root.get(value)
    base = ValueExplanation(
        name=value.name,
        type=str(value.type),
        size_bytes=value.type.bytes,
        place="argument",
        producer=_origin(graph, value) if writer is None else node_title(graph, writer),
        readers=tuple(node_title(graph, index) for index in readers),
    )
    if value in graph.stored or (writer is not None and _is_page(graph.nodes[writer])):
        return replace(base, place="storage")
    if root in graph.state or root in graph.constants:
        shares = (root.name,) if root is not None and root != value else ()
        return replace(
            base,
            place="state" if root in graph.state else "flash",
            shares=shares,
        )
    facts = next((f for f in buffer_facts(schedule) if root and f.name == root.name), None)
    if facts is None:
        return base
    return replace(
        base,
        place="arena",
        offset_bytes=facts.offset_bytes,
        first=facts.lifetime.first,
        last=facts.lifetime.last,
        kept_for=kept_for(graph, facts),
        shares=tuple(other.name for other in facts.values if other != value),
        overwrites=_overwritten(schedule, facts, value, writer),
    )


def _is_page(node: Node) -> bool:
    return isinstance(node.op, Paging) and node.op.writes


def node_title(graph: Graph, index: int) -> str:
    """`node 3, conv2d of features.0 (lenet.py:51)`."""
    node = graph.nodes[index]
    return f"node {index}, {node.op.name} of {node.location}"


def kept_for(graph: Graph, facts: BufferFacts) -> str:
    """Why a buffer is alive until it ends, in words."""
    if facts.keeper is not None:
        return node_title(graph, facts.keeper)
    if facts.kind is Kind.SCRATCH and facts.writer is not None:
        return node_title(graph, facts.writer)
    results = set(graph.results())
    if any(value in results for value in facts.values):
        return "the caller: it is a result"
    return "nobody: no node reads it"


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """The message for a name that is not there, with the nearest ones."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    near += [other for other in known if name and name in other and other not in near][
        : 3 - len(near)
    ]
    if not near:
        return f"there is no {what} {name!r}; there are {', '.join(known[:6])}" + (
            f", and {len(known) - 6} more" if len(known) > 6 else ""
        )
    return f"there is no {what} {name!r}; the nearest names are {', '.join(near)}"


def _overwritten(schedule: Schedule, facts: BufferFacts, value: Value, writer: int | None) -> str:
    """The value whose bytes a node replaces by `value`; empty where it fills fresh memory."""
    if writer is None or facts.values[0] == value or schedule.graph.nodes[writer].op.alias:
        return ""
    node = schedule.graph.nodes[writer]
    return next((v.name for v in node.inputs if v in facts.values), "")


def _origin(graph: Graph, value: Value) -> str:
    if value in graph.inputs:
        return "the caller, as an input"
    tensor = graph.state.get(value) or graph.constants.get(value)
    origin = tensor.origin if tensor else None
    return f"the model, as {origin.name}" if origin else "the compiler"


def _layer(graph: Graph, facts: BufferFacts) -> str:
    return "input" if facts.writer is None else str(graph.nodes[facts.writer].location)


def _remedies(schedule: Schedule, live: Sequence[BufferFacts], time: int) -> tuple[str, ...]:
    """What would lower a peak: bounds by the bytes of what would go, not promises."""
    graph = schedule.graph

    def size(kind: Kind, *, waiting: bool = False) -> int:
        members = (f for f in live if f.kind is kind and not (waiting and _busy(f, time)))
        return sum(facts.lifetime.size_bytes for facts in members)

    texts = []
    held = size(Kind.GRADIENT, waiting=True)
    if held and _is_atomic(graph):
        texts.append(
            f"kg.SGD(atomic=False): {held:,} B are gradients that wait until all are known to be "
            "finite, and could be applied at once"
        )
    saved = size(Kind.SAVED)
    if saved:
        layers = dict.fromkeys(_layer(graph, f) for f in live if f.kind is Kind.SAVED)
        texts.append(
            f"training fewer layers or channels: up to {saved:,} B are activations of "
            f"{_some(list(layers))} that the backward pass reads"
        )
    moving = size(Kind.ACTIVATION) + size(Kind.COTANGENT)
    if moving:
        texts.append(
            f"a smaller input, or narrower layers here: {moving:,} B are on their way from one "
            "operator to the next"
        )
    if size(Kind.SCRATCH):
        texts.append(f"{size(Kind.SCRATCH):,} B are scratch of the running operator")
    waste = schedule.arena_bytes - schedule.lifetimes.peak_bytes
    if waste > 0:
        texts.append(f"{waste:,} B of the arena lie between tensors and hold none at the peak")
    return tuple(texts) or ("nothing: only the input is alive",)


def _is_atomic(graph: Graph) -> bool:
    """Whether every update waits for every check."""
    successors = set(graph.updates.values())
    checks = [i for i, node in enumerate(graph.nodes) if node.op.check or node.op.may_fail]
    updates = [i for i, node in enumerate(graph.nodes) if not successors.isdisjoint(node.outputs)]
    return bool(updates) and updates[0] > max(checks, default=-1)


def _busy(facts: BufferFacts, time: int) -> bool:
    return facts.writer == time or time in facts.readers


def _some(names: Sequence[str], limit: int = 4) -> str:
    rest = len(names) - limit
    more = f" and {rest} more layer{'s' if rest > 1 else ''}" if rest > 0 else ""
    return ", ".join(names[:limit]) + more
