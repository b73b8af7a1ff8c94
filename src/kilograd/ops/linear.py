"""Fully connected layers: y[..., o] = sum over i of x[..., i] w[i, o] + bias[o].

The weight may come in parts along its input channels (a trained slice and the frozen rest); the
kernel is called once a part and accumulates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import (
    Array,
    Call,
    Cost,
    Example,
    Namespace,
    Operands,
    Operator,
)
from kilograd.ir.types import TensorType
from kilograd.ops.reduce import Reduce
from kilograd.ops.shape import Slice


@dataclass(frozen=True)
class Linear(Operator):
    """Inputs x [..., I], weight parts [I_k, O] with sum of I_k = I, and bias [O] if `bias`.

    The result is limited to [low, high], which is how a following ReLU or ReLU6 is fused.
    """

    name: ClassVar[str] = "linear"
    channel_axis: ClassVar[int | None] = 0
    bias: bool = True
    parts: int = 1
    low: float = -math.inf
    high: float = math.inf

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Shape [..., O]."""
        x, weights = types[0], types[1 : 1 + self.parts]
        channels_in = sum(weight.shape[0] for weight in weights)
        channels_out = weights[0].shape[1]
        if x.shape[-1] != channels_in:
            raise InputError(
                f"linear: the input has {x.shape[-1]} features, the weight takes {channels_in}"
            )
        return (x.with_shape(*x.shape[:-1], channels_out),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The matrix product of the input and the joined parts."""
        weight = xp.concat(list(arrays[1 : 1 + self.parts]), axis=0)
        y = xp.matmul(arrays[0], weight)
        if self.bias:
            y = y + arrays[1 + self.parts]
        if self.low > -math.inf or self.high < math.inf:
            y = xp.clip(y, self.low, self.high)
        return (y,)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """d_x = d_y w^T, d_w = x^T d_y, d_bias = the sum of d_y over everything but its last
        axis.
        """
        (d_y,) = cotangents
        assert d_y is not None and self.low == -math.inf and self.high == math.inf
        x, weights = node.inputs[0], node.inputs[1 : 1 + self.parts]
        result: list[Value | None] = [None] * len(node.inputs)
        if wanted[0]:
            op = LinearGradInput(self.parts)
            result[0] = builder.add(op, d_y, *weights, name=f"d_{x.name}")
        begins = [0, *accumulate(weight.type.shape[0] for weight in weights)]
        for k, weight in enumerate(weights):
            if wanted[1 + k]:
                part = x
                if self.parts > 1:
                    part = builder.add(Slice(-1, begins[k], begins[k + 1]), x)
                result[1 + k] = builder.add(LinearGradWeight(), part, d_y, name=f"d_{weight.name}")
        if self.bias and wanted[-1]:
            axes = tuple(range(d_y.type.rank - 1))
            result[-1] = builder.add(Reduce(axes), d_y, name=f"d_{node.inputs[-1].name}")
        return result

    def cost(self, *types: TensorType) -> Cost:
        """One multiply-accumulate a weight and pixel."""
        (y,) = self.infer(*types)
        return Cost(
            macs=y.size * types[0].shape[-1],
            bytes_read=sum(t.bytes for t in types),
            bytes_written=y.bytes,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call a part; the later ones accumulate."""
        x, weights = operands.inputs[0], operands.inputs[1 : 1 + self.parts]
        (y,) = operands.outputs
        calls, begin = [], 0
        for k, weight in enumerate(weights):
            channels_in, channels_out = weight.type.shape
            last = k == self.parts - 1
            calls.append(
                Call(
                    "linear.h",
                    "kg_linear_f32",
                    (
                        y,
                        x.offset(begin),
                        weight,
                        operands.inputs[-1] if self.bias and k == 0 else "NULL",
                        k > 0,
                        x.type.size // x.type.shape[-1],
                        x.type.shape[-1],
                        channels_in,
                        channels_out,
                        self.low if last else -math.inf,
                        self.high if last else math.inf,
                    ),
                )
            )
            begin += channels_in
        return calls

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Vector, rows, parts, no bias, clamp."""
        rng = np.random.default_rng(0)

        def draw(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape).astype(np.float32)

        return [
            Example(cls(), (draw(1, 7), draw(7, 5), draw(5)), 1e-6, (0, 1, 2), (0,)),
            Example(
                cls(bias=False, parts=2), (draw(1, 3, 9), draw(4, 17), draw(5, 17)), 1e-6, (0, 1, 2)
            ),
            Example(cls(low=0.0, high=0.5), (draw(1, 33), draw(33, 10), draw(10)), 1e-6),
        ]


@dataclass(frozen=True)
class LinearGradInput(Operator):
    """Inputs d_y [..., O] and weight parts [I_k, O]; d_x [..., sum of I_k]."""

    name: ClassVar[str] = "linear_grad_input"
    parts: int = 1

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Shape [..., I]."""
        d_y, weights = types[0], types[1:]
        return (d_y.with_shape(*d_y.shape[:-1], sum(weight.shape[0] for weight in weights)),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """d_y times the transposed weight."""
        weight = xp.concat(list(arrays[1:]), axis=0)
        return (xp.matmul(arrays[0], xp.permute_dims(weight, (1, 0))),)

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        (d_x,) = self.infer(*types)
        return Cost(
            macs=d_x.size * types[0].shape[-1],
            bytes_read=sum(t.bytes for t in types),
            bytes_written=d_x.bytes,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call a part, each writing its own channels."""
        d_y, weights = operands.inputs[0], operands.inputs[1:]
        (d_x,) = operands.outputs
        calls, begin = [], 0
        for weight in weights:
            channels_in, channels_out = weight.type.shape
            pixels = d_y.type.size // channels_out
            total = d_x.type.shape[-1]
            arguments = (
                d_x.offset(begin), d_y, weight, pixels, total, channels_in, channels_out,
            )  # fmt: skip
            calls.append(Call("linear.h", "kg_linear_grad_input_f32", arguments))
            begin += channels_in
        return calls

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """One part and two."""
        rng = np.random.default_rng(1)

        def draw(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape).astype(np.float32)

        return [
            Example(cls(), (draw(1, 5), draw(7, 5)), 1e-6, batched=(0,)),
            Example(cls(2), (draw(1, 3, 6), draw(4, 6), draw(5, 6)), 1e-6, batched=(0,)),
        ]


@dataclass(frozen=True)
class LinearGradWeight(Operator):
    """Inputs x [..., I] and d_y [..., O]; d_w [I, O], summed over everything else."""

    name: ClassVar[str] = "linear_grad_weight"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Shape [I, O]."""
        x, d_y = types
        return (x.with_shape(x.shape[-1], d_y.shape[-1]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """x^T d_y over all rows."""
        x, d_y = (xp.reshape(array, (-1, array.shape[-1])) for array in arrays)
        return (xp.matmul(xp.permute_dims(x, (1, 0)), d_y),)

    def cost(self, *types: TensorType) -> Cost:
        """As many multiply-accumulates as forward."""
        x, d_y = types
        return Cost(
            macs=x.size * d_y.shape[-1],
            bytes_read=x.bytes + d_y.bytes,
            bytes_written=self.infer(*types)[0].bytes,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        x, d_y = operands.inputs
        channels_in, channels_out = x.type.shape[-1], d_y.type.shape[-1]
        arguments = (
            operands.outputs[0], x, d_y, x.type.size // channels_in, channels_in, channels_out,
        )  # fmt: skip
        return [Call("linear.h", "kg_linear_grad_weight_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """One row and several."""
        rng = np.random.default_rng(2)

        def draw(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape).astype(np.float32)

        return [
            Example(cls(), (draw(1, 7), draw(1, 5)), 1e-6),
            Example(cls(), (draw(1, 3, 6), draw(1, 3, 5)), 1e-6),
        ]
