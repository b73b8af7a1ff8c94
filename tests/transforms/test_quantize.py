"""Float graphs become int8 graphs that compute nearly the same, and say what stays float."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from kilograd.errors import InputError
from kilograd.ir import Builder, DType, Graph, Origin, Value, evaluate, f32, to_user, verify
from kilograd.ops.affine import ChannelAffine
from kilograd.ops.binary import Add, Div, Mul, Sub
from kilograd.ops.conv import Conv2d
from kilograd.ops.linear import Linear
from kilograd.ops.norm import LayerNorm
from kilograd.ops.pool import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from kilograd.ops.reduce import Reduce
from kilograd.ops.resize import UpsampleNearest2d
from kilograd.ops.shape import Concat, Pad, Slice, Transpose
from kilograd.ops.softmax import Softmax
from kilograd.ops.unary import Abs, Clamp, Log, Relu, Silu, Tanh
from kilograd.transforms.fold import fold
from kilograd.transforms.layout import arrange
from kilograd.transforms.ports import Ports
from kilograd.transforms.quantize import RANGES, Report, quantize
from kilograd.transforms.select import parameters
from tests.transforms.nets import NETS, Net, plain_ports

METHODS = sorted(RANGES)


def samples(ports: Ports, count: int = 24, seed: int = 0) -> np.ndarray:
    (port,) = ports.inputs
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, *port.shape[1:])).astype(np.float32)


def outputs(graph: Graph, ports: Ports, x: np.ndarray) -> list[np.ndarray]:
    feed = {graph.inputs[0].name: ports.inputs[0].to_program(x)}
    return list(evaluate(graph, feed).outputs)


def signal_to_noise(y: np.ndarray, z: np.ndarray) -> float:
    """In decibels."""
    return float(10 * np.log10(np.sum(y.astype(np.float64) ** 2) / np.sum((y - z) ** 2)))


def prepared(name: str) -> tuple[Net, Graph, Ports]:
    net = NETS[name]()
    graph, ports = arrange(net.graph)
    return net, fold(graph), ports


def names(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


def int8(net: Net, *outputs_, **options) -> tuple[Graph, Report]:
    graph = net.builder.finish(outputs_)
    return quantize(graph, plain_ports(graph), samples(plain_ports(graph)), **options)


@pytest.mark.parametrize(("name", "method"), list(product(sorted(NETS), METHODS)))
def test_the_int8_network_computes_nearly_the_same(name: str, method: str):
    _, graph, ports = prepared(name)
    quantized, _ = quantize(graph, ports, samples(ports), ranges=method, head="int8")
    verify(quantized)
    assert [value.type for value in quantized.inputs] == [value.type for value in graph.inputs]
    assert [value.type for value in quantized.outputs] == [value.type for value in graph.outputs]
    x = samples(ports)
    for y, z in zip(outputs(graph, ports, x), outputs(quantized, ports, x), strict=True):
        assert signal_to_noise(y, z) > 22


@pytest.mark.parametrize("name", sorted(NETS))
def test_no_conversion_is_undone(name: str):
    _, graph, ports = prepared(name)
    quantized, _ = quantize(graph, ports, samples(ports))
    producers = quantized.producers()
    for node in quantized.nodes:
        source = producers.get(node.inputs[0])
        if source is not None:
            pair = {source.op.name, node.op.name}
            assert pair != {"quantize", "dequantize"}
    for name_ in ("quantize", "dequantize"):
        inputs = [node.inputs for node in quantized.nodes if node.op.name == name_]
        assert len(inputs) == len(set(inputs))


@pytest.mark.parametrize("name", sorted(NETS))
def test_parameters_return_to_the_user(name: str):
    """Under their names, in their layout, as floats, off by half a scale at most."""
    net, graph, ports = prepared(name)
    quantized, _ = quantize(graph, ports, samples(ports))
    found = {
        tensor.origin.name: (value, tensor)
        for value, tensor in quantized.constants.items()
        if tensor.origin
    }
    exact = to_user([(t.origin, t.array) for t in graph.constants.values() if t.origin])
    assert set(found) == set(exact)
    for key, (value, tensor) in found.items():
        back = to_user([(tensor.origin, tensor.array)])[key]
        assert back.dtype == np.float32 and back.shape == net.parameters[key].shape
        if value.type.dtype is DType.F32:
            np.testing.assert_array_equal(back, exact[key])
        else:
            assert value.type.quantization is not None
            # The origin's own steps bring the float constant to the integers, and back.
            again = tensor.origin.to_program(back)
            np.testing.assert_array_equal(again, tensor.array)
            assert signal_to_noise(exact[key], back) > 30


def test_biases_of_int8_layers_are_biases():
    _, graph, ports = prepared("lenet")
    quantized, _ = quantize(graph, ports, samples(ports), head="int8")
    before = {p.name: (p.layer, p.is_bias) for p in parameters(graph)}
    assert {p.name: (p.layer, p.is_bias) for p in parameters(quantized)} == before
    assert all(p.is_bias or p.channel_axis is not None for p in parameters(quantized))


def test_the_head_stays_float_unless_asked_otherwise():
    _, graph, ports = prepared("lenet")
    quantized, report = quantize(graph, ports, samples(ports))
    assert names(quantized).count("linear") == 1 and names(quantized)[-1] == "linear"
    assert [(operator, "head" in reason) for _, operator, reason in report.kept] == [
        ("linear", True)
    ]
    quantized, report = quantize(graph, ports, samples(ports), head="int8")
    assert names(quantized)[-2:] == ["q_linear", "dequantize"] and not report.kept
    assert str(report) == ""


def test_activations_are_the_clamp():
    for name in ("lenet", "resnet", "tcn"):
        _, graph, ports = prepared(name)
        quantized, _ = quantize(graph, ports, samples(ports))
        assert not {"relu", "clamp", "q_table"} & set(names(quantized))


@pytest.mark.parametrize("op", [Relu(), Clamp(0.0, 6.0), Clamp(-0.5, 0.25), Clamp(0.5, 2.0)])
def test_what_is_limited_stays_limited(op):
    """Beyond the calibrated range, too."""
    net = Net(1, 3, 6, 5)
    y = net.add(op, net.conv(net.x, 4))
    graph, ports = arrange(net.done(y))
    graph = fold(graph)
    quantized, report = quantize(graph, ports, samples(ports))
    assert not report.kept
    z = outputs(quantized, ports, 100 * samples(ports, seed=1))[0]
    low, high = (0.0, math.inf) if isinstance(op, Relu) else (op.low, op.high)
    (scale,) = quantized.nodes[-1].inputs[0].type.quantization.scales
    assert z.min() >= low - 0.5 * scale and z.max() <= high + 0.5 * scale
    x = samples(ports)
    assert signal_to_noise(outputs(graph, ports, x)[0], outputs(quantized, ports, x)[0]) > 25


def test_a_layer_rounds_once():
    """From the int8 input and weights in real numbers to within half a step of the output."""
    net = Net(1, 3, 7, 5)
    graph, ports = arrange(net.done(net.relu(net.conv(net.x, 6, stride=2))))
    quantized, _ = quantize(graph, ports, samples(ports), ranges="min_max")
    x = samples(ports, seed=3)
    values = evaluate(quantized, {"x": ports.inputs[0].to_program(x)}, keep=True).values
    (first, conv, last) = quantized.nodes
    q = first.outputs[0].type.quantization
    real_x = q.scales[0] * (values[first.outputs[0]].astype(np.float64) - q.zero_point)
    tensors = []
    for value in conv.inputs[1:3]:
        q = value.type.quantization
        shape = [-1, *[1] * (value.type.rank - 1)]
        tensors.append(quantized.constants[value].array * np.reshape(q.scales, shape))
    op = Conv2d((2, 2), ((1, 1), (1, 1)), low=0.0)
    weight = tensors[0].transpose(1, 2, 3, 0)
    (expected,) = op.reference(np, real_x, weight, tensors[1])
    q = conv.outputs[0].type.quantization
    top = q.scales[0] * (127 - q.zero_point)
    error = np.abs(np.minimum(expected, top) - values[last.outputs[0]])
    assert error.max() <= 0.5001 * q.scales[0]


def test_what_has_no_kernel_stays_float_and_is_reported():
    net = Net(1, 3, 6, 6)
    y = net.conv(net.x, 4)
    y = net.first(net.add(LayerNorm(affine=False), net.last(y)))
    y = net.flatten(net.conv(y, 4))
    y = net.add(Softmax(), y)
    graph, ports = arrange(net.done(y))
    quantized, report = quantize(fold(graph), ports, samples(ports))
    kept = [(operator, reason) for _, operator, reason in report.kept]
    assert kept == [
        ("layer_norm", "there is no int8 kernel for it"),
        ("softmax", "there is no int8 kernel for it"),
    ]
    assert names(quantized).count("q_conv2d") == 2
    assert "layer_norm stays float32" in str(report)


def test_light_work_between_float_layers_stays_float():
    net = Net(1, 8)
    y = net.add(LayerNorm(affine=False), net.x)
    y = net.add(Relu(), y)
    quantized, report = int8(net, net.add(Softmax(), y))
    assert names(quantized) == ["layer_norm", "relu", "softmax"]
    assert ("relu", "its inputs are float32") in [entry[1:] for entry in report.kept]


def test_shared_parameters_stay_float():
    """The bias of an int8 layer belongs to one input scale; the step of training to one tensor."""
    net = Net(1, 6)
    weight, bias = net.parameter(6, 6, axes=(1, 0)), net.parameter(6)
    y = net.add(Linear(), net.add(Linear(), net.x, weight, bias), weight, bias)
    quantized, report = int8(net, net.linear(y, 3), head="int8")
    assert names(quantized).count("linear") == 2
    assert all("shared" in reason for *_, reason in report.kept) and len(report.kept) == 2


def test_scale_and_shift_alone_are_a_depthwise_convolution():
    for shape in ((1, 5, 4, 3), (1, 7, 3), (1, 3)):
        net = Net(*shape)
        scale, shift = net.parameter(3), net.parameter(3)
        quantized, report = int8(net, net.add(ChannelAffine(), net.x, scale, shift))
        assert "q_depthwise_conv2d" in names(quantized) and not report.kept
        x = net.draw(16, *shape[1:])
        y, z = (
            evaluate(graph, {"x": x}).outputs[0]
            for graph in (net.builder.finish([net.builder.nodes[-1].outputs[0]]), quantized)
        )
        assert signal_to_noise(y, z) > 30


def test_padding_has_to_be_in_range():
    wide = ((0, 0), (1, 1))
    for value, kept in ((0.0, []), (0.5, []), (1e6, ["pad"])):
        net = Net(1, 6)
        x = net.linear(net.x, 6)
        first = net.add(Pad(wide, value), x)
        quantized, report = int8(net, first, x, head="int8")
        assert [operator for _, operator, _ in report.kept if operator == "pad"] == kept
        padded = evaluate(quantized, {"x": net.draw(4, 6)}).outputs[0]
        np.testing.assert_allclose(padded[:, 0], value, atol=0.05)


def test_a_bias_that_overflows_is_noted():
    builder = Builder()
    x = builder.input("x", f32(1, 4))
    weight = builder.constant("w", np.full((4, 2), 1e-3, np.float32), Origin("w"))
    bias = builder.constant("b", np.array([0.5, 1e5], np.float32), Origin("b"))
    graph = builder.finish([builder.add(Linear(), x, weight, bias)])
    calibration = np.linspace(-1, 1, 80, dtype=np.float32).reshape(20, 4)
    quantized, report = quantize(graph, plain_ports(graph), calibration, head="int8")
    assert len(report.notes) == 1 and "channel 1 overflows 32 bits" in report.notes[0]
    z = evaluate(quantized, {"x": calibration}).outputs[0]
    np.testing.assert_allclose(z[:, 1], 1e5, rtol=0.01)


def test_values_without_readers_and_two_forms_of_one_value():
    """An input that is needed as float32 and as int8, and an output that is read as well."""
    net = Net(1, 6)
    y = net.linear(net.x, 6)
    z = net.add(Div(), net.add(Softmax(), net.x), net.add(Softmax(), y))
    quantized, _ = int8(net, y, net.linear(z, 3), z, head="int8")
    verify(quantized)
    assert names(quantized).count("quantize") == 2
    assert len(quantized.outputs) == 3


def image(net: Net, channels: int = 4) -> Value:
    """An int8 image [1,6,6,channels] with a reader of its own."""
    return net.last(net.conv(net.x, channels))


OPERATORS = {
    "sub": lambda n, x, y: n.add(Sub(), x, y),
    "mul": lambda n, x, y: n.add(Mul(), x, y),
    "gate": lambda n, x, y: n.add(Mul(), n.add(Reduce((1, 2), True, True), y), x),
    "sub_constant": lambda n, x, y: n.add(Sub(), x, n.builder.constant("c", n.draw(4))),
    "constant_sub": lambda n, x, y: n.add(Sub(), n.builder.constant("c", np.float32(2)), x),
    "div_constant": lambda n, x, y: n.add(Div(), x, n.builder.constant("c", 1 + n.draw(4) ** 2)),
    "mul_parameter": lambda n, x, y: n.add(Mul(), x, n.parameter(4)),
    "add_parameter": lambda n, x, y: n.add(Add(0.0, 3.0), x, n.parameter(4)),
    "add_image": lambda n, x, y: n.add(Add(), x, n.parameter(6, 6, 4)),
    "concat": lambda n, x, y: n.add(Concat(3), x, n.add(Relu(), y), x),
    "concat_alone": lambda n, x, y: n.add(Concat(3), n.add(Relu(), x), y),
    "relu_of_two": lambda n, x, y: n.add(Add(), x, n.add(Relu(), x)),
    "tanh": lambda n, x, y: n.add(Tanh(), x),
    "silu": lambda n, x, y: n.add(Silu(), x),
    "max_pool": lambda n, x, y: n.builder.add_multi(MaxPool2d((2, 2), (2, 2)), x)[0],
    "adaptive_max": lambda n, x, y: n.builder.add_multi(AdaptiveMaxPool2d((3, 2)), x)[0],
    "avg_pool": lambda n, x, y: n.add(AvgPool2d((3, 3), (2, 2), ((1, 1), (1, 1))), x),
    "whole_pool": lambda n, x, y: n.add(AvgPool2d((6, 6), (6, 6)), x),
    "adaptive_avg": lambda n, x, y: n.add(AdaptiveAvgPool2d((2, 3)), x),
    "adaptive_mean": lambda n, x, y: n.add(AdaptiveAvgPool2d((1, 1)), x),
    "mean_rows": lambda n, x, y: n.add(Reduce((1,), mean=True), x),
    "mean_all": lambda n, x, y: n.add(Reduce((1, 2, 3), mean=True, keep=True), x),
    "upsample": lambda n, x, y: n.add(UpsampleNearest2d((12, 9)), x),
    "transpose": lambda n, x, y: n.add(Transpose((0, 3, 1, 2)), x),
    "slice": lambda n, x, y: n.add(Slice(3, 1, 3), x),
}
"""Two int8 images to one."""


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_operators_on_int8(name: str):
    """Nothing stays float, and the result is that of the float operator up to its rounding."""
    net = Net(1, 3, 6, 6)
    x, y = image(net), image(net)
    result = OPERATORS[name](net, x, y)
    graph, ports = arrange(net.done(result))
    quantized, report = quantize(graph, ports, samples(ports), ranges="min_max")
    verify(quantized)
    assert not report.kept
    kinds = [value.type.dtype for node in quantized.nodes[1:-1] for value in node.outputs]
    assert DType.F32 not in kinds
    a, b = outputs(graph, ports, samples(ports))[0], outputs(quantized, ports, samples(ports))[0]
    assert signal_to_noise(a, b) > 28
    before, after = (
        {tensor.origin.name for tensor in g.constants.values() if tensor.origin}
        for g in (graph, quantized)
    )
    assert before == after


REFUSED = {
    "scalar": (lambda n, x, y: n.add(Mul(), x, n.parameter(1)), "one number for all channels"),
    "divisor": (lambda n, x, y: n.add(Div(), x, n.parameter(4)), "divides by a parameter"),
    "quotient": (lambda n, x, y: n.add(Div(), x, y), "no constant per channel"),
    "minus": (lambda n, x, y: n.add(Sub(), x, n.parameter(4)), "with a minus"),
    "broadcast": (
        lambda n, x, y: n.add(Add(), x, n.add(Reduce((1, 2), True, True), y)),
        "different shapes",
    ),
    "log": (lambda n, x, y: n.add(Log(), n.add(Abs(), x)), "not finite on the whole range"),
    "sum": (lambda n, x, y: n.add(Reduce((1, 2)), x), "sums over axes"),
    "channels": (lambda n, x, y: n.add(Reduce((3,), mean=True), x), "over the last axes"),
    "uneven": (lambda n, x, y: n.add(AdaptiveAvgPool2d((4, 4)), x), "differ in size"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_operators_that_stay_float_say_why(name: str):
    build, reason = REFUSED[name]
    net = Net(1, 3, 6, 6)
    x, y = image(net), image(net)
    graph, ports = arrange(net.done(build(net, x, y), net.first(x)))
    quantized, report = quantize(graph, ports, samples(ports), head="int8")
    verify(quantized)
    assert [reason in entry for *_, entry in report.kept] == [True]


def test_long_sums_stay_float():
    net = Net(1, 40000)
    quantized, report = int8(net, net.linear(net.x, 2), head="int8")
    assert names(quantized) == ["linear"] and "overflow 32 bits" in report.kept[0][2]


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (np.zeros((4, 3, 12, 9), np.float32), r"the array has shape \[4, 3, 12, 9\]"),
        (np.zeros((0, 3, 12, 8), np.float32), "no calibration data for x"),
        (np.full((4, 3, 12, 8), np.nan, np.float32), "input x cannot be quantised"),
        (np.full((4, 3, 12, 8), 1e38, np.float32), "%relu of model cannot be quantised"),
        ([np.zeros((4, 3, 12, 8), np.float32)] * 2, "1 inputs, there are calibration data for 2"),
    ],
    ids=["shape", "empty", "nan", "overflow", "inputs"],
)
def test_calibration_data_that_do_not_fit(calibration, message: str):
    _, graph, ports = prepared("lenet")
    with np.errstate(all="ignore"), pytest.raises(InputError, match=message):
        quantize(graph, ports, calibration)


def test_one_sample_and_unknown_options():
    _, graph, ports = prepared("lenet")
    one = samples(ports)[0]
    verify(quantize(graph, ports, one)[0])
    with pytest.raises(InputError, match="there are min_max, percentile, mse"):
        quantize(graph, ports, one, ranges="best")
    with pytest.raises(InputError, match="there are float32 and int8"):
        quantize(graph, ports, one, head="int4")


def test_the_result_depends_on_nothing_but_its_inputs():
    texts = []
    for _ in range(2):
        _, graph, ports = prepared("resnet")
        texts.append(str(quantize(graph, ports, samples(ports))[0]))
    assert texts[0] == texts[1]
