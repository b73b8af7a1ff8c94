"""Quantised functions of one tensor by table: y = table[x + 128], computed beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.interpret import evaluate
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType
from kilograd.ops.q_types import HIGH, LOW, activation, check_activation, check_output
from kilograd.ops.unary import HardSwish, Sigmoid


@dataclass(frozen=True)
class QTable(Operator):
    """Inputs x i8, quantised as `source` (scale, zero point) says, and `table()` i8 [256]: the
    elementwise float operator `function` of x, quantised with `scale` and `zero_point`.
    """

    name: ClassVar[str] = "q_table"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    function: Operator
    scale: float
    zero_point: int
    source: tuple[float, int]

    def _points(self) -> np.ndarray:
        """What the 256 values of x stand for, [1, 256] float64."""
        every = np.arange(LOW, HIGH + 1, dtype=np.float64)
        return (every - self.source[1])[None, :] * self.source[0]

    def _places(self) -> np.ndarray:
        """The results in steps of the scale, not limited yet."""
        (y,) = self.function.reference(np, self._points())
        return np.asarray(np.rint(y[0] / self.scale) + self.zero_point)

    def table(self) -> np.ndarray:
        """The constant that is the second input, i8 [256]."""
        limited: np.ndarray = np.clip(self._places(), LOW, HIGH).astype(np.int8)
        return limited

    def slopes(self) -> np.ndarray:
        """The derivative at every x, f32 [256]; zero where the result saturates."""
        builder = Builder()
        x = builder.input("x", TensorType((1, 256)))
        builder.add(self.function, x)
        seed = builder.input("seed", TensorType((1, 256)))
        (d_x,) = self.function.gradient(builder, builder.nodes[-1], [seed], [True])
        assert d_x is not None
        feed = {"x": self._points(), "seed": np.ones((1, 256))}
        (slopes,) = evaluate(builder.finish([d_x]), feed).outputs
        places = self._places()
        return np.where((places < LOW) | (places > HIGH), 0, slopes[0]).astype(np.float32)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of x."""
        x, table = types
        check_output(self.name, self.scale, self.zero_point)
        if check_activation(self.name, x, self.source[1]) != self.source[0]:
            raise InputError(f"{self.name}: is for the scale {self.source[0]}, not that of {x}")
        if table.shape != (256,) or table.dtype is not DType.I8:
            raise InputError(f"{self.name}: takes a table i8[256], not {table}")
        return (activation(x.shape, self.scale, self.zero_point),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """`take` of the array API."""
        x, table = arrays
        places = xp.reshape(xp.astype(x, xp.int64) - LOW, (-1,))
        return (xp.reshape(xp.take(table, places, axis=0), x.shape),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """d_y times the derivative, from a table of its own."""
        (d_y,), x = cotangents, node.inputs[0]
        assert d_y is not None
        if not wanted[0]:
            return [None, None]
        slopes = builder.constant(f"{x.name}.slopes", self.slopes())
        return [builder.add(QTableGrad(), d_y, x, slopes, name=f"d_{x.name}"), None]

    def cost(self, *types: TensorType) -> Cost:
        """Two reads and a write an element."""
        return Cost(bytes_read=2 * types[0].bytes, bytes_written=types[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (x, table), (y,) = operands.inputs, operands.outputs
        return [Call("q_elementwise.h", "kg_table_s8", (y, x, table, y.type.size))]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every int8 through a sigmoid and a hard swish."""
        every = np.arange(-128, 128, dtype=np.int8).reshape(1, 16, 16)
        ops = [
            cls(Sigmoid(), 1 / 256, -128, (0.05, -3)),
            cls(HardSwish(), 0.03, -115, (0.06, 20)),
        ]
        return [
            Example(
                op, (every, op.table()), batched=(0,),
                types=(activation(every.shape, *op.source), TensorType((256,), DType.I8)),
            )
            for op in ops
        ]  # fmt: skip


@dataclass(frozen=True)
class QTableGrad(Operator):
    """Inputs d_y f32, x i8 of its shape and slopes f32 [256]: d_y slopes[x + 128]; in place over
    d_y.
    """

    name: ClassVar[str] = "q_table_grad"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The type of d_y."""
        d_y, x, slopes = types
        if d_y.shape != x.shape or x.dtype is not DType.I8 or slopes.shape != (256,):
            raise InputError(f"{self.name}: {d_y}, {x} and {slopes} do not go together")
        return (d_y,)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """`take` of the array API."""
        d_y, x, slopes = arrays
        places = xp.reshape(xp.astype(x, xp.int64) - LOW, (-1,))
        return (d_y * xp.reshape(xp.take(slopes, places, axis=0), x.shape),)

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        d_y, x, _ = types
        return Cost(bytes_read=2 * d_y.bytes + x.bytes, bytes_written=d_y.bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (d_y, x, slopes), (d_x,) = operands.inputs, operands.outputs
        arguments = (d_x, d_y, x, slopes, x.type.size)
        return [Call("q_elementwise.h", "kg_table_grad_s8", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every int8."""
        rng = np.random.default_rng(0)
        every = np.arange(-128, 128, dtype=np.int8).reshape(1, 16, 16)
        d_y = rng.standard_normal(every.shape).astype(np.float32)
        slopes = rng.standard_normal(256).astype(np.float32)
        return [Example(cls(), (d_y, every, slopes), 1e-6, batched=(0, 1))]
