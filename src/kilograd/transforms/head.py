"""Gives a network another number of classes: a last layer with new rows, or with chosen old ones.

Fresh rows are drawn as PyTorch draws those of a linear layer, uniformly from +-1 / sqrt(fan in).
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from kilograd.errors import InputError
from kilograd.ir import Builder, Graph, Node, Origin, Tensor, TensorType, Value
from kilograd.ir.origin import Permute
from kilograd.ir.origin import Reshape as ReshapeStep
from kilograd.ops.conv import Conv2d
from kilograd.ops.linear import Linear
from kilograd.ops.shape import Reshape
from kilograd.transforms.ports import Port, Ports

Classes = int | Sequence[int | None]
"""How many classes, all fresh; or for each class the old one whose row it starts with, or None."""


def with_classes(
    graph: Graph, ports: Ports, classes: Classes, *, seed: int = 0
) -> tuple[Graph, Ports]:
    """The float forward graph with a last layer for other classes, and its ports.

    Raises InputError where the last layer is not fully connected (or a convolution of one pixel),
    or a class does not exist.
    """
    node = _last_layer(graph)
    old = node.outputs[0].type.shape[-1]
    rows = _rows(classes, old)
    changed = {
        value: _chosen(graph.constants[value], rows, node.inputs[1].type, index == 1, seed)
        for index, value in enumerate(node.inputs)
        if index
    }
    builder = Builder()
    known: dict[Value, Value] = {
        value: builder.input(value.name, value.type) for value in graph.inputs
    }
    for value, tensor in graph.constants.items():
        tensor = changed.get(value, tensor)
        known[value] = builder.constant(value.name, tensor.array, tensor.origin)
    behind: set[Value] = set(node.outputs)
    for each in graph.nodes:
        op = each.op
        if isinstance(op, Reshape) and each.inputs[0] in behind:
            op = Reshape(tuple(len(rows) if n == old else n for n in op.shape))
        behind.update(each.outputs if any(value in behind for value in each.inputs) else ())
        results = builder.add_multi(
            op, *(known[v] for v in each.inputs), name=each.outputs[0].name, location=each.location
        )
        known.update(zip(each.outputs, results, strict=True))
    (port,), (output,) = ports.outputs, (known[value] for value in graph.outputs)
    return builder.finish([output]), replace(ports, outputs=(_port(port, output),))


def _last_layer(graph: Graph) -> Node:
    layers = [node for node in graph.nodes if isinstance(node.op, Conv2d | Linear)]
    last = layers[-1] if layers else None
    whole = last is not None and all(n == 1 for n in last.outputs[0].type.shape[:-1])
    if last is None or not whole or any(v not in graph.constants for v in last.inputs[1:]):
        raise InputError(
            "classes: the network's last layer is not fully connected, so there is no telling "
            "where its classes are made; change the model itself"
        )
    return last


def _rows(classes: Classes, old: int) -> list[int | None]:
    if isinstance(classes, numbers.Integral) and not isinstance(classes, bool):
        rows: list[int | None] = [None] * int(classes)
    elif isinstance(classes, Iterable) and not isinstance(classes, str | Mapping):
        rows = list(classes)
    else:
        raise InputError(
            f"classes={classes!r} is neither a number of classes nor a list that says for each "
            "class which old one it starts as"
        )
    if len(rows) < 2:
        raise InputError(f"classes={classes!r}: a classifier needs two classes or more")
    for row in rows:
        if row is not None and not _is_class(row, old):
            raise InputError(f"classes: {row!r} is none of the network's {old} classes (or None)")
    return rows


def _is_class(row: object, old: int) -> bool:
    whole = isinstance(row, numbers.Integral) and not isinstance(row, bool)
    return whole and 0 <= row < old  # type: ignore[operator]


def _chosen(
    tensor: Tensor, rows: list[int | None], weight: TensorType, is_weight: bool, seed: int
) -> Tensor:
    """The parameter, output channels last, with these channels of it; None is a fresh one."""
    fan_in = weight.size // weight.shape[-1]
    shape = (*tensor.array.shape[:-1], len(rows))
    rng = np.random.default_rng([seed, is_weight])
    array = rng.uniform(-(fan_in**-0.5), fan_in**-0.5, shape).astype(np.float32)
    for place, row in enumerate(rows):
        if row is not None:
            array[..., place] = tensor.array[..., row]
    steps = tensor.origin.steps if tensor.origin else ()
    if any(not isinstance(step, Permute | ReshapeStep) for step in steps):
        raise InputError(
            "classes: the last layer has a batch norm folded into it; change the model itself"
        )
    return Tensor(array, _resized(tensor, len(rows)))


def _resized(tensor: Tensor, count: int) -> Origin | None:
    """The origin of the parameter with another number of output channels, which come last in the
    program and first in the user's layout.
    """
    if tensor.origin is None:
        return None
    old, steps = tensor.array.shape[-1], []
    for step in tensor.origin.steps:
        if isinstance(step, ReshapeStep):
            step = ReshapeStep(*(_with_count(s, old, count) for s in (step.source, step.target)))
        steps.append(step)
    return replace(tensor.origin, steps=tuple(steps))


def _with_count(shape: tuple[int, ...], old: int, count: int) -> tuple[int, ...]:
    """The shape with the axis of output channels, its first or last, resized."""
    if shape[-1] == old:
        return (*shape[:-1], count)
    return (count, *shape[1:])


def _port(port: Port, output: Value) -> Port:
    inverse = np.argsort(port.axes)
    return replace(port, shape=tuple(output.type.shape[axis] for axis in inverse))
