"""Activations whose batch is not the leading dimension.

`nn.MultiheadAttention` computes in [time, batch, features] and in [batch * heads, time, features].
Our programs keep the batch in front, so a tensor of the model's is kept as it is for one sample,
behind a batch of its own, with the place where the model has its batch:

    model   [T, B, C]           value [1, T, 1, C]    stride C
    model   [B * H, T, D]       value [1, H, T, D]    stride H T D
    model   [T * B, C]          value [1, T, C]       stride C

What is done to the model's tensor is done to the value, as long as it does not mix samples. A
tensor that comes back with its batch in front is a plain `Value` again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kilograd.errors import UnsupportedError
from kilograd.frontend.lowering.context import Lowering, Weight
from kilograd.ir import Location, Value
from kilograd.ops import shape as shape_ops


class Misplaced(UnsupportedError):
    """An operator needs the batch in front; the operator that moved it away is to blame."""

    def __init__(self, moved: Moved) -> None:
        """Say what moved the batch, and where."""
        super().__init__(moved.reason)
        self.moved = moved


@dataclass(frozen=True, eq=False)
class Moved:
    """A tensor of the model's; see the module docstring.

    `stride` counts the elements behind the batch, in the order of the model's elements. `operator`,
    `location` and `reason` say what moved the batch away, for the message if it does not come back.
    """

    value: Value
    stride: int
    reason: str
    location: Location
    operator: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the model's tensor for a batch of 1."""
        return self.value.type.shape[1:]

    def behind(self, axis: int) -> int:
        """Elements behind an axis."""
        return math.prod(self.shape[axis + 1 :])

    def holder(self) -> int:
        """The axis that holds the batch: one of size 1 where there is one, else the rightmost.

        Raises Misplaced where the batch is not a factor of any axis.
        """
        axes = range(len(self.shape))
        for axis in axes:
            if self.shape[axis] == 1 and self.behind(axis) == self.stride:
                return axis
        for axis in reversed(axes):
            behind = self.behind(axis)
            whole = behind * self.shape[axis]
            if behind < self.stride <= whole or (self.stride == whole == 1):
                if self.stride % behind or whole % self.stride:
                    raise Misplaced(self)
                return axis
        return len(self.shape) - 1

    def rows(self, count: int) -> None:
        """Raise Misplaced unless the batch is in front of the last `count` axes."""
        length = math.prod(self.shape[len(self.shape) - count :])
        if self.stride % length:
            raise Misplaced(self)

    def carry(self, value: Value, stride: int | None = None) -> Moved:
        """The result of an operator that leaves the batch where it is."""
        return replace(self, value=value, stride=self.stride if stride is None else stride)


Activation = Value | Moved
Source = Value | Moved | Weight


def lift(low: Lowering, x: Value, reason: str) -> Moved:
    """An activation with the batch in front as one that says so, about to be moved."""
    value = low.builder.add(shape_ops.Reshape((1, *x.type.shape)), x)
    return Moved(value, x.type.size, reason, low.location)


def settle(low: Lowering, x: Moved) -> Activation:
    """A plain value where the batch is in front, alone."""
    if x.shape and x.shape[0] == 1 and x.stride == x.value.type.size:
        return low.builder.add(shape_ops.Reshape(x.shape), x.value)
    return x


def reshape(low: Lowering, x: Moved, shape: Sequence[int]) -> Activation:
    """The same elements under another shape; the batch stays between the same elements."""
    y = x.carry(low.builder.add(shape_ops.Reshape((1, *shape)), x.value))
    y.holder()
    return settle(low, y)


def permute(low: Lowering, x: Moved, axes: Sequence[int]) -> Activation:
    """Dimension i of the result is dimension axes[i]; axes of size 1 are not transposed."""
    holder = x.holder()
    inside = x.stride // x.behind(holder)
    result = tuple(x.shape[axis] for axis in axes)
    stride = inside * math.prod(result[list(axes).index(holder) + 1 :])
    solid = [axis for axis in range(len(axes)) if x.shape[axis] != 1]
    order = tuple(1 + solid.index(axis) for axis in axes if axis in solid)
    value = low.builder.add(shape_ops.Reshape((1, *(x.shape[a] for a in solid))), x.value)
    if order != tuple(range(1, len(order) + 1)):
        value = low.builder.add(shape_ops.Transpose((0, *order)), value)
    return settle(low, x.carry(low.builder.add(shape_ops.Reshape((1, *result)), value), stride))


def along(x: Moved, axis: int, size: int) -> int:
    """The stride after axis `axis` has become `size` long; Misplaced where it holds the batch."""
    holder = x.holder()
    if axis == holder:
        raise Misplaced(x)
    return x.stride if axis < holder else x.stride // x.shape[axis] * size
