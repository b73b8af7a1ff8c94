"""Reverse-mode automatic differentiation at compile time, pruned to what is trained.

From a forward graph, a loss and the tensors to train, the training step: forward, loss, the
cotangents that reach something trained and no others, and the optimiser's step on each trained
tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from kilograd.errors import CompilerBug, InputError
from kilograd.ir import (
    Builder,
    DType,
    Graph,
    Location,
    Node,
    Operator,
    Origin,
    Tensor,
    TensorType,
    Value,
    eliminate_dead,
)
from kilograd.ops.binary import Add
from kilograd.ops.loss import BinaryCrossEntropyWithLogits, CrossEntropy, MeanSquaredError
from kilograd.ops.optimizer import FiniteCheck
from kilograd.ops.q_convert import Dequantize
from kilograd.ops.shape import Reshape, Transpose
from kilograd.ops.softmax import Softmax
from kilograd.options import SGD, Loss
from kilograd.transforms.ports import Port, Ports, plain_ports
from kilograd.transforms.select import Selection
from kilograd.transforms.steps import StepBuilder
from kilograd.transforms.view import View, degenerate


@dataclass(frozen=True)
class TrainingGraphs:
    """The two functions of a program. They share constants and state.

    `train` has the input of the model, then the target (absent for an autoencoder), the learning
    rate f32[] and the step u32[]; its only output is the loss. `gradients` names the value of
    dL/d(state) of each trained tensor.
    """

    predict: Graph
    train: Graph
    gradients: dict[Value, Value]

    @staticmethod
    def present(gradients: Mapping[Value, Value], train: Graph) -> dict[Value, Value]:
        """The gradients that are values of a later form of the training step; where an operator
        computes gradient and step in one there is none.
        """
        values = set(train.values())
        return {state: gradient for state, gradient in gradients.items() if gradient in values}


@dataclass(frozen=True)
class TrainingInputs:
    """The inputs of a training step by what they are, whatever the user's model calls them."""

    sample: Value
    target: Value | None
    learning_rate: Value
    step: Value

    @staticmethod
    def of(train: Graph) -> TrainingInputs:
        """Those of `TrainingGraphs.train`, which are in this order."""
        sample, *target, rate, step = train.inputs
        return TrainingInputs(sample, target[0] if target else None, rate, step)


def differentiate(
    graph: Graph,
    loss: Loss,
    selection: Selection,
    optimizer: SGD,
    ports: Ports | None = None,
) -> TrainingGraphs:
    """The prediction and the training step of a forward graph with one output.

    `ports` says how the user's arrays are laid out in the program (default: as they are). The
    target of a cross entropy is i32[1, ...], in the order of the user's axes behind the classes.
    """
    ports = ports or plain_ports(graph)
    predict, trained = _split_trained(graph, selection)
    builder = Builder(predict)
    loss_value = _add_loss(builder, predict, loss, ports)
    forward = builder.nodes[:]
    rate = builder.input("learning_rate", TensorType((), DType.F32))
    step = builder.input("step", TensorType((), DType.U32))
    builder.add_multi(FiniteCheck(), loss_value, location=Location("loss"))
    active = _depends_on(builder.nodes, set(trained))
    cotangents = _backward(builder, forward, loss_value, active)
    gradients: dict[Value, Value] = {}
    steps = StepBuilder(builder, optimizer, rate, step)
    for value in trained:
        if value in cotangents:
            gradients[value] = cotangents[value]
            steps.add(value, cotangents[value])
    updates = steps.finish()
    train = builder.finish([loss_value], updates)
    idle = [value for value in predict.state if value not in updates]
    return TrainingGraphs(_freeze(predict, idle), _freeze(train, idle), gradients)


def sensitivities(
    graph: Graph, loss: Loss, values: Sequence[Value], ports: Ports | None = None
) -> Graph:
    """The loss of a forward graph, and its derivative by each of `values`, in this order.

    `values` are constants or activations of the graph that reach its output. The inputs are the
    graph's, and the target as in `differentiate`. On a batch of N samples the loss is their mean,
    so derivatives by activations are those of a sample's loss divided by N.
    """
    ports = ports or plain_ports(graph)
    builder = Builder(graph)
    loss_value = _add_loss(builder, graph, loss, ports)
    forward = builder.nodes[:]
    active = _depends_on(forward, set(values))
    cotangents = _backward(builder, forward, loss_value, active)
    return builder.finish([loss_value, *(cotangents[value] for value in values)])


