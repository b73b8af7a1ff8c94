"""Lookups in a trained table, y[..., d] = table[ids[...], d], their gradient, and a step of SGD on
the rows that were read.

The gradient of a table has as many elements as the table, nearly all of them zero. `EmbeddingStep`
does without it: it subtracts the rows of d_y from the rows of the table one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from array_api_compat import device

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import Argument, Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType


def _draw(rows: int, ids: list[list[int]], width: int) -> tuple[np.ndarray, ...]:
    """A table, ids and a cotangent of the rows that they read."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((rows, width)).astype(np.float32)
    d_y = rng.standard_normal((*np.shape(ids), width)).astype(np.float32)
    return table, np.array(ids, np.int32), d_y


_CASES = (
    (-1, _draw(7, [[3, 0, 6, 3, 3]], 5)),
    (2, _draw(4, [[2, 1, 2, 0]], 9)),
    (-1, _draw(3, [[1]], 1)),
)
"""Padding, and a table, ids and d_y: repeated ids, padding, a single element."""


@dataclass(frozen=True)
class Embedding(Operator):
    """Inputs table [V, D] and ids i32 [...]: the rows [..., D].

    The row of the id `padding` (-1: of none) gets no gradient. An id outside [0, V) ends the call
    with KG_ERROR_INPUT; `known` says that the ids are constants, which need no check.
    """

    name: ClassVar[str] = "embedding"
    padding: int = -1
    known: bool = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of the ids, then the row length."""
        table, ids = types
        if table.rank != 2 or table.dtype is not DType.F32 or ids.dtype is not DType.I32:
            raise InputError(f"embedding: a table [rows, width] takes i32 ids, not {table}, {ids}")
        return (table.with_shape(*ids.shape, table.shape[1]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """`take` of the array API."""
        table, ids = arrays
        rows = xp.take(table, xp.reshape(ids, (-1,)), axis=0)
        return (xp.reshape(rows, (*ids.shape, table.shape[1])),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """The rows of d_y, summed where they came from."""
        (d_y,), (table, ids) = cotangents, node.inputs
        assert d_y is not None
        op = EmbeddingGrad(table.type.shape[0], self.padding)
        return [builder.add(op, d_y, ids, name=f"d_{table.name}") if wanted[0] else None, None]

    def cost(self, *types: TensorType) -> Cost:
        """A copy of the rows."""
        size = self.infer(*types)[0].bytes
        return Cost(bytes_read=size + types[1].bytes, bytes_written=size)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """Checks the ids, then one call."""
        (table, ids), (y,) = operands.inputs, operands.outputs
        rows, width = table.type.shape
        count = ids.type.size
        calls = [Call("embedding.h", "kg_embedding_f32", (y, table, ids, count, width))]
        if not self.known:
            arguments = (ids, count, rows)
            check = Call("embedding.h", "kg_ids_valid", arguments, status_if_false="KG_ERROR_INPUT")
            calls.insert(0, check)
        return calls

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Repeated ids, a padding that is not among them, ids that are known."""
        (_, first), (_, second), (_, third) = _CASES
        return [
            Example(cls(), first[:2], 0.0, (0,), (1,)),
            Example(cls(padding=3), second[:2], 0.0, (0,), (1,)),
            Example(cls(known=True), third[:2], 0.0, (0,), (1,)),
        ]


class _Rows(Operator):
    """What the operators that train a table share: they visit the rows of d_y in order."""

    padding: int

    def scatter(self, table: Array, d_y: Array, ids: Array, factor: Array | float) -> Array:
        """`factor` times the rows of d_y added to rows of `table`, which is overwritten."""
        width = table.shape[1]
        flat = d_y.reshape((-1, width))
        for n, row in enumerate(ids.reshape((-1,)).tolist()):
            if row != self.padding:
                table[row, :] += factor * flat[n, :]
        return table


