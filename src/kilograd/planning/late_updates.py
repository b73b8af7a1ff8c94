"""An order for atomic steps, in which the next weights wait in the arena until all gradients are
known to be finite.

The gradient of a weight trades what it reads, a cotangent and a saved activation, for what it
leaves, the next weight. It runs as soon as that is a good trade: as soon as the cotangent exists,
when the activation has had its other readers, or behind the whole backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from kilograd.ir import Graph, Value
from kilograd.planning.lifetimes import measure

_TRIALS = 24
"""Orders that are measured at most."""
_NEVER = -1
"""Stands for a node that the backward pass does not have."""


def late_updates(graph: Graph, priority: Callable[[int], tuple[int, ...]]) -> list[int]:
    """The node indices in an order that data permit; `priority` is that of the other nodes.

    Starts with every task at its first good trade, and puts off those that are in the way at the
    peak for as long as that lowers the peak of the backward pass.
    """
    plan = _Plan.of(graph, priority)
    earliest: dict[int, int] = {}
    best = plan.order(earliest)
    peak = _peak(graph, best)
    trials, refused = _TRIALS, set[tuple[int, int]]()
    while trials:
        moves = [
            (task, node)
            for task in plan.in_the_way(peak)
            for node in (peak.node, plan.room(task, peak), _NEVER)
            if (task, node) not in refused
        ]
        if not moves:
            break
        trials -= 1
        move = moves[0]
        tried = earliest | dict((move,))
        order = plan.order(tried)
        found = _peak(graph, order)
        if found.bytes < peak.bytes:
            best, peak, earliest = order, found, tried
        else:
            refused.add(move)
    return best


@dataclass(frozen=True)
class _Peak:
    """Where in the backward pass most bytes are alive: the node, and the owners of the buffers."""

    bytes: int
    node: int
    alive: frozenset[str]
    root: Mapping[Value, Value]
    behind: tuple[tuple[int, int], ...]
    """The nodes behind it, and the bytes that are alive while each runs."""


def _peak(graph: Graph, order: list[int]) -> _Peak:
    nodes = [graph.nodes[index] for index in order]
    lives = measure(replace(graph, nodes=tuple(nodes)))
    first = next((i for i, node in enumerate(nodes) if node.location.backward), len(nodes))
    levels, total = [], 0
    changes = dict(lives.profile())
    for time in range(len(nodes)):
        total = changes.get(time, total)
        levels.append(total)
    top = max(range(first, len(nodes)), key=lambda time: levels[time], default=len(nodes) - 1)
    alive = frozenset(b.name for b in lives.buffers if b.first <= top < b.last)
    behind = tuple(zip(order[top + 1 :], levels[top + 1 :], strict=True))
    return _Peak(levels[top], order[top], alive, lives.root, behind)


@dataclass(frozen=True)
class _Task:
    """Nodes that serve updates: they read `reads`, and leave `leaves` for the updates."""

    nodes: tuple[int, ...]
    reads: frozenset[Value]
    leaves: frozenset[Value]
    most_bytes: int
    """The most that is alive of its results while it runs, and its scratch."""

    @property
    def growth_bytes(self) -> int:
        """By how much more is alive behind it than before it."""
        return _bytes(self.leaves) - _bytes(self.reads)


@dataclass(frozen=True)
class _Plan:
    """A training step as tasks, the steps that end it, and the other nodes in a fixed order."""

    spine: tuple[int, ...]
    steps: tuple[int, ...]
    tasks: tuple[_Task, ...]
    readers: Mapping[Value, frozenset[int]]
    producer: Mapping[Value, int]

    @staticmethod
    def of(graph: Graph, priority: Callable[[int], tuple[int, ...]]) -> _Plan:
        readers: dict[Value, set[int]] = {}
        for index, node in enumerate(graph.nodes):
            for value in node.inputs:
                readers.setdefault(value, set()).add(index)
        fixed = {*graph.state, *graph.constants}
        groups = _groups(graph)
        tasks = []
        inside = {index for group in groups for index in group}
        for group in groups:
            made = {value for index in group for value in graph.nodes[index].outputs}
            read = {value for index in group for value in graph.nodes[index].inputs}
            leaves = {value for value in made if not readers.get(value, set()) <= group}
            nodes = tuple(sorted(group))
            reads = frozenset(read - made - fixed)
            tasks.append(_Task(nodes, reads, frozenset(leaves), _most_bytes(graph, nodes, readers)))
        rest = sorted((i for i in range(len(graph.nodes)) if i not in inside), key=priority)
        steps = tuple(i for i in rest if _is_step(graph, i))
        spine = tuple(i for i in rest if not _is_step(graph, i))
        producer = {value: i for i, node in enumerate(graph.nodes) for value in node.outputs}
        return _Plan(
            spine, steps, tuple(tasks), {v: frozenset(r) for v, r in readers.items()}, producer
        )

    def in_the_way(self, peak: _Peak) -> list[int]:
        """The task that runs at the peak, and those without whose results less would be alive, the
        largest saving first.
        """

        def alive(values: Iterable[Value]) -> set[Value]:
            return {v for v in values if v not in peak.root or peak.root[v].name in peak.alive}

        saved = {
            number: _bytes(alive(task.leaves)) - _bytes(task.reads - alive(task.reads))
            for number, task in enumerate(self.tasks)
            if alive(task.leaves)
        }
        running = [t for t, task in enumerate(self.tasks) if peak.node in task.nodes]
        return running + sorted((t for t in saved if saved[t] > 0), key=lambda t: (-saved[t], t))

    def room(self, number: int, peak: _Peak) -> int:
        """The first node behind the peak after which the task makes no peak as large."""
        task = self.tasks[number]
        for node, alive in peak.behind:
            if node in self.spine and alive - task.growth_bytes + task.most_bytes < peak.bytes:
                return node
        return _NEVER

    def order(self, earliest: Mapping[int, int]) -> list[int]:
        """The order in which a task comes behind the node that `earliest` has for it, if any."""
        done: set[int] = set()
        result: list[int] = []
        pending = dict(enumerate(self.tasks))

        def run(nodes: Iterable[int]) -> None:
            for index in nodes:
                result.append(index)
                done.add(index)

        def worth(task: _Task, following: int) -> bool:
            free = (
                value
                for value in task.reads
                if self.readers[value] - done <= {*task.nodes, following}
            )
            return _bytes(task.leaves) <= _bytes(free)

        for node in self.spine:
            for number, task in list(pending.items()):
                ready = all(
                    self.producer[value] in done for value in task.reads if value in self.producer
                )
                behind = earliest.get(number)
                if ready and (behind is None or behind in done) and worth(task, node):
                    run(pending.pop(number).nodes)
            run((node,))
        # Of tasks that grow, first those that need most beyond what they leave.
        for number in sorted(
            pending,
            key=lambda t: (pending[t].growth_bytes - pending[t].most_bytes, t),
        ):
            run(pending[number].nodes)
        run(self.steps)
        return result


def _is_step(graph: Graph, index: int) -> bool:
    outputs = graph.nodes[index].outputs
    return bool(outputs) and set(graph.updates.values()).issuperset(outputs)


def _groups(graph: Graph) -> list[set[int]]:
    """The nodes that make the gradient or the next value of one state, its last step excluded, and
    their checks; together where they read the same cotangent or each other's results.
    """
    served: dict[Value, set[Value]] = {after: {state} for state, after in graph.updates.items()}
    members: set[int] = set()
    for index in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[index]
        serves = set().union(*(served.get(value, set()) for value in node.outputs))
        for value in node.inputs:
            served.setdefault(value, set()).update(serves)
        shapes = {value.type.shape for value in (*node.outputs, *serves)}
        makes = len(serves) == len(shapes) == 1 and not _is_step(graph, index)
        if node.op.check or makes:
            members.add(index)
    own = {
        value
        for index, node in enumerate(graph.nodes)
        if node.location.backward or index in members
        for value in node.outputs
    }
    groups: list[tuple[set[int], set[Value]]] = []
    for index in sorted(members):
        node = graph.nodes[index]
        group, values = {index}, {*node.inputs, *node.outputs} & own
        apart = []
        for other in groups:
            if other[1] & values:
                group, values = group | other[0], values | other[1]
            else:
                apart.append(other)
        groups = [*apart, (group, values)]
    return [group for group, _ in groups]


def _most_bytes(graph: Graph, nodes: tuple[int, ...], readers: Mapping[Value, set[int]]) -> int:
    """The most that is alive of the nodes' results while they run in this order, and scratch."""
    made: set[Value] = set()
    most, left = 0, set(nodes)
    for index in nodes:
        node = graph.nodes[index]
        scratch = node.op.cost(*(value.type for value in node.inputs)).scratch_bytes
        made.update(node.outputs)
        most = max(most, _bytes(made) + scratch)
        left.remove(index)
        others = set(nodes) - left
        made = {value for value in made if readers.get(value, set()) - others}
    return most


def _bytes(values: Iterable[Value]) -> int:
    return sum(value.type.bytes for value in values)
