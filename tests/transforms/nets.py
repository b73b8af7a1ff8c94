"""Forward graphs as front ends make them: the framework's layout, transposes around every layer."""

from __future__ import annotations

import numpy as np

from kilograd.ir import Builder, Graph, Origin, Permute, Value, evaluate, f32
from kilograd.ops.affine import ChannelAffine
from kilograd.ops.binary import Add, Mul
from kilograd.ops.conv import Conv2d
from kilograd.ops.conv_transpose import ConvTranspose2d
from kilograd.ops.depthwise import DepthwiseConv2d
from kilograd.ops.linear import Linear
from kilograd.ops.pool import MaxPool2d
from kilograd.ops.reduce import Reduce
from kilograd.ops.resize import UpsampleNearest2d
from kilograd.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from kilograd.ops.unary import Relu, Sigmoid
from kilograd.transforms.ports import Port, Ports


class Net:
    """A builder that speaks NCHW, and knows the user's parameters."""

    def __init__(self, *shape: int) -> None:
        self.rng = np.random.default_rng(0)
        self.builder = Builder()
        self.parameters: dict[str, np.ndarray] = {}
        self.x = self.builder.input("x", f32(*shape))

    def draw(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)

    def parameter(self, *shape: int, axes: tuple[int, ...] = ()) -> Value:
        """The user's parameter of this shape, stored as its transpose."""
        name = f"p{len(self.parameters)}"
        array = self.parameters[name] = self.draw(*shape)
        steps = (Permute(axes),) if axes else ()
        origin = Origin(name, steps)
        return self.builder.constant(name, origin.to_program(array), origin)

    def last(self, x: Value) -> Value:
        return self.builder.add(Transpose((0, 2, 3, 1)), x)

    def first(self, x: Value) -> Value:
        return self.builder.add(Transpose((0, 3, 1, 2)), x)

    def add(self, op, *inputs: Value) -> Value:
        return self.builder.add(op, *inputs)

    def conv(self, x: Value, out: int, kernel: int = 3, *, stride: int = 1, bias=True) -> Value:
        channels, pad = x.type.shape[1], kernel // 2
        weight = self.parameter(out, channels, kernel, kernel, axes=(2, 3, 1, 0))
        op = Conv2d((stride, stride), ((pad, pad), (pad, pad)), bias=bias)
        rest = [self.parameter(out)] if bias else []
        return self.first(self.add(op, self.last(x), weight, *rest))

    def depthwise(self, x: Value) -> Value:
        channels = x.type.shape[1]
        weight = self.parameter(channels, 3, 3, axes=(1, 2, 0))
        op = DepthwiseConv2d(padding=((1, 1), (1, 1)), bias=False)
        return self.first(self.add(op, self.last(x), weight))

    def conv_transpose(self, x: Value, out: int, groups: int) -> Value:
        channels = x.type.shape[1]
        weight = self.parameter(channels, out // groups, 2, 2, axes=(2, 3, 1, 0))
        op = ConvTranspose2d((2, 2), groups=groups, bias=False)
        return self.first(self.add(op, self.last(x), weight))

    def norm(self, x: Value) -> Value:
        """Batch norm: statistics that are no parameter, then scale and shift that are."""
        channels = x.type.shape[1]
        statistics = [
            self.builder.constant("statistic", 0.5 + np.abs(self.draw(channels))) for _ in "ms"
        ]
        y = self.add(ChannelAffine(), self.last(x), *statistics)
        y = self.add(ChannelAffine(), y, self.parameter(channels), self.parameter(channels))
        return self.first(y)

    def relu(self, x: Value) -> Value:
        return self.add(Relu(), x)

    def pool(self, x: Value) -> Value:
        return self.first(self.builder.add_multi(MaxPool2d((2, 2), (2, 2)), self.last(x))[0])

    def upsample(self, x: Value) -> Value:
        _, _, h, w = x.type.shape
        return self.first(self.add(UpsampleNearest2d((2 * h, 2 * w)), self.last(x)))

    def flatten(self, x: Value) -> Value:
        return self.add(Reshape((1, x.type.size)), x)

    def linear(self, x: Value, out: int) -> Value:
        weight = self.parameter(out, x.type.shape[-1], axes=(1, 0))
        return self.add(Linear(), x, weight, self.parameter(out))

    def mean(self, x: Value, keep: bool) -> Value:
        return self.add(Reduce((2, 3), mean=True, keep=keep), x)

    def done(self, *outputs: Value) -> Graph:
        return self.builder.finish(outputs)


def lenet() -> Net:
    net = Net(1, 3, 12, 8)
    x = net.pool(net.relu(net.conv(net.x, 5)))
    x = net.pool(net.relu(net.conv(x, 4)))
    net.graph = net.done(net.linear(net.relu(net.linear(net.flatten(x), 6)), 3))
    return net


def resnet() -> Net:
    net = Net(1, 3, 8, 8)
    x = net.relu(net.norm(net.conv(net.x, 4, bias=False)))
    y = net.norm(net.conv(net.relu(net.norm(net.conv(x, 6, stride=2))), 6))
    shortcut = net.norm(net.conv(x, 6, 1, stride=2))
    x = net.relu(net.add(Add(), y, shortcut))
    net.graph = net.done(net.linear(net.mean(x, keep=False), 3))
    return net


def unet() -> Net:
    net = Net(1, 2, 8, 8)
    a = net.relu(net.conv(net.x, 3))
    b = net.relu(net.norm(net.conv(net.pool(a), 4)))
    up = net.upsample(b)
    c = net.conv(net.add(Concat(1), up, a), 4)
    d = net.norm(net.conv_transpose(c, 6, groups=2))
    net.graph = net.done(d, net.conv(c, 1, 1))
    return net


def squeeze_excite(flat: bool) -> Net:
    net = Net(1, 3, 6, 6)
    x = net.relu(net.norm(net.depthwise(net.conv(net.x, 4))))
    if flat:
        s = net.linear(net.relu(net.linear(net.flatten(net.mean(x, keep=True)), 2)), 4)
        s = net.add(Reshape((1, 4, 1, 1)), net.add(Sigmoid(), s))
    else:
        s = net.add(Sigmoid(), net.conv(net.relu(net.conv(net.mean(x, True), 2, 1)), 4, 1))
    x = net.conv(net.add(Mul(), x, s), 5)
    net.graph = net.done(net.linear(net.flatten(net.mean(x, keep=True)), 3))
    return net


def tcn() -> Net:
    net = Net(1, 3, 16)
    x = net.x
    for _ in range(2):
        _, c, length = x.type.shape
        picture = net.add(Reshape((1, c, 1, length)), x)
        y = net.conv(picture, 4)
        x = net.relu(net.add(Reshape((1, 4, length)), y))
    net.graph = net.done(net.linear(net.flatten(x), 3))
    return net


def odds_and_ends() -> Net:
    """Constants in the user's layout, slices, padding, a shared constant, scalars."""
    net = Net(1, 4, 6, 5)
    mean = net.builder.constant("mean", net.draw(4, 1, 1))
    x = net.conv(net.add(Mul(), net.add(Add(), net.x, mean), mean), 4)
    x = net.add(Add(), x, net.builder.constant("half", np.float32(0.5)))
    x = net.add(Add(), x, net.parameter(1, 4, 6, 5))
    x = net.add(Add(), x, net.parameter(4, 1, 1))
    x = net.add(Slice(1, 1, 4), x)
    x = net.add(Pad(((0, 0), (0, 1), (1, 0), (0, 2)), 0.25), x)
    x = net.add(Slice(3, 0, 7, 2), net.add(Mul(), mean, x))
    net.graph = net.done(net.conv(x, 2))
    return net


NETS = {
    "lenet": lenet,
    "resnet": resnet,
    "unet": unet,
    "squeeze_excite_conv": lambda: squeeze_excite(False),
    "squeeze_excite_linear": lambda: squeeze_excite(True),
    "tcn": tcn,
    "odds_and_ends": odds_and_ends,
}


def plain_ports(graph: Graph) -> Ports:
    def port(value: Value) -> Port:
        return Port(value.name, value.type.shape, tuple(range(value.type.rank)))

    return Ports(tuple(map(port, graph.inputs)), tuple(map(port, graph.outputs)))


def run(graph: Graph, ports: Ports, batch: int = 2) -> list[np.ndarray]:
    """The outputs in the user's layout, for inputs that depend on their shape alone."""
    feed = {}
    for value, port in zip(graph.inputs, ports.inputs, strict=True):
        user = np.random.default_rng(1).standard_normal((batch, *port.shape[1:]))
        feed[value.name] = port.to_program(user.astype(np.float32))
    outputs = evaluate(graph, feed).outputs
    return [port.to_user(y) for port, y in zip(ports.outputs, outputs, strict=True)]
