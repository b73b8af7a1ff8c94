"""The optimiser's step on integer weights, in real units.

With a direction d = dL/dW (momentum, decay and accumulation included), learning rate r and scale s:

    w <- saturate(w - round(r d / s))

which moves the real weight W = s w by r d, up to rounding: the quantisation-aware scaling of Lin et
al., "On-Device Training Under 256KB Memory", NeurIPS 2022, where gradients of integers are divided
by s². Without it (`aware=False`) the integers move by r dL/dw = r s d.

Rounding is to "nearest", "stochastic" (floor(x + u), u uniform, so that the mean is exact) or
"residual" (an int8 remainder beside each weight keeps what rounding left, in 1/256 of a step).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.operator import Argument, Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, Quantization, TensorType
from kilograd.ops.copies import around
from kilograd.ops.q_types import MAX_BIAS
from kilograd.ops.random import SEED, uniform

WEIGHT_LIMIT = 127
LARGEST_STEP = 256.0
"""No weight moves further in one step than its whole range."""


def _scales_along(xp: Namespace, scales: Array, w: TensorType | Array, axis: int) -> Array:
    """The scales [C], shaped to broadcast against a tensor whose channels lie on `axis`."""
    shape = [1] * len(w.shape)
    shape[axis] = -1
    return xp.reshape(xp.astype(scales, xp.float32), tuple(shape))


def _wide(xp: Namespace, array: Array) -> Array:
    return xp.astype(xp.astype(array, xp.float32), xp.float64)


def _fused(xp: Namespace, a: Array | float, b: Array, c: Array) -> Array:
    """a b + c of float32 numbers, rounded to float32 once, as KG_FMA."""
    factor = float(np.float32(a)) if isinstance(a, float) else _wide(xp, a)
    return xp.astype(factor * _wide(xp, b) + _wide(xp, c), xp.float32)


def _check(name: str, w: TensorType, gradient: TensorType, scales: TensorType, axis: int) -> None:
    channels = w.shape[axis]
    if w.dtype not in (DType.I8, DType.I32) or gradient != TensorType(w.shape):
        raise InputError(f"{name}: takes i8 or i32 and f32 of one shape, not {w} and {gradient}")
    if scales != TensorType((channels,)):
        raise InputError(f"{name}: the scales are f32[{channels}], not {scales}")


@dataclass(frozen=True)
class QSgdStep(Operator):
    """Inputs w i8 or i32, direction f32, learning rate f32[], scales f32[C] of the channels on
    `axis`, [seed u32[1]] where stochastic, [remainder i8] where residual and w is i8; outputs the
    next w and remainder.

    A bias i32 has scales so small that "residual" rounds it to nearest.
    """

    name: ClassVar[str] = "q_sgd_step"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (1, 4))
    scalars: ClassVar[tuple[int, ...]] = (2,)
    axis: int = 0
    rounding: str = "stochastic"
    salt: int = 0
    aware: bool = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The types of w and the remainder."""
        w, direction, _, scales, *extra = types
        _check(self.name, w, direction, scales, self.axis)
        wanted = self.extra(w)
        if tuple(extra) != wanted:
            raise InputError(f"{self.name}: rounding {self.rounding} takes {wanted}, not {extra}")
        return (w, *extra) if self.keeps_remainder(w) else (w,)

    def keeps_remainder(self, w: TensorType) -> bool:
        """True when w has a remainder beside it."""
        return self.rounding == "residual" and w.dtype is DType.I8

    def extra(self, w: TensorType) -> tuple[TensorType, ...]:
        """The types of the operands that the rounding asks for."""
        if self.rounding == "stochastic":
            return (SEED,)
        return (TensorType(w.shape, DType.I8),) if self.keeps_remainder(w) else ()

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The formulas of the module docstring, in float32."""
        w, direction, rate, scales, *extra = arrays
        is_weight = w.dtype == xp.int8
        limit, largest = (WEIGHT_LIMIT, LARGEST_STEP) if is_weight else (MAX_BIAS, float(MAX_BIAS))
        scale = _scales_along(xp, scales, w, self.axis)
        rate32 = xp.astype(xp.asarray(rate), xp.float32)
        factor = rate32 / scale if self.aware else rate32 * scale
        whole = xp.astype(w, xp.int64)
        if extra and self.rounding == "residual":
            step = xp.clip(xp.astype(direction, xp.float32) * (factor * 256), -65536.0, 65536.0)
            rest = xp.astype(extra[0], xp.int64) - xp.astype(xp.round(step), xp.int64)
            moved = xp.bitwise_right_shift(rest + 128, 8)
            following = xp.clip(whole + moved, -limit, limit)
            return xp.astype(following, w.dtype), xp.astype(rest - moved * 256, xp.int8)
        step = xp.clip(xp.astype(direction, xp.float32) * factor, -largest, largest)
        if self.rounding == "stochastic":
            step = xp.floor(step + uniform(xp, extra[0], self.salt, w.shape))
        moved = xp.astype(xp.round(step), xp.int64)
        return (xp.astype(xp.clip(whole - moved, -limit, limit), w.dtype),)

    def cost(self, *types: TensorType) -> Cost:
        """Reads and writes everything once."""
        return Cost(
            macs=types[0].size,
            bytes_read=sum(t.bytes for t in types),
            bytes_written=sum(t.bytes for t in self.infer(*types)),
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        w, direction, rate, scales, *extra = operands.inputs
        following = operands.outputs[0]
        sizes = around(w.type, self.axis)
        random: tuple[Argument, ...] = (extra[0], self.salt) if extra else ("NULL", 0)
        if w.type.dtype is DType.I32:
            arguments: tuple[Argument, ...] = (
                following, w, direction, scales, w.type.size, rate, self.aware,
            )  # fmt: skip
            return [Call("q_optimizer.h", "kg_sgd_s32", (*arguments, *random))]
        if self.rounding == "residual":
            arguments = (
                *operands.outputs, w, extra[0], direction, scales, *sizes, rate, self.aware,
            )  # fmt: skip
            return [Call("q_optimizer.h", "kg_sgd_residual_s8", arguments)]
        arguments = (following, w, direction, scales, *sizes, rate, self.aware)
        if self.rounding == "nearest":
            return [Call("q_optimizer.h", "kg_sgd_nearest_s8", arguments)]
        return [Call("q_optimizer.h", "kg_sgd_stochastic_s8", (*arguments, *random))]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every rounding on weights of both layouts and on biases; steps that saturate."""
        rng = np.random.default_rng(0)
        rate, seed = np.array(0.05, np.float32), np.array([12345], np.uint32)
        result: list[Example] = []
        for shape, axis in (((3, 2, 2, 5), 0), ((3, 3, 7), 2), ((6,), 0)):
            scales = rng.uniform(0.001, 0.01, shape[axis]).astype(np.float32)
            direction = rng.standard_normal(shape).astype(np.float32)
            direction.flat[0], direction.flat[1] = 1e30, -1e30
            w = rng.integers(-127, 128, shape).astype(np.int32 if len(shape) == 1 else np.int8)
            remainder = rng.integers(-128, 128, shape).astype(np.int8)
            types = (_quantised(w, scales, axis), TensorType(shape), TensorType(()))
            for rounding in ("nearest", "stochastic", "residual"):
                op = cls(axis, rounding, 7, aware=len(result) % 4 != 3)
                extra = {"stochastic": (seed,), "nearest": (), "residual": (remainder,)}[rounding]
                extra = extra[: len(op.extra(types[0]))]
                inputs = (w, direction, rate, scales, *extra)
                all_types = (*types, TensorType(scales.shape), *op.extra(types[0]))
                result.append(Example(op, inputs, types=all_types))
        return result