def _split_trained(graph: Graph, selection: Selection) -> tuple[Graph, list[Value]]:
    """Chosen constants become state; a partly trained weight becomes two operands of its
    readers.
    """
    constants = dict(graph.constants)
    state = dict(graph.state)
    parts: dict[Value, tuple[Value, Value]] = {}
    for value, count in selection.items():
        tensor = constants.pop(value)
        if count is None:
            state[value] = tensor
            continue
        readers = [node for node in graph.nodes if value in node.inputs]
        axis = readers[0].op.channel_axis
        if axis is None or tensor.origin is None:
            raise CompilerBug(f"{value} cannot be split")
        head, rest = _cut(value, tensor, axis, count)
        state[head[0]], constants[rest[0]] = head[1], rest[1]
        parts[value] = (head[0], rest[0])
    nodes = tuple(_with_parts(node, parts) for node in graph.nodes)
    split = replace(graph, nodes=nodes, constants=constants, state=state)
    return split, list(split.state)


def _cut(
    value: Value, tensor: Tensor, axis: int, count: int
) -> tuple[tuple[Value, Tensor], tuple[Value, Tensor]]:
    whole = value.type.shape[axis]
    origin = tensor.origin or Origin(value.name)
    result = []
    for suffix, start, stop in (("trained", 0, count), ("frozen", count, whole)):
        array = np.take(tensor.array, np.arange(start, stop), axis)
        part = Value(f"{value.name}.{suffix}", _cut_type(value.type, axis, start, stop))
        result.append((part, Tensor(array, origin.cut(axis, start, stop, whole))))
    return result[0], result[1]


def _cut_type(whole: TensorType, axis: int, start: int, stop: int) -> TensorType:
    """The type of [start, stop) along an axis; scales that lie on that axis are cut, too."""
    shape = (*whole.shape[:axis], stop - start, *whole.shape[axis + 1 :])
    meaning = whole.quantization
    if meaning is not None and meaning.axis == axis:
        meaning = replace(meaning, scales=meaning.scales[start:stop])
    return TensorType(shape, whole.dtype, meaning)


def _with_parts(node: Node, parts: dict[Value, tuple[Value, Value]]) -> Node:
    if not any(value in parts for value in node.inputs):
        return node
    inputs: list[Value] = []
    for value in node.inputs:
        inputs.extend(parts.get(value, (value,)))
    op: Operator = replace(cast(Any, node.op), parts=2)
    return replace(node, op=op, inputs=tuple(inputs))


def _add_loss(builder: Builder, graph: Graph, loss: Loss, ports: Ports) -> Value:
    """Append the loss of the only output; cross entropy looks through a final softmax."""
    (output,) = graph.outputs
    source, (before,), (after,) = graph.inputs[0], ports.inputs, ports.outputs
    location = Location("loss")
    with builder.at(location):
        if loss is Loss.CROSS_ENTROPY:
            logits = _logits(builder, graph, after)
            target = builder.input("target", TensorType(logits.type.shape[:-1], DType.I32))
            return builder.add(CrossEntropy(), logits, target, name="loss")
        if loss is Loss.AUTOENCODER:
            if before.shape != after.shape:
                raise InputError(
                    f"an autoencoder gives back its input: the model takes {list(before.shape)} "
                    f"and gives {list(after.shape)}; use loss='mse' with targets of your own"
                )
            axes = tuple(before.axes.index(axis) for axis in after.axes)
            if source.type.dtype is DType.I8:
                meaning = source.type.quantization
                assert meaning is not None
                source = builder.add(Dequantize(meaning.scales[0], meaning.zero_point), source)
            source = _transposed(builder, source, axes)
            return builder.add(MeanSquaredError(), output, source, name="loss")
        op = MeanSquaredError() if loss is Loss.MSE else BinaryCrossEntropyWithLogits()
        return builder.add(op, output, builder.input("target", output.type), name="loss")


