"""From an update spec to the tensors to train: which constants, and how many of their input
channels.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from kilograd.errors import InputError
from kilograd.ir import Graph, Node, Value
from kilograd.update import (
    All,
    Bias,
    Biases,
    Channels,
    Choice,
    Chosen,
    Frozen,
    Full,
    Last,
    Mixture,
    Patterns,
    Spec,
    entries,
    unparse,
)


@dataclass(frozen=True)
class Parameter:
    """A constant of the graph that the user could train.

    `name` is the user's; `is_bias` holds for the additive parameter of a layer; `channel_axis` is
    the axis of its input channels, None where it cannot be trained in part; `layer` counts layers
    in execution order.
    """

    value: Value
    name: str
    layer: int
    is_bias: bool
    channel_axis: int | None


Selection = Mapping[Value, int | None]
"""What to train of each chosen constant: the first n input channels, or None for all of it."""


def parameters(graph: Graph) -> list[Parameter]:
    """The trainable constants, by first use; a layer is a node that reads at least one."""
    found: dict[Value, Parameter] = {}
    layer, readers = 0, graph.readers()
    for node in graph.nodes:
        fresh = [
            (index, value)
            for index, value in enumerate(node.inputs)
            if value in graph.constants and _origin_name(graph, value) and value not in found
        ]
        for index, value in fresh:
            is_bias = index >= 2 and index == _last_parameter(graph, node)
            axis = None if is_bias else _channel_axis(readers[value], value)
            name = _origin_name(graph, value)
            found[value] = Parameter(value, name, layer, is_bias, axis)
        layer += bool(fresh)
    return list(found.values())


def select(graph: Graph, spec: Spec) -> Selection:
    """The constants to train; raises InputError for a pattern that matches nothing."""
    known = parameters(graph)
    chosen: dict[Value, int | None] = {}
    _apply(spec, known, chosen)
    return {p.value: chosen[p.value] for p in known if p.value in chosen}


def _apply(spec: Spec, known: list[Parameter], chosen: dict[Value, int | None]) -> None:
    if isinstance(spec, Mixture):
        for member in spec.members:
            _apply(member, known, chosen)
    elif isinstance(spec, All):
        _choose(known, Full(), chosen)
    elif isinstance(spec, Last):
        layers = sorted({parameter.layer for parameter in known})[-spec.layers or len(known) + 1 :]
        _choose([p for p in known if p.layer in layers], Full(), chosen)
    elif isinstance(spec, Biases):
        members = [p for p in known if p.is_bias]
        count = len(members) if spec.count is None else spec.count
        _choose(members[max(0, len(members) - count) :], Bias(), chosen)
    elif isinstance(spec, Patterns):
        for pattern, choice in spec.entries:
            _choose(_match(pattern, known), choice, chosen, pattern)


def _choose(
    members: list[Parameter], choice: Choice, chosen: dict[Value, int | None], pattern: str = ""
) -> None:
    for parameter in members:
        if isinstance(choice, Frozen):
            chosen.pop(parameter.value, None)
        elif isinstance(choice, Full) or parameter.is_bias:
            chosen[parameter.value] = None
        elif isinstance(choice, Chosen):
            count = _named_count(parameter, choice.indices, pattern)
            whole = parameter.value.type.shape[parameter.channel_axis or 0]
            chosen[parameter.value] = None if count == whole else count
        elif isinstance(choice, Channels):
            count = _channel_count(parameter, choice.fraction, pattern)
            if count:
                whole = parameter.value.type.shape[parameter.channel_axis or 0]
                chosen[parameter.value] = None if count == whole else count
            else:
                chosen.pop(parameter.value, None)


def _channel_count(parameter: Parameter, fraction: float, pattern: str) -> int:
    if fraction in (0, 1):
        return int(fraction) * parameter.value.type.shape[parameter.channel_axis or 0]
    if parameter.channel_axis is None:
        raise InputError(_no_channels(parameter, pattern))
    return max(1, round(fraction * parameter.value.type.shape[parameter.channel_axis]))


def _named_count(parameter: Parameter, indices: Sequence[int], pattern: str) -> int:
    if parameter.channel_axis is None:
        raise InputError(_no_channels(parameter, pattern))
    whole = parameter.value.type.shape[parameter.channel_axis]
    if max(indices) >= whole:
        raise InputError(
            f"update {pattern!r}: {parameter.name} has the input channels 0 to {whole - 1}, there "
            f"is no channel {max(indices)}"
        )
    return len(indices)


def _no_channels(parameter: Parameter, pattern: str) -> str:
    return (
        f"update {pattern!r}: {parameter.name} ({parameter.value.type}) has no input channels to "
        "train in part; only weights of convolutions and linear layers have, where nothing else "
        "reads them. Use update.full()."
    )


def named_channels(graph: Graph, spec: Spec) -> Mapping[Value, tuple[int, ...]]:
    """The weights of which the spec trains channels by their indices, and these."""
    known = parameters(graph)
    names: dict[Value, tuple[int, ...]] = {}
    for entry in entries(spec):
        chosen: dict[Value, int | None] = {p.value: -1 for p in known}
        _apply(entry, known, chosen)
        decided = [p for p in known if chosen.get(p.value) != -1 and not p.is_bias]
        for parameter in decided:
            names.pop(parameter.value, None)
            if isinstance(entry, Patterns) and isinstance(entry.entries[0][1], Chosen):
                names[parameter.value] = entry.entries[0][1].indices
    return names


def _match(pattern: str, known: list[Parameter]) -> list[Parameter]:
    members = [
        p
        for p in known
        if fnmatchcase(p.name, pattern) or fnmatchcase(p.name.rpartition(".")[0], pattern)
    ]
    if not members:
        names = [p.name for p in known]
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
        near = difflib.get_close_matches(pattern, [*names, *layers], n=3, cutoff=0.4) or names[-3:]
        raise InputError(
            f"update pattern {pattern!r} matches none of the {len(names)} parameters; "
            f"the nearest names are {', '.join(near)}"
        )
    return members


def _origin_name(graph: Graph, value: Value) -> str:
    origin = graph.constants[value].origin
    return origin.name if origin else ""


def _last_parameter(graph: Graph, node: Node) -> int:
    """The place of the node's last parameter; tables such as multipliers may follow it."""
    constants = [i for i, value in enumerate(node.inputs) if value in graph.constants]
    return max((i for i in constants if _origin_name(graph, node.inputs[i])), default=0)


def _channel_axis(readers: Sequence[Node], value: Value) -> int | None:
    """The axis along which every reader takes the weight in parts; None where one does not."""
    axes = {node.op.channel_axis if node.inputs.index(value) == 1 else None for node in readers}
    axis = axes.pop()
    return None if axes or axis is None or value.type.rank <= axis else axis


@dataclass(frozen=True)
class Decision:
    """Why a parameter is or is not trained: the last entry of the spec that decided on it, as the
    command line writes it (`last:2`, `fc.*=none`), None where no entry did.
    """

    parameter: Parameter
    entry: str | None


def decisions(graph: Graph, spec: Spec) -> list[Decision]:
    """The decision on every trainable constant, by first use."""
    known = parameters(graph)
    decided: dict[Value, str] = {}
    undecided = -1
    for entry in entries(spec):
        chosen: dict[Value, int | None] = {p.value: undecided for p in known}
        _apply(entry, known, chosen)
        (text,) = unparse(entry)
        decided |= {p.value: text for p in known if chosen.get(p.value) != undecided}
    return [Decision(parameter, decided.get(parameter.value)) for parameter in known]
