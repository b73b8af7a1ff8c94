"""A step as a planning problem: one node for each task."""

from __future__ import annotations

from collections.abc import Sequence

from kilograd.devices.costs import Cost, total
from kilograd.errors import CompilerBug
from kilograd.ir import Graph, Value
from kilograd.ir import Node as GraphNode
from kilograd.ops.optimizer import SgdStep
from kilograd.ops.stored_step import StoredSgdStep
from kilograd.planning.lifetimes import aligned
from kilograd.planning.paging.price import Mover, chunked
from kilograd.planning.paging.tasks import Kind, Step, Task, is_tiny
from kilograd.planning.remat import Node, Problem


def problem(step: Step, costs: Sequence[Cost], mover: Mover | None) -> Problem:
    """The problem of a step; `costs` are those of the graph's nodes. Node i is task i.

    Without a mover nothing may be paged.
    """
    return _Writer(step, costs, mover).problem()


class _Writer:
    def __init__(self, step: Step, costs: Sequence[Cost], mover: Mover | None) -> None:
        self.step, self.costs, self.mover = step, costs, mover
        graph = step.graph
        self.task_of = {v: i for i, task in enumerate(step.tasks) for v in task.outputs}
        self.overwritten = {
            successor: state
            for state, successor in graph.updates.items()
            if state not in step.stored
        }
        self.last_reader = {v: task for task in step.tasks for v in task.reads}
        self.by_pointer = {v for v in graph.outputs if not v.type.rank}

    def problem(self) -> Problem:
        nodes = tuple(self.node(task) for task in self.step.tasks)
        return Problem(nodes, dma=bool(self.mover and self.mover.storage.dma))

    def in_ram(self, task: Task) -> list[Value]:
        """The outputs of a task that take room in the arena."""
        return [v for v in task.outputs if v not in self.overwritten and v not in self.by_pointer]

    def node(self, task: Task) -> Node:
        graph, outputs = self.step.graph, self.in_ram(task)
        size = sum(aligned(v.type.bytes) for v in outputs)
        inputs = tuple(sorted({self.task_of[v] for v in task.reads}))
        written = [self.overwritten[v] for i in task.nodes for v in graph.nodes[i].outputs
                   if v in self.overwritten]  # fmt: skip
        again = task.kind is Kind.LOAD or (self.runs(task) and self.repeatable(task))
        resident = any(self.step.root(v) in task.outputs for v in graph.outputs)
        pageable = self.pageable(task, size)
        cost = self.cost(task)
        page_in, page_out = self.moved(outputs) if pageable else (Cost(0, 0), Cost(0, 0))
        return Node(
            name=task_name(graph, task),
            bytes=size,
            seconds=cost.seconds,
            joules=cost.joules,
            inputs=inputs,
            page_in_seconds=page_in.seconds,
            page_in_joules=page_in.joules,
            page_out_seconds=page_out.seconds,
            page_out_joules=page_out.joules,
            scratch_bytes=self.scratch(task),
            given=task.kind is Kind.GIVEN,
            with_previous=task.kind is Kind.PART,
            recomputable=again and not written and size > 0,
            loads=task.kind is Kind.LOAD,
            pageable=pageable and not resident,
            resident=resident,
            in_place=self.in_place(task, outputs),
            reads_state=self.states_read(task),
            writes_state=tuple(sorted(state.name for state in written)),
        )

    def pageable(self, task: Task, size_bytes: int) -> bool:
        if not self.mover or not size_bytes or (task.kind is Kind.PART and is_tiny(task.outputs)):
            return False
        return task.kind is Kind.GIVEN or self.runs(task)

    def runs(self, task: Task) -> bool:
        return task.kind in (Kind.RUN, Kind.PART)

    def repeatable(self, task: Task) -> bool:
        if task.kind is Kind.PART and is_tiny(task.outputs):
            return False
        ops = [self.step.graph.nodes[i].op for i in task.nodes]
        return not any(op.check or op.mutates for op in ops)

    def states_read(self, task: Task) -> tuple[str, ...]:
        """States in SRAM that the step overwrites: what is read from them depends on when."""
        graph = self.step.graph
        roots = {self.step.root(v) for i in task.nodes for v in graph.nodes[i].inputs}
        found = roots & set(self.overwritten.values())
        return tuple(sorted(state.name for state in found))

    def cost(self, task: Task) -> Cost:
        parts = [self.costs[i] for i in self.step.run_nodes(task)]
        if task.kind is Kind.LOAD:
            parts.append(self.moved(task.outputs)[0])
        parts += [self.moved([state])[0] for state in (*task.loads, *self.reloads(task))]
        if self.mover and task.in_chunks:
            parts.append(chunked(self.mover, [state.type.bytes for state, _ in task.successors]))
        elif self.mover:
            parts += [self.mover.keep(v.type.bytes) for _, v in task.successors]
        return total(parts)

    def reloads(self, task: Task) -> list[Value]:
        """The states that an update overwrites in RAM and a later task reads as they were."""
        if task.kind is not Kind.UPDATE or task.in_chunks:
            return []
        states = [state for state, _ in task.successors if state in task.reads]
        return [state for state in states if self.last_reader[state] is not task]

    def moved(self, values: Sequence[Value]) -> tuple[Cost, Cost]:
        """What it costs to read values from storage, and to write them."""
        assert self.mover is not None
        reads = [self.mover.read(v.type.bytes) for v in values]
        writes = [self.mover.write(v.type.bytes) for v in values]
        return total(reads), total(writes)

    def scratch(self, task: Task) -> int:
        """Bytes that a task needs beside what it reads and leaves."""
        graph = self.step.graph
        nodes = [graph.nodes[i] for i in task.nodes]
        if task.in_chunks:
            return self.chunks(nodes)
        moved = [*task.loads, *(v for _, v in task.successors)]
        moved += task.outputs if task.kind is Kind.LOAD else ()
        scratch = max(
            [n.op.cost(*(v.type for v in n.inputs)).scratch_bytes for n in nodes]
            + [self.block(v) for v in moved],
            default=0,
        )
        inside = [aligned(v.type.bytes) for v in (*task.loads, *task.beside)]
        if task.kind in (Kind.UPDATE, Kind.COMMIT):
            for node in nodes:
                fresh = set(range(len(node.outputs))) - {o for o, _ in node.op.in_place}
                inside += [
                    aligned(node.outputs[o].type.bytes)
                    for o in fresh
                    if not node.op.alias
                    and node.outputs[o] not in self.overwritten
                    and (task.kind is Kind.COMMIT or not _is_copy(task, node.outputs[o]))
                ]
        return aligned(scratch) + sum(inside)

    def block(self, value: Value) -> int:
        """Bytes of the block through which the end of a page passes."""
        block_bytes = self.mover.storage.block_bytes if self.mover else 1
        return block_bytes if value.type.bytes % block_bytes else 0

    def chunks(self, nodes: Sequence[GraphNode]) -> int:
        """Bytes of the chunks of an update, of which one node steps."""
        assert self.mover is not None
        for node in nodes:
            if isinstance(node.op, SgdStep) and not node.op.check:
                w, gradient, rate, step, *extra = (value.type for value in node.inputs)
                op = StoredSgdStep.of(node.op, self.mover.storage.block_bytes)
                return aligned(op.cost(gradient, rate, step, w, *extra).scratch_bytes)
        raise CompilerBug("an update in chunks takes no step")

    def in_place(self, task: Task, outputs: Sequence[Value]) -> tuple[int, ...]:
        """The tasks whose only tensor the only output may overwrite."""
        if task.kind is not Kind.RUN or len(outputs) != 1:
            return ()
        node = self.step.graph.nodes[task.nodes[0]]
        found = []
        for output, source in node.op.in_place:
            if source >= len(node.inputs) or output >= len(node.outputs):
                continue
            if node.outputs[output] != outputs[0]:
                continue
            owner = self.task_of.get(self.step.root(node.inputs[source]))
            if owner is None or self.step.tasks[owner].kind is Kind.LOAD:
                continue
            tensors = self.in_ram(self.step.tasks[owner])
            if len(tensors) == 1 and tensors[0].type.bytes == outputs[0].type.bytes:
                found.append(owner)
        return tuple(dict.fromkeys(found))


def _is_copy(task: Task, value: Value) -> bool:
    """Whether an update only copies, to a state, what it writes to storage instead."""
    return all(value != successor for _, successor in task.successors)


def task_name(graph: Graph, task: Task) -> str:
    """What plans and messages call a task: the tensor that it leaves, or whose update it is."""
    if task.kind is Kind.COMMIT:
        return "update of the weights in SRAM"
    if task.kind is Kind.UPDATE:
        return f"update of {task.successors[0][0].name}"
    if task.outputs:
        return task.outputs[0].name
    node = graph.nodes[task.nodes[0]]
    return f"{node.op.name} of node {task.nodes[0]}"
