"""Contributions without trainings of their own, and which channels to train.

Only the head is trained, with the compiled program, because the derivatives behind an untrained
head say little; then one pass over the data scores layers and channels (`scores`).
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Protocol

import numpy as np

from kilograd.ir import Graph
from kilograd.options import Loss
from kilograd.search.layers import Layers, Orders, layers_of
from kilograd.search.limits import CostLimit
from kilograd.search.measure import RATIOS, Bench, gain
from kilograd.search.rows import Row
from kilograd.search.scores import LayerScore, score
from kilograd.search.store import Score
from kilograd.search.table import Contributions, Gain
from kilograd.search.training import trial
from kilograd.transforms.ports import Ports
from kilograd.transforms.reorder import ChannelMap
from kilograd.transforms.select import parameters

PREDICTOR = "first_order"
"""What orders channels, and what `predicted` bounds; benchmarks/contributions.py compares."""

PASS_SAMPLES = 256
"""How many samples the pass takes at most."""


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


def score_layers(
    network: Differentiable, bench: Bench, layers: Layers, seed: int = 0
) -> tuple[dict[str, LayerScore], Score]:
    """The scores of all layers by path, behind a head trained with `seed`, and what this head came
    to.
    """
    session = bench.trainer.session(layers.spec(0, {}))
    reached = trial(session, bench.task, bench.training, seed)
    (x, y), _ = bench.task.draw(seed)
    graph = network.folded
    learned: Mapping[str, np.ndarray] = session.state_dict()
    heads = {}
    for parameter in parameters(graph):
        origin = graph.constants[parameter.value].origin
        if parameter.name in learned and origin is not None:
            heads[parameter.value.name] = origin.to_program(learned[parameter.name])
    split = (x[:PASS_SAMPLES], y[:PASS_SAMPLES])
    body = _in_graph(layers, graph)
    return score(graph, network.ports, network.loss, body, split, heads), reached


def _in_graph(layers: Layers, graph: Graph) -> Layers:
    """The layers of the float graph; those of an int8 graph have the same names."""
    known = {layer.path: layer for layer in layers_of(graph).body}
    return Layers(tuple(known[path] for path in layers.paths), layers.head)


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


def bounded(decrease: float) -> float:
    """The share of a loss that training removes, from the decrease x that its gradient promises.

    x is in units of the loss: the rates of all steps times the squared norm of the gradient, over
    the loss. Along the gradient the loss falls by x - x^2 / (4 c), c being the share of the loss
    that could be removed at best. No loss is negative, so c is at most 1, and 1 is taken: best at
    x = 2, no gain at x = 4, and harm beyond, where steps are too long for the layer; -1 at worst.
    """
    return max(decrease - decrease**2 / 4, -1.0)


def reach_limit(
    layers: Layers, scores: Mapping[str, LayerScore], reached: Score, rates: float, orders: Orders
) -> CostLimit:
    """No more than x = 2 of `bounded` for everything that a scheme trains, together: layers that
    each bear the rate overshoot when they all move at once. Counted in millionths.
    """
    unit = 1e6 * rates / max(reached.loss, 1e-9)
    biases = [scores[layer.path].bias[PREDICTOR] for layer in reversed(layers.body)]
    base = tuple(round(unit * float(x)) for x in np.concatenate([[0.0], np.cumsum(biases)]))
    options = {}
    for layer in layers.body:
        channels = scores[layer.path].channels[PREDICTOR]
        order = orders.get(layer.path, tuple(range(len(channels))))
        for ratio in RATIOS:
            trained = list(order[: layer.count(ratio)])
            options[layer.path, ratio] = round(unit * float(channels[trained].sum()))
    return CostLimit(Row("promised decrease", base, options), 2e6, "millionths of the loss")


def predicted(
    layers: Layers,
    scores: Mapping[str, LayerScore],
    reached: Score,
    *,
    rates: float,
    name: str,
    orders: Orders,
) -> Contributions:
    """First-order scores as a table of contributions: `bounded` shares of what there is to gain
    over the head, from its accuracy to 1. `runs` is 0, for nothing was measured.

    `rates` is the sum of the learning rates of all steps of a run.
    """
    unit = rates / max(reached.loss, 1e-9)
    most = 1 - reached.accuracy

    def gain_of(score: float) -> Gain:
        return Gain(most * bounded(unit * score), 0.0, 0)

    biases = [scores[layer.path].bias[PREDICTOR] for layer in reversed(layers.body)]
    by_k = np.concatenate([[0.0], np.cumsum(biases)])
    weights: dict[tuple[str, Fraction], Gain] = {}
    for layer in layers.body:
        channels = scores[layer.path].channels[PREDICTOR]
        order = orders.get(layer.path, tuple(range(len(channels))))
        for ratio in RATIOS:
            trained = list(order[: layer.count(ratio)])
            weights[layer.path, ratio] = gain_of(float(channels[trained].sum()))
    return Contributions(
        network=name,
        layers=layers.paths,
        head=gain(np.array([reached.accuracy])),
        biases={k: gain_of(float(value)) for k, value in enumerate(by_k)},
        weights=weights,
        method="fast",
    )
