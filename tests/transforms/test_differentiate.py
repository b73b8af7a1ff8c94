"""Autodiff builds what the update asks for and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from kilograd import update
from kilograd.errors import NonFiniteError
from kilograd.ir import evaluate, verify
from kilograd.options import SGD, Loss
from kilograd.transforms.differentiate import differentiate
from kilograd.transforms.select import select
from tests.small import mlp


def training(spec, optimizer=SGD()):  # noqa: B008
    graph = mlp()
    graphs = differentiate(
        graph, Loss.CROSS_ENTROPY, select(graph, update.normalise(spec)), optimizer
    )
    verify(graphs.predict)
    verify(graphs.train)
    return graphs


def feed(rate=0.1, step=0, scale=1.0):
    x = np.linspace(-1, 1, 6, dtype=np.float32)[None] * np.float32(scale)
    return {
        "x": x,
        "target": np.array([1], np.int32),
        "learning_rate": np.array(rate, np.float32),
        "step": np.array(step, np.uint32),
    }


def test_only_the_head_means_no_backward_below_it():
    train = training(update.last(1)).train
    backward = {node.location.layer for node in train.nodes if node.location.backward}
    assert backward == {"loss", "fc2"}
    assert not any(node.op.name == "linear_grad_input" for node in train.nodes)


def test_frozen_weights_are_constants_and_trained_ones_state():
    graphs = training({"fc1.weight": update.channels(0.4)})
    assert [v.name for v in graphs.train.state] == ["fc1.weight.trained"]
    assert "fc1.weight.frozen" in {v.name for v in graphs.train.constants}
    slices = [node for node in graphs.train.nodes if node.op.name == "slice"]
    assert [node.outputs[0].type.shape for node in slices] == [(1, 2)]


def test_a_step_lowers_the_loss():
    train = training(update.all()).train
    first = evaluate(train, feed())
    second = evaluate(train, feed(), first.state)
    assert second.outputs[0] < first.outputs[0]


def test_accumulation_steps_at_the_end_of_the_period():
    train = training(update.all(), SGD(accumulate=2)).train
    weight = next(v for v in train.state if v.name == "fc0.weight")
    first = evaluate(train, feed(step=0))
    assert np.array_equal(first.state[weight], train.state[weight].array)
    second = evaluate(train, feed(step=1), first.state)
    assert not np.array_equal(second.state[weight], train.state[weight].array)


def test_nan_ends_the_step():
    train = training(update.all()).train
    with pytest.raises(NonFiniteError), np.errstate(all="ignore"):
        evaluate(train, feed(scale=np.nan))
    # A class that the network excludes: the gradient of its logit is -1, that of a weight about -x.
    inputs = feed(rate=3e38, scale=10.0)
    logits = evaluate(training(update.all()).predict, {"x": inputs["x"]}).outputs[0]
    inputs["target"] = np.array([np.argmin(logits)], np.int32)
    with pytest.raises(NonFiniteError), np.errstate(all="ignore"):
        evaluate(train, inputs)
