"""Streamed chains: the smallest peak that cuts and rows allow, no more streaming than it takes, and
the bits of the plain program on every target.
"""

from __future__ import annotations

import itertools
from unittest import mock

import numpy as np
import pytest
import torch
from tests.agreement.networks import BIG_M7
from torch import nn

import kilograd as kg
from kilograd import compiler, zoo
from kilograd.ir import Builder, Graph, Tensor, Value, evaluate, verify
from kilograd.ops.q_conv import QConv2d, q_conv_example
from kilograd.ops.q_depthwise import QDepthwiseConv2d, q_depthwise_example
from kilograd.ops.q_elementwise import QAdd
from kilograd.ops.q_mask import PackMask
from kilograd.ops.q_stream import QStream
from kilograd.ops.q_types import activation
from kilograd.planning import order
from kilograd.planning.lifetimes import measure
from kilograd.planning.stream import narrow, plan_streams
from kilograd.transforms.stream import chains, join

ONE, TWO = (((k, k), (k, k)) for k in (1, 2))
PLAIN = ((0, 0), (0, 0))


class Layers:
    """A graph of quantised convolutions under construction."""

    def __init__(self, *shape: int) -> None:
        self.builder = Builder()
        self.x = self.builder.input("x", activation((1, *shape), 0.1, 3))

    def conv(self, x: Value, channels: int, kernel: int, stride: int = 1) -> Value:
        scale = 0.06 * (kernel * kernel * x.type.shape[3]) ** 0.5
        op = QConv2d(scale, 3, 3, (stride, stride), ONE if kernel == 3 else PLAIN)
        example = q_conv_example(0, op, x.type.shape, (channels, kernel, kernel, x.type.shape[3]))
        return self._add(example, x)

    def depthwise(self, x: Value, kernel: int, stride: int = 1) -> Value:
        padding = ONE if kernel == 3 else TWO
        op = QDepthwiseConv2d(0.06 * kernel, 3, 3, (stride, stride), padding)
        example = q_depthwise_example(0, op, x.type.shape, (kernel, kernel, x.type.shape[3]))
        return self._add(example, x)

    def _add(self, example, x: Value) -> Value:
        operands = []
        for array, type_ in zip(example.inputs[1:], example.types[1:], strict=True):
            operands.append(Value(self.builder.fresh("constant"), type_))
            self.builder.constants[operands[-1]] = Tensor(array)
        return self.builder.add(example.op, x, *operands)

    def sum(self, a: Value, b: Value) -> Value:
        sources = tuple((v.type.quantization.scales[0], 3) for v in (a, b))
        return self.builder.add(QAdd(0.5, 3, sources), a, b)

    def finish(self, *results: Value) -> Graph:
        return verify(self.builder.finish(list(results)))


def block(layers: Layers, x: Value, wide: int, narrow_: int, kernel: int, stride: int) -> Value:
    x = layers.depthwise(layers.conv(x, wide, 1), kernel, stride)
    return layers.conv(x, narrow_, 1)


def mobile() -> Graph:
    """A first convolution, a block that shrinks, a block with a sum, a convolution."""
    layers = Layers(24, 20, 3)
    x = block(layers, layers.conv(layers.x, 8, 3, 2), 24, 8, 5, 2)
    x = layers.sum(x, block(layers, x, 40, 8, 3, 1))
    return layers.finish(layers.conv(x, 4, 1))


def dense() -> Graph:
    layers = Layers(17, 16, 4)
    x = layers.x
    for channels, stride in ((16, 1), (6, 1), (24, 2), (5, 1)):
        x = layers.conv(x, channels, 3, stride)
    return layers.finish(x)


GRAPHS = pytest.mark.parametrize("make", [mobile, dense])


def cuts(chain: range):
    """Every way to cut a chain, each segment of several stages one row at a time."""
    inner = range(chain.start + 1, chain.stop)
    for count in range(len(inner) + 1):
        for places in itertools.combinations(inner, count):
            ends = (chain.start, *places, chain.stop)
            segments = [range(a, b) for a, b in itertools.pairwise(ends)]
            yield [(segment, 1) for segment in segments if len(segment) > 1]


@GRAPHS
def test_no_cut_has_a_smaller_peak(make):
    graph = make()
    every = [
        measure(join(graph, [c for part in choice for c in part])).peak_bytes
        for choice in itertools.product(*map(cuts, chains(graph)))
    ]
    assert measure(narrow(graph)).peak_bytes == min(every) < max(every)


@GRAPHS
def test_the_peak_is_reached_with_the_largest_bands(make):
    graph = make()
    least = measure(narrow(graph)).peak_bytes
    (planned,) = plan_streams((graph,))
    assert measure(verify(planned)).peak_bytes == least < measure(graph).peak_bytes
    streams = [node.op for node in planned.nodes if isinstance(node.op, QStream)]
    assert 0 < len(streams) <= len(chains(graph))


