"""Says why parameters are trained or not, and what layers cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from kilograd.devices import Device, Storage
from kilograd.errors import InputError
from kilograd.ir import Graph
from kilograd.planning.costs import Estimate, in_words, quality, total
from kilograd.planning.explain import node_title, unknown
from kilograd.planning.facts import Phase, gradient_nodes
from kilograd.planning.layers import LayerFacts, ParameterFacts, layer_facts, parameter_facts
from kilograd.planning.paging import step_estimates
from kilograd.planning.schedule import Schedule
from kilograd.update import Spec

T = TypeVar("T")


@dataclass(frozen=True)
class WeightExplanation:
    """The parameters that a pattern matches: why each is trained or not, and what it costs."""

    parameters: tuple[ParameterFacts, ...]

    def __str__(self) -> str:
        """The explanation as text."""
        return "\n\n".join(_parameter(facts) for facts in self.parameters)


@dataclass(frozen=True)
class SavedTensor:
    """An activation that a layer keeps for the backward pass."""

    name: str
    size_bytes: int
    read_by: str


@dataclass(frozen=True)
class LayerExplanation:
    """What one layer does and holds in a training step; `macs` by phase. `estimate` is of all its
    operators, and `quality` says how far to trust it.
    """

    name: str
    source: str
    output: str
    operators: tuple[str, ...]
    macs: dict[str, int]
    estimate: Estimate
    quality: tuple[str, ...]
    state_bytes: int
    frozen_bytes: int
    saved_bytes: int
    saved: tuple[SavedTensor, ...]
    parameters: tuple[ParameterFacts, ...]

    def __str__(self) -> str:
        """The explanation as text."""
        where = f" ({self.source})" if self.source else ""
        work = ", ".join(f"{phase} {macs:,}" for phase, macs in self.macs.items() if macs)
        lines = [
            f"{self.name}{where}" + (f", gives {self.output}" if self.output else ""),
            f"  operators  {', '.join(self.operators)}",
            f"  MACs       {work or 'none'}",
            *([f"  takes      {in_words(self.estimate)}"] if in_words(self.estimate) else []),
            f"  SRAM       {self.state_bytes:,} B of trained weights and optimiser, "
            f"{self.saved_bytes:,} B saved for the backward pass",
            f"  flash      {self.frozen_bytes:,} B of frozen weights",
        ]
        stored = sum(facts.stored_bytes for facts in self.parameters)
        lines += [f"  storage    {stored:,} B of weights and optimiser"] if stored else []
        lines += [
            f"  saves      %{t.name}, {t.size_bytes:,} B, for {t.read_by}" for t in self.saved
        ]
        lines += [f"  {facts.name}: {facts.why}" for facts in self.parameters]
        return "\n".join(lines)


@dataclass(frozen=True)
class LayersExplanation:
    """The layers that a pattern matches, in the order of the model."""

    layers: tuple[LayerExplanation, ...]

    def __str__(self) -> str:
        """The explanation as text."""
        quality = [f"estimate: {sentence}" for sentence in self.layers[0].quality]
        return "\n\n".join([*map(str, self.layers), *(["\n".join(quality)] if quality else [])])


def explain_weight(forward: Graph, spec: Spec, train: Schedule, pattern: str) -> WeightExplanation:
    """Why the parameters that match are trained or not.

    `pattern` is a parameter's name or a layer's, with shell wildcards, as in an update spec. Raises
    InputError where it matches nothing, with the nearest names.
    """
    facts = parameter_facts(forward, spec, train)
    return WeightExplanation(
        _matching("parameter", pattern, facts, lambda p: (p.name, p.name.rpartition(".")[0]))
    )


def explain_layer(
    forward: Graph,
    spec: Spec,
    train: Schedule,
    pattern: str,
    device: Device,
    storage: Storage | None,
) -> LayersExplanation:
    """What the layers cost on a device whose path matches the pattern (shell wildcards).

    Raises InputError where it matches nothing, with the nearest names.
    """
    parameters = parameter_facts(forward, spec, train)
    layers = layer_facts(forward, train, parameters)
    found = _matching("layer", pattern, layers, lambda layer: (layer.name,))
    estimates, trust = step_estimates(train.graph, device, storage), quality(device)
    return LayersExplanation(tuple(_layer(train.graph, facts, estimates, trust) for facts in found))


def _matching(
    what: str, pattern: str, items: Sequence[T], names: Callable[[T], tuple[str, ...]]
) -> tuple[T, ...]:
    found = tuple(i for i in items if any(fnmatchcase(name, pattern) for name in names(i)))
    if not found:
        known = list(dict.fromkeys(names(item)[0] for item in items))
        raise InputError(unknown(what, pattern, known))
    return found


def _layer(
    graph: Graph, facts: LayerFacts, estimates: Sequence[Estimate], trust: tuple[str, ...]
) -> LayerExplanation:
    own = sorted(index for indices in facts.nodes.values() for index in indices)
    backward, saved = gradient_nodes(graph), []
    for buffer in facts.saved:
        reader = next(i for i in buffer.readers if i in backward)
        size = buffer.lifetime.size_bytes
        saved.append(SavedTensor(buffer.name, size, node_title(graph, reader)))
    return LayerExplanation(
        name=facts.name,
        source=facts.source,
        output=facts.type,
        operators=tuple(dict.fromkeys(graph.nodes[index].op.name for index in own)),
        macs={phase.value: facts.macs[phase] for phase in Phase},
        estimate=total(estimates[index] for index in own),
        quality=trust,
        state_bytes=sum(p.weight_bytes + p.optimizer_bytes for p in facts.parameters),
        frozen_bytes=sum(p.frozen_bytes for p in facts.parameters),
        saved_bytes=facts.saved_bytes,
        saved=tuple(saved),
        parameters=facts.parameters,
    )


def _parameter(facts: ParameterFacts) -> str:
    lines = [
        f"{facts.name} {facts.type} of {facts.layer}",
        f"  {facts.why}",
        f"  {facts.trained:,} of {facts.elements:,} elements are trained",
    ]
    if facts.trained:
        optimizer = f" and {facts.optimizer_bytes:,} B of the optimiser"
        lines += [
            f"  gradient from {' > '.join(facts.path)}",
            f"  SRAM   {facts.weight_bytes:,} B from step to step"
            + (optimizer if facts.optimizer_bytes else "")
            + f", and {facts.gradient_bytes:,} B for its gradient during a step",
            f"  flash  {facts.initial_bytes:,} B of initial values"
            + (f" and {facts.frozen_bytes:,} B frozen" if facts.frozen_bytes else ""),
        ]
    else:
        lines.append(f"  flash  {facts.frozen_bytes:,} B, and no SRAM")
    if facts.stored_bytes:
        lines.append(f"  storage {facts.stored_bytes:,} B, paged in where they are read")
    return "\n".join(lines)
