"""The C of a program: one header, one straight-line source, its tables and kernels.

Everything is text made from the two scheduled functions. `kilograd.codegen.layouts` puts it where a
build system wants it; writing it to disk is the caller's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
import numpy as np

from kilograd.codegen.calls import comment, format_call, format_float
from kilograd.codegen.names import tensor_names
from kilograd.codegen.paging import DRIVERS, RESERVED, PagedFunction
from kilograd.codegen.paging import context as paging_context
from kilograd.codegen.paging import state_bytes as paging_state_bytes
from kilograd.codegen.wrapping import wrap
from kilograd.ir import Graph, Node, Operand, Operands, Tensor, Value
from kilograd.ir.printing import print_node
from kilograd.planning.lifetimes import aligned
from kilograd.planning.schedule import Schedule
from kilograd.planning.storage import StoragePlan
from kilograd.transforms.differentiate import TrainingInputs

RUNTIME = Path(__file__).parents[1] / "runtime" / "include" / "kilograd"
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_ELEMENTS_PER_LINE = 8


@dataclass(frozen=True)
class Sources:
    """The network's C files as text by relative path, and what their callers need to know.

    `checkpoint_id` identifies network and state layout. `pages` says whether the network wants a
    storage.
    """

    name: str
    files: Mapping[str, str]
    checkpoint_id: int
    has_target: bool
    pages: bool = False


def emit(
    name: str,
    predict: Schedule,
    train: Schedule,
    arena_bytes: int,
    *,
    storage: StoragePlan | None = None,
    poison: bool = False,
    marker: str = "",
) -> Sources:
    """The project for a program called `name` (a C identifier).

    `storage` is the plan of both graphs where something of them lies in secondary storage.

    With `poison`, every buffer is overwritten as soon as it is free: a test of the plan. `marker`
    names a C function that is called with the index of each node of the training step behind it.
    """
    schedules = (predict, train)
    constants = _not_stored(_merge(schedule.graph.constants for schedule in schedules), storage)
    state = _not_stored(_merge(schedule.graph.state for schedule in schedules), storage)
    names = tensor_names(
        [value.name for value in (*constants, *state)], RESERVED if storage else ()
    )
    writer = _FunctionWriter(name, names, poison)
    paged = [
        PagedFunction(storage, schedule.graph, pages) if storage else None
        for schedule, pages in zip(schedules, storage.pages if storage else ({}, {}), strict=True)
    ]
    functions = {
        "predict": writer.body(predict, _arguments(predict.graph), paged[0]),
        "train": writer.body(train, _arguments(train.graph), paged[1], marker),
    }
    target = TrainingInputs.of(train.graph).target
    headers = sorted(
        {*writer.headers, "base.h", "checkpoint.h", "shape.h"} | ({"page.h"} if storage else set())
    )
    context = {
        "name": name,
        "upper": name.upper(),
        "arena_bytes": arena_bytes,
        "state_bytes": state_bytes(predict, train, storage),
        "input": predict.graph.inputs[0],
        "input_scale": _scale_text(predict.graph.inputs[0]),
        "input_offset": predict.offsets[predict.graph.inputs[0].name],
        "output": predict.graph.outputs[0],
        "output_offset": predict.offset(predict.graph.outputs[0]),
        "target": target,
        "target_offset": train.offsets[target.name] if target else 0,
        "functions": functions,
        "marker": marker,
        "state": [_state_entry(value, data, names) for value, data in state.items()],
        "tables": [_table(names[v.name], v, data.array) for v, data in constants.items()]
        + [
            _table(f"{names[v.name]}_init", v, data.array)
            for v, data in state.items()
            if data.array.any()
        ],
        "headers": headers,
        "paging": paging_context(storage) if storage else None,
    }
    identity = checkpoint_id(train, storage)
    context["checkpoint_id"] = f"0x{identity:08x}u"
    files = {
        f"{name}.h": wrap(_TEMPLATES.get_template("network.h.j2").render(context)),
        f"{name}.c": wrap(_TEMPLATES.get_template("network.c.j2").render(context)),
        f"{name}_tables.h": _TEMPLATES.get_template("tables.h.j2").render(context),
    }
    for header in _closure([*headers, *(DRIVERS if storage else ())]):
        files[f"kilograd/{header}"] = (RUNTIME / header).read_text()
    return Sources(name, files, identity, target is not None, storage is not None)


def state_bytes(predict: Schedule, train: Schedule, storage: StoragePlan | None = None) -> int:
    """Bytes of the state structure: of the states that are not in storage, and of what those in
    storage need beside them.
    """
    state = _not_stored(_merge(schedule.graph.state for schedule in (predict, train)), storage)
    tensors = sum(aligned(value.type.bytes) for value in state)
    return tensors + (paging_state_bytes(storage) if storage else 0)


def harness(sources: Sources) -> str:
    """The C file that lets a session call the program through pointers alone (host and
    emulator).
    """
    template = _TEMPLATES.get_template("harness.c.j2")
    return template.render(
        {"name": sources.name, "target": sources.has_target, "pages": sources.pages}
    )


class _FunctionWriter:
    """Writes the straight-line body of a function, one node at a time."""

    def __init__(self, name: str, names: Mapping[str, str], poison: bool) -> None:
        self.name = name
        self.names = names
        self.poison = poison
        self.headers: set[str] = set()

    def body(
        self,
        schedule: Schedule,
        arguments: Mapping[Value, str],
        paged: PagedFunction | None = None,
        marker: str = "",
    ) -> str:
        graph = schedule.graph
        lines: list[str] = []
        # What lies in storage changes when all has succeeded; what lies in SRAM, at once.
        successors = {v for state, v in graph.updates.items() if state not in graph.stored}
        changed = False

        def operand(value: Value) -> Operand:
            stored = paged.text(value) if paged else None
            return Operand(stored or self._text(schedule, arguments, value), value.type)

        for index, node in enumerate(graph.nodes):
            changed = changed or not successors.isdisjoint(node.outputs)
            operands = Operands(
                tuple(operand(value) for value in node.inputs),
                tuple(operand(value) for value in node.outputs),
                self._scratch(schedule, index),
            )
            lines.append(comment(print_node(node)))
            for call in node.op.emit(operands):
                self.headers.add(call.header)
                if changed and call.status_if_false:
                    call = replace(call, status_if_false="KG_ERROR_PARTIAL")
                if paged:
                    call = replace(call, function=paged.function(node) or call.function)
                lines += format_call(call).splitlines()
            changed = changed or _overwrites_state(schedule, node)
            if self.poison:
                lines += self._poison(schedule, index)
            lines += [f"{marker}({index});"] if marker else []
        return "\n".join(f"  {line}" for line in lines)

    def _poison(self, schedule: Schedule, index: int) -> list[str]:
        """Overwrite what the node was the last to read, with bytes that are NaN in every float."""
        self.headers.add("shape.h")
        return [
            f"kg_fill_bytes(U8({schedule.offsets[buffer.name]}), 0xff, {buffer.size_bytes});"
            for buffer in schedule.lifetimes.buffers
            if buffer.last == index + 1
        ]

    def _text(self, schedule: Schedule, arguments: Mapping[Value, str], value: Value) -> str:
        if value in arguments:
            return arguments[value]
        root = schedule.lifetimes.root[value]
        if root in schedule.graph.state:
            return f"NET->state.{self.names[root.name]}"
        if root in schedule.graph.constants:
            return f"{self.name}_{self.names[root.name]}"
        return f"{value.type.dtype.text.upper()}({schedule.offsets[root.name]})"

    def _scratch(self, schedule: Schedule, index: int) -> str:
        name = schedule.lifetimes.scratch.get(index)
        return f"SCRATCH({schedule.offsets[name]})" if name else "NULL"


def _overwrites_state(schedule: Schedule, node: Node) -> bool:
    """Whether an operator that runs in place overwrites a state in SRAM."""
    sizes = len(node.outputs), len(node.inputs)
    sources = (node.inputs[i] for o, i in node.op.in_place if o < sizes[0] and i < sizes[1])
    roots = (schedule.lifetimes.root.get(value) for value in sources)
    return node.op.mutates and any(root in schedule.graph.state for root in roots)


def _not_stored(
    tensors: Mapping[Value, Tensor], storage: StoragePlan | None
) -> dict[Value, Tensor]:
    """Those that do not lie in secondary storage."""
    return {v: t for v, t in tensors.items() if storage is None or v not in storage.tensors}


def _scale_text(value: Value) -> str:
    meaning = value.type.quantization
    return format_float(meaning.scales[0]) if meaning else ""


def _arguments(graph: Graph) -> dict[Value, str]:
    """The C function's parameter for each input, its reshaped views, and the loss."""
    result = {graph.inputs[0]: "input"}
    if len(graph.inputs) > 1:
        inputs = TrainingInputs.of(graph)
        result |= {inputs.learning_rate: "learning_rate", inputs.step: "step"}
        result[graph.outputs[0]] = "loss"
        if inputs.target is not None:
            result[inputs.target] = "target"
    for node in graph.nodes:
        if node.op.alias and node.inputs[0] in result:
            result[node.outputs[0]] = result[node.inputs[0]]
    return result


