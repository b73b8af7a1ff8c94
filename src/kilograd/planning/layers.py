"""What each layer and each parameter of the user's model costs in a training step, and why it is
trained or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kilograd.ir import Graph, Node, Value
from kilograd.ops.page import PageOut
from kilograd.planning.facts import (
    LOSS,
    BufferFacts,
    Kind,
    Phase,
    buffer_facts,
    gradient_nodes,
    phases,
    updated_state,
    weight_gradients,
)
from kilograd.planning.schedule import Schedule
from kilograd.transforms.select import Decision, decisions
from kilograd.update import Spec


@dataclass(frozen=True)
class ParameterFacts:
    """A parameter under the user's name, and where its parts lie.

    `trained` of its `elements` are trained. SRAM holds `weight_bytes` of trained values and
    `optimizer_bytes` beside them from step to step, and `gradient_bytes` of the arena while its
    gradient waits; flash holds `frozen_bytes` of constants and `initial_bytes` from which `init`
    fills the trained values; secondary storage holds `stored_bytes` of all of these, which are in
    neither. `entry` is the entry of the update spec that decided, None where none
    did; `path` the layers through which the gradient comes, from the loss.
    """

    name: str
    layer: str
    type: str
    elements: int
    trained: int
    weight_bytes: int
    optimizer_bytes: int
    gradient_bytes: int
    frozen_bytes: int
    initial_bytes: int
    entry: str | None
    why: str
    path: tuple[str, ...]
    stored_bytes: int = 0


@dataclass(frozen=True)
class LayerFacts:
    """A layer of the user's model: the nodes of the training step that are its own by phase, and
    what it keeps in the arena for the backward pass.
    """

    name: str
    source: str
    type: str
    nodes: Mapping[Phase, tuple[int, ...]]
    macs: Mapping[Phase, int]
    saved: tuple[BufferFacts, ...]
    parameters: tuple[ParameterFacts, ...]

    @property
    def saved_bytes(self) -> int:
        """Bytes of the activations of this layer that the backward pass reads."""
        return sum(facts.lifetime.size_bytes for facts in self.saved)


def parameter_facts(forward: Graph, spec: Spec, train: Schedule) -> tuple[ParameterFacts, ...]:
    """The trainable parameters of a forward graph, by first use, and what became of them."""
    readers = forward.readers()
    layer_of = {v: layer_name(nodes[0]) for v, nodes in readers.items() if nodes}
    return tuple(
        _parameter(decision, layer_of[decision.parameter.value], train)
        for decision in decisions(forward, spec)
    )


def layer_facts(
    forward: Graph, train: Schedule, parameters: Sequence[ParameterFacts]
) -> tuple[LayerFacts, ...]:
    """The layers of a training step in the order of the model, the loss last.

    Checks and updates count for the layer of their parameter.
    """
    graph, kinds = train.graph, phases(train.graph)
    owners = owning_layers(forward, train)
    macs = [node.op.cost(*(value.type for value in node.inputs)).macs for node in graph.nodes]
    backward = gradient_nodes(graph)
    made_by = {
        value: index
        for index, node in enumerate(graph.nodes)
        if index not in backward and not node.op.alias
        for value in node.outputs
    }
    saved: dict[str, list[BufferFacts]] = {}
    for facts in buffer_facts(train):
        if facts.kind is Kind.SAVED:
            maker = max(made_by[value] for value in facts.values if value in made_by)
            saved.setdefault(owners[maker], []).append(facts)
    names = dict.fromkeys(layer_name(node) for node in forward.nodes)
    names |= dict.fromkeys(owners)
    names.pop(LOSS, None)
    result = []
    for name in (*names, LOSS):
        own = [index for index, owner in enumerate(owners) if owner == name]
        mine = tuple(p for p in parameters if p.layer == name)
        if not own:
            continue
        made = [i for i in own if kinds[i] is Phase.FORWARD and graph.nodes[i].outputs]
        result.append(
            LayerFacts(
                name=name,
                source=graph.nodes[own[0]].location.source,
                type=str(graph.nodes[made[-1]].outputs[0].type) if made else "",
                nodes={p: tuple(i for i in own if kinds[i] is p) for p in Phase},
                macs={p: sum(macs[i] for i in own if kinds[i] is p) for p in Phase},
                saved=tuple(saved.get(name, ())),
                parameters=mine,
            )
        )
    return tuple(result)


def owning_layers(forward: Graph, train: Schedule) -> tuple[str, ...]:
    """The layer of the user's model that each node of the training step works for."""
    by_name: dict[str, str] = {}
    for node in forward.nodes:
        for value in node.inputs:
            tensor = forward.constants.get(value)
            if tensor is not None and tensor.origin is not None:
                by_name.setdefault(tensor.origin.name, layer_name(node))
    state = {value.name: tensor for value, tensor in train.graph.state.items()}
    result = []
    for node in train.graph.nodes:
        tensor = state.get(updated_state(node) or "")
        origin = tensor.origin if tensor else None
        layer = layer_name(node)
        result.append(by_name.get(origin.name, layer) if origin else layer)
    return tuple(result)


