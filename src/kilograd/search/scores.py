"""Cheap predictors of what training a layer or a channel gains, from one pass over the data.

With a loss L_n of sample n and its mean L, for the weight w of a layer with input x and output a:

    first_order     sum of (dL/dw)^2: how much a small step of SGD on w lowers the loss, by its rate
    taylor          sum of |w dL/dw| (Molchanov et al., "Importance Estimation for Neural Network
                    Pruning", CVPR 2019, their first-order criterion)
    fisher          1/(2N) sum over n of (sum over pixels of a dL_n/da)^2, summed over the output
                    channels of the layer (Kwon et al., "TinyTrain", ICML 2024; Turner et al.,
                    "BlockSwap", ICLR 2020); for input channels the same of x, as read by this layer
    magnitude       the Euclidean norm of w by input channel, which needs no data: what the released
                    training of the Tiny Training Engine chooses channels by, there of int8 weights
                    (`weight_select_criteria: magnitude+` of mit-han-lab/tiny-training)

The graph is kilograd's own, differentiated at compile time and executed by the interpreter on
batches, so the predictors work for every front end, with the gradients that the device computes,
and need no PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from kilograd.ir import Graph, Node, TensorType, Value
from kilograd.ir.interpret import evaluate
from kilograd.ops.shape import Reshape
from kilograd.options import Loss
from kilograd.search.layers import Layers
from kilograd.search.task import Split
from kilograd.transforms.differentiate import sensitivities
from kilograd.transforms.ports import Ports

PREDICTORS = ("first_order", "taylor", "fisher", "magnitude")
BATCH = 16


@dataclass(frozen=True, eq=False)
class LayerScore:
    """Scores of one layer by predictor.

    `channels`: of its weight by input channel, [C]; `layer`: of its weight as a whole; `bias`: of
    its bias, 0 where it has none.
    """

    channels: Mapping[str, np.ndarray]
    layer: Mapping[str, float]
    bias: Mapping[str, float]


def score(
    graph: Graph,
    ports: Ports,
    loss: Loss,
    layers: Layers,
    split: Split,
    parameters: Mapping[str, np.ndarray] | None = None,
    batch: int = BATCH,
) -> dict[str, LayerScore]:
    """The scores of every layer but the head, by path, from one pass over `split`.

    `graph` is the float forward graph. `parameters` replace constants by their names in the graph,
    such as those of a head that has been trained.
    """
    split_graph, entries = _split_inputs(graph, layers)
    wanted: list[Value] = []
    for layer in layers.body:
        node = entries[layer.path]
        wanted += [node.inputs[0], node.outputs[0], layer.weight.value]
        if layer.bias is not None:
            wanted.append(layer.bias.value)
    wanted = list(dict.fromkeys(wanted))
    trained = with_parameters(split_graph, parameters or {})
    derivatives = sensitivities(trained, loss, wanted, ports)
    sums = _Sums(derivatives, wanted, layers, entries)
    x, y = ports.inputs[0].to_program(split[0]), split[1]
    source, target = (value.name for value in derivatives.inputs[:2])
    dtype = graph.inputs[0].type.dtype.numpy
    for start in range(0, len(x), batch):
        stop = start + batch
        feed = {source: x[start:stop].astype(dtype), target: y[start:stop].astype(np.int32)}
        sums.add(feed)
    return sums.result(len(x))


def with_parameters(graph: Graph, parameters: Mapping[str, np.ndarray]) -> Graph:
    """The graph with other constants, by their names in it."""
    known = {name: np.asarray(array, np.float32) for name, array in parameters.items()}
    constants = {
        value: replace(tensor, array=known.get(value.name, tensor.array))
        for value, tensor in graph.constants.items()
    }
    return replace(graph, constants=constants)


def _split_inputs(graph: Graph, layers: Layers) -> tuple[Graph, dict[str, Node]]:
    """The graph in which every layer reads an alias of its input of its own, and their nodes: the
    derivative by the alias is what this reader, and no other, contributes.
    """
    paths = {layer.weight.value: layer.path for layer in layers.body}
    nodes: list[Node] = []
    entries: dict[str, Node] = {}
    for node in graph.nodes:
        path = next((paths[value] for value in node.inputs if value in paths), None)
        if path is None or path in entries:
            nodes.append(node)
            continue
        x = node.inputs[0]
        alias = Value(f"{path}.input", TensorType(x.type.shape, x.type.dtype))
        nodes.append(Node(Reshape(x.type.shape), (x,), (alias,), node.location))
        entries[path] = replace(node, inputs=(alias, *node.inputs[1:]))
        nodes.append(entries[path])
    return replace(graph, nodes=tuple(nodes)), entries


class _Sums:
    """Sums over the samples so far."""

    def __init__(
        self, graph: Graph, wanted: list[Value], layers: Layers, entries: Mapping[str, Node]
    ) -> None:
        self._graph, self._wanted = graph, wanted
        self._layers, self._entries = layers, entries
        self._weights: dict[Value, np.ndarray] = {}
        self._fisher: dict[Value, np.ndarray] = {}

    def add(self, feed: Mapping[str, np.ndarray]) -> None:
        count = len(next(iter(feed.values())))
        result = evaluate(self._graph, feed, keep=True)
        derivatives = dict(zip(self._wanted, result.outputs[1:], strict=True))
        for layer in self._layers.body:
            node = self._entries[layer.path]
            for value in (node.inputs[0], node.outputs[0]):
                # a dL_n/da by channel; the loss of the batch is a mean.
                product = count * result.values[value] * derivatives[value]
                by_channel = product.reshape(count, -1, product.shape[-1]).sum(axis=1)
                self._put(self._fisher, value, np.square(by_channel).sum(axis=0))
            for parameter in (layer.weight, layer.bias):
                if parameter is not None:
                    value = parameter.value
                    self._put(self._weights, value, count * derivatives[value])

    @staticmethod
    def _put(sums: dict[Value, np.ndarray], value: Value, term: np.ndarray) -> None:
        term = np.asarray(term, np.float64)
        sums[value] = sums[value] + term if value in sums else term

    def result(self, count: int) -> dict[str, LayerScore]:
        """The scores after `count` samples."""
        scores = {}
        for layer in self._layers.body:
            node, weight = self._entries[layer.path], layer.weight.value
            axis = layer.weight.channel_axis
            assert axis is not None
            others = tuple(i for i in range(weight.type.rank) if i != axis)
            gradient = self._weights[weight] / count
            array = np.asarray(self._graph.constants[weight].array, np.float64)
            inputs, outputs = (
                self._fisher[value] / (2 * count) for value in (node.inputs[0], node.outputs[0])
            )
            channels = {
                "first_order": np.square(gradient).sum(axis=others),
                "taylor": np.abs(array * gradient).sum(axis=others),
                "fisher": _by_group(inputs, weight.type.shape[axis]),
                "magnitude": np.sqrt(np.square(array).sum(axis=others)),
            }
            whole = {name: float(values.sum()) for name, values in channels.items()}
            whole["fisher"] = float(outputs.sum())
            bias = dict.fromkeys(PREDICTORS, 0.0)
            if layer.bias is not None:
                gradient = self._weights[layer.bias.value] / count
                array = np.asarray(self._graph.constants[layer.bias.value].array, np.float64)
                bias = {
                    "first_order": float(np.square(gradient).sum()),
                    "taylor": float(np.abs(array * gradient).sum()),
                    "fisher": float(outputs.sum()),
                    "magnitude": float(np.sqrt(np.square(array).sum())),
                }
            scores[layer.path] = LayerScore(channels, whole, bias)
        return scores


def _by_group(values: np.ndarray, channels: int) -> np.ndarray:
    """Scores by input channel of the weight: a grouped convolution reads several of the tensor's
    channels with one of its own.
    """
    folded: np.ndarray = values.reshape(-1, channels)
    return np.asarray(folded.sum(axis=0))
