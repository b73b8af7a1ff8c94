"""Activations, arithmetic with broadcasting, softmax, sums and means."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from kilograd.errors import UnsupportedError
from kilograd.frontend.lowering.context import Lowering, Operand, Weight, axis_of
from kilograd.frontend.lowering.moved import Activation, Misplaced, Moved, Source
from kilograd.ir import Operator, Value
from kilograd.ops.binary import Add, Div, Mul, Sub
from kilograd.ops.reduce import Reduce
from kilograd.ops.softmax import LogSoftmax, Softmax
from kilograd.ops.unary import (
    Abs,
    Clamp,
    Elu,
    Erf,
    Exp,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Log,
    Neg,
    Power,
    Reciprocal,
    Relu,
    Rsqrt,
    Sigmoid,
    Silu,
    Sqrt,
    Tanh,
)

_UNARY: dict[str, Callable[[], Operator]] = {
    "abs": Abs,
    "erf": Erf,
    "exp": Exp,
    "hardsigmoid": HardSigmoid,
    "hardswish": HardSwish,
    "log": Log,
    "neg": Neg,
    "reciprocal": Reciprocal,
    "relu": Relu,
    "rsqrt": Rsqrt,
    "sigmoid": Sigmoid,
    "silu": Silu,
    "sqrt": Sqrt,
    "tanh": Tanh,
}
_BINARY: dict[str, Callable[[], Operator]] = {"add": Add, "div": Div, "mul": Mul, "sub": Sub}


def unary(low: Lowering, kind: str, x: Value) -> Value:
    """An elementwise function without attributes; `kind` is its PyTorch name."""
    return low.builder.add(_UNARY[kind](), x)


def clamp(low: Lowering, x: Value, lowest: float | None, highest: float | None) -> Value:
    """x limited to [lowest, highest]; None is no limit."""
    a = -math.inf if lowest is None else float(lowest)
    b = math.inf if highest is None else float(highest)
    if a > b:
        raise UnsupportedError(f"its lower limit {a} is above its upper limit {b}")
    if (a, b) == (-math.inf, math.inf):
        return x
    return low.builder.add(Relu() if (a, b) == (0.0, math.inf) else Clamp(a, b), x)


def leaky_relu(low: Lowering, x: Value, slope: float) -> Value:
    """x where positive, slope x elsewhere."""
    return low.builder.add(LeakyRelu(float(slope)), x)


def hard_sigmoid(low: Lowering, x: Value, slope: float, offset: float) -> Value:
    """slope x + offset limited to [0, 1]."""
    return low.builder.add(HardSigmoid(float(slope), float(offset)), x)


def gelu(low: Lowering, x: Value, approximate: str) -> Value:
    """GELU, exact ("none") or by tanh ("tanh")."""
    return low.builder.add(Gelu(approximate == "tanh"), x)


def elu(low: Lowering, x: Value, alpha: float) -> Value:
    """x where positive, alpha (exp(x) - 1) elsewhere."""
    return low.builder.add(Elu(float(alpha)), x)


def power(low: Lowering, x: Value, exponent: float) -> Value:
    """x to a constant power."""
    if exponent == 1.0:
        return x
    if exponent == 2.0:
        return low.builder.add(Mul(), x, x)
    if exponent == 0.5:
        return low.builder.add(Sqrt(), x)
    return low.builder.add(Power(float(exponent)), x)


def binary(low: Lowering, kind: str, a: Source | float, b: Source | float) -> Activation:
    """add, sub, mul or div with NumPy broadcasting; one operand at least is an activation."""
    if isinstance(a, Moved):
        if isinstance(b, Value) or (isinstance(b, Moved) and not _same_place(a, b)):
            raise Misplaced(a)
        other = b.value if isinstance(b, Moved) else b
        return a.carry(_known(binary(low, kind, a.value, other)))
    if isinstance(b, Moved):
        if isinstance(a, Value):
            raise Misplaced(b)
        return b.carry(_known(binary(low, kind, a, b.value)))
    rank = max(x.type.rank for x in (a, b) if isinstance(x, Value))
    values = [_broadcastable(low, x, rank) for x in (a, b)]
    return low.builder.add(_BINARY[kind](), *values)


def _same_place(a: Moved, b: Moved) -> bool:
    """True when the batch is at the same place of two tensors of one shape."""
    return a.shape == b.shape and a.stride == b.stride


def _known(x: Activation) -> Value:
    assert isinstance(x, Value)
    return x


def _broadcastable(low: Lowering, x: Operand | float, rank: int) -> Value:
    if isinstance(x, Value):
        if x in low.shared and x.type.rank < rank:
            return x
        if x.type.rank != rank:
            raise UnsupportedError(
                f"it broadcasts {x.type} against {rank} dimensions, which would move the batch; "
                "reshape it to as many dimensions first"
            )
        return x
    weight = x if isinstance(x, Weight) else Weight(np.array(x, np.float32))
    if len(weight.shape) > rank or (len(weight.shape) == rank and weight.shape[0] != 1):
        raise UnsupportedError(
            f"it broadcasts a constant of shape {list(weight.shape)} over the batch dimension"
        )
    if len(weight.shape) == rank:
        weight = weight.reshape(*weight.shape[1:])
    return low.constant(weight, "scalar")


def softmax(low: Lowering, x: Activation, axis: int) -> Activation:
    """Softmax along an axis."""
    return _along_last(low, x, axis, Softmax())


def log_softmax(low: Lowering, x: Activation, axis: int) -> Activation:
    """Logarithm of the softmax along an axis."""
    return _along_last(low, x, axis, LogSoftmax())


def _along_last(low: Lowering, x: Activation, axis: int, op: Operator) -> Activation:
    if isinstance(x, Moved):
        if axis % len(x.shape) != len(x.shape) - 1:
            raise Misplaced(x)
        x.rows(1)
        return x.carry(low.builder.add(op, x.value))
    rank = x.type.rank
    axis = axis_of(axis, rank)
    if axis == rank - 1:
        return low.builder.add(op, x)
    if axis == 1 and rank in (3, 4):
        return low.channels_first(low.builder.add(op, low.channels_last(x)), rank)
    order = [*(i for i in range(rank) if i != axis), axis]
    y = low.builder.add(op, low.permute(x, *order))
    return low.permute(y, *(int(i) for i in np.argsort(order)))


def reduce(low: Lowering, x: Value, axes: Sequence[int] | None, mean: bool, keep: bool) -> Value:
    """Sum or mean over any axes but the batch (None: over all), a chain of runs of neighbours."""
    rank = x.type.rank
    chosen = sorted({axis % rank for axis in (range(rank) if axes is None else axes)})
    if not chosen:
        return x
    if chosen[0] == 0:
        raise UnsupportedError(
            f"it reduces {x.type} over the batch dimension as well; reduce over the others only"
        )
    if rank in (3, 4) and chosen == list(range(2, rank)):
        y = low.builder.add(Reduce((1, 2), mean, keep), low.channels_last(x))
        return low.channels_first(y, rank) if keep else y
    for run in reversed(_runs(chosen)):
        x = low.builder.add(Reduce(run, mean, keep), x)
    return x


def _runs(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Ascending axes as runs of neighbours."""
    runs: list[tuple[int, ...]] = []
    for axis in axes:
        if runs and runs[-1][-1] == axis - 1:
            runs[-1] = (*runs[-1], axis)
        else:
            runs.append((axis,))
    return runs
