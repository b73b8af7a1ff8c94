"""Says of a planned program, for each tensor that the plan moves: why, at what cost, and what the
alternatives cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kilograd.devices import Device, Storage
from kilograd.ir import Graph
from kilograd.planning.costs import Estimate, total
from kilograd.planning.explain import node_title
from kilograd.planning.lifetimes import measure
from kilograd.planning.paging import Absence, Moves, Planned, Way, moves, step_estimates
from kilograd.planning.paging.moves import times
from kilograd.planning.storage import StoragePlan


@dataclass(frozen=True)
class Away:
    """A stretch of a step in which a tensor is not in RAM: behind node `first`, up to node `last`,
    which brings it back. It leaves as the value `gone` of the planned function and comes back as
    `back`. At `tightest` RAM is fullest meanwhile: `live_bytes` are alive, and with the tensor the
    arena would be `over_bytes` larger than the plan allows.
    """

    gone: str
    back: str
    first: int
    last: int
    after: str
    before: str
    tightest: str
    live_bytes: int
    over_bytes: int

    def __str__(self) -> str:
        """Between which nodes, and what there would have been no room for."""
        return f"from behind {self.after}\n    up to {self.before}"


@dataclass(frozen=True)
class Alternative:
    """What else could be done with a tensor: "keep", "page" or "recompute". The price is that of a
    step in place of the plan's for this tensor; None where it cannot be done or costs RAM alone.
    """

    how: str
    text: str
    price: Estimate | None

    def __str__(self) -> str:
        """A line."""
        return f"{self.text}: {self.price}" if self.price else self.text


@dataclass(frozen=True)
class TensorPlan:
    """What the plan does with a tensor, why, at what price a step, and what else could be done.

    `how` is "paged", "recomputed", both, or "stored" of a weight that lives in storage. `price`
    is that of its own pages and runs; `chain_price` counts what runs again for it alone, too.
    """

    name: str
    type: str
    layer: str
    size_bytes: int
    how: str
    page_outs: int
    page_ins: int
    reruns: int
    price: Estimate
    chain_price: Estimate
    away: tuple[Away, ...]
    alternatives: tuple[Alternative, ...]

    def __str__(self) -> str:
        """Several lines."""
        lines = [f"%{self.name} {self.type} of {self.layer}, {self.size_bytes:,} B: {self.counts}"]
        lines += [f"  not in RAM {stretch}" for stretch in self.away]
        lines.append(f"  costs {self.price} a call")
        if self.chain_price != self.price:
            lines.append(f"  with what runs again for it alone: {self.chain_price}")
        lines += [f"  or {alternative}" for alternative in self.alternatives]
        return "\n".join(lines)

    @property
    def counts(self) -> str:
        """`written once, read twice`, `run again once`."""
        parts = [f"written {times(self.page_outs)}"] * bool(self.page_outs)
        parts += [f"read {times(self.page_ins)}"] * bool(self.page_ins)
        parts += [f"run again {times(self.reruns)}"] * bool(self.reruns)
        where = "lives in storage, " if self.how == "stored" else ""
        return where + ", ".join(parts) + " a call"


@dataclass(frozen=True)
class FunctionPlan:
    """The plan of "predict" or "train step".

    `plain_peak_bytes` are alive at the peak of the function as it stands, `limit_bytes` is what the
    plan may use, `peak_bytes` what it uses. `plain` is the price of the function as it stands,
    `price` as planned; a better plan could save the share `gap` of the `objective` at most.
    """

    function: str
    plain_peak_bytes: int
    limit_bytes: int
    peak_bytes: int
    plain: Estimate
    price: Estimate
    objective: str
    gap: float
    tensors: tuple[TensorPlan, ...]

    @property
    def page_ins(self) -> int:
        """Reads from storage, of pages and of stored weights."""
        return sum(tensor.page_ins for tensor in self.tensors)

    @property
    def page_outs(self) -> int:
        """Writes to storage."""
        return sum(tensor.page_outs for tensor in self.tensors)

    @property
    def reruns(self) -> int:
        """Operators that run again."""
        return sum(tensor.reruns for tensor in self.tensors)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the weights of this function that live in storage."""
        return sum(tensor.size_bytes for tensor in self.tensors if tensor.how == "stored")