def _quantised(w: np.ndarray, scales: np.ndarray, axis: int) -> TensorType:
    return TensorType(w.shape, DType.of(w), Quantization(tuple(map(float, scales)), 0, axis))


@dataclass(frozen=True)
class QDecay(Operator):
    """Inputs gradient f32, w i8 or i32, scales f32[C] of the channels on `axis`: the gradient plus
    `decay` times the real weight; in place over the gradient.
    """

    name: ClassVar[str] = "q_decay"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    axis: int
    decay: float

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The type of the gradient."""
        gradient, w, scales = types
        _check(self.name, w, gradient, scales, self.axis)
        return (gradient,)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The formula, the product with the weight fused."""
        gradient, w, scales = arrays
        factor = _scales_along(xp, scales, w, self.axis) * float(np.float32(self.decay))
        return (_fused(xp, factor, w, gradient),)

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        size = types[0].size
        return Cost(size, bytes_read=sum(t.bytes for t in types), bytes_written=types[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (gradient, w, scales), (result,) = operands.inputs, operands.outputs
        if w.type.dtype is DType.I32:
            arguments: tuple[Argument, ...] = (result, gradient, w, scales, w.type.size, self.decay)
            return [Call("q_optimizer.h", "kg_decay_s32", arguments)]
        arguments = (result, gradient, w, scales, *around(w.type, self.axis), self.decay)
        return [Call("q_optimizer.h", "kg_decay_s8", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """A weight of either layout and a bias."""
        rng = np.random.default_rng(0)
        result = []
        for shape, axis in (((3, 2, 2, 5), 0), ((3, 3, 7), 2), ((6,), 0)):
            scales = rng.uniform(0.001, 0.01, shape[axis]).astype(np.float32)
            g = rng.standard_normal(shape).astype(np.float32)
            w = rng.integers(-127, 128, shape).astype(np.int32 if len(shape) == 1 else np.int8)
            types = (TensorType(shape), _quantised(w, scales, axis), TensorType(scales.shape))
            result.append(Example(cls(axis, 0.01), (g, w, scales), 1e-6, types=types))
        return result


@dataclass(frozen=True)
class SgdDirection(Operator):
    """Inputs gradient f32, step u32[], [velocity f32], [accumulator f32]; outputs the direction f32
    and the next of each.

    The direction is momentum * velocity + gradient; with `period` above 1 the mean gradient of that
    many samples is taken by the last of them, and the direction is zero for the others.
    """

    name: ClassVar[str] = "sgd_direction"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (1, 2), (2, 3))
    mutates: ClassVar[bool] = True
    scalars: ClassVar[tuple[int, ...]] = (1,)
    momentum: float = 0.0
    period: int = 1

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The types of the gradient, the velocity and the accumulator."""
        return (types[0], *types[2:])

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The formulas, products fused with sums as in C."""
        gradient, step, *extra = arrays
        gradient = xp.astype(gradient, xp.float32)
        accumulator = extra.pop() if self.period > 1 else None
        zero = xp.zeros_like(gradient)
        if accumulator is not None:
            gradient = _fused(xp, float(np.float32(1) / self.period), gradient, accumulator)
            if (int(step) + 1) % self.period:
                return (zero, *extra, gradient)
        following: list[Array] = []
        if self.momentum:
            gradient = _fused(xp, float(self.momentum), extra[0], gradient)
            following.append(gradient)
        return (gradient, *following, *([zero] if accumulator is not None else []))

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        return Cost(
            macs=types[0].size * (len(types) - 2),
            bytes_read=sum(t.bytes for t in types),
            bytes_written=sum(t.bytes for t in self.infer(*types)),
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        gradient, step, *extra = operands.inputs
        velocity, accumulator = buffers(extra, self.period)
        arguments = (
            operands.outputs[0], gradient, velocity, accumulator, gradient.type.size,
            self.momentum, step, self.period,
        )  # fmt: skip
        return [Call("q_optimizer.h", "kg_direction_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Momentum; accumulation before and at the end of a period; both."""
        g, v, a = np.random.default_rng(0).standard_normal((3, 3, 5)).astype(np.float32)

        def at(step: int) -> np.ndarray:
            return np.array(step, np.uint32)

        return [
            Example(cls(0.9), (g, at(0), v), 1e-6),
            Example(cls(0.0, 4), (g, at(2), a), 1e-6),
            Example(cls(0.0, 4), (g, at(3), a), 1e-6),
            Example(cls(0.9, 4), (g, at(2), v, a), 1e-6),
            Example(cls(0.9, 4), (g, at(3), v, a), 1e-6),
        ]


def buffers(extra: Sequence[Argument], period: int) -> tuple[Argument, Argument]:
    """Velocity and accumulator among the operands behind the fixed ones, NULL where absent."""
    rest = list(extra)
    accumulator = rest.pop() if period > 1 else "NULL"
    return (rest.pop() if rest else "NULL"), accumulator


@dataclass(frozen=True)
class QSgdCheck(Operator):
    """Inputs w, gradient f32, [velocity f32], [accumulator f32]: true when the step would leave all
    of them finite. It reads w so that it comes before the step, and looks only at the others.
    """

    name: ClassVar[str] = "q_sgd_check"
    check: ClassVar[bool] = True
    momentum: float = 0.0
    period: int = 1

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """No outputs."""
        return ()

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Whether the sums are finite."""
        _, gradient, *extra = arrays
        total = xp.astype(gradient, xp.float32)
        finite = bool(xp.all(xp.isfinite(total)))
        if self.period > 1:
            total = _fused(xp, float(np.float32(1) / self.period), total, extra[-1])
            finite = finite and bool(xp.all(xp.isfinite(total)))
        if self.momentum:
            total = _fused(xp, float(self.momentum), extra[0], total)
        return (finite and bool(xp.all(xp.isfinite(total))),)

    def cost(self, *types: TensorType) -> Cost:
        """Reads all but w."""
        return Cost(bytes_read=sum(t.bytes for t in types[1:]))

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call that may end the step."""
        _, gradient, *extra = operands.inputs
        size = gradient.type.size
        if not extra:
            call = Call("optimizer.h", "kg_all_finite_f32", (gradient, size), "KG_ERROR_NONFINITE")
            return [call]
        arguments = (gradient, *buffers(extra, self.period), size, self.momentum, self.period)
        return [Call("q_optimizer.h", "kg_direction_finite_f32", arguments, "KG_ERROR_NONFINITE")]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Finite and not, in each of the operands, and by the sum alone."""
        w, good = np.zeros(3, np.int8), np.array([1.0, -2.0, 3.0], np.float32)
        bad, large = np.array([1.0, np.inf, 3.0], np.float32), np.full(3, 3e38, np.float32)
        return [
            Example(cls(), (w, good)),
            Example(cls(), (w, bad)),
            Example(cls(0.9), (w, good, good)),
            Example(cls(0.9), (w, large, large)),
            Example(cls(0.0, 2), (w, good, large)),
            Example(cls(0.9, 2), (w, large, good, large)),
        ]
