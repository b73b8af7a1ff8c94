"""Softmax and its logarithm over the last axis; the gradients need only the output."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import TensorType


class _Rows(Operator):
    """A function of rows of the last axis: inputs and output of one shape, in place over any.

    The C kernel is `kg_<name>_f32(output, inputs..., rows, row length)`.
    """

    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)

    @abstractmethod
    def f(self, xp: Namespace, *arrays: Array) -> Array:
        """The function."""

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of the input."""
        if types[0].rank < 1 or any(t != types[0] for t in types):
            raise InputError(f"{self.name}: {', '.join(map(str, types))} have no rows in common")
        return (types[0],)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The function."""
        return (self.f(xp, *arrays),)

    def cost(self, *types: TensorType) -> Cost:
        """Each input once, though rows are passed over more than once."""
        return Cost(bytes_read=sum(t.bytes for t in types), bytes_written=types[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        type_ = operands.inputs[0].type
        length = type_.shape[-1]
        tensors = (*operands.outputs, *operands.inputs)
        sizes = (type_.size // length, length)
        return [Call("softmax.h", f"kg_{self.name}_f32", (*tensors, *sizes))]


def _samples(count: int) -> list[tuple[np.ndarray, ...]]:
    rng = np.random.default_rng(0)
    return [
        tuple(3 * rng.standard_normal((count, *shape)).astype(np.float32))
        for shape in ((1, 10), (1, 2, 3, 7), (1, 1))
    ]


@dataclass(frozen=True)
class Softmax(_Rows):
    """exp(x) over the sum of exp(x) along the last axis, in place."""

    name: ClassVar[str] = "softmax"

    def f(self, xp: Namespace, *arrays: Array) -> Array:
        """The definition, with the largest number subtracted first."""
        (x,) = arrays
        e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
        return e / xp.sum(e, axis=-1, keepdims=True)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """From the output."""
        (d_y,), (y,) = cotangents, node.outputs
        assert d_y is not None
        return [builder.add(SoftmaxGrad(), d_y, y, name=f"d_{node.inputs[0].name}")]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Rows of several lengths."""
        return [Example(cls(), inputs, 1e-6, (0,), (0,)) for inputs in _samples(1)]


@dataclass(frozen=True)
class SoftmaxGrad(_Rows):
    """Inputs d_y and the output y: y (d_y - sum of d_y y)."""

    name: ClassVar[str] = "softmax_grad"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (0, 1))

    def f(self, xp: Namespace, *arrays: Array) -> Array:
        """The definition."""
        d_y, y = arrays
        return y * (d_y - xp.sum(d_y * y, axis=-1, keepdims=True))

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Rows of several lengths."""
        return [Example(cls(), inputs, 1e-6, batched=(0, 1)) for inputs in _samples(2)]


@dataclass(frozen=True)
class LogSoftmax(_Rows):
    """The logarithm of Softmax, in place."""

    name: ClassVar[str] = "log_softmax"

    def f(self, xp: Namespace, *arrays: Array) -> Array:
        """The definition, with the largest number subtracted first."""
        (x,) = arrays
        shifted = x - xp.max(x, axis=-1, keepdims=True)
        return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """From the output."""
        (d_y,), (y,) = cotangents, node.outputs
        assert d_y is not None
        return [builder.add(LogSoftmaxGrad(), d_y, y, name=f"d_{node.inputs[0].name}")]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Rows of several lengths."""
        return [Example(cls(), inputs, 1e-6, (0,), (0,)) for inputs in _samples(1)]


@dataclass(frozen=True)
class LogSoftmaxGrad(_Rows):
    """Inputs d_y and the output y: d_y - exp(y) times the sum of d_y."""

    name: ClassVar[str] = "log_softmax_grad"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (0, 1))

    def f(self, xp: Namespace, *arrays: Array) -> Array:
        """The definition."""
        d_y, y = arrays
        return d_y - xp.exp(y) * xp.sum(d_y, axis=-1, keepdims=True)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Rows of several lengths."""
        samples = [(d_y, -np.abs(y)) for d_y, y in _samples(2)]
        return [Example(cls(), inputs, 1e-6, batched=(0, 1)) for inputs in samples]
