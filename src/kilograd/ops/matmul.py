"""Products of two activations, as in attention: y[m, n] = sum over k of a[m, k] b[k, n]."""

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
from kilograd.ir.types import TensorType


@dataclass(frozen=True)
class BatchMatMul(Operator):
    """Inputs a [..., M, K] and b [..., K, N] with equal leading dimensions, the batch first.

    With `transpose_b`, b is [..., N, K]; with `transpose_a`, a is [..., K, M]; not both.
    """

    name: ClassVar[str] = "batch_matmul"
    transpose_b: bool = False
    transpose_a: bool = False

    def sizes(self, a: TensorType, b: TensorType) -> tuple[int, int, int, int]:
        """Number of matrices, M, K, N."""
        k, m = a.shape[-2:] if self.transpose_a else a.shape[:-3:-1]
        n = b.shape[-2] if self.transpose_b else b.shape[-1]
        return math.prod(a.shape[:-2]), m, k, n

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Shape [..., M, N]."""
        a, b = types
        if min(a.rank, b.rank) < 3 or a.shape[:-2] != b.shape[:-2]:
            raise InputError(f"matmul: {a} and {b} differ in their leading dimensions")
        _, m, k, n = self.sizes(a, b)
        if b.shape[-1 if self.transpose_b else -2] != k:
            raise InputError(f"matmul: the inner dimensions of {a} and {b} differ ({self})")
        if self.transpose_a and self.transpose_b:
            raise InputError(f"matmul: {a} and {b} cannot both be transposed; swap and transpose")
        return (a.with_shape(*a.shape[:-2], m, n),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """`matmul` of the array API."""
        a, b = arrays
        if self.transpose_a:
            a = xp.matrix_transpose(a)
        if self.transpose_b:
            b = xp.matrix_transpose(b)
        return (xp.matmul(a, b),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """Products of d_y with the other operand, one of them transposed."""
        (d_y,), (a, b) = cotangents, node.inputs
        assert d_y is not None
        plain, left, right = BatchMatMul(), BatchMatMul(transpose_a=True), BatchMatMul(True)
        if self.transpose_a:  # y = a' b: d_a = b d_y', d_b = a d_y
            products = ((right, b, d_y), (plain, a, d_y))
        elif self.transpose_b:  # y = a b': d_a = d_y b, d_b = d_y' a
            products = ((plain, d_y, b), (left, d_y, a))
        else:  # d_a = d_y b', d_b = a' d_y
            products = ((right, d_y, b), (left, a, d_y))
        return [
            builder.add(op, first, second, name=f"d_{x.name}") if want else None
            for (op, first, second), x, want in zip(products, (a, b), wanted, strict=True)
        ]

    def cost(self, *types: TensorType) -> Cost:
        """M K N multiply-accumulates a matrix."""
        return Cost(
            macs=math.prod(self.sizes(*types)),
            bytes_read=sum(t.bytes for t in types),
            bytes_written=self.infer(*types)[0].bytes,
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (a, b), (y,) = operands.inputs, operands.outputs
        batches, m, k, n = self.sizes(a.type, b.type)
        form = "_transposed_a" * self.transpose_a + "_transposed_b" * self.transpose_b
        return [Call("matmul.h", f"kg_matmul{form}_f32", (y, a, b, batches, m, k, n))]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Sizes beside and beyond the kernels' blocks, every transposition."""
        rng = np.random.default_rng(0)
        result = []
        for m, k, n in ((5, 11, 21), (4, 3, 16), (1, 1, 1)):
            for op in (cls(), cls(transpose_b=True), cls(transpose_a=True)):
                a_shape = (1, 2, k, m) if op.transpose_a else (1, 2, m, k)
                b_shape = (1, 2, n, k) if op.transpose_b else (1, 2, k, n)
                a, b = (rng.standard_normal(s).astype(np.float32) for s in (a_shape, b_shape))
                result.append(Example(op, (a, b), 1e-6, (0, 1), (0, 1)))
        return result
