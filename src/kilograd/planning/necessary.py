"""What is alive while a node runs, in whatever order a program is executed.

A value is alive while node n runs if what makes it has to run before n, and something that reads it
has to run behind n, or is n. Nodes that may run before n or behind it have a choice: to have run,
and to have left their results, or to wait, and to keep what they read. The cheapest choice of each
group of them is a lower bound, too, and the sum of all is a lower bound of the arena that no order,
and no allocation, can undercut.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter

from kilograd.ir import Graph, Value
from kilograd.planning.lifetimes import aligned as aligned_bytes
from kilograd.planning.order import predecessors_of

MAX_LOOSE = 12
"""Groups of more nodes count nothing: their choices are too many to enumerate."""

Exists = Callable[[int], bool]


def necessary_bytes(graph: Graph, *, atomic: bool) -> int:
    """A lower bound of the arena of a program in any order, its operators being what they are."""
    alive = Alive(graph, atomic=atomic)
    most = alive.aligned(alive.waiting())
    for node in range(len(graph.nodes)):
        if graph.nodes[node].op.alias:
            continue
        kept = alive.kept(node)
        total = alive.aligned(kept) + alive.own_bytes(node)
        total += sum(
            alive.least_bytes(node, group, alive.touched(group) - kept)
            for group in alive.groups(alive.loose(node), kept)
        )
        most = max(most, total)
    return most


def _always(_: int) -> bool:
    return True


@dataclass(frozen=True)
class Alive:
    """A program and what must be alive at its nodes, which are told by their index."""

    graph: Graph
    atomic: bool

    @cached_property
    def _before(self) -> list[set[int]]:
        return predecessors_of(self.graph, self.atomic)

    @cached_property
    def _order(self) -> list[int]:
        return list(TopologicalSorter(dict(enumerate(self._before))).static_order())

    @cached_property
    def ancestors(self) -> list[int]:
        """For every node the set of those that have to run before it, as bits."""
        result = [0] * len(self.graph.nodes)
        for node in self._order:
            for other in self._before[node]:
                result[node] |= result[other] | 1 << other
        return result

    @cached_property
    def descendants(self) -> list[int]:
        """For every node the set of those that have to run behind it, as bits."""
        result = [0] * len(self.graph.nodes)
        for node in reversed(self._order):
            for other in self._before[node]:
                result[other] |= result[node] | 1 << node
        return result

    @cached_property
    def root(self) -> Mapping[Value, Value]:
        """Views of another value's memory, and whose it is."""
        result: dict[Value, Value] = {}
        for node in self.graph.nodes:
            if node.op.alias:
                result[node.outputs[0]] = result.get(node.inputs[0], node.inputs[0])
        return result

    @cached_property
    def producer(self) -> Mapping[Value, int]:
        """The node that makes each value of the arena; inputs of the program have none."""
        outside = {*self.graph.state, *self.graph.constants, *self.graph.updates.values()}
        outside.update(value for value in self.graph.outputs if not value.type.rank)
        result = {value: -1 for value in self.graph.inputs if value.type.rank}
        for index, node in enumerate(self.graph.nodes):
            if not node.op.alias:
                result |= {value: index for value in node.outputs if value not in outside}
        return {value: index for value, index in result.items() if value not in outside}

    @cached_property
    def readers(self) -> Mapping[Value, tuple[int, ...]]:
        """The nodes that read each value of the arena, or a view of it."""
        result: dict[Value, list[int]] = {value: [] for value in self.producer}
        for index, node in enumerate(self.graph.nodes):
            if not node.op.alias:
                for value in {self.root.get(v, v) for v in node.inputs} & result.keys():
                    result[value].append(index)
        return {value: tuple(nodes) for value, nodes in result.items()}

    def behind(self, node: int, value: Value) -> list[int]:
        """The readers of a value that have to run behind the node."""
        return [r for r in self.readers[value] if self.descendants[node] >> r & 1]

    def kept(self, node: int) -> set[Value]:
        """The values that are alive while the node runs, its results excluded."""
        before = self.ancestors[node]
        return {
            value
            for value, maker in self.producer.items()
            if (maker < 0 or before >> maker & 1)
            and (node in self.readers[value] or self.behind(node, value))
        }

    def own_bytes(self, node: int, exists: Exists = _always, pending: Collection[int] = ()) -> int:
        """The node's results, as far as they need memory of their own, and its scratch; `pending`
        are nodes that run behind it although they need not.
        """
        it = self.graph.nodes[node]
        total = aligned_bytes(it.op.cost(*(value.type for value in it.inputs)).scratch_bytes)
        for place, value in enumerate(it.outputs):
            if value in self.producer and not self._in_place(node, place, exists, pending):
                total += aligned_bytes(value.type.bytes)
        return total

    def _in_place(self, node: int, place: int, exists: Exists, pending: Collection[int]) -> bool:
        it = self.graph.nodes[node]
        for output, source in it.op.in_place:
            if output != place or source >= len(it.inputs):
                continue
            value = self.root.get(it.inputs[source], it.inputs[source])
            fits = value in self.producer and value.type.bytes == it.outputs[place].type.bytes
            if fits and not any(exists(r) for r in self.behind(node, value)):
                return not any(r in pending for r in self.readers[value])
        return False

    def loose(self, node: int) -> list[int]:
        """The nodes that may run before this one or behind it."""
        bound = self.ancestors[node] | self.descendants[node] | 1 << node
        return [i for i in range(len(self.graph.nodes)) if not bound >> i & 1]

    def touched(self, nodes: Iterable[int]) -> set[Value]:
        """The values of the arena that the nodes read or make."""
        values = (v for i in nodes for v in (*self.graph.nodes[i].inputs, *self._made(i)))
        return {self.root.get(value, value) for value in values} & self.producer.keys()

    def _made(self, node: int) -> tuple[Value, ...]:
        it = self.graph.nodes[node]
        return () if it.op.alias else it.outputs

    def groups(self, nodes: Collection[int], kept: Collection[Value]) -> list[list[int]]:
        """The nodes in groups that share no value but those that are kept anyway."""
        groups: list[tuple[list[int], set[Value], set[int]]] = []
        chosen = set(nodes)
        for node in sorted(chosen):
            members, ties = [node], {*self._before[node], node} & chosen
            values = self.touched((node,)) - set(kept)
            apart = []
            for group in groups:
                if group[1] & values or group[2] & ties:
                    members, values, ties = members + group[0], values | group[1], ties | group[2]
                else:
                    apart.append(group)
            groups = [*apart, (members, values, ties)]
        return [sorted(members) for members, _, _ in groups]

    def least_bytes(
        self,
        node: int,
        group: Collection[int],
        charged: Collection[Value],
        exists: Exists = _always,
    ) -> int:
        """By how much a group raises what is alive at `node` at least, whichever of its nodes have
        run by then; 0 where the group is too large.

        Counted are its `charged` values; results of `node` that cannot take over memory that the
        group still reads; and what is alive while a node of the group runs that needs all that
        `node` needs, and runs before it.
        """
        members = [i for i in self._order if i in group and exists(i)]
        if not members or len(members) > MAX_LOOSE:
            return 0
        inside = set(members)
        values = []
        for value in charged:
            readers = [r for r in self.readers[value] if r in inside]
            later = any(exists(r) for r in self.behind(node, value))
            maker = self.producer[value]
            if maker in inside or maker < 0 or self.ancestors[node] >> maker & 1:
                values.append((aligned_bytes(value.type.bytes), maker, readers, later))
        touches = not inside.isdisjoint(r for v in self._reads(node) for r in self.readers[v])
        earlier = [t for t in members if not self.ancestors[node] & ~self.ancestors[t]]
        key = (tuple(members), tuple((size, maker, later) for size, maker, _, later in values))
        alone = not touches and not earlier
        if alone and key in self._least:
            return self._least[key]
        own = self.own_bytes(node, exists) if not alone else 0
        running = {t: self._running_bytes(t, charged, exists) - own for t in earlier}
        least: int | None = None
        for d in self._done(members):
            total = sum(
                size
                for size, maker, readers, later in values
                if (maker not in inside or maker in d) and (later or not d.issuperset(readers))
            )
            if touches:
                total += self.own_bytes(node, exists, inside - d) - own
            total = max(total, *(running[t] for t in earlier if t in d), total)
            least = total if least is None else min(least, total)
        if alone:
            self._least[key] = least or 0
        return least or 0

    @cached_property
    def _least(self) -> dict[tuple[tuple[int, ...], tuple[tuple[int, int, bool], ...]], int]:
        """Groups that have nothing to do with the node that runs cost the same at many nodes."""
        return {}

    def _done(self, members: Sequence[int]) -> list[frozenset[int]]:
        """The sets of members that can have run: with each, those that run before it."""
        inside = set(members)
        done: list[frozenset[int]] = [frozenset()]
        for member in members:
            first = self._before[member] & inside
            done += [d | {member} for d in done if first <= d]
        return done

    def _reads(self, node: int) -> set[Value]:
        inputs = self.graph.nodes[node].inputs
        return {self.root.get(value, value) for value in inputs} & self.producer.keys()

    def _running_bytes(self, node: int, charged: Collection[Value], exists: Exists) -> int:
        """What is alive while a node runs beside what is not charged."""
        return self.own_bytes(node, exists) + self.aligned(self._reads(node).intersection(charged))

    def waiting(self) -> set[Value]:
        """What waits for the updates: of an atomic step, all of it is alive at the same time."""
        if not self.atomic:
            return set()
        steps = set(self.graph.updates.values())
        read: set[Value] = set()
        for node in self.graph.nodes:
            if node.outputs and steps.issuperset(node.outputs):
                read.update(self.root.get(value, value) for value in node.inputs)
        return {value for value in read if self.producer.get(value, -1) >= 0}

    @staticmethod
    def aligned(values: Iterable[Value]) -> int:
        """The bytes of the values in the arena."""
        return sum(aligned_bytes(value.type.bytes) for value in values)
