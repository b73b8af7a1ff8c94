"""The tasks of a step: what is run, loaded or written as one piece when the step is planned.

A task leaves tensors in RAM, together, and reads those of earlier tasks. Views share the tensors of
their source. An operator with several outputs is a task for each, so that they may leave RAM one by
one: the first run gives all, a later one what is asked for. Loading a constant or a state from
storage is a task that may run again whenever the tensor is wanted. The update of a stored state is
one task: it reads the gradient, checks it, steps, and writes the next value to storage, as soon as
the gradient exists; the value of before the step stays in storage until the step has succeeded, so
nothing has to wait.

States in SRAM are overwritten. Where pages may fail to be read or written, one last task does so,
behind every page: a step that fails has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

from kilograd.errors import CompilerBug
from kilograd.ir import Graph, Node, Value
from kilograd.ops.optimizer import Assign, SgdCheck, SgdStep


class Kind(Enum):
    """What a task does."""

    GIVEN = "given"
    LOAD = "load"
    RUN = "run"
    PART = "part"
    UPDATE = "update"
    COMMIT = "commit"


@dataclass(frozen=True)
class Task:
    """`nodes` are indices into the graph; `outputs` the tensors that are in RAM afterwards.

    `beside` are outputs of its node that belong to other tasks, which take room while it runs.
    `reads` are tensors of other tasks, `loads` stored states that only this update reads, which it
    loads for itself; one `in_chunks` loads all of them so, a chunk at a time. `successors` pairs
    each stored state with its next value.
    """

    kind: Kind
    nodes: tuple[int, ...] = ()
    outputs: tuple[Value, ...] = ()
    beside: tuple[Value, ...] = ()
    reads: tuple[Value, ...] = ()
    loads: tuple[Value, ...] = ()
    in_chunks: bool = False
    successors: tuple[tuple[Value, Value], ...] = ()


@dataclass(frozen=True)
class Step:
    """A graph as tasks in the order of their first execution; `source` maps views to what they
    view.
    """

    graph: Graph
    stored: frozenset[Value]
    tasks: tuple[Task, ...]
    source: dict[Value, Value] = field(repr=False)

    def root(self, value: Value) -> Value:
        """The tensor that a value is a view of, or itself."""
        return self.source.get(value, value)

    def run_nodes(self, task: Task) -> tuple[int, ...]:
        """The nodes of a task that run: not those that copy a next value to a state in storage,
        which is written as a page instead.
        """
        copied = {self.graph.updates[state] for state, _ in task.successors}
        nodes = self.graph.nodes
        return tuple(
            i
            for i in task.nodes
            if not (isinstance(nodes[i].op, Assign) and nodes[i].outputs[0] in copied)
        )


def tasks(graph: Graph, stored: frozenset[Value], *, commit: bool) -> Step:
    """The tasks of an ordered graph whose constants and states in `stored` lie in storage.

    With `commit`, states in SRAM are overwritten by one task behind everything else.
    """
    return _Divider(graph, stored, commit).divide()


def in_chunks(step: Step, chosen: Iterable[int]) -> Step:
    """The step with the chosen updates, by their index, taken a chunk at a time: they read nothing
    but the gradient. Those of other optimisers than float SGD stay as they are.
    """
    found = list(step.tasks)
    for index in chosen:
        task = found[index]
        ops = {type(step.graph.nodes[i].op) for i in task.nodes}
        if task.kind is Kind.UPDATE and ops <= {SgdStep, SgdCheck}:
            states = {state for state, _ in task.successors}
            reads = tuple(v for v in task.reads if v not in states)
            found[index] = replace(task, reads=reads, loads=(), in_chunks=True)
    return replace(step, tasks=tuple(found))


def update_groups(graph: Graph) -> tuple[frozenset[Value], ...]:
    """The states that are updated together, such as a weight and its velocity, largest first.

    States that belong to no tensor of the optimiser's, such as seeds, are in none.
    """
    groups: list[set[Value]] = []
    producer = {value: i for i, node in enumerate(graph.nodes) for value in node.outputs}
    by_update: dict[tuple[int, ...], set[Value]] = {}
    for state in graph.state:
        if state in graph.updates and state.type.rank and state.type.bytes > _TINY_BYTES:
            nodes = _update_nodes(graph, producer, state)
            by_update.setdefault(nodes, set()).add(state)
    for nodes, states in by_update.items():
        merged, rest = set(states), []
        for group in groups:
            shared = any(set(_update_nodes(graph, producer, s)) & set(nodes) for s in group)
            (merged.update(group) if shared else rest.append(group))
        groups = [*rest, merged]
    whole = [frozenset(group) for group in groups if _separable(graph, producer, group)]
    return tuple(
        sorted(whole, key=lambda g: (-sum(s.type.bytes for s in g), min(s.name for s in g)))
    )


def _largest_first(group: frozenset[Value]) -> tuple[int, str]:
    return -sum(state.type.bytes for state in group), min(state.name for state in group)


_TINY_BYTES = 16


def _update_nodes(graph: Graph, producer: dict[Value, int], state: Value) -> tuple[int, ...]:
    """The nodes that check and step a state: those behind its gradient."""
    last = producer[graph.updates[state]]
    layer = graph.nodes[last].location.layer
    if not layer.startswith("update of "):
        return (last,)
    return tuple(
        i
        for i, n in enumerate(graph.nodes)
        if n.location.layer == layer and not n.location.backward
    )


def _separable(graph: Graph, producer: dict[Value, int], group: Iterable[Value]) -> bool:
    """Whether nothing but their own update reads what the update makes."""
    nodes = {i for state in group for i in _update_nodes(graph, producer, state)}
    made = {value for i in nodes for value in graph.nodes[i].outputs}
    if any(not made.isdisjoint(n.inputs) for i, n in enumerate(graph.nodes) if i not in nodes):
        return False
    owners = {s for s, nxt in graph.updates.items() if nxt in made}
    return owners <= set(group) and made.isdisjoint(graph.outputs)


def is_tiny(outputs: Iterable[Value]) -> bool:
    """Whether a part is so small that it stays in RAM rather than being had again."""
    return all(map(_tiny, outputs))


def _tiny(value: Value) -> bool:
    return value.type.bytes <= _TINY_BYTES


class _Divider:
    def __init__(self, graph: Graph, stored: frozenset[Value], commit: bool) -> None:
        self.graph, self.stored, self.commit = graph, stored, commit
        self.producer = {v: i for i, node in enumerate(graph.nodes) for v in node.outputs}
        self.source: dict[Value, Value] = {}
        for node in graph.nodes:
            if node.op.alias:
                view, source = node.outputs[0], node.inputs[0]
                self.source[view] = self.source.get(source, source)
        self.states = frozenset(graph.updates)
        self.fixed = {*graph.constants, *graph.state} - stored
        self.tasks: list[Task] = []
        self.ready: set[Value] = set(self.fixed)

    def root(self, value: Value) -> Value:
        return self.source.get(value, value)

    def divide(self) -> Step:
        graph = self.graph
        for value in graph.inputs:
            if value.type.rank:
                self.tasks.append(Task(Kind.GIVEN, outputs=(value,)))
            self.ready.add(value)
        updates = self.updates()
        late = self.late() if self.commit else []
        elsewhere = {i for task in updates for i in task.nodes}.union(late)
        for index, node in enumerate(graph.nodes):
            if node.op.alias or index in elsewhere:
                continue
            self.run(index, node)
            while task := next((t for t in updates if self.ready.issuperset(self.made(t))), None):
                updates.remove(task)
                self.add(task)
        if updates:
            raise CompilerBug(f"updates that nothing feeds: {updates}")
        if late:
            outputs = [v for i in late for v in graph.nodes[i].outputs]
            self.add(Task(Kind.COMMIT, tuple(late), reads=self.reads(late, outputs)))
        return Step(graph, self.stored, tuple(self.tasks), self.source)

    def made(self, task: Task) -> list[Value]:
        """What an update waits for: stored tensors can be loaded at any time."""
        return [v for v in task.reads if v not in self.stored]

    def reads(self, indices: Iterable[int], without: Iterable[Value] = ()) -> tuple[Value, ...]:
        """The tensors that nodes read, but for those that lie in SRAM or flash for good."""
        hidden = {*without, *self.fixed, *(v for v in self.graph.inputs if not v.type.rank)}
        found = (self.root(v) for i in indices for v in self.graph.nodes[i].inputs)
        return tuple(dict.fromkeys(v for v in found if v not in hidden))

    def run(self, index: int, node: Node) -> None:
        reads, parts = self.reads([index]), self.parts(node)
        for position, outputs in enumerate(parts):
            kind = Kind.PART if position else Kind.RUN
            beside = tuple(v for v in node.outputs if v not in outputs)
            from_first = position and is_tiny(outputs)
            self.add(Task(kind, (index,), outputs, beside, parts[0] if from_first else reads))

    def parts(self, node: Node) -> list[tuple[Value, ...]]:
        """The outputs of a node by task. What may run in place has lost its input behind the run,
        so that it cannot run again for a large part alone.
        """
        if node.op.mutates or (node.op.in_place and not all(map(_tiny, node.outputs[1:]))):
            return [node.outputs]
        return [(v,) for v in node.outputs] or [()]

    def add(self, task: Task) -> None:
        for value in task.reads:
            if value in self.stored and value not in self.ready:
                self.tasks.append(Task(Kind.LOAD, outputs=(value,)))
                self.ready.add(value)
        self.tasks.append(task)
        self.ready.update(task.outputs)

    def updates(self) -> list[Task]:
        """The updates of stored states."""
        graph, result = self.graph, []
        for group in update_groups(graph):
            if not group <= self.stored:
                continue
            nodes = sorted({i for s in group for i in _update_nodes(graph, self.producer, s)})
            own = [v for i in nodes for v in graph.nodes[i].outputs]
            successors = tuple((s, self.next(s)) for s in graph.state if s in group)
            reads = self.reads(nodes, own)
            outside = {
                self.root(v)
                for i, node in enumerate(graph.nodes)
                if i not in nodes and not node.op.alias
                for v in node.inputs
            }
            loads = tuple(v for v in reads if v in group and v not in outside)
            reads = tuple(v for v in reads if v not in loads)
            task = Task(Kind.UPDATE, tuple(nodes), reads=reads, loads=loads, successors=successors)
            result.append(task)
        left = self.stored & self.states - {s for task in result for s, _ in task.successors}
        if left:
            names = ", ".join(sorted(map(str, left)))
            raise CompilerBug(f"{names} cannot be updated in storage by themselves")
        return result

    def next(self, state: Value) -> Value:
        """What is written to storage as the next value: not a copy, but what is copied."""
        successor = self.graph.updates[state]
        node = self.graph.nodes[self.producer[successor]]
        return self.root(node.inputs[0]) if isinstance(node.op, Assign) else successor

    def late(self) -> list[int]:
        """The nodes that overwrite states in SRAM, and those that read what such a node makes."""
        steps = {v for s, v in self.graph.updates.items() if s not in self.stored}
        result: list[int] = []
        tainted: set[Value] = set()
        for index, node in enumerate(self.graph.nodes):
            if not steps.isdisjoint(node.outputs) or not tainted.isdisjoint(node.inputs):
                result.append(index)
                tainted.update(node.outputs)
        return result
