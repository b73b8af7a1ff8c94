"""Quantisation-aware steps are plain gradient descent in real units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

import kilograd as kg
from kilograd.ir import DType, Node, Value, evaluate, verify
from kilograd.options import SGD
from kilograd.transforms.differentiate import differentiate
from kilograd.transforms.select import select
from kilograd.update import All
from tests.agreement.networks import NETWORKS, Network
from tests.agreement.samples import draw_sample
from tests.quantised.cases import Case, build
from tests.quantised.fake_quant import FakeQuantised, real
from tests.quantised.test_gradients import TINY, prepare

STEPS = 100
RATES = {"mlp": 0.05, "lenet": 0.02, "tcn": 0.02}
CASES = [network for network in NETWORKS if network.name in RATES]


def samples(case: Case) -> list[Case]:
    """A few samples to learn from in turn."""
    model, example = case.network.build()
    drawn = [draw_sample(case.network.loss, model, example, seed) for seed in range(4)]
    return [replace(case, x=x, y=y) for x, y in drawn]


class Steps:
    """The training step of an int8 graph on integers that are not rounded, float64."""

    def __init__(self, case: Case) -> None:
        graph = case.graph
        optimizer = SGD(rounding="nearest", atomic=False)
        graphs = differentiate(graph, case.loss, select(graph, All()), optimizer, case.ports)
        self.graph = verify(graphs.train)
        self.gradients = graphs.gradients
        self.steps = {node.inputs[0]: node for node in self.graph.nodes if _is_step(node)}
        self.stored = {
            value: tensor.array.astype(np.float64) for value, tensor in graphs.train.state.items()
        }

    def scales(self, value: Value) -> np.ndarray:
        """What a step divides by, as the compiler has it in the program; 1 for float32."""
        node = self.steps[value]
        if node.op.name != "q_sgd_step":
            return np.array(1.0)
        shape = [-1 if i == node.op.axis else 1 for i in range(value.type.rank)]
        array = self.graph.constants[node.inputs[3]].array
        return array.astype(np.float64).reshape(shape)

    def reals(self) -> dict[Value, np.ndarray]:
        """What the stored numbers stand for."""
        return {value: self.scales(value) * array for value, array in self.stored.items()}

    def run(self, sample: Case, activations: Mapping[Value, np.ndarray], rate: float) -> None:
        """One step, from activations of the forward pass with these weights."""
        found = self._gradients(sample, activations)
        for value, gradient in found.items():
            exact = rate * gradient / self.scales(value)
            if value.type.dtype is not DType.F32:
                self._check_rounded(value, gradient, rate, exact)
            self.stored[value] = self.stored[value] - exact

    def _check_rounded(
        self, value: Value, gradient: np.ndarray, rate: float, exact: np.ndarray
    ) -> None:
        """The program's own step, from the integers nearby, is the exact one, rounded."""
        node = self.steps[value]
        whole = np.rint(self.stored[value]).astype(value.type.dtype.numpy)
        scales = self.graph.constants[node.inputs[3]].array
        (following,) = node.op.reference(
            np, whole, gradient.astype(np.float32), np.float32(rate), scales
        )
        limit = 127 if whole.dtype == np.int8 else 2**30
        moved = np.clip(whole - exact, -limit, limit) - following
        assert np.abs(moved).max() <= 0.5 + 1e-5 * (1 + np.abs(exact).max())

    def _gradients(
        self, sample: Case, activations: Mapping[Value, np.ndarray]
    ) -> dict[Value, np.ndarray]:
        """Those of the program, in float64, its forward results given."""
        graph, feeds = self.graph, sample.feeds()
        env = {value: feeds[value.name] for value in graph.inputs}
        env |= {value: _wide(tensor.array) for value, tensor in graph.constants.items()}
        env |= {**self.stored, **activations}
        for node in graph.nodes:
            if node.op.check or _is_step(node) or all(value in env for value in node.outputs):
                continue
            results = node.op.reference(np, *(env[value] for value in node.inputs))
            for value, result in zip(node.outputs, results, strict=True):
                env.setdefault(value, result)
        return {value: env[gradient] for value, gradient in self.gradients.items()}


def _is_step(node: Node) -> bool:
    return node.op.name in ("q_sgd_step", "sgd_step")


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def learn(case: Case, forward: FakeQuantised, parameters: Mapping[Value, np.ndarray]):
    """The activations with these parameters as the program stores them, and the loss."""
    with torch.no_grad():
        for value, leaf in forward.parameters.items():
            leaf.copy_(torch.tensor(parameters[value]))
        x = case.ports.inputs[0].to_program(case.x)
        loss = case.torch_loss(forward(x))
    result = {}
    for node in case.graph.nodes:
        value = node.outputs[0]
        q, array = value.type.quantization, forward.results[value].numpy()
        if q is not None:
            array = np.rint(array / q.scales[0] + q.zero_point).astype(np.int8)
        result[value] = array
    return result, float(loss)


