"""Reverse-mode automatic differentiation at compile time, pruned to what is trained.

From a forward graph, a loss and the tensors to train, the training step: forward, loss, the
cotangents that reach something trained and no others, and the optimiser's step on each trained
tensor.
"""

from __future__ import annotations

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
from kilograd.ops.optimizer import FiniteCheck, SgdCheck, SgdStep
from kilograd.ops.shape import Reshape, Transpose
from kilograd.ops.softmax import Softmax
from kilograd.options import SGD, Loss
from kilograd.transforms.ports import Port, Ports, plain_ports
from kilograd.transforms.select import Selection
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
    updates: dict[Value, Value] = {}
    gradients: dict[Value, Value] = {}
    for value in trained:
        if value in cotangents:
            gradients[value] = cotangents[value]
            _add_step(builder, optimizer, value, cotangents[value], rate, step, updates)
    train = builder.finish([loss_value], updates)
    idle = [value for value in predict.state if value not in updates]
    return TrainingGraphs(_freeze(predict, idle), _freeze(train, idle), gradients)


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
        part = Value(f"{value.name}.{suffix}", value.type.with_shape(*array.shape))
        result.append((part, Tensor(array, origin.cut(axis, start, stop, whole))))
    return result[0], result[1]


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
    summed.
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
                if d_value.type != value.type:
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


def _add_step(
    builder: Builder,
    optimizer: SGD,
    weight: Value,
    gradient: Value,
    rate: Value,
    step: Value,
    updates: dict[Value, Value],
) -> None:
    zeros = np.zeros(weight.type.shape, np.float32)
    extra: list[Value] = []
    if optimizer.momentum:
        extra.append(builder.new_state(f"{weight.name}.velocity", zeros))
    if optimizer.accumulate > 1:
        extra.append(builder.new_state(f"{weight.name}.accumulator", zeros))
    settings = (optimizer.momentum, optimizer.weight_decay, optimizer.accumulate)
    location = Location(f"update of {weight.name}")
    operands = (weight, gradient, rate, step, *extra)
    builder.add_multi(SgdCheck(*settings), *operands, location=location)
    results = builder.add_multi(
        SgdStep(*settings), *operands, name=f"{weight.name}.next", location=location
    )
    updates.update(zip((weight, *extra), results, strict=True))


def _freeze(graph: Graph, idle: list[Value]) -> Graph:
    """States that nothing updates are constants after all."""
    constants = dict(graph.constants) | {v: graph.state[v] for v in idle if v in graph.state}
    state = {value: data for value, data in graph.state.items() if value not in idle}
    return eliminate_dead(replace(graph, constants=constants, state=state), prune=True)