def _logits(builder: Builder, graph: Graph, port: Port) -> Value:
    """The logits with the classes, axis 1 of the user's, behind the others in the user's order."""
    rank = len(port.shape)
    if rank < 2 or port.shape[1] < 2:
        raise InputError(
            f"cross_entropy takes logits [1, classes, ...] of two classes or more, the model gives "
            f"{list(port.shape)}; for one yes or no an output, use bce_with_logits"
        )
    value = logits_of_softmax(builder, graph, port) or graph.outputs[0]
    order = (0, *range(2, rank), 1)
    return _transposed(builder, value, tuple(port.axes.index(axis) for axis in order))


def logits_of_softmax(builder: Builder, graph: Graph, port: Port) -> Value | None:
    """What the softmax over the classes reads that ends the program, in the output's shape; None
    where it ends otherwise.
    """
    producers = graph.producers()
    node = producers.get(graph.outputs[0])
    if node is None or port.axes[-1] != 1:
        return None
    shape = node.outputs[0].type.shape
    if isinstance(node.op, Reshape) and node.inputs[0].type.shape[-1] == shape[-1]:
        node = producers.get(node.inputs[0])
    if node is None or not isinstance(node.op, Softmax):
        return None
    logits = node.inputs[0]
    return logits if logits.type.shape == shape else builder.add(Reshape(shape), logits)


def _transposed(builder: Builder, value: Value, axes: tuple[int, ...]) -> Value:
    """`value` transposed, at no cost where only axes of size 1 move."""
    if axes == tuple(range(len(axes))):
        return value
    if degenerate(View(value, axes)):
        return builder.add(Reshape(tuple(value.type.shape[axis] for axis in axes)), value)
    return builder.add(Transpose(axes), value)


def _depends_on(nodes: list[Node], roots: set[Value]) -> set[Value]:
    """The values that a change of one of the roots would change, roots included."""
    active = set(roots)
    for node in nodes:
        if any(value in active for value in node.inputs):
            active.update(node.outputs)
    return active


def _backward(
    builder: Builder, forward: list[Node], loss: Value, active: set[Value]
) -> dict[Value, Value]:
    """Build the cotangent of every active value that reaches the loss; several readers are
    summed. Cotangents are float32 and in real units, those of integers too.
    """
    one = builder.constant("one", np.array(1.0, np.float32))
    pending: dict[Value, list[Value]] = {loss: [one]}
    finished: dict[Value, Value] = {}

    def cotangent(value: Value) -> Value | None:
        terms = pending.pop(value, [])
        if not terms:
            return finished.get(value)
        total = terms[0]
        for term in terms[1:]:
            total = builder.add(Add(), total, term, name=f"d_{value.name}")
        finished[value] = total
        return total

    for node in reversed(forward):
        if not any(value in active for value in node.outputs):
            continue
        with builder.at(replace(node.location, backward=True)):
            seeds = [cotangent(value) for value in node.outputs]
            if all(seed is None for seed in seeds):
                continue
            wanted = [value in active for value in node.inputs]
            for value, d_value in zip(
                node.inputs, node.op.gradient(builder, node, seeds, wanted), strict=True
            ):
                if d_value is None:
                    continue
                if d_value.type != TensorType(value.type.shape):
                    raise CompilerBug(
                        f"{node.op}: the gradient of {value}: {value.type} is {d_value.type}"
                    )
                pending.setdefault(value, []).append(d_value)
    for value in list(pending):
        producer = next((node for node in forward if value in node.inputs), None)
        where = producer.location if producer else Location()
        with builder.at(replace(where, backward=True)):
            cotangent(value)
    return finished


def _freeze(graph: Graph, idle: list[Value]) -> Graph:
    """States that nothing updates are constants after all."""
    constants = dict(graph.constants) | {v: graph.state[v] for v in idle if v in graph.state}
    state = {value: data for value, data in graph.state.items() if value not in idle}
    return eliminate_dead(replace(graph, constants=constants, state=state), prune=True)
