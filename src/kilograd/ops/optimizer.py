"""The optimiser's step on one tensor, and the checks that keep a bad step from being taken.

With gradient g, weight w, velocity v, momentum m, weight decay d and learning rate r:

    v <- m v + (g + d w),   w <- w - r v          (Sutskever et al., ICML 2013, as PyTorch's SGD
    writes it)

With accumulation over n samples, a <- a + g / n is kept instead, and the step is taken with a (then
zeroed) by the sample whose index `step` satisfies (step + 1) mod n = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.ir.operator import Argument, Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import TensorType


@dataclass(frozen=True)
class SgdStep(Operator):
    """Inputs w, gradient, learning rate f32[], step u32[], [velocity], [accumulator]; outputs the
    next of each.

    `momentum` not 0 asks for the velocity, `period` (samples accumulated) above 1 for the
    accumulator. Always runs in place.
    """

    name: ClassVar[str] = "sgd_step"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (1, 4), (2, 5))
    mutates: ClassVar[bool] = True
    scalars: ClassVar[tuple[int, ...]] = (2, 3)
    momentum: float = 0.0
    weight_decay: float = 0.0
    period: int = 1

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The types of w, the velocity and the accumulator."""
        return (types[0], *types[4:])

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The formulas of the module docstring."""
        w, gradient, rate, step, *extra = arrays
        result_extra = []
        accumulator = extra.pop() if self.period > 1 else None
        if accumulator is not None:
            gradient = accumulator + gradient / self.period
            if (int(step) + 1) % self.period:
                return (w, *extra, gradient)
        direction = gradient + self.weight_decay * w
        if self.momentum:
            direction = self.momentum * extra[0] + direction
            result_extra.append(direction)
        if accumulator is not None:
            result_extra.append(xp.zeros_like(accumulator))
        return (w - rate * direction, *result_extra)

    def cost(self, *types: TensorType) -> Cost:
        """Reads and writes everything once."""
        size = types[0].size
        return Cost(
            macs=size * (1 + bool(self.momentum) + bool(self.weight_decay)),
            bytes_read=sum(t.bytes for t in types),
            bytes_written=sum(t.bytes for t in self.infer(*types)),
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call; the outputs are the inputs' memory."""
        return [Call("optimizer.h", *self._call(operands, "kg_sgd"))]

    def _call(self, operands: Operands, prefix: str) -> tuple[str, tuple[Argument, ...]]:
        """Function and arguments; plain SGD has kernels of its own."""
        w, gradient, rate, step, *extra = operands.inputs
        if not extra and not self.weight_decay:
            suffix = prefix.removeprefix("kg_sgd")
            return f"kg_sgd_plain{suffix}_f32", (w, gradient, w.type.size, rate)
        accumulator = extra.pop() if self.period > 1 else "NULL"
        velocity = extra.pop() if extra else "NULL"
        arguments = (
            w, velocity, accumulator, gradient, w.type.size, rate, self.momentum,
            self.weight_decay, step, self.period,
        )  # fmt: skip
        return f"{prefix}_f32", arguments

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Plain, momentum and decay, accumulation before and at the end of a period."""
        rng = np.random.default_rng(0)
        w, g, v, a = rng.standard_normal((4, 3, 5)).astype(np.float32)

        def at(step: int) -> np.ndarray:
            return np.array(step, np.uint32)

        rate = np.array(0.1, np.float32)
        return [
            Example(cls(), (w, g, rate, at(0)), 1e-6),
            Example(cls(0.9, 1e-3), (w, g, rate, at(7), v), 1e-6),
            Example(cls(0.9, 0.0, 4), (w, g, rate, at(2), v, a), 1e-6),
            Example(cls(0.0, 0.0, 4), (w, g, rate, at(3), a), 1e-6),
        ]


@dataclass(frozen=True)
class SgdCheck(SgdStep):
    """The inputs of SgdStep; true when the step would leave every weight and velocity finite."""

    name: ClassVar[str] = "sgd_check"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ()
    mutates: ClassVar[bool] = False
    check: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """No outputs."""
        return ()

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Whether the results of the step are finite."""
        finite = True
        for array in super().reference(xp, *arrays):
            finite = finite and bool(xp.all(xp.isfinite(array)))
        return (finite,)

    def cost(self, *types: TensorType) -> Cost:
        """Reads what the step reads."""
        return Cost(bytes_read=sum(t.bytes for t in types))

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call that may end the step."""
        function, arguments = self._call(operands, "kg_sgd_finite")
        return [Call("optimizer.h", function, arguments, status_if_false="KG_ERROR_NONFINITE")]


@dataclass(frozen=True)
class Assign(Operator):
    """A copy of the input, for a state whose next value was prepared elsewhere."""

    name: ClassVar[str] = "assign"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The type of the input."""
        return types

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The input."""
        return arrays

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        return Cost(bytes_read=types[0].bytes, bytes_written=types[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (x,), (y,) = operands.inputs, operands.outputs
        return [Call("shape.h", "kg_copy", (y, x, x.type.bytes))]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Bytes and words."""
        return [Example(cls(), (np.arange(7, dtype=dtype),)) for dtype in (np.int8, np.float32)]


@dataclass(frozen=True)
class FiniteCheck(Operator):
    """True when every element of the input is finite."""

    name: ClassVar[str] = "finite_check"
    check: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """No outputs."""
        return ()

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """`isfinite` of the array API."""
        return (bool(xp.all(xp.isfinite(arrays[0]))),)

    def cost(self, *types: TensorType) -> Cost:
        """Reads the input."""
        return Cost(bytes_read=types[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call that may end the step."""
        (x,) = operands.inputs
        arguments = (x, x.type.size)
        return [
            Call(
                "optimizer.h", "kg_all_finite_f32", arguments, status_if_false="KG_ERROR_NONFINITE"
            )
        ]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Finite, NaN, infinity."""
        good = np.array([1.0, -2.0, 3e38], np.float32)
        return [
            Example(cls(), (np.append(good, np.float32(x)),))
            for x in (0.0, np.nan, np.inf, -np.inf)
        ]
