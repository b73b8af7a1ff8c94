"""A plan as a graph: every event of the plan becomes the node that does it.

The planned graph is an ordinary program in execution order. What runs again is a node under
another name, a page that is read is another value; what the plan drops is read by nobody later. So
lifetimes, allocation, code generation and the interpreter need to know nothing of plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kilograd.errors import CompilerBug
from kilograd.ir import Graph, Location, Node, Value
from kilograd.ops.optimizer import SgdStep
from kilograd.ops.page import PageIn, PageOut
from kilograd.ops.stored_step import StoredSgdStep
from kilograd.planning.paging.tasks import Kind, Step, Task
from kilograd.planning.remat import Event


@dataclass(frozen=True)
class Trace:
    """Where a planned graph comes from: for each of its nodes the index of the event that made it
    (None for views), and the events.
    """

    events: tuple[Event, ...]
    event_of: tuple[int | None, ...]


def apply(step: Step, events: Sequence[Event], block_bytes: int = 1) -> tuple[Graph, Trace]:
    """The graph that does what the events say, in their order; `block_bytes` are the storage's."""
    writer = _Writer(step, events, block_bytes)
    for index, event in enumerate(events):
        writer.run(index, event)
    return writer.finish()


class _Writer:
    def __init__(self, step: Step, events: Sequence[Event], block_bytes: int) -> None:
        self.block_bytes = block_bytes
        self.step, self.graph, self.events = step, step.graph, events
        self.names = {value.name for value in self.graph.values()}
        self.used: set[str] = set()
        self.env: dict[Value, Value] = {v: v for v in self.graph.inputs}
        self.env |= {v: v for v in (*self.graph.constants, *self.graph.state)}
        for value in step.stored:
            self.env.pop(value, None)
        self.overwritten = {*self.graph.updates.values()}
        self.spare: dict[Value, Value] = {}  # what the last event left of a node's other outputs
        self.views: dict[tuple[Value, Value], Value] = {}
        self.pages: dict[Value, Value] = {}
        self.view_node = {node.outputs[0]: node for node in self.graph.nodes if node.op.alias}
        self.ran: set[int] = set()
        self.nodes: list[Node] = []
        self.event_of: list[int | None] = []
        self.updates: dict[Value, Value] = {}
        self.index: int | None = None

    def run(self, index: int, event: Event) -> None:
        self.index = index
        task = self.step.tasks[event.node]
        if event.kind == "compute":
            self.compute(task)
        elif event.kind == "page_out":
            for value in task.outputs:
                if value in self.env:
                    self.pages[value] = self.write(value, self.env[value])
        elif event.kind == "page_in":
            for value in task.outputs:
                if value in self.pages:
                    self.env[value] = self.read_page(value, self.pages[value])
        else:
            for value in task.outputs:
                if value not in self.overwritten:
                    self.env.pop(value, None)

    def compute(self, task: Task) -> None:
        if task.kind is not Kind.PART or not self.spare.keys() >= set(task.outputs):
            self.spare = {}
        if task.kind is Kind.LOAD:
            (value,) = task.outputs
            self.env[value] = self.read_page(value, value)
        elif task.kind in (Kind.RUN, Kind.PART):
            self.produce(task)
        elif task.kind is Kind.UPDATE:
            self.update(task)
        else:
            for index in task.nodes:
                self.run_node(index)

    def produce(self, task: Task) -> None:
        """Run a node for the outputs of the task, unless it has just run for its other outputs."""
        if not self.spare:
            kept = {v: self.env[v] for v in task.beside if v in self.env}
            self.run_node(task.nodes[0])
            self.spare = {v: self.env.pop(v) for v in task.beside}
            self.env |= kept
            return
        for value in task.outputs:
            self.env[value] = self.spare.pop(value)

    def run_node(self, index: int) -> None:
        node = self.graph.nodes[index]
        if node.op.alias:
            return
        inputs = tuple(self.read(v) for v in node.inputs)
        first = index not in self.ran
        outputs = node.outputs if first else tuple(self.copy_of(v, "again") for v in node.outputs)
        self.add(replace(node, inputs=inputs, outputs=outputs))
        self.env.update(zip(node.outputs, outputs, strict=True))
        if first:
            self.ran.add(index)
            self.used.update(v.name for v in outputs)

    def update(self, task: Task) -> None:
        """Load what only the update reads, step, and write the next values to storage."""
        if task.in_chunks:
            self.update_in_chunks(task)
            return
        for value in task.loads:
            self.env[value] = self.read_page(value, value)
        for index in self.step.run_nodes(task):
            self.run_node(index)
        location = self.graph.nodes[task.nodes[-1]].location
        for state, successor in task.successors:
            self.updates[state] = self.write(successor, self.read(successor), location)
        for value in task.loads:
            del self.env[value]
        self.reload(task)

    def update_in_chunks(self, task: Task) -> None:
        for index in task.nodes:
            node = self.graph.nodes[index]
            if isinstance(node.op, SgdStep) and not node.op.check:
                w, gradient, rate, step, *extra = node.inputs
                op = StoredSgdStep.of(node.op, self.block_bytes)
                pages = tuple(self.copy_of(v, "page") for v in node.outputs)
                inputs = (self.read(gradient), rate, step, w, *extra)
                self.add(replace(node, op=op, inputs=inputs, outputs=pages))
                self.updates |= dict(zip((w, *extra), pages, strict=True))

    def reload(self, task: Task) -> None:
        """Load states anew that the update has stepped in RAM and the plan goes on reading."""
        assert self.index is not None
        for state, _ in task.successors:
            if state not in self.env or state not in task.reads:
                continue
            del self.env[state]
            if self.read_later(state):
                self.env[state] = self.read_page(state, state)

    def read_later(self, state: Value) -> bool:
        """Whether the plan reads a loaded state before it drops it."""
        assert self.index is not None
        for event in self.events[self.index + 1 :]:
            task = self.step.tasks[event.node]
            if event.kind == "compute" and state in task.reads:
                return True
            if state in task.outputs:
                return False
        return False

    def read(self, value: Value) -> Value:
        """The copy of a value that is in RAM, a view of it where that is asked for."""
        if not value.type.rank and value in self.graph.inputs:
            return value
        node = self.view_node.get(value)
        if node is None:
            if value not in self.env:
                raise CompilerBug(f"the plan reads {value} while it is not in RAM")
            return self.env[value]
        source = self.read(node.inputs[0])
        if (value, source) not in self.views:
            fresh = value.name not in self.used
            view = value if fresh else self.copy_of(value, "view")
            self.used.add(value.name)
            self.nodes.append(replace(node, inputs=(source,), outputs=(view,)))
            self.event_of.append(self.index)
            self.views[value, source] = view
        return self.views[value, source]

    def read_page(self, value: Value, page: Value) -> Value:
        copy = self.copy_of(value, "back")
        self.add(Node(PageIn(self.block_bytes), (page,), (copy,), self.where(value)))
        return copy

    def write(self, value: Value, copy: Value, location: Location | None = None) -> Value:
        page = self.copy_of(value, "page")
        self.add(Node(PageOut(self.block_bytes), (copy,), (page,), location or self.where(value)))
        return page

    def where(self, value: Value) -> Location:
        producer = next((n for n in self.graph.nodes if value in n.outputs), None)
        if producer is None:
            tensor = self.graph.state.get(value) or self.graph.constants.get(value)
            origin = tensor.origin if tensor else None
            return Location(origin.name.rpartition(".")[0] if origin else "")
        return producer.location

    def add(self, node: Node) -> None:
        self.nodes.append(node)
        self.event_of.append(self.index)

    def copy_of(self, value: Value, how: str) -> Value:
        name, number = f"{value.name}.{how}", 1
        while name in self.names:
            number += 1
            name = f"{value.name}.{how}{number}"
        self.names.add(name)
        return Value(name, value.type)

    def finish(self) -> tuple[Graph, Trace]:
        graph = self.graph
        self.index = None
        outputs = tuple(self.read(v) for v in graph.outputs)
        updates = {
            state: self.updates[state] if state in self.updates else self.read(successor)
            for state, successor in graph.updates.items()
        }
        kept = _live(self.nodes, {*outputs, *updates.values()})
        return (
            replace(
                graph,
                nodes=tuple(self.nodes[i] for i in kept),
                outputs=outputs,
                updates=updates,
                stored=self.step.stored,
            ),
            Trace(tuple(self.events), tuple(self.event_of[i] for i in kept)),
        )


def _live(nodes: Sequence[Node], results: set[Value]) -> list[int]:
    """The nodes that are needed: a plan moves all tensors of a task, of which not all are read."""
    wanted, kept = set(results), []
    for index in reversed(range(len(nodes))):
        node = nodes[index]
        if node.op.check or any(v in wanted for v in node.outputs):
            wanted.update(node.inputs)
            kept.append(index)
    return kept[::-1]