@dataclass(frozen=True)
class StorageUse:
    """What a program has in secondary storage: `image_bytes` of constants and initial values to be
    written before it runs, `size_bytes` in all. `erases` is how often the block that wears most is
    erased in a step (0 where nothing is), `life_steps` the steps after which it has had all its
    erase cycles (None where nobody says how many there are).
    """

    name: str
    title: str
    image_bytes: int
    size_bytes: int
    erases: float
    erase_cycles: int | None
    life_steps: int | None

    def __str__(self) -> str:
        """Two lines."""
        lines = [
            f"{self.name} ({self.title}): {self.size_bytes:,} B, of which {self.image_bytes:,} B "
            "have to be there before the program runs"
        ]
        if self.life_steps is not None:
            lines.append(
                f"  wear: the busiest block is erased {self.erases:g} times a step; its "
                f"{self.erase_cycles:,} erase cycles last {self.life_steps:,} steps"
            )
        elif self.erases:
            lines.append("  wear: nobody says how many erase cycles it has")
        return "\n".join(lines)


@dataclass(frozen=True)
class PlanExplanation:
    """What the plan of a program does. Without functions: the program fits as it stands."""

    functions: tuple[FunctionPlan, ...]
    storage: StorageUse | None

    def __str__(self) -> str:
        """The explanation as text."""
        if not self.functions:
            return "nothing is planned: the program fits as it stands"
        lines: list[str] = []
        for plan in self.functions:
            lines += [*_head(plan), ""]
            for tensor in plan.tensors:
                lines += ["  " + line for line in str(tensor).splitlines()]
                lines.append("")
        if self.storage:
            lines += str(self.storage).splitlines()
        return "\n".join(lines).rstrip("\n")


def _head(plan: FunctionPlan) -> Iterator[str]:
    yield (
        f"{plan.function}: {plan.plain_peak_bytes:,} B alive at the peak as it stands, "
        f"{plan.peak_bytes:,} B as planned, of {plan.limit_bytes:,} B that the arena may have"
    )
    yield f"  as it stands {plan.plain}"
    yield (
        f"  as planned   {plan.price}"
        + more(plan)
        + f"; a better plan saves {plan.gap:.1%} of the {plan.objective} at most"
    )


def more(plan: FunctionPlan) -> str:
    """What the plan adds to the function, in percent."""
    parts = []
    for name in ("joules", "seconds", "instructions"):
        before, after = getattr(plan.plain, name), getattr(plan.price, name)
        if before and after is not None:
            parts.append(f"{after / before - 1:+.1%} {_WORDS[name]}")
    return f" ({', '.join(parts)})" if parts else ""


_WORDS = {"joules": "energy", "seconds": "time", "instructions": "instructions"}


def explain_plan(
    plans: Mapping[str, Planned],
    device: Device,
    storage: Storage | None,
    placed: StoragePlan | None,
    kept: Mapping[str, str],
) -> PlanExplanation:
    """What the plans of functions do; `kept` says, by name of a stored weight, what it would take
    to keep it in SRAM.
    """
    other = device.storage[0] if device.storage else None
    functions = tuple(
        function_plan(name, planned, device, storage, other, kept)
        for name, planned in plans.items()
    )
    return PlanExplanation(functions, storage_use(storage, placed))


