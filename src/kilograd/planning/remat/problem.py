"""The step to plan: nodes in the order of their first execution, each with one output tensor.

Node t runs for the first time at stage t. Its output can be dropped from RAM and brought back, by
paging (written to secondary storage once, read back) or by running the node again. A plan says
when, so that RAM is never exceeded; among the plans the one of least energy, time or memory is
wanted (POET, Patil et al., ICML 2022).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from kilograd.errors import InputError


@dataclass(frozen=True)
class Node:
    """One operation and its output tensor of `bytes` bytes.

    `inputs` are indices of earlier nodes whose outputs it reads. The costs of one run are `seconds`
    and `joules`; those of moving the tensor from storage and to it have `page_in` and `page_out`
    in their names. What the node may do:

    given: the tensor is in RAM when the step begins and the node never runs (network inputs). Given
        nodes come before all others.
    with_previous: another output of the operator of the node before. A run right behind one of that
        node is part of it and costs nothing; by itself it costs as much as stated.
    recomputable: the node may run again. False where a second run would do something else: it
        changes state, or draws random numbers that cannot be replayed.
    loads: a run is a read from storage, where the tensor always is: it may run again where plans
        may page, whether or not they may run other nodes again.
    pageable: the tensor may be written to storage.
    resident: the tensor stays in RAM from its first computation to the end of the step.
    saved: the tensor has to be in storage when the step ends.
    in_place: inputs whose buffer the output may take over, which ends their stay in RAM.
    reads_state, writes_state: names of state outside the tensors, such as weights. A node that
        writes state never runs again, and one that reads it does not run again after the next
        write, because it would compute something else.
    scratch_bytes: needed while the node runs, beside inputs and output.
    """

    name: str
    bytes: int
    seconds: float
    joules: float
    inputs: tuple[int, ...] = ()
    page_in_seconds: float = 0.0
    page_in_joules: float = 0.0
    page_out_seconds: float = 0.0
    page_out_joules: float = 0.0
    scratch_bytes: int = 0
    given: bool = False
    with_previous: bool = False
    recomputable: bool = True
    loads: bool = False
    pageable: bool = True
    resident: bool = False
    saved: bool = False
    in_place: tuple[int, ...] = ()
    reads_state: tuple[str, ...] = ()
    writes_state: tuple[str, ...] = ()

    @property
    def first_joules(self) -> float:
        """Energy of the first run in a step in which every node runs once."""
        return 0.0 if self.given or self.with_previous else self.joules

    @property
    def first_seconds(self) -> float:
        """Time of that run."""
        return 0.0 if self.given or self.with_previous else self.seconds


@dataclass(frozen=True)
class Problem:
    """Nodes in the order of their first execution.

    `dma` says that pages move while the processor computes; they move one at a time, in the order
    in which they are asked for. Without it the processor waits for each.

    Raises `InputError` for a node that reads a later one, costs that are negative or not finite,
    and flags that contradict each other.
    """

    nodes: tuple[Node, ...]
    dma: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        """Reject what no plan could mean."""
        names: dict[str, int] = {}
        for index, node in enumerate(self.nodes):
            if node.name in names:
                raise InputError(
                    f"nodes {names[node.name]} and {index} are both named '{node.name}'; "
                    "names have to differ"
                )
            names[node.name] = index
            self._check(index, node)

    def _check(self, index: int, node: Node) -> None:
        where = f"node {index} '{node.name}'"
        bad = [u for u in node.inputs if not 0 <= u < index]
        if bad or len(set(node.inputs)) != len(node.inputs):
            raise InputError(
                f"{where} reads {list(node.inputs)}; inputs have to be different nodes before it, "
                f"0 to {index - 1}"
            )
        for field in fields(Node):
            value = getattr(node, field.name)
            if field.type in ("int", "float") and not 0 <= value < math.inf:
                raise InputError(
                    f"{where}: {field.name} is {value}; it has to be finite and not negative"
                )
        foreign = [u for u in node.in_place if u not in node.inputs]
        if foreign:
            raise InputError(f"{where} may run in place over {foreign}, which it does not read")
        for u in node.in_place:
            if self.nodes[u].bytes != node.bytes:
                raise InputError(
                    f"{where} has {node.bytes} bytes and cannot take over the buffer of "
                    f"'{self.nodes[u].name}', which has {self.nodes[u].bytes}"
                )
        if node.with_previous and (not index or self.nodes[index - 1].given):
            raise InputError(f"{where} is an output of the node before it, and there is none")
        if node.given and (node.inputs or (index and not self.nodes[index - 1].given)):
            raise InputError(
                f"{where} is given, so it has no inputs and only given nodes come before it"
            )
        if node.saved and not node.pageable:
            raise InputError(f"{where} has to be saved but may not be paged; allow `pageable`")

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the nodes that read its output, in order."""
        readers: list[list[int]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            for source in node.inputs:
                readers[source].append(index)
        return tuple(map(tuple, readers))

    @cached_property
    def given_count(self) -> int:
        """How many nodes are given; they are the first ones."""
        return sum(node.given for node in self.nodes)

    @cached_property
    def last_rerun(self) -> tuple[int, ...]:
        """For each node the last stage in which it may run again; -1 where it never may.

        A node runs again before the first computation that the stage is named after, so the
        stage of the next write of its state is the last.
        """
        writers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for state in node.writes_state:
                writers.setdefault(state, []).append(index)
        last = []
        for index, node in enumerate(self.nodes):
            if node.given or node.writes_state or not node.recomputable:
                last.append(-1)
                continue
            writes = (w for state in node.reads_state for w in writers.get(state, ()) if w > index)
            last.append(min(writes, default=len(self.nodes)))
        return tuple(last)

    def operator_of(self, v: int) -> range:
        """The nodes that are outputs of one operator with v."""
        first, last = v, v + 1
        while self.nodes[first].with_previous:
            first -= 1
        while last < len(self.nodes) and self.nodes[last].with_previous:
            last += 1
        return range(first, last)

    @cached_property
    def plain_joules(self) -> float:
        """Energy of a step in which every node runs once and nothing is paged but what is saved."""
        return math.fsum(n.first_joules for n in self.nodes) + math.fsum(
            n.page_out_joules for n in self.nodes if n.saved
        )

    @cached_property
    def plain_seconds(self) -> float:
        """Time of that step, without overlap."""
        return math.fsum(n.first_seconds for n in self.nodes) + math.fsum(
            n.page_out_seconds for n in self.nodes if n.saved
        )

    @cached_property
    def plain_peak_bytes(self) -> int:
        """RAM of that step, tensors dropped after their last reader, in place where possible."""
        last = [max(readers, default=v) for v, readers in enumerate(self.readers)]
        live = {v for v, node in enumerate(self.nodes) if node.given}
        peak = total = sum(self.nodes[v].bytes for v in live)
        for t, node in enumerate(self.nodes):
            if not node.given:
                dying = [u for u in node.in_place if last[u] == t and not self.nodes[u].resident]
                if dying:
                    live.discard(dying[0])
                    total -= node.bytes
                live.add(t)
                total += node.bytes
                peak = max(peak, total + node.scratch_bytes)
            if t + 1 >= self.given_count:
                dead = {u for u in live if last[u] <= t and not self.nodes[u].resident}
                live -= dead
                total -= sum(self.nodes[u].bytes for u in dead)
        return peak

    @cached_property
    def least_bytes(self) -> int:
        """A bound that no plan is below: the largest working set, and what has to stay beside it.

        Where every tensor may be paged it is reached.
        """
        from kilograd.planning.remat.least import least_working_set

        return least_working_set(self).bytes

    def to_json(self) -> dict[str, Any]:
        """As plain data; fields that have their default are left out."""
        return {
            "name": self.name,
            "dma": self.dma,
            "nodes": [_node_to_json(node) for node in self.nodes],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Problem:
        """The inverse of `to_json`; raises `InputError` where a field is missing or unknown."""
        known = {field.name for field in fields(Node)}
        nodes = []
        try:
            for index, row in enumerate(data["nodes"]):
                if unknown := sorted(set(row) - known):
                    raise InputError(f"node {index} has unknown fields: {', '.join(unknown)}")
                values: dict[str, Any] = {
                    name: tuple(value) if isinstance(value, list) else value
                    for name, value in row.items()
                }
                nodes.append(Node(**values))
            return cls(tuple(nodes), bool(data.get("dma", False)), str(data.get("name", "")))
        except (KeyError, TypeError) as error:
            raise InputError(f"this is no planning problem: {error}") from error


def _node_to_json(node: Node) -> dict[str, Any]:
    return {
        field.name: list(value) if isinstance(value, tuple) else value
        for field in fields(Node)
        if (value := getattr(node, field.name)) != field.default
    }


def save(problem: Problem, path: str | Path) -> None:
    """Write the problem as JSON."""
    text = json.dumps(problem.to_json(), indent=1, sort_keys=True)
    Path(path).write_text(text + "\n", encoding="utf-8")


def load(path: str | Path, *, page_seconds: bool = False) -> Problem:
    """Read a problem as `save` writes it, or an instance of POET.

    POET's instances give latency and bandwidth of the storage, but its schedules count no time for
    paging; `page_seconds=True` counts it. Raises `InputError` for anything else.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error
    try:
        if isinstance(data, dict) and "edges" in data:
            return _from_poet(data, page_seconds)
        if not isinstance(data, dict):
            raise InputError("the top level is no object")
        return Problem.from_json(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _from_poet(data: Mapping[str, Any], page_seconds: bool) -> Problem:
    try:
        inputs: list[list[int]] = [[] for _ in data["nodes"]]
        for source, reader in data["edges"]:
            if source not in inputs[reader]:
                inputs[reader].append(source)
        nodes = []
        for row, sources in zip(data["nodes"], inputs, strict=True):
            move_in = move_out = 0.0
            if page_seconds:
                move_in = data["page_in_latency_seconds"]
                move_in += row["bytes"] / data["page_in_bytes_per_second"]
                move_out = data["page_out_latency_seconds"]
                move_out += row["bytes"] / data["page_out_bytes_per_second"]
            nodes.append(
                Node(
                    name=row["name"],
                    bytes=row["bytes"],
                    seconds=row["seconds"],
                    joules=row["joules"],
                    inputs=tuple(sorted(sources)),
                    page_in_seconds=move_in,
                    page_in_joules=row["page_in_joules"],
                    page_out_seconds=move_out,
                    page_out_joules=row["page_out_joules"],
                )
            )
        return Problem(tuple(nodes), name=f"{data['network']}/{data['platform']}")
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(f"an instance of POET lacks {error}") from error
