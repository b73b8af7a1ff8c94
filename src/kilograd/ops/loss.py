"""Losses: from the network's output and a target to one number, the mean over rows, and its
gradient.

A loss is the root of the backward pass: its own cotangent is one, so `gradient` does not read it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType


def _log_softmax(xp: Namespace, logits: Array) -> Array:
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


def _one_hot(xp: Namespace, target: Array, like: Array) -> Array:
    classes = xp.arange(like.shape[-1], dtype=target.dtype)
    return xp.astype(target[..., None] == classes, like.dtype)


@dataclass(frozen=True)
class CrossEntropy(Operator):
    """Inputs logits [..., K] and class indices i32 [...]; -log softmax(logits)[target], mean over
    rows.
    """

    name: ClassVar[str] = "cross_entropy"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """A scalar."""
        logits, target = types
        if target.shape != logits.shape[:-1] or target.dtype is not DType.I32:
            raise InputError(f"cross entropy: {logits} takes i32 targets, not {target}")
        return (logits.with_shape(),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        logits, target = arrays
        picked = xp.sum(_log_softmax(xp, logits) * _one_hot(xp, target, logits), axis=-1)
        return (-xp.mean(picked),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """(softmax(logits) - one_hot(target)) / rows."""
        logits = node.inputs[0]
        return [builder.add(CrossEntropyGrad(), *node.inputs, name=f"d_{logits.name}"), None]

    def cost(self, *types: TensorType) -> Cost:
        """Reads the logits."""
        return Cost(bytes_read=sum(t.bytes for t in types), bytes_written=4)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """Checks the labels, then one call."""
        logits, target = operands.inputs
        classes = logits.type.shape[-1]
        labels = (target, target.type.size, classes)
        arguments = (operands.outputs[0], logits, target, target.type.size, classes)
        return [
            Call("loss.h", "kg_labels_valid", labels, status_if_false="KG_ERROR_LABEL"),
            Call("loss.h", "kg_cross_entropy_f32", arguments),
        ]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """One row and several."""
        return [Example(cls(), inputs, 1e-6, (0,)) for inputs in _labelled()]


@dataclass(frozen=True)
class CrossEntropyGrad(Operator):
    """Inputs logits [..., K] and class indices; (softmax - one_hot) / rows."""

    name: ClassVar[str] = "cross_entropy_grad"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of the logits."""
        return (types[0],)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        logits, target = arrays
        rows = int(np.prod(tuple(target.shape)))
        difference = xp.exp(_log_softmax(xp, logits)) - _one_hot(xp, target, logits)
        return (difference / rows,)

    def cost(self, *types: TensorType) -> Cost:
        """Reads the logits, writes as much."""
        return Cost(bytes_read=sum(t.bytes for t in types), bytes_written=types[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        logits, target = operands.inputs
        arguments = (
            operands.outputs[0], logits, target, target.type.size, logits.type.shape[-1],
        )  # fmt: skip
        return [Call("loss.h", "kg_cross_entropy_grad_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """One row and several."""
        return [Example(cls(), inputs, 1e-6) for inputs in _labelled()]


def _labelled() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal((1, 10)).astype(np.float32), np.array([3], np.int32)),
        (
            (30 * rng.standard_normal((1, 2, 3, 5))).astype(np.float32),
            rng.integers(0, 5, (1, 2, 3)).astype(np.int32),
        ),
    ]


class _Mean(Operator):
    """What the losses over all elements share: prediction and target of one float32 type."""

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """A scalar."""
        prediction, target = types
        if prediction != target or prediction.dtype is not DType.F32:
            raise InputError(f"{self.name}: the prediction is {prediction}, the target {target}")
        return (prediction.with_shape(),)

    def cost(self, *types: TensorType) -> Cost:
        """Reads both."""
        return Cost(types[0].size, sum(t.bytes for t in types), 4)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        prediction, target = operands.inputs
        arguments = (operands.outputs[0], prediction, target, target.type.size)
        return [Call("loss.h", f"kg_{self.name}_f32", arguments)]


class _MeanGrad(_Mean):
    """Their gradients, in place over the prediction."""

    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of the prediction."""
        super().infer(*types)
        return (types[0],)

    def cost(self, *types: TensorType) -> Cost:
        """Reads both, writes as much as one."""
        return Cost(types[0].size, sum(t.bytes for t in types), types[0].bytes)


def _sigmoid(xp: Namespace, x: Array) -> Array:
    return 1 / (1 + xp.exp(-x))


@dataclass(frozen=True)
class MeanSquaredError(_Mean):
    """The mean over all elements of (prediction - target)², as PyTorch's `mse_loss`."""

    name: ClassVar[str] = "mean_squared_error"

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        difference = arrays[0] - arrays[1]
        return (xp.mean(difference * difference),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """2 / n (prediction - target)."""
        name = f"d_{node.inputs[0].name}"
        return [builder.add(MeanSquaredErrorGrad(), *node.inputs, name=name), None]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """A vector and a map."""
        return [Example(cls(), inputs, 1e-6, (0,)) for inputs in _regression()]


@dataclass(frozen=True)
class MeanSquaredErrorGrad(_MeanGrad):
    """2 / n (prediction - target), n the number of elements."""

    name: ClassVar[str] = "mean_squared_error_grad"

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        prediction, target = arrays
        return (2 / math.prod(prediction.shape) * (prediction - target),)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """A vector and a map."""
        return [Example(cls(), inputs, 1e-6) for inputs in _regression()]


@dataclass(frozen=True)
class BinaryCrossEntropyWithLogits(_Mean):
    """The mean over all elements of max(x, 0) - x t + log(1 + e^-|x|), x the logits and t the
    target in [0, 1], as PyTorch's function of this name.
    """

    name: ClassVar[str] = "binary_cross_entropy"

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        x, target = arrays
        positive = xp.where(x < 0, xp.zeros_like(x), x)
        return (xp.mean(positive - x * target + xp.log1p(xp.exp(-xp.abs(x)))),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """(1 / (1 + e^-x) - t) / n."""
        name = f"d_{node.inputs[0].name}"
        return [builder.add(BinaryCrossEntropyWithLogitsGrad(), *node.inputs, name=name), None]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """A vector and a map."""
        return [Example(cls(), inputs, 1e-6, (0,)) for inputs in _regression()]


@dataclass(frozen=True)
class BinaryCrossEntropyWithLogitsGrad(_MeanGrad):
    """(1 / (1 + e^-x) - t) / n, n the number of elements."""

    name: ClassVar[str] = "binary_cross_entropy_grad"

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        x, target = arrays
        return ((_sigmoid(xp, x) - target) / math.prod(x.shape),)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """A vector and a map."""
        return [Example(cls(), inputs, 1e-6) for inputs in _regression()]


def _regression() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [
        (
            (10 * rng.standard_normal(shape)).astype(np.float32),
            rng.random(shape).astype(np.float32),
        )
        for shape in ((1, 10), (1, 2, 3, 5))
    ]
