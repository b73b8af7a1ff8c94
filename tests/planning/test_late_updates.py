"""Gradients of weights wait where that is cheaper; no order needs less than what is necessary."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import kilograd as kg
from kilograd.compiler import prepare
from kilograd.ir import evaluate, verify
from kilograd.planning import order as ordering
from kilograd.planning.late_updates import late_updates
from kilograd.planning.lifetimes import lifetimes, measure
from kilograd.planning.necessary import Alive, necessary_bytes
from kilograd.planning.order import order, predecessors_of


def wide(precision: str, atomic: bool = True):
    """Late layers with large weights and small activations, early ones the other way round."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=4), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 96), nn.ReLU(), nn.Linear(96, 5),
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(4, 2, 16, 16)).astype(np.float32)
    calibration = {"calibration": x} if precision == "int8" else {}
    return prepare(
        model, x[:1], precision=precision, optimizer=kg.SGD(atomic=atomic), **calibration
    )


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_large_next_weights_wait(precision, monkeypatch):
    prepared = wide(precision)
    graph = prepared.training_graph(kg.update.all())
    late = order(graph, atomic=True)
    monkeypatch.setattr(
        ordering, "late_updates", lambda graph, priority: list(range(len(graph.nodes)))
    )
    early = order(graph, atomic=True)
    assert measure(late).peak_bytes < measure(early).peak_bytes


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_the_order_keeps_the_meaning(precision):
    graph = wide(precision).training_graph(kg.update.all())
    nodes = tuple(graph.nodes[i] for i in late_updates(graph, lambda index: (index,)))
    assert sorted(map(str, nodes)) == sorted(map(str, graph.nodes))
    ordered = verify(replace(graph, nodes=nodes))
    lifetimes(ordered)  # raises where a state is overwritten too early
    rng = np.random.default_rng(1)
    feed = {
        value.name: rng.integers(0, 3, value.type.shape).astype(value.type.dtype.numpy)
        for value in graph.inputs
    }
    first, second = evaluate(graph, feed), evaluate(ordered, feed)
    for value, array in first.state.items():
        np.testing.assert_array_equal(array, second.state[value])


def orders(graph, atomic: bool, count: int, seed: int):
    """Random orders that data and steps permit."""
    before, rng = predecessors_of(graph, atomic), np.random.default_rng(seed)
    for _ in range(count):
        done: list[int] = []
        left = set(range(len(graph.nodes)))
        while left:
            ready = sorted(i for i in left if before[i] <= set(done))
            done.append(ready[rng.integers(len(ready))])
            left.remove(done[-1])
        yield replace(graph, nodes=tuple(graph.nodes[i] for i in done))


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("precision", ["int8", "float32"])
@pytest.mark.parametrize("update", [kg.update.all(), kg.update.last(2), kg.update.biases(3)])
def test_no_order_needs_less_than_is_necessary(precision, atomic, update):
    graph = wide(precision, atomic).training_graph(update)
    least = necessary_bytes(graph, atomic=atomic)
    found = [
        measure(candidate).peak_bytes
        for candidate in itertools.chain(
            orders(graph, atomic, 60, 0), [order(graph, atomic=atomic), graph]
        )
    ]
    assert 0 < least <= min(found)


def test_what_waits_is_all_alive_before_the_updates():
    graph = wide("float32").training_graph(kg.update.all())
    alive = Alive(graph, atomic=True)
    gradients = {value.name for value in alive.waiting()}
    assert len(gradients) == len(graph.state) == 8
    assert alive.aligned(alive.waiting()) == sum(value.type.bytes for value in graph.state)
    assert not Alive(graph, atomic=False).waiting()
