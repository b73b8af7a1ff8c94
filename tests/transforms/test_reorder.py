"""Reordering channels changes no output: the same bits in int8, the same up to rounding in float.

A convolution or linear layer adds its terms in the order of its input channels, so float sums round
differently; an integer sum is exact in every order.
"""

from __future__ import annotations

import numpy as np
import pytest

import kilograd as kg
from kilograd import frontend, zoo
from kilograd.errors import InputError
from kilograd.ir import verify
from kilograd.ir.interpret import evaluate
from kilograd.transforms.fold import fold
from kilograd.transforms.layout import arrange
from kilograd.transforms.quantize import quantize
from kilograd.transforms.reorder import ChannelMap, reorder, to_front
from kilograd.transforms.select import parameters

NETWORKS = {
    "resnet8": {},
    "mcunet_5fps": {"resolution": 32, "num_classes": 10},
    "dscnn": {},
    "mobilenetv1_025": {},
    "se_net": {},
    "unet": {},
    "lenet": {},
}


def forward(name: str):
    model, example = zoo.create(name, **NETWORKS[name])
    model.eval()
    graph, ports = arrange(frontend.load(model, example).graph)
    return fold(graph), ports, example


def shuffled(graph, seed=0):
    """The graph with every set of channels in random order, and how many sets moved."""
    rng = np.random.default_rng(seed)
    groups = [group for group in ChannelMap(graph).groups if not group.fixed and group.count > 1]
    return reorder(graph, [(g, tuple(map(int, rng.permutation(g.count)))) for g in groups]), groups


def samples(ports, example, count=3):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((count, *example.shape[1:])).astype(np.float32)
    return x, ports.inputs[0].to_program(x)


@pytest.mark.parametrize("name", NETWORKS)
def test_float_outputs_are_equal_up_to_rounding(name):
    graph, ports, example = forward(name)
    moved, groups = shuffled(graph)
    verify(moved)
    assert groups
    _, x = samples(ports, example)
    (before,) = evaluate(graph, {graph.inputs[0].name: x}).outputs
    (after,) = evaluate(moved, {graph.inputs[0].name: x}).outputs
    np.testing.assert_allclose(after, before, rtol=0, atol=2e-5 * float(np.abs(before).max()))


@pytest.mark.parametrize("name", ["resnet8", "mcunet_5fps", "dscnn", "lenet"])
def test_int8_outputs_are_the_same_bits(name):
    graph, ports, example = forward(name)
    x, _ = samples(ports, example, 8)
    whole, _ = quantize(graph, ports, x, head="int8")
    moved, groups = shuffled(whole)
    verify(moved)
    assert groups
    _, feed = samples(ports, example)
    (before,) = evaluate(whole, {whole.inputs[0].name: feed}).outputs
    (after,) = evaluate(moved, {whole.inputs[0].name: feed}).outputs
    np.testing.assert_array_equal(after, before)


def test_float_outputs_are_the_same_bits_where_sums_are_exact():
    """With small whole numbers no sum rounds, so any difference would be a wrong permutation."""
    graph, ports, example = forward("resnet8")
    rng = np.random.default_rng(0)
    for tensor in graph.constants.values():
        tensor.array[...] = rng.choice([-1, 0, 1], tensor.array.shape, p=[0.06, 0.88, 0.06])
    moved, _ = shuffled(graph)
    _, feed = samples(ports, example)
    feed = np.round(feed)
    (before,), (after,) = (
        evaluate(g, {graph.inputs[0].name: feed}).outputs for g in (graph, moved)
    )
    assert 1 < float(np.abs(before).max()) < 2**16  # the mean over 64 pixels leaves 6 bits
    np.testing.assert_array_equal(after, before)


def test_residual_sums_and_depthwise_convolutions_tie_channels():
    graph, _, _ = forward("mcunet_5fps")
    channels = ChannelMap(graph)
    values = {p.name: p.value for p in parameters(graph)}
    stream = [channels.inputs_of(values[f"blocks.{i}.pointwise1.weight"]) for i in (2, 3)]
    assert stream[0] is stream[1]  # block 2 adds to what block 1 gives, block 3 reads the sum
    inner = channels.inputs_of(values["blocks.2.pointwise2.weight"])
    assert inner is channels.inputs_of(values["blocks.2.depthwise.weight"])
    assert inner is not stream[0]
    assert "input of the network" in channels.inputs_of(values["first_conv.weight"]).fixed


def test_named_channels_train_as_the_first_ones_of_the_reordered_network():
    """The C: named channels are trained and no others, under the user's names and order."""
    model, example = zoo.create("dscnn")
    name, indices = _a_pointwise(model, example)
    program = kg.compile(
        model, example, update={name: kg.update.channels(indices)}, optimizer=kg.SGD(lr=0.1)
    )
    plain = kg.compile(model, example, update={name: kg.update.full()})
    host, before = program.on_host(optimize="-O1"), dict(model.named_parameters())[name]
    x = np.random.default_rng(0).standard_normal((4, *example.shape[1:])).astype(np.float32)
    np.testing.assert_allclose(
        host.predict(x), plain.on_host(optimize="-O1").predict(x), rtol=1e-4, atol=1e-5
    )
    host.fit(x, [0, 1, 2, 3], epochs=2, progress=False)
    learned = host.state_dict()[name]
    moved = np.abs(learned - before.detach().numpy()).max(axis=(0, 2, 3)) > 1e-7
    assert set(np.flatnonzero(moved)) <= set(indices)
    assert len(np.flatnonzero(moved)) >= 2


def _a_pointwise(model, example):
    graph, _ = arrange(frontend.load(model, example).graph)
    graph = fold(graph)
    channels = ChannelMap(graph)
    for parameter in parameters(graph):
        found = None if parameter.is_bias else channels.inputs_of(parameter.value)
        if found and not found.fixed and found.count >= 16 and parameter.channel_axis == 2:
            array = dict(model.named_parameters())[parameter.name]
            if array.shape[1] == found.count:
                return parameter.name, (1, 7, 4)
    raise AssertionError("no layer to reorder")


def test_unlike_choices_of_the_same_channels_are_refused():
    graph, _, _ = forward("mcunet_5fps")
    values = {p.name: p.value for p in parameters(graph)}
    a, b = (values[f"blocks.{i}.pointwise1.weight"] for i in (2, 3))
    to_front(graph, {a: (3, 1), b: (1, 3, 5)})
    with pytest.raises(InputError, match=r"read the same channels.*\[1, 3\] is not part of"):
        to_front(graph, {a: (3, 1), b: (1, 5, 6)})


def test_channels_that_cannot_move_are_refused():
    model, example = zoo.create("resnet8")
    with pytest.raises(InputError, match="input of the network"):
        kg.compile(model, example, update={"first_conv.0.weight": kg.update.channels([2])})
    model, example = zoo.create("lenet")
    with pytest.raises(InputError, match="flattened image"):
        kg.compile(model, example, update={"hidden.1.weight": kg.update.channels([5])})
    with pytest.raises(InputError, match="there is no channel 6"):
        kg.compile(model, example, update={"features.3.weight": kg.update.channels([6])})
    with pytest.raises(InputError, match="name different channels"):
        kg.update.channels([1, 1])
