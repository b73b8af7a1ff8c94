"""Layout and folding keep the function, drop the transposes, and can give parameters back."""

from __future__ import annotations

import numpy as np
import pytest

from kilograd.errors import InputError
from kilograd.ir import Graph, Origin, to_user, verify
from kilograd.ops.affine import ChannelAffine
from kilograd.ops.binary import Add, Mul
from kilograd.ops.linear import Linear
from kilograd.ops.norm import LayerNorm
from kilograd.ops.shape import Pad, Reshape, Slice, Transpose
from kilograd.ops.softmax import Softmax
from kilograd.transforms.fold import fold
from kilograd.transforms.layout import arrange
from kilograd.transforms.ports import Port
from tests.transforms.nets import NETS, Net, plain_ports, run


def count(graph: Graph, kind: type) -> int:
    return sum(isinstance(node.op, kind) for node in graph.nodes)


def assert_same(before, after):
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4 * max(1.0, np.abs(a).max()))


def assert_parameters_return(net: Net, graph: Graph):
    held = [(t.origin, t.array) for t in graph.constants.values() if t.origin]
    for name, array in to_user(held).items():
        assert array.shape == net.parameters[name].shape
        np.testing.assert_allclose(array, net.parameters[name], rtol=1e-4, atol=1e-5)
    for origin, array in held:
        np.testing.assert_allclose(
            origin.to_program(net.parameters[origin.name]), array, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", NETS)
def test_nets_lose_their_transposes_and_nothing_else(name):
    net = NETS[name]()
    before = run(net.graph, plain_ports(net.graph))
    arranged, ports = arrange(net.graph)
    verify(arranged)
    assert_same(before, run(arranged, ports))
    assert count(net.graph, Transpose) > 3 and count(arranged, Transpose) == 0
    assert_parameters_return(net, arranged)
    folded = verify(fold(arranged))
    assert_same(before, run(folded, ports))
    assert_parameters_return(net, folded)
    assert count(folded, ChannelAffine) == 0
    assert str(arrange(net.graph)[0]) == str(arranged) and str(fold(arranged)) == str(folded)
    assert {value.name for value in folded.inputs} == {port.name for port in ports.inputs}


def test_fold_alone_keeps_the_function():
    net = NETS["resnet"]()
    folded = verify(fold(net.graph))
    assert_same(run(net.graph, plain_ports(net.graph)), run(folded, plain_ports(net.graph)))
    assert_parameters_return(net, folded)


def test_a_folded_norm_returns_every_parameter_it_can():
    net = NETS["resnet"]()
    folded = fold(arrange(net.graph)[0])
    held = {t.origin.name for t in folded.constants.values() if t.origin}
    gone = set(net.parameters) - held
    scales = {name for name in gone if net.parameters[name].ndim == 1}
    assert gone == scales, "only norm scales and the biases under a shift may go"


def test_input_and_output_become_channels_last():
    net = NETS["unet"]()
    arranged, ports = arrange(net.graph)
    assert arranged.inputs[0].type.shape == (1, 8, 8, 2)
    assert ports.inputs[0] == Port("x", (1, 2, 8, 8), (0, 2, 3, 1))
    assert [port.axes for port in ports.outputs] == [(0, 2, 3, 1), (0, 1, 2, 3)]
    assert [value.type.shape for value in arranged.outputs] == [(1, 16, 16, 6), (1, 1, 8, 8)]


def test_ports_take_samples_and_batches():
    port = Port("x", (1, 2, 3, 4), (0, 2, 3, 1))
    batch = np.arange(5 * 24).reshape(5, 2, 3, 4)
    assert port.to_program(batch).shape == (5, 3, 4, 2)
    assert port.to_program(batch[0]).shape == (3, 4, 2)
    np.testing.assert_array_equal(port.to_user(port.to_program(batch)), batch)
    np.testing.assert_array_equal(port.to_user(port.to_program(batch[1])), batch[1])
    with pytest.raises(InputError, match=r"has shape \[3, 4, 2\]; give one sample of shape"):
        port.to_program(np.zeros((3, 4, 2)))


def test_a_parameter_with_two_readers_stays_one_tensor():
    net = Net(1, 2, 4, 4)
    weight = net.parameter(6, 32, axes=(1, 0))
    a, b = (net.flatten(net.conv(net.x, 2)) for _ in range(2))
    op = Linear(bias=False)
    graph = net.done(net.add(Add(), net.add(op, a, weight), net.add(op, b, weight)))
    arranged, ports = arrange(graph)
    assert_same(run(graph, plain_ports(graph)), run(verify(arranged), ports))
    names = [t.origin.name for t in arranged.constants.values() if t.origin]
    assert len(names) == len(set(names)) and count(arranged, Transpose) == 2
    assert_parameters_return(net, arranged)


def test_channel_shuffle_costs_one_transpose():
    net = Net(1, 4, 3, 3)
    x = net.add(Reshape((1, 2, 2, 3, 3)), net.conv(net.x, 4))
    x = net.add(Reshape((1, 4, 3, 3)), net.add(Transpose((0, 2, 1, 3, 4)), x))
    graph = net.done(net.conv(x, 2))
    arranged, ports = arrange(graph)
    assert_same(run(graph, plain_ports(graph)), run(verify(arranged), ports))
    assert count(arranged, Transpose) == 1


def test_flatten_without_a_linear_keeps_the_users_order():
    net = Net(1, 2, 4, 3)
    graph = net.done(net.relu(net.flatten(net.conv(net.x, 3))))
    arranged, ports = arrange(graph)
    assert_same(run(graph, plain_ports(graph)), run(verify(arranged), ports))


@pytest.mark.parametrize("op", [Softmax(), LayerNorm(affine=False)])
def test_rows_stay_under_a_transpose(op):
    net = Net(1, 2, 4, 3)
    tokens = net.add(Transpose((0, 2, 1)), net.add(Reshape((1, 3, 12)), net.conv(net.x, 3)))
    y = net.add(Transpose((0, 2, 1)), net.add(op, tokens))
    graph = net.done(net.conv(net.add(Reshape((1, 3, 4, 3)), y), 2))
    arranged, ports = arrange(graph)
    assert_same(run(graph, plain_ports(graph)), run(verify(arranged), ports))
    assert count(arranged, Transpose) == 0


def test_layer_norm_over_a_whole_map_permutes_its_parameters():
    net = Net(1, 2, 4, 3)
    x = net.conv(net.x, 3)
    x = net.add(LayerNorm(3), x, net.parameter(3, 4, 3), net.parameter(3, 4, 3))
    graph = net.done(net.conv(x, 2))
    arranged, ports = arrange(graph)
    assert_same(run(graph, plain_ports(graph)), run(verify(arranged), ports))
    assert count(arranged, Transpose) == 0
    assert_parameters_return(net, arranged)


def test_a_tiny_scale_is_not_folded():
    net = Net(1, 2, 4, 4)
    scale = net.builder.constant("scale", np.array([1.0, 1e-13], np.float32))
    shift = net.builder.constant("shift", np.zeros(2, np.float32))
    y = net.first(net.add(ChannelAffine(), net.last(net.conv(net.x, 2)), scale, shift))
    folded = fold(arrange(net.done(y))[0])
    assert count(folded, ChannelAffine) == 1


def test_a_layer_with_two_readers_keeps_its_weights():
    net = Net(1, 2, 4, 4)
    x = net.conv(net.x, 2)
    graph = net.done(net.add(Add(), x, net.norm(x)))
    arranged, ports = arrange(graph)
    folded = verify(fold(arranged))
    assert count(folded, ChannelAffine) == 2
    assert_same(run(graph, plain_ports(graph)), run(folded, ports))


def test_scales_without_parameters_merge():
    net = Net(1, 5)
    x = net.x
    for _ in range(3):
        pair = [net.builder.constant("c", net.draw(5)) for _ in range(2)]
        x = net.add(ChannelAffine(), x, *pair)
    graph = net.done(x)
    folded = verify(fold(graph))
    assert len(folded.nodes) == 1
    assert_same(run(graph, plain_ports(graph)), run(folded, plain_ports(graph)))


def test_what_does_nothing_goes():
    net = Net(1, 3, 4)
    x = net.add(Pad(((0, 0),) * 3), net.add(Slice(1, 0, 3), net.x))
    x = net.add(Transpose((0, 2, 1)), net.add(Transpose((0, 2, 1)), x))
    x = net.add(Reshape((1, 3, 4)), net.add(Reshape((1, 12)), x))
    a, b = (net.builder.constant("c", net.draw(4)) for _ in range(2))
    x = net.add(Add(), x, net.add(Mul(), a, b))
    graph = net.done(x)
    folded = verify(fold(graph))
    assert [node.op.name for node in folded.nodes] == ["add"]
    assert len(folded.constants) == 1
    assert_same(run(graph, plain_ports(graph)), run(folded, plain_ports(graph)))


def test_a_parameter_is_laid_out_but_not_computed_at_compile_time():
    net = Net(1, 3)
    w = net.add(Transpose((1, 0)), net.parameter(5, 3))
    doubled = net.add(Mul(), w, net.builder.constant("two", np.float32(2)))
    folded = verify(fold(net.done(net.add(Linear(bias=False), net.x, doubled))))
    assert [node.op.name for node in folded.nodes] == ["mul", "linear"]
    (origin,) = [t.origin for t in folded.constants.values() if t.origin]
    assert isinstance(origin, Origin) and len(origin.steps) == 1
    assert_parameters_return(net, folded)
