"""A network whose head is trained, and which channels to train.

Only the head is trained, with the compiled program, because the derivatives behind an untrained
head say little; then one pass over the data scores channels (`scores`), or foretells gains
(`foretold`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from kilograd.ir import Graph
from kilograd.options import Loss
from kilograd.search.layers import Layers, Orders, layers_of
from kilograd.search.measure import Bench
from kilograd.search.scores import LayerScore, score
from kilograd.search.store import Score
from kilograd.search.task import Split
from kilograd.search.training import trial
from kilograd.transforms.ports import Ports
from kilograd.transforms.reorder import ChannelMap
from kilograd.transforms.select import parameters

PREDICTOR = "first_order"
"""What orders channels; benchmarks/channels.py compares."""

PASS_SAMPLES = 128
"""How many samples a pass takes at most."""


class Differentiable(Protocol):
    """A network with its float forward graph."""

    @property
    def folded(self) -> Graph:
        """The float forward graph."""

    @property
    def ports(self) -> Ports:
        """How the user's arrays are laid out in it."""

    @property
    def loss(self) -> Loss:
        """What is minimised."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A network whose head was trained: its `parameters` by name, of the samples that it learned
    from at most `PASS_SAMPLES`, classes in proportion, and what it came to.
    """

    parameters: Mapping[str, np.ndarray]
    split: Split
    reached: Score


def train_head(network: Differentiable, bench: Bench, layers: Layers, seed: int = 0) -> Trained:
    """The network with its head trained with `seed`."""
    session = bench.trainer.session(layers.spec(0, {}))
    reached = trial(session, bench.task, bench.training, seed)
    few = min(PASS_SAMPLES, bench.task.samples or PASS_SAMPLES)
    split, _ = replace(bench.task, samples=few).draw(seed)
    graph = network.folded
    learned: Mapping[str, np.ndarray] = session.state_dict()
    heads = {}
    for parameter in parameters(graph):
        origin = graph.constants[parameter.value].origin
        if parameter.name in learned and origin is not None:
            heads[parameter.value.name] = origin.to_program(learned[parameter.name])
    return Trained(heads, split, reached)


def score_layers(network: Differentiable, head: Trained, layers: Layers) -> dict[str, LayerScore]:
    """The scores of all layers by path, behind a trained head."""
    graph = network.folded
    body = in_graph(layers, graph)
    return score(graph, network.ports, network.loss, body, head.split, head.parameters)


def in_graph(layers: Layers, graph: Graph) -> Layers:
    """The layers of the float graph; those of an int8 graph have the same names."""
    found = layers_of(graph)
    known = {layer.path: layer for layer in found.body}
    return Layers(tuple(known[path] for path in layers.paths), found.head)


def channel_orders(
    graph: Graph, layers: Layers, scores: Mapping[str, LayerScore], predictor: str = PREDICTOR
) -> Orders:
    """For every layer whose input channels can be reordered, all of them, best first.

    Layers that read the same channels share one order: the sum of what each would score, as shares
    of the layer's whole.
    """
    channel_map = ChannelMap(graph)
    groups = {layer.path: channel_map.inputs_of(layer.weight.value) for layer in layers.body}
    orders: dict[str, tuple[int, ...]] = {}
    for path, group in groups.items():
        if group.fixed:
            continue
        total = np.zeros(group.count)
        for other in (p for p, g in groups.items() if g is group):
            values = scores[other].channels[predictor]
            whole = float(values.sum())
            total += values / whole if whole > 0 else 0.0
        orders[path] = tuple(map(int, np.argsort(-total, kind="stable")))
    return orders