def test_a_hungrier_program_beside_it_leaves_larger_bands():
    graph = mobile()
    roomy = Layers(24, 20, 3)
    first, second = (roomy.conv(roomy.x, channels, 1) for channels in (4, 3))
    other = roomy.finish(first, second)  # two convolutions of one input: nothing to stream
    limit = measure(other).peak_bytes
    assert measure(narrow(graph)).peak_bytes < limit < measure(graph).peak_bytes
    (alone,), (planned, same) = plan_streams((graph,)), plan_streams((graph, other))
    assert same is other
    assert measure(planned).peak_bytes <= limit

    def bands(program: Graph) -> int:
        streams = [node for node in program.nodes if isinstance(node.op, QStream)]
        return sum(-(-node.outputs[0].type.shape[1] // node.op.rows) for node in streams)

    assert 0 < bands(planned) < bands(alone)


def test_nothing_is_streamed_where_the_peak_is_elsewhere():
    graph = mobile()
    layers = Layers(64, 64, 8)
    other = layers.finish(layers.conv(layers.x, 8, 1))
    assert plan_streams((graph, other))[0] is graph


def test_values_with_other_readers_end_a_chain():
    layers = Layers(8, 8, 4)
    a = layers.conv(layers.x, 8, 1)
    b = layers.depthwise(a, 3)
    bits = layers.builder.add(PackMask(), b)
    c = layers.conv(b, 4, 1)
    d = layers.conv(c, 4, 3)
    graph = layers.finish(d, bits, c)
    assert chains(graph) == [range(0, 2)]  # b has a mask, c is a result
    streamed = join(graph, [(range(0, 2), 3)])
    assert [node.op.name for node in verify(streamed).nodes] == [
        "q_stream", "pack_mask", "q_conv2d", "q_conv2d",
    ]  # fmt: skip


@GRAPHS
def test_the_meaning_stays(make):
    graph = make()
    x = np.random.default_rng(0).integers(-128, 128, graph.inputs[0].type.shape).astype(np.int8)
    (plain,) = evaluate(graph, {"x": x}).outputs
    for form in (narrow(graph), *plan_streams((graph,))):
        np.testing.assert_array_equal(evaluate(form, {"x": x}).outputs[0], plain)
    assert len(np.unique(plain)) > 20


class Bottleneck(nn.Module):
    """Expand, depthwise, project, with a sum where the shapes allow."""

    def __init__(self, narrow_: int, wide: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(narrow_, wide, 1), nn.ReLU6(),
            nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide), nn.ReLU6(),
            nn.Conv2d(wide, out, 1),
        )  # fmt: skip
        self.residual = stride == 1 and narrow_ == out

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


def inverted() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), Bottleneck(8, 32, 8, 3, 1),
        Bottleneck(8, 24, 12, 7, 2), Bottleneck(12, 36, 12, 5, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
    )  # fmt: skip


def separable() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 24, (5, 3), padding=(2, 1)), nn.ReLU(), nn.Conv2d(24, 6, 3), nn.ReLU(),
        nn.Conv2d(6, 6, 3, 1, 1, groups=6), nn.Conv2d(6, 20, 1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 8, 3, 2, 1), nn.Flatten(), nn.Linear(8 * 8 * 7, 3),
    )  # fmt: skip


NETWORKS = {
    "inverted": (inverted, (3, 40, 40), kg.update.last(2)),
    "separable": (separable, (2, 33, 29), kg.update.last(1)),
}
RP2040 = kg.devices.load("rp2040").model_copy(
    update={"name": "big-m0", "sram_bytes": BIG_M7.sram_bytes}
)
STEPS = 4


def program(name: str, device: kg.Device) -> kg.Program:
    make, shape, update = NETWORKS[name]
    torch.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((32, *shape)).astype(np.float32)
    return kg.compile(
        make(), images[:1], device=device, precision="int8", calibration=images, update=update,
        name=name,
    )  # fmt: skip


def learn(session: kg.Session, shape: tuple[int, ...]) -> list[bytes]:
    """Losses and predictions over several steps, then the state."""
    rng, result = np.random.default_rng(1), []
    for step in range(STEPS):
        x = rng.standard_normal(shape).astype(np.float32)
        result.append(np.float32(session.train_step(x, step % 3, lr=0.05)).tobytes())
        result.append(np.asarray(session.predict(x)).tobytes())
    return result + [np.asarray(array).tobytes() for array in session.raw_state().values()]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_bits_of_training_stay(name):
    shape = NETWORKS[name][1]
    with (
        mock.patch.object(order, "narrow", lambda graph: graph),
        mock.patch.object(compiler, "plan_streams", lambda graphs: graphs),
    ):
        plain = program(name, BIG_M7)
    streamed = program(name, BIG_M7)
    for schedule in (streamed.predict, streamed.train):
        assert any(isinstance(node.op, QStream) for node in schedule.graph.nodes)
    assert streamed.arena_bytes < plain.arena_bytes
    expected = learn(plain.on_host(optimize="-O1"), shape)
    assert len(set(expected[::2])) > STEPS // 2
    assert learn(streamed.on_host(poison=True, optimize="-O1"), shape) == expected
    pytest.importorskip("unicorn")
    assert learn(streamed.on_emulator(), shape) == expected
    assert learn(program(name, RP2040).on_emulator(), shape) == expected


@pytest.mark.parametrize("name, share", [("mcunet_5fps", 0.5), ("mbv2_w035", 0.32)])
def test_forward_peaks_of_published_networks(name, share):
    """At 128x128 with the head alone trained, the arena is a share of what plain operators need."""
    model, example = zoo.create(name, num_classes=10)
    images = np.random.default_rng(0).uniform(-1, 1, (2, *example.shape[1:])).astype(np.float32)
    with mock.patch.object(compiler, "plan_streams", wraps=plan_streams) as planner:
        small = kg.compile(
            model,
            example,
            precision="int8",
            calibration=images,
            update={"classifier.*": kg.update.full()},
        )
    plain = max(measure(graph).peak_bytes for graph in planner.call_args.args[0])
    assert small.arena_bytes < share * plain
    assert small.arena_bytes == max(
        schedule.lifetimes.peak_bytes for schedule in (small.predict, small.train)
    )