def _merge(mappings: Iterable[Mapping[Value, Tensor]]) -> dict[Value, Tensor]:
    result: dict[Value, Tensor] = {}
    for mapping in mappings:
        result.update(mapping)
    return result


def _state_entry(value: Value, tensor: Tensor, names: Mapping[str, str]) -> dict[str, object]:
    text = f"{value.type} of {tensor.origin.name}" if tensor.origin else str(value.type)
    return {
        "name": names[value.name],
        "value": value,
        "type": value.type,
        "elements": aligned(value.type.bytes) // value.type.dtype.bytes,
        "zero": not tensor.array.any(),
        "comment": comment(text),
    }


def _table(name: str, value: Value, array: np.ndarray) -> dict[str, object]:
    """A `static const` table; floats are written so that they read back to the same bits."""
    flat = array.reshape(-1)
    if array.dtype == np.float32:
        items = [format_float(float(item)) for item in flat]
    else:
        items = [str(int(item)) for item in flat]
    rows = [
        ", ".join(items[i : i + _ELEMENTS_PER_LINE])
        for i in range(0, len(items), _ELEMENTS_PER_LINE)
    ]
    return {"name": name, "type": value.type, "rows": rows}


def _closure(headers: Sequence[str]) -> list[str]:
    """The headers and all that they include."""
    found: set[str] = set()
    pending = list(headers)
    while pending:
        header = pending.pop()
        if header in found:
            continue
        found.add(header)
        for line in (RUNTIME / header).read_text().splitlines():
            if line.startswith('#include "kilograd/'):
                pending.append(line.split("kilograd/")[1].rstrip('"'))
    return sorted(found)


def checkpoint_id(train: Schedule, storage: StoragePlan | None = None) -> int:
    """32 bits that change with the network, its frozen weights and the layout of its state."""
    graph = train.graph
    digest = hashlib.sha256()
    for node in graph.nodes:
        digest.update(f"{node.op}{[str(value.type) for value in node.inputs]}".encode())
    for value in graph.state:
        digest.update(f"{value}{value.type}".encode())
    for tensor in graph.constants.values():
        digest.update(tensor.array.tobytes())
    if storage is not None:
        places = {value.name: offset for value, offset in storage.initial.items()}
        digest.update(f"{places}{storage.bank_bytes}".encode())
    return int.from_bytes(digest.digest()[:4], "little")