def layer_name(node: Node) -> str:
    """The path of the layer that a node comes from; `model` for code outside of any."""
    return node.location.layer or "model"


def _parameter(decision: Decision, layer: str, train: Schedule) -> ParameterFacts:
    graph, parameter = train.graph, decision.parameter
    parts = {
        value: tensor
        for value, tensor in (*graph.state.items(), *graph.constants.items())
        if tensor.origin is not None and tensor.origin.name == parameter.name
    }
    trained = [value for value in parts if value in graph.state]
    names = {value.name for value in trained}
    pages = {n.outputs[0]: n.inputs[0] for n in graph.nodes if isinstance(n.op, PageOut)}
    following_of = {s: pages.get(value, value) for s, value in graph.updates.items()}
    successors = {following_of[value] for value in trained}
    steps = [
        node
        for node in graph.nodes
        if updated_state(node) in names or not successors.isdisjoint(node.outputs)
    ]
    following = {value for node in steps for value in node.outputs}
    extra = [v for v, successor in following_of.items() if successor in following]
    extra = [v for v in extra if v not in trained]
    waiting = weight_gradients(graph)
    gradients = [v for node in steps for v in node.inputs if v in waiting and v not in following]
    roots = {train.lifetimes.root[v] for v in gradients if v in train.lifetimes.root}
    frozen = [value for value in parts if value in graph.constants]
    elements = parameter.value.type.size
    count = sum(value.type.size for value in trained)
    stored = [value for value in (*trained, *extra, *frozen) if value in graph.stored]
    why = _why(decision, graph, trained)
    trained, extra, frozen = (
        [value for value in values if value not in graph.stored]
        for values in (trained, extra, frozen)
    )
    initial = [value for value in (*trained, *extra) if graph.state[value].array.any()]
    return ParameterFacts(
        name=parameter.name,
        layer=layer,
        type=str(parameter.value.type),
        elements=elements,
        trained=count,
        weight_bytes=sum(value.type.bytes for value in trained),
        optimizer_bytes=sum(value.type.bytes for value in extra),
        gradient_bytes=sum(value.type.bytes for value in roots),
        frozen_bytes=sum(value.type.bytes for value in frozen),
        initial_bytes=sum(value.type.bytes for value in initial),
        entry=decision.entry,
        why=why,
        path=_path(graph, steps),
        stored_bytes=sum(value.type.bytes for value in stored),
    )


def _why(decision: Decision, graph: Graph, trained: Sequence[Value]) -> str:
    """Why a parameter is trained, in part or not at all."""
    entry = f"`{decision.entry}`"
    if trained:
        origin = graph.state[trained[0]].origin
        part = origin.part if origin else None
        if part is None:
            return f"trained: {entry} chose it"
        return f"{part.stop - part.start} of {part.whole} input channels trained: {entry} chose it"
    if decision.entry is None:
        return "frozen: no entry of the update spec chose it"
    if decision.entry.endswith("=none") or decision.entry.endswith(":0.0"):
        return f"frozen: {entry} excluded it"
    return f"frozen: {entry} chose it, but no gradient of the loss reaches it"


def _path(graph: Graph, steps: Sequence[Node]) -> tuple[str, ...]:
    """The layers through which the gradients of these steps come, from the loss on."""
    producers = {value: i for i, node in enumerate(graph.nodes) for value in node.outputs}
    backward = gradient_nodes(graph)
    made = {value for node in steps if not node.op.may_fail for value in node.outputs}
    known = {value for node in steps for value in (*node.inputs, *node.outputs)} - made
    pending = [producers[value] for value in known if value in producers]
    visited: set[int] = set()
    while pending:
        index = pending.pop()
        if index in visited or index not in backward:
            continue
        visited.add(index)
        pending += [producers[v] for v in graph.nodes[index].inputs if v in producers]
    return tuple(dict.fromkeys(layer_name(graph.nodes[index]) for index in sorted(visited)))