@pytest.mark.parametrize("network", CASES, ids=str)
def test_a_hundred_exact_steps_are_float_descent(network: Network):
    """w <- w - r g / s with the compiler's gradients and scales, against W <- W - r g by PyTorch
    on the fake-quantised network; each rounds its own activations.
    """
    case = build(network)
    ours, theirs, forward = Steps(case), FakeQuantised(case.graph), FakeQuantised(case.graph)
    start = {value: leaf.detach().clone() for value, leaf in theirs.parameters.items()}
    rate = RATES[network.name]
    optimizer = torch.optim.SGD(theirs.parameters.values(), lr=rate)
    drawn, losses = samples(case), []
    for step in range(STEPS):
        sample = drawn[step % len(drawn)]
        activations, loss = learn(sample, forward, ours.reals())
        losses.append(loss)
        ours.run(sample, activations, rate)
        optimizer.zero_grad()
        x = sample.ports.inputs[0].to_program(sample.x)
        sample.torch_loss(theirs(x)).backward()
        optimizer.step()
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert set(ours.reals()) == set(theirs.parameters)
    for value, array in ours.reals().items():
        leaf = theirs.parameters[value].detach()
        moved = float((leaf - start[value]).abs().max())
        assert moved > 1e-3 * float(leaf.abs().max()), value
        assert np.abs(array - leaf.numpy()).max() <= 1e-5 * moved, value


class DeadChannel(torch.nn.Module):
    """A channel whose weights a folded batch norm left at 1e-9, and which its bias keeps alive."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 6, 3, padding=1)
        self.head = torch.nn.Linear(6, 4)
        with torch.no_grad():
            self.conv.weight[2] *= 1e-9 / self.conv.weight[2].abs().max()
            self.conv.bias[2] = 0.4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "residual"])
def test_a_dead_channel_moves_as_its_gradient_says(rounding: str):
    """Not by 1 / 1e-9 times it: its scale is that of its neighbours."""
    torch.manual_seed(0)
    model, rng, rate = DeadChannel(), np.random.default_rng(0), 0.1
    x = rng.standard_normal((16, 3, 6, 6)).astype(np.float32)
    program = kg.compile(
        model, x[:1], precision="int8", calibration=x, optimizer=SGD(rounding=rounding)
    )
    graph = program.train.graph
    loss = torch.nn.functional.cross_entropy(model(torch.tensor(x[:1])), torch.tensor([1]))
    loss.backward()
    (weight,) = (v for v, t in graph.state.items() if t.origin and t.origin.name == "conv.weight")
    scales = np.array(weight.type.quantization.scales)
    assert scales[2] >= np.median(np.delete(scales, 2)) / 2
    first, second = graph.inputs[0], graph.inputs[1]
    sample = evaluate_input(program, x[:1])
    feeds = {first.name: sample, second.name: np.array([1], np.int32)}
    feeds |= {"learning_rate": np.array(rate, np.float32), "step": np.array(0, np.uint32)}
    before = graph.state[weight].array
    after = evaluate(graph, feeds).state[weight]
    moved = real(after, weight).numpy() - real(before, weight).numpy()
    gradient = model.conv.weight.grad.permute(0, 2, 3, 1).numpy()
    assert np.abs(gradient[2]).max() > 1e-4
    largest = rate * np.abs(gradient[2]) * 1.2 + (1 + (rounding == "stochastic")) * scales[2]
    assert np.all(np.abs(moved[2]) <= largest)
    assert np.abs(before[2]).max() == 0


def evaluate_input(program: kg.Program, x: np.ndarray) -> np.ndarray:
    """The sample as the program takes it."""
    array = program.ports.inputs[0].to_program(x)
    type_ = program.train.graph.inputs[0].type
    q = type_.quantization
    if q is None:
        return array
    places = np.rint(array / q.scales[0]) + q.zero_point
    return np.clip(places, -128, 127).astype(np.int8)


@pytest.mark.parametrize("network", TINY.values(), ids=str)
def test_the_scales_of_the_released_networks_are_floored(network: Network):
    """Whose folded batch norm leaves channels without a weight."""
    prepare(network)
    graph = build(network).graph
    for value, tensor in graph.constants.items():
        if value.type.dtype is not DType.I8 or not tensor.origin:
            continue
        q = value.type.quantization
        scales = np.array(q.scales)
        assert scales.min() >= 0.999 * 2.0**-10 * scales.max()
