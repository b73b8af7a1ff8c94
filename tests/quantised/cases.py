"""Zoo networks in int8 as the tests use them, a sample and its loss for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from kilograd import frontend
from kilograd.ir import Graph, Value, eliminate_dead, evaluate, verify
from kilograd.options import SGD, Loss
from kilograd.transforms.differentiate import differentiate
from kilograd.transforms.fold import fold
from kilograd.transforms.fuse import fuse
from kilograd.transforms.layout import arrange
from kilograd.transforms.masks import pack_masks
from kilograd.transforms.ports import Ports
from kilograd.transforms.quantize import quantize
from kilograd.transforms.select import Selection
from tests.agreement.networks import Network
from tests.agreement.samples import draw_sample, torch_loss
from tests.quantised.fake_quant import FakeQuantised


@dataclass(frozen=True, eq=False)
class Case:
    """An int8 forward graph, one sample in the user's layout, and the parameters by their names."""

    network: Network
    graph: Graph
    ports: Ports
    x: np.ndarray
    y: Any

    @property
    def loss(self) -> Loss:
        return Loss.of(self.network.loss)

    @property
    def parameters(self) -> dict[str, Value]:
        return {t.origin.name: value for value, t in self.graph.constants.items() if t.origin}

    def feeds(self) -> dict[str, np.ndarray]:
        """What the training step reads, by name of its inputs."""
        rank = len(self.ports.outputs[0].shape)
        result = {
            self.graph.inputs[0].name: self.ports.inputs[0].to_program(self.x),
            "learning_rate": np.array(0.0, np.float32),
            "step": np.array(0, np.uint32),
        }
        if self.loss is Loss.CROSS_ENTROPY:
            result["target"] = np.full((1,) * (rank - 1), self.y, np.int32)
        elif self.loss is not Loss.AUTOENCODER:
            result["target"] = self.ports.outputs[0].to_program(self.y)
        return result

    def torch_loss(self, output: torch.Tensor) -> torch.Tensor:
        """The loss of an output in the program's layout, as PyTorch computes it."""
        axes = self.ports.outputs[0].axes
        user = output.permute([axes.index(axis) for axis in range(len(axes))])
        return torch_loss(self.network.loss, user, self.y, self.x)


@cache
def build(network: Network, head: str = "float32") -> Case:
    """The network in int8, calibrated on random samples, and one of its kind to learn from."""
    model, example = network.build()
    graph, ports = arrange(frontend.load(model, example).graph)
    rng = np.random.default_rng(7)
    calibration = rng.standard_normal((8, *example.shape[1:])).astype(np.float32)
    graph, _ = quantize(fold(graph), ports, calibration, head=head)
    return Case(network, verify(graph), ports, *draw_sample(network.loss, model, example, 11))


@cache
def expected(
    network: Network, head: str = "float32"
) -> tuple[dict[str, np.ndarray], FakeQuantised]:
    """The gradients of the fake-quantised network with respect to all parameters, by name."""
    case = build(network, head)
    x = case.ports.inputs[0].to_program(case.x)
    integers = evaluate(case.graph, {case.graph.inputs[0].name: x}, keep=True).values
    model = FakeQuantised(case.graph, integers)
    case.torch_loss(model(x)).backward()
    names = {value: name for name, value in case.parameters.items()}
    gradients = {names[value]: leaf.grad.numpy() for value, leaf in model.parameters.items()}
    return gradients, model


@dataclass(frozen=True, eq=False)
class Gradients:
    """dL/d(real value) of the trained tensors by the user's name, each with the slice of the whole
    that it is, and the loss.
    """

    loss: float
    of: Mapping[str, tuple[tuple[slice, ...], np.ndarray]]


def gradients(case: Case, selection: Selection) -> Gradients:
    """Those of the compiler's own training step, masks kept as bits, run by the interpreter."""
    graphs = differentiate(case.graph, case.loss, selection, SGD(), case.ports)
    wanted = graphs.gradients
    train = replace(graphs.train, outputs=(*graphs.train.outputs, *wanted.values()), updates={})
    feeds = case.feeds()
    train = pack_masks(fuse(eliminate_dead(train)))
    loss, *arrays = evaluate(verify(train), feeds).outputs
    result = {}
    for value, array in zip(wanted, arrays, strict=True):
        origin = graphs.train.state[value].origin
        assert origin is not None and array.dtype == np.float32
        index = [slice(None)] * array.ndim
        if origin.part is not None:
            index[origin.part.axis] = slice(origin.part.start, origin.part.stop)
        result[origin.name] = (tuple(index), array)
    return Gradients(float(loss), result)
