"""What a plan does with every tensor: when it is not in RAM, what brings it back, at what price,
and what else could have been done with it.

Read off the planned graph: its nodes are what runs. What is no first run of a node of the graph
that was planned is there because of the plan, and belongs to the tensor that it moves or makes
again.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kilograd.devices import Device, Storage
from kilograd.devices.costs import Cost
from kilograd.ir import Value
from kilograd.ops.page import Paging
from kilograd.ops.stored_step import StoredSgdStep
from kilograd.planning.costs import Estimate, total
from kilograd.planning.lifetimes import aligned, measure
from kilograd.planning.paging.function import Planned
from kilograd.planning.paging.price import Mover, checksum_instructions, step_estimates
from kilograd.planning.paging.tasks import Kind, Task


@dataclass(frozen=True)
class Absence:
    """A stretch of a step in which a tensor is not in RAM.

    Node `after` of the planned function is the last to use it, as `gone`; node `before` brings it
    back, as `back`. Of the nodes between, RAM is fullest at `tightest`: `live_bytes` are alive
    there, and with the tensor the arena would need `over_bytes` more than the plan allows it
    (negative where the tensor alone would have fitted).
    """

    gone: Value
    back: Value
    after: int
    before: int
    tightest: int
    live_bytes: int
    over_bytes: int


@dataclass(frozen=True)
class Way:
    """Another way to bring a tensor back that leaves RAM: "page" or "recompute".

    `price` is that of a step, in place of what the plan pays for the tensor; None where it cannot
    be done, for which `text` says why.
    """

    how: str
    price: Estimate | None
    text: str


@dataclass(frozen=True)
class Moves:
    """A tensor that is not in RAM all the time between its first and its last use, or a weight that
    lives in storage, and what that costs.

    `price` is that of the pages of the tensor and of its own runs again; `chain_price` counts what
    runs or is read again for nothing else as well. `weight` says that it lies in storage from step
    to step; then `page_outs` are its updates.
    """

    name: str
    type: str
    layer: str
    size_bytes: int
    weight: bool
    page_outs: int
    page_ins: int
    reruns: int
    price: Estimate
    chain_price: Estimate
    absences: tuple[Absence, ...]
    ways: tuple[Way, ...]

    @property
    def how(self) -> str:
        """`stored`, `paged`, `recomputed` or `paged and recomputed`."""
        if self.weight:
            return "stored"
        parts = ["paged"] * bool(self.page_ins) + ["recomputed"] * bool(self.reruns)
        return " and ".join(parts)


def moves(
    planned: Planned, device: Device, storage: Storage | None, other: Storage | None
) -> tuple[Moves, ...]:
    """What the plan does with each tensor that it moves, in the order of the function.

    `storage` is the one that the plan uses; `other` is what alternatives are priced with where it
    uses none: the storage that the device has, if any.
    """
    return _Reader(planned, device, storage, other).moves()


class _Reader:
    def __init__(
        self, planned: Planned, device: Device, storage: Storage | None, other: Storage | None
    ) -> None:
        self.planned, self.device = planned, device
        self.graph, self.base = planned.graph, planned.step.graph
        mover_of = storage or other
        self.mover = Mover(mover_of, device) if mover_of else None
        self.prices = step_estimates(self.graph, device, storage)
        self.base_prices = step_estimates(self.base, device, None)
        self.known = set(self.base.values())
        self.own = planned.step.stored
        self.next_of = {page: state for state, page in self.graph.updates.items()}
        self.origin: dict[Value, Value] = {v: v for v in self.graph.inputs}
        self.origin |= {v: v for v in (*self.graph.constants, *self.graph.state)}
        self.copy: dict[Value, Value] = {}
        self.defined: dict[Value, int] = {}
        self.last_use: dict[Value, int] = {}
        self.readers: dict[Value, list[int]] = {}
        self.extra: dict[int, Value] = {}
        self.ran: set[int] = set()
        self.chunked: dict[int, tuple[int, ...]] = {}
        for index in range(len(self.graph.nodes)):
            self.read(index)
        self.prices = tuple(
            _less(price, total(self.base_prices[i] for i in self.chunked.get(index, ())))
            for index, price in enumerate(self.prices)
        )
        lives = measure(self.graph)
        self.live = _live(lives.profile(), len(self.graph.nodes))

    def task(self, index: int) -> Task | None:
        """The task that a node of the planned graph runs for; None for views."""
        event = self.planned.trace.event_of[index]
        if event is None:
            return None
        return self.planned.step.tasks[self.planned.trace.events[event].node]

    def read(self, index: int) -> None:
        """Note what a node reads and makes, and whose it is where only the plan wants it."""
        node, task = self.graph.nodes[index], self.task(index)
        for value in node.inputs:
            copy = self.copy.get(value, value)
            self.last_use[copy] = index
            self.readers.setdefault(copy, []).append(index)
        for position, value in enumerate(node.outputs):
            self.defined[value] = index
            if node.op.alias:
                self.origin[value] = self.origin[node.inputs[0]]
                self.copy[value] = self.copy.get(node.inputs[0], node.inputs[0])
            elif isinstance(node.op, Paging):
                self.origin[value] = self.origin[node.inputs[0]]
            elif value in self.known or task is None:
                self.origin[value] = value
            else:
                self.origin[value] = self.base.nodes[task.nodes[0]].outputs[position]
        if node.op.alias or not node.outputs:
            return
        if isinstance(node.op, StoredSgdStep) and task is not None:
            self.chunked[index] = task.nodes
        if isinstance(node.op, Paging):
            result = node.outputs[0]
            self.extra[index] = self.next_of.get(result, self.origin[result])
        elif task is not None and task.kind in (Kind.RUN, Kind.PART):
            if task.nodes[0] in self.ran:
                self.extra[index] = task.outputs[0]
            self.ran.add(task.nodes[0])

    def moves(self) -> tuple[Moves, ...]:
        owners = dict.fromkeys(self.extra.values())
        return tuple(self.of(value) for value in owners)

    def of(self, value: Value) -> Moves:
        own = [index for index, owner in self.extra.items() if owner == value]
        outs = [i for i in own if self.writes(i)]
        ins = [i for i in own if self.reads_storage(i)]
        reruns = [i for i in own if i not in outs and i not in ins]
        chain = sorted(set(outs).union(*(self.chain(i) for i in (*ins, *reruns))))
        absences = self.absences(value)
        return Moves(
            name=value.name,
            type=str(value.type),
            layer=self.layer(value),
            size_bytes=value.type.bytes,
            weight=value in self.own,
            page_outs=len(outs),
            page_ins=len(ins),
            reruns=len(reruns),
            price=total(self.prices[i] for i in own),
            chain_price=total(self.prices[i] for i in chain),
            absences=absences,
            ways=() if value in self.own else self.ways(value, absences, bool(ins), bool(reruns)),
        )

    def layer(self, value: Value) -> str:
        index = self.defined.get(value)
        if index is not None:
            return str(self.graph.nodes[index].location)
        tensor = self.graph.state.get(value) or self.graph.constants.get(value)
        if tensor is not None and tensor.origin is not None:
            return tensor.origin.name
        return "input" if value in self.graph.inputs else "model"

    def chain(self, index: int, known: frozenset[int] = frozenset()) -> set[int]:
        """A node that runs again, with those that run again for it alone."""
        result = {index}
        for value in self.graph.nodes[index].inputs:
            copy = self.copy.get(value, value)
            source = self.defined.get(copy)
            if source is None or source not in self.extra or source in known:
                continue
            if set(self.readers[copy]) <= result | known:
                result |= self.chain(source, known | frozenset(result))
        return result

    def absences(self, value: Value) -> tuple[Absence, ...]:
        """Between the copies of a tensor that are read, when none is in RAM."""
        if value in self.own:
            return ()
        copies = [
            v
            for v, origin in self.origin.items()
            if origin == value
            and v not in self.copy
            and not self.in_storage(v)
            and (v == value or v in self.readers)
        ]
        copies.sort(key=lambda v: self.defined.get(v, -1))
        result = []
        for gone, back in itertools.pairwise(copies):
            after = max(self.defined.get(gone, 0), self.last_use.get(gone, 0))
            before = self.defined[back]
            between = range(after + 1, before)
            if between:
                result.append(self.absence(gone, back, after, before, between))
        return tuple(result)

    def in_storage(self, value: Value) -> bool:
        index = self.defined.get(value)
        return index is not None and self.writes(index)

    def writes(self, index: int) -> bool:
        op = self.graph.nodes[index].op
        return isinstance(op, Paging) and op.writes

    def reads_storage(self, index: int) -> bool:
        op = self.graph.nodes[index].op
        count = len(self.graph.nodes[index].inputs)
        return isinstance(op, Paging) and any(map(op.reads, range(count)))

    def absence(self, gone: Value, back: Value, after: int, before: int, between: range) -> Absence:
        size = aligned(gone.type.bytes)
        tightest = max(between, key=lambda i: (self.live[i], -i))
        limit = self.planned.solution.limits.ram_bytes
        live = self.live[tightest]
        over = live + size - (self.planned.solution.peak_bytes if limit is None else limit)
        return Absence(gone, back, after, before, tightest, live, over)

    def ways(
        self, value: Value, absences: Sequence[Absence], paged: bool, reruns: bool
    ) -> tuple[Way, ...]:
        """The alternatives to what the plan does."""
        result = []
        if not paged:
            result.append(self.page(value, len(absences)))
        if not reruns:
            result.append(self.recompute(value, absences))
        return tuple(result)

    def page(self, value: Value, count: int) -> Way:
        if self.mover is None:
            return Way("page", None, "the device has no storage")
        task = self.task_of(value)
        node = self.planned.problem.nodes[task]
        if node.resident:
            return Way("page", None, "it is a result, which has to stay in RAM")
        size = value.type.bytes
        price = total(
            [
                self.moved(self.mover.write(size), size),
                *[self.moved(self.mover.read(size), size)] * count,
            ]
        )
        where = self.mover.storage.name
        return Way("page", price, f"write it to {where} once and read it {times(count)}")

    def moved(self, cost: Cost, size_bytes: int) -> Estimate:
        return _known(self.device, cost, checksum_instructions(self.device, size_bytes))

    def task_of(self, value: Value) -> int:
        return next(i for i, task in enumerate(self.planned.step.tasks) if value in task.outputs)

    def recompute(self, value: Value, absences: Sequence[Absence]) -> Way:
        """What would run again at the end of each absence, between the nearest tensors in RAM and
        in storage.
        """
        if not absences:
            return Way("recompute", None, "it is away at no time")
        nodes, parts = set[int](), list[Estimate]()
        for absence in absences:
            event = self.planned.trace.event_of[absence.before]
            chain = None if event is None else self.chain_at(self.task_of(value), event)
            if chain is None:
                return Way("recompute", None, self.why_not(value))
            nodes.update(chain.run)
            parts += [self.once(task) for task in chain.run]
            for task in chain.read:
                size = self.planned.problem.nodes[task].bytes
                parts.append(self.read_price(size))
                if task in chain.written:
                    parts.append(self.write_price(size))
        more = "s" if len(nodes) > 1 else ""
        text = f"run {len(nodes)} operator{more} again, {times(len(absences))}"
        return Way("recompute", total(parts), text)

    def once(self, task: int) -> Estimate:
        """One run of a task, or one load."""
        if self.planned.step.tasks[task].kind is Kind.LOAD:
            return self.read_price(self.planned.problem.nodes[task].bytes)
        return total(self.base_prices[i] for i in self.planned.step.tasks[task].nodes)

    def read_price(self, size_bytes: int) -> Estimate:
        assert self.mover is not None
        return self.moved(self.mover.read(size_bytes), size_bytes)

    def write_price(self, size_bytes: int) -> Estimate:
        assert self.mover is not None
        return self.moved(self.mover.write(size_bytes), size_bytes)

    def why_not(self, value: Value) -> str:
        if value in self.graph.inputs:
            return "it is an input, which nothing computes"
        return "what it is computed from cannot be had again: it may not run again, or be paged"

    def chain_at(self, task: int, event: int) -> _Chain | None:
        """What brings a tensor back at an event without a page of its own; None where nothing."""
        nodes, last_rerun = self.planned.problem.nodes, self.planned.problem.last_rerun
        ram, stored, stage = _replayed(self.planned, event)
        run: list[int] = []
        read: list[int] = []
        written: list[int] = []
        pending = [task]
        while pending:
            v = pending.pop()
            if v in run or v in read:
                continue
            if v != task and v in stored:
                read.append(v)
            elif not nodes[v].given and last_rerun[v] >= stage:
                run.append(v)
                pending += [u for u in nodes[v].inputs if u not in ram]
            elif v != task and nodes[v].pageable:
                read.append(v)
                written.append(v)
            else:
                return None
        return _Chain(tuple(run), tuple(read), tuple(written))


@dataclass(frozen=True)
class _Chain:
    """Tasks that run, tensors that are read from storage, and those of them that the plan as it is
    does not write there.
    """

    run: tuple[int, ...]
    read: tuple[int, ...]
    written: tuple[int, ...]


def _replayed(planned: Planned, until: int) -> tuple[set[int], set[int], int]:
    """The tasks whose tensors are in RAM before an event, those in storage, and the next task that
    runs for the first time.
    """
    ram = {v for v, node in enumerate(planned.problem.nodes) if node.given}
    stored: set[int] = set()
    stage = planned.problem.given_count
    for event in planned.trace.events[:until]:
        if event.kind == "drop":
            ram.discard(event.node)
        elif event.kind == "page_out":
            stored.add(event.node)
        else:
            ram.add(event.node)
            if event.over is not None:
                ram.discard(event.over)
            if event.kind == "compute":
                stage = max(stage, event.node + 1)
    return ram, stored, stage


def _known(device: Device, cost: Cost, instructions: int) -> Estimate:
    """A cost without what stands in for an estimate that the device does not have."""
    if device.is_host:
        seconds = cost.seconds if device.flop_per_second is not None else None
        joules = cost.joules if device.flop_per_joule is not None else None
        return Estimate(None, seconds, joules)
    return Estimate(
        instructions,
        cost.seconds if device.seconds(1) is not None else None,
        cost.joules if device.joules(1) is not None else None,
    )


def _less(price: Estimate, other: Estimate) -> Estimate:
    """What is left of a price; None of what is None in one of them."""

    def less(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a - b

    count = None if None in (price.instructions, other.instructions) else price.instructions
    if count is not None:
        count -= other.instructions or 0
    return Estimate(count, less(price.seconds, other.seconds), less(price.joules, other.joules))


def _live(profile: Sequence[tuple[int, int]], count: int) -> list[int]:
    changes: Mapping[int, int] = dict(profile)
    result, total = [], 0
    for index in range(count):
        total = changes.get(index, total)
        result.append(total)
    return result


def times(count: int) -> str:
    """`once`, `twice`, `3 times`."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
