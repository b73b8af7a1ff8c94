"""The user's arrays and the program's: the same tensors in two layouts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kilograd.errors import InputError
from kilograd.ir import DType, Graph, Value
from kilograd.ops.embedding import Embedding


@dataclass(frozen=True)
class Port:
    """An input or output: `shape` is the user's (leading batch dimension of 1 included), and the
    program's array is transpose(user's array, axes).
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def program_shape(self) -> tuple[int, ...]:
        """The shape of the program's array."""
        return tuple(self.shape[axis] for axis in self.axes)

    def to_program(self, array: np.ndarray) -> np.ndarray:
        """The user's array, one sample (without the batch dimension) or a batch, for the program.

        Raises InputError where the shape is not `shape`.
        """
        return _transpose(self.name, array, self.shape, self.axes)

    def to_user(self, array: np.ndarray) -> np.ndarray:
        """The program's array, one sample (no batch dimension) or a batch, for the user."""
        inverse = tuple(self.axes.index(axis) for axis in range(len(self.axes)))
        return _transpose(self.name, array, self.program_shape, inverse)


def _transpose(
    name: str, array: np.ndarray, shape: tuple[int, ...], axes: tuple[int, ...]
) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim == len(shape) and array.shape[1:] == shape[1:]:
        return np.ascontiguousarray(np.transpose(array, axes))
    if array.shape == shape[1:]:
        single: np.ndarray = _transpose(name, array[np.newaxis], shape, axes)[0]
        return single
    raise InputError(
        f"{name}: the array has shape {list(array.shape)}; give one sample of shape "
        f"{list(shape[1:])} or a batch [N, {', '.join(map(str, shape[1:]))}]"
    )


@dataclass(frozen=True)
class Ports:
    """The ports of a graph, in the order of its inputs and outputs."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def id_count(graph: Graph) -> int | None:
    """The rows of the smallest table that is looked up by the graph's input; None where the input
    holds real numbers.
    """
    (source,) = graph.inputs[:1]
    if source.type.dtype is not DType.I32:
        return None
    moved, counts = {source}, []
    for node in graph.nodes:
        if isinstance(node.op, Embedding) and node.inputs[1] in moved:
            counts.append(node.inputs[0].type.shape[0])
        elif any(value in moved for value in node.inputs):
            moved.update(value for value in node.outputs if value.type.dtype is DType.I32)
    return min(counts, default=None)


def plain_ports(graph: Graph) -> Ports:
    """The ports of a graph whose arrays are laid out as the user's."""

    def port(value: Value) -> Port:
        return Port(value.name, value.type.shape, tuple(range(value.type.rank)))

    return Ports(tuple(map(port, graph.inputs)), tuple(map(port, graph.outputs)))