def function_plan(
    name: str,
    planned: Planned,
    device: Device,
    storage: Storage | None,
    other: Storage | None,
    kept: Mapping[str, str],
) -> FunctionPlan:
    """What the plan of one function does."""
    solution = planned.solution
    limit = solution.limits.ram_bytes
    return FunctionPlan(
        function=name,
        plain_peak_bytes=measure(planned.step.graph).peak_bytes,
        limit_bytes=solution.peak_bytes if limit is None else limit,
        peak_bytes=solution.peak_bytes,
        plain=total(step_estimates(planned.step.graph, device, None)),
        price=total(step_estimates(planned.graph, device, storage)),
        objective=solution.objective,
        gap=solution.gap,
        tensors=tuple(
            _tensor(planned.graph, moved, kept, limit or solution.peak_bytes)
            for moved in moves(planned, device, storage, other)
        ),
    )


def _tensor(graph: Graph, moved: Moves, kept: Mapping[str, str], limit: int) -> TensorPlan:
    away = tuple(_away(graph, absence) for absence in moved.absences)
    ways = [Alternative(way.how, _way_text(way), way.price) for way in moved.ways]
    if moved.weight:
        ways.append(Alternative("keep", kept.get(moved.name, ""), None))
    elif away:
        ways.insert(0, Alternative("keep", _keep(away, limit), None))
    return TensorPlan(
        name=moved.name,
        type=moved.type,
        layer=moved.layer,
        size_bytes=moved.size_bytes,
        how=moved.how,
        page_outs=moved.page_outs,
        page_ins=moved.page_ins,
        reruns=moved.reruns,
        price=moved.price,
        chain_price=moved.chain_price,
        away=away,
        alternatives=tuple(way for way in ways if way.text),
    )


def _away(graph: Graph, absence: Absence) -> Away:
    return Away(
        gone=absence.gone.name,
        back=absence.back.name,
        first=absence.after,
        last=absence.before,
        after=node_title(graph, absence.after),
        before=node_title(graph, absence.before),
        tightest=node_title(graph, absence.tightest),
        live_bytes=absence.live_bytes,
        over_bytes=absence.over_bytes,
    )


def _keep(away: Sequence[Away], limit: int) -> str:
    worst = max(away, key=lambda stretch: stretch.over_bytes)
    if worst.over_bytes > 0:
        return (
            f"keep it: {worst.over_bytes:,} B over the {limit:,} B that the arena may have, at "
            f"{worst.tightest}"
        )
    return (
        f"keep it: alone it would fit, with {-worst.over_bytes:,} B left at {worst.tightest}; the "
        "plan is the best that was found, not proven to be the best"
    )


def _way_text(way: Way) -> str:
    if way.price is None:
        verb = {"page": "page it", "recompute": "run it again"}[way.how]
        return f"{verb}: impossible, {way.text}"
    return way.text if way.how == "page" else f"{way.text}, if RAM has room for them"


def storage_use(storage: Storage | None, placed: StoragePlan | None) -> StorageUse | None:
    """What a program has in storage, and how it wears it."""
    if storage is None or placed is None:
        return None
    erases = busiest(placed) if storage.erase_bytes else 0.0
    cycles = storage.erase_cycles
    life = None if cycles is None or not erases else int(cycles / erases)
    return StorageUse(
        name=storage.name,
        title=storage.title,
        image_bytes=placed.image_bytes,
        size_bytes=placed.size_bytes,
        erases=erases,
        erase_cycles=cycles,
        life_steps=life,
    )


def busiest(placed: StoragePlan) -> float:
    """How often the block that is written most is written in a training step.

    A bank of stored states is written every other step. Places of pages are taken over by later
    pages, so one block may be written several times.
    """
    most = 0.5 if placed.initial else 0.0
    unit, writes = placed.unit_bytes, dict[int, int]()
    for value, page in (placed.pages[-1] if placed.pages else {}).items():
        first = page.offset // unit
        for block in range(first, first + max(-(-value.type.bytes // unit), 1)):
            writes[block] = writes.get(block, 0) + 1
    return max([most, *map(float, writes.values())])
