"""The figures of a program: the one source that summary, manifest and report read."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

from kilograd.codegen.names import tensor_names
from kilograd.codegen.project import checkpoint_id
from kilograd.invocation import command
from kilograd.ir import Graph
from kilograd.ir.origin import Part
from kilograd.ops.page import Paging
from kilograd.planning.costs import (
    Estimate,
    of_instructions,
    quality,
    total,
)
from kilograd.planning.explain_plan import PlanExplanation
from kilograd.planning.facts import BufferFacts, Gap, GapKind, Kind, Phase, buffer_facts, phases
from kilograd.planning.layers import (
    LayerFacts,
    ParameterFacts,
    layer_facts,
    owning_layers,
    parameter_facts,
)
from kilograd.planning.lifetimes import aligned
from kilograd.planning.paging import step_estimates
from kilograd.update import unparse

if TYPE_CHECKING:
    from kilograd.devices import Device
    from kilograd.execution.image import Image
    from kilograd.program import Macs, Memory, Program


@dataclass(frozen=True)
class Room:
    """One memory of the device: what the program uses, and what there is (None where there is no
    limit); `limit` says who sets it.
    """

    name: str
    used_bytes: int
    available_bytes: int | None
    limit: str

    @property
    def fits(self) -> bool:
        """Whether the program fits."""
        return self.available_bytes is None or self.used_bytes <= self.available_bytes


@dataclass(frozen=True)
class Use:
    """A part of a memory, and what it holds."""

    name: str
    size_bytes: int
    what: str


@dataclass(frozen=True)
class Step:
    """A node of the training step; `live_bytes` are alive in the arena while it runs,
    `instructions` are those counted on the emulated device, None where nobody counted, and
    `estimate` is what it takes by the model of the device, or by the counted instructions.
    """

    index: int
    operator: str
    layer: str
    source: str
    phase: Phase
    macs: int
    live_bytes: int
    estimate: Estimate
    instructions: int | None = None


@dataclass(frozen=True)
class Identity:
    """What was compiled, by hashes: `graph_sha256` of operators and types, `weights_sha256` of the
    model's parameters as the program stores them before training, `checkpoint_id` of what
    checkpoints depend on.
    """

    graph_sha256: str
    weights_sha256: str
    checkpoint_id: int


@dataclass(frozen=True)
class Figures:
    """Everything that is told of a program. Bytes are those of the linked image where the device
    is a microcontroller. `sram` and `flash` add up to what the image uses, `arena` (at the peak of
    the training step) to the arena. `predict` and `train_step` are estimates, and `estimates` says
    how far to trust them.
    """

    kilograd: str
    network: str
    model: str
    device: str
    device_title: str
    loss: str
    update: tuple[str, ...]
    identity: Identity
    command: str
    memory: Memory
    rooms: tuple[Room, ...]
    sram: tuple[Use, ...]
    arena: tuple[Use, ...]
    flash: tuple[Use, ...]
    macs: Macs
    predict: Estimate
    train_step: Estimate
    estimates: tuple[str, ...]
    predict_operators: int
    forward_operators: int
    backward_operators: int
    peak_bytes: int
    peak_step: int
    trained_parameters: int
    trained_tensors: tuple[str, ...]
    buffers: tuple[BufferFacts, ...]
    steps: tuple[Step, ...]
    layers: tuple[LayerFacts, ...]
    parameters: tuple[ParameterFacts, ...]
    plan: PlanExplanation
    precision: str
    quantization: tuple[str, ...]
    notes: tuple[str, ...]
    gaps: tuple[Gap, ...] = ()
    """Tensors that leave the arena during the step, and come back."""

    @property
    def fits(self) -> bool:
        """Whether the program fits every memory."""
        return all(room.fits for room in self.rooms)


def figures(program: Program) -> Figures:
    """The figures of a program; links it for its device unless that is the host."""
    train = program.train
    parameters = parameter_facts(program.forward, program.update, train)
    profile = train.lifetimes.profile()
    forward = sum(not node.location.backward for node in train.graph.nodes)
    state = train.graph.state
    names = [f"{t.origin.name}{_share(t.origin.part)}" for t in state.values() if t.origin]
    buffers, steps = buffer_facts(train), _steps(program)
    return Figures(
        kilograd=metadata.version("kilograd"),
        network=program.name,
        model=program.model,
        device=program.device.name,
        device_title=program.device.title,
        loss=program.loss.value,
        update=tuple(unparse(program.update)),
        identity=_identity(program),
        command=command(program),
        memory=program.memory,
        rooms=_rooms(program),
        sram=_sram(program, parameters),
        arena=_arena(program),
        flash=_flash(program),
        macs=program.macs,
        predict=total(_estimates(program, program.predict.graph)),
        train_step=total(step.estimate for step in steps),
        estimates=quality(program.device),
        predict_operators=len(program.predict.graph.nodes),
        forward_operators=forward,
        backward_operators=len(train.graph.nodes) - forward,
        peak_bytes=train.lifetimes.peak_bytes,
        peak_step=max(profile, key=lambda point: point[1])[0] if profile else 0,
        trained_parameters=sum(v.type.size for v, t in state.items() if t.origin is not None),
        trained_tensors=tuple(names),
        buffers=buffers,
        steps=steps,
        layers=layer_facts(program.forward, train, parameters),
        parameters=parameters,
        plan=program.plan,
        precision="float32" if program.quantized is None else "int8",
        quantization=_quantization(program),
        notes=program.notes,
        gaps=_gaps(program),
    )


def _gaps(program: Program) -> tuple[Gap, ...]:
    """Where the plan of the training step has tensors out of the arena."""
    train, plan = program.train, program.plan
    roots = {value.name: root.name for value, root in train.lifetimes.root.items()}
    return tuple(
        Gap(
            tensor=tensor.name,
            before=roots[away.gone],
            after=roots[away.back],
            first=away.first + 1,
            last=away.last,
            kind=GapKind.PAGED
            if isinstance(train.graph.nodes[away.last].op, Paging)
            else GapKind.RECOMPUTED,
        )
        for told in plan.functions[-1:]
        for tensor in told.tensors
        for away in tensor.away
    )


def plan_facts(program: Program) -> dict[str, Any] | None:
    """What the plan costs and moves, as plain data; None for a program that fits as it stands."""
    plan = program.plan
    if not plan.functions:
        return None
    return {
        "functions": {
            told.function: {
                "plain_peak_bytes": told.plain_peak_bytes,
                "peak_bytes": told.peak_bytes,
                "plain": dataclasses.asdict(told.plain),
                "planned": dataclasses.asdict(told.price),
                "objective": told.objective,
                "gap": told.gap,
                "page_ins": told.page_ins,
                "page_outs": told.page_outs,
                "recomputations": told.reruns,
                "stored_bytes": told.stored_bytes,
                "tensors": [dataclasses.asdict(tensor) for tensor in told.tensors],
            }
            for told in plan.functions
        },
        "storage": None if plan.storage is None else dataclasses.asdict(plan.storage),
    }


def _quantization(program: Program) -> tuple[str, ...]:
    """What there is to say of int8: what stayed float32, and how the two compare."""
    report = program.quantized
    if report is None:
        return ()
    kept = [f"float32: {layer}, {operator}: {why}" for layer, operator, why in report.kept]
    gradients = report.settings.get("gradients", "float32")
    score = [str(report.score)] if report.score else []
    return (f"precision: int8, gradients {gradients}", *kept, *score)


def _share(part: Part | None) -> str:
    return f" [{part.stop - part.start}/{part.whole} channels]" if part else ""


def _identity(program: Program) -> Identity:
    graph, structure, weights = program.forward, hashlib.sha256(), hashlib.sha256()
    for value in graph.inputs:
        structure.update(f"{value.type}\n".encode())
    for node in graph.nodes:
        types = [str(value.type) for value in (*node.inputs, *node.outputs)]
        structure.update(f"{node.op} {types}\n".encode())
    for tensor in graph.constants.values():
        weights.update(tensor.array.tobytes())
    return Identity(
        structure.hexdigest(), weights.hexdigest(), checkpoint_id(program.train, program.storage)
    )


def _rooms(program: Program) -> tuple[Room, ...]:
    device, memory, limits = program.device, program.memory, program.budget
    rows = (
        ("SRAM", memory.sram_bytes, device.sram_bytes, limits.sram_bytes),
        ("flash", memory.flash_bytes, device.flash_bytes, limits.flash_bytes),
    )
    rooms = []
    for name, used, available, budget in rows:
        tight = budget is not None and (available is None or budget < available)
        rooms.append(
            Room(name, used, budget if tight else available, "budget" if tight else "device")
        )
    return tuple(rooms)


def _sram(program: Program, parameters: tuple[ParameterFacts, ...]) -> tuple[Use, ...]:
    """All of the SRAM by use."""
    memory = program.memory
    weights = sum(p.weight_bytes for p in parameters)
    uses = (
        Use("arena", memory.arena_bytes, "tensors of the running call"),
        Use("trained weights", weights, "what is learned, from step to step"),
        Use(
            "optimiser state",
            memory.state_bytes - weights,
            "momentum and accumulated gradients, from step to step",
        ),
        Use("stack", memory.stack_bytes, "worst case of the linked image"),
        Use("other data", memory.data_bytes, "variables of the harness"),
    )
    return tuple(use for use in uses if use.size_bytes)


_AT_PEAK = {
    Kind.SAVED: "kept for the backward pass",
    Kind.ACTIVATION: "on their way from layer to layer",
    Kind.COTANGENT: "on their way back, or kept for a weight's gradient",
    Kind.GRADIENT: "kept until the update",
    Kind.INPUT: "sample and target",
    Kind.SCRATCH: "of the running operator",
}


def _arena(program: Program) -> tuple[Use, ...]:
    """The arena by what is alive at its peak."""
    profile = program.train.lifetimes.profile()
    peak = max(profile, key=lambda point: point[1])[0] if profile else 0
    alive: dict[Kind, int] = dict.fromkeys(_AT_PEAK, 0)
    for facts in buffer_facts(program.train):
        if facts.lifetime.first <= peak < facts.lifetime.last:
            alive[facts.kind] += aligned(facts.lifetime.size_bytes)
    uses = [Use(kind.value, size, _AT_PEAK[kind]) for kind, size in alive.items()]
    free = program.memory.arena_bytes - sum(alive.values())
    uses.append(Use("free", free, "between tensors, or used by predict alone"))
    return tuple(use for use in uses if use.size_bytes)


def _flash(program: Program) -> tuple[Use, ...]:
    """The flash by use, as the linker placed it; empty for the host, for which nothing is
    linked.
    """
    if program.device.is_host:
        return ()
    image, graphs = program.image, (program.predict.graph, program.train.graph)
    constants = {value.name for graph in graphs for value in graph.constants}
    state = {value.name for graph in graphs for value in graph.state}
    ordered = [v.name for g in graphs for v in g.constants] + [
        v.name for g in graphs for v in g.state
    ]
    names = tensor_names(list(dict.fromkeys(ordered)))
    frozen = _placed(image, [f"{program.name}_{names[name]}" for name in constants])
    initial = _placed(image, [f"{program.name}_{names[name]}_init" for name in state])
    base = min(segment.address for segment in image.segments)
    code = {
        symbol.address: symbol.size_bytes
        for symbol in image.symbols.values()
        if symbol.is_function and base <= symbol.address < base + image.flash_bytes
    }
    rest = image.flash_bytes - frozen - initial - sum(code.values())
    uses = (
        Use("frozen weights", frozen, "read in place by the kernels"),
        Use("initial values", initial, "of the trained weights, which init copies into SRAM"),
        Use("code", sum(code.values()), "predict, train_step, init, save, load and the kernels"),
        Use("other data", rest, "vectors, small tables, padding"),
    )
    return tuple(use for use in uses if use.size_bytes)


def _placed(image: Image, names: list[str]) -> int:
    """Bytes of the tables that are in the image; the C compiler may have folded small ones away."""
    return sum(image.symbols[name].size_bytes for name in names if name in image.symbols)


def _steps(program: Program) -> tuple[Step, ...]:
    graph, kinds = program.train.graph, phases(program.train.graph)
    owners = owning_layers(program.forward, program.train)
    live, estimates = live_bytes(program), _estimates(program, graph)
    return tuple(
        Step(
            index=index,
            operator=node.op.name,
            layer=owners[index],
            source=node.location.source,
            phase=kinds[index],
            macs=node.op.cost(*(value.type for value in node.inputs)).macs,
            live_bytes=live[index],
            estimate=estimates[index],
        )
        for index, node in enumerate(graph.nodes)
    )


def _estimates(program: Program, graph: Graph) -> tuple[Estimate, ...]:
    return step_estimates(graph, program.device, program.storage_device)


def counted(figures: Figures, device: Device, counts: Sequence[int]) -> Figures:
    """The figures with the instructions of each node that were counted on the device."""
    steps = tuple(
        replace(step, instructions=count, estimate=of_instructions(count, device))
        for step, count in zip(figures.steps, counts, strict=True)
    )
    return replace(figures, steps=steps, train_step=total(step.estimate for step in steps))


def live_bytes(program: Program) -> list[int]:
    """Bytes alive in the arena while each node of the training step runs."""
    changes = dict(program.train.lifetimes.profile())
    result, total = [], 0
    for index in range(len(program.train.graph.nodes)):
        total = changes.get(index, total)
        result.append(total)
    return result