@dataclass(frozen=True)
class EmbeddingGrad(_Rows):
    """Inputs d_y [..., D] and ids i32 [...]: d_table [rows, D], zero where no id points."""

    name: ClassVar[str] = "embedding_grad"
    rows: int
    padding: int = -1

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of the table."""
        d_y, _ = types
        return (d_y.with_shape(self.rows, d_y.shape[-1]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        d_y, ids = arrays
        zeros = xp.zeros((self.rows, d_y.shape[-1]), dtype=d_y.dtype, device=device(d_y))
        return (self.scatter(zeros, d_y, ids, 1.0),)

    def cost(self, *types: TensorType) -> Cost:
        """Writes the whole table, then adds rows to it."""
        written = self.infer(*types)[0].bytes
        return Cost(bytes_read=sum(t.bytes for t in types), bytes_written=written)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        d_y, ids = operands.inputs
        sizes = (ids.type.size, self.rows, d_y.type.shape[-1], self.padding)
        arguments = (operands.outputs[0], d_y, ids, *sizes)
        return [Call("embedding.h", "kg_embedding_grad_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Repeated ids, padding, a single element."""
        return [
            Example(cls(table.shape[0], padding), (d_y, ids), 1e-6)
            for padding, (table, ids, d_y) in _CASES
        ]


@dataclass(frozen=True)
class EmbeddingStep(_Rows):
    """Inputs table [V, D], d_y [..., D], ids i32 [...] and learning rate f32[]: the table after a
    step of plain SGD, in place: table[id] <- table[id] - rate d_y, position after position.
    """

    name: ClassVar[str] = "embedding_step"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    mutates: ClassVar[bool] = True
    scalars: ClassVar[tuple[int, ...]] = (3,)
    padding: int = -1

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The type of the table."""
        return (types[0],)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        table, d_y, ids, rate = arrays
        return (self.scatter(xp.asarray(table, copy=True), d_y, ids, -rate),)

    def cost(self, *types: TensorType) -> Cost:
        """One multiply-accumulate an element of d_y; the other rows are not touched."""
        _, d_y, ids, _ = types
        return Cost(d_y.size, 2 * d_y.bytes + ids.bytes, d_y.bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call; the output is the table's memory."""
        return [Call("embedding.h", "kg_embedding_step_f32", self._arguments(operands))]

    def _arguments(self, operands: Operands) -> tuple[Argument, ...]:
        table, d_y, ids, rate = operands.inputs
        return (table, d_y, ids, ids.type.size, table.type.shape[1], self.padding, rate)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Repeated ids, padding, a single element."""
        rate = np.array(0.1, np.float32)
        return [
            Example(cls(padding), (table, d_y, ids, rate), 1e-6)
            for padding, (table, ids, d_y) in _CASES
        ]


@dataclass(frozen=True)
class EmbeddingCheck(EmbeddingStep):
    """The inputs of EmbeddingStep; true when the step would leave every row finite."""

    name: ClassVar[str] = "embedding_check"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ()
    mutates: ClassVar[bool] = False
    check: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """No outputs."""
        return ()

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Whether the result of the step is finite."""
        return (bool(xp.all(xp.isfinite(super().reference(xp, *arrays)[0]))),)

    def cost(self, *types: TensorType) -> Cost:
        """Reads what the step reads."""
        _, d_y, ids, _ = types
        return Cost(bytes_read=2 * d_y.bytes + ids.bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call that may end the step."""
        return [
            Call(
                "embedding.h",
                "kg_embedding_step_finite_f32",
                self._arguments(operands),
                status_if_false="KG_ERROR_NONFINITE",
            )
        ]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """A step that is finite; NaN and infinity in a row that is read, and in the padding."""
        good = super().examples()
        result = list(good)
        for number in (np.nan, np.inf):
            for case in good[:2]:
                table, d_y, *rest = case.inputs
                for position in (0, 3):
                    bad = d_y.copy()
                    bad[0, position, 2] = number
                    result.append(Example(case.op, (table, bad, *rest), 1e-6))
        return result
