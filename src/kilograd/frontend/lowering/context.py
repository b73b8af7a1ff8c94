"""What the lowering functions share: the graph under construction, weights, and layouts."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from kilograd.errors import UnsupportedError
from kilograd.ir import Builder, Location, Origin, Permute, Reshape, Value
from kilograd.ops import shape as shape_ops


@dataclass(frozen=True, eq=False)
class Weight:
    """Data known at compile time: a parameter of the user's (`name`), after `steps` from its own
    layout, or an anonymous constant (`name` empty).
    """

    array: np.ndarray
    name: str = ""
    steps: tuple[Permute | Reshape, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape after the steps."""
        return tuple(self.array.shape)

    def permute(self, *axes: int) -> Weight:
        """Dimension i of the result is dimension axes[i]; two permutations in a row become one."""
        if axes == tuple(range(len(axes))):
            return self
        steps = self.steps
        total = axes
        if steps and isinstance(steps[-1], Permute):
            total = tuple(steps[-1].axes[axis] for axis in axes)
            steps = steps[:-1]
        if total != tuple(range(len(total))):
            steps = (*steps, Permute(total))
        return Weight(np.transpose(self.array, axes), self.name, steps)

    def reshape(self, *shape: int) -> Weight:
        """The same elements under another shape."""
        array = np.reshape(self.array, shape)
        if array.shape == self.shape:
            return self
        return Weight(array, self.name, (*self.steps, Reshape(self.shape, tuple(array.shape))))


Operand = Value | Weight


def identifier(name: str) -> str:
    """`name` with what C identifiers cannot hold replaced by underscores."""
    text = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "value"
    return f"v{text}" if text[0].isdigit() else text


class Lowering:
    """A graph under construction out of a framework's operators."""

    def __init__(self) -> None:
        """Start with an empty graph."""
        self.builder = Builder()
        self.shared: set[Value] = set()
        """Values that depend on parameters only: they have no batch dimension."""
        self._parameters: dict[str, tuple[Value, Weight]] = {}
        self._relaid: dict[tuple[str, tuple[Permute | Reshape, ...]], Value] = {}

    @property
    def location(self) -> Location:
        """Where in the user's model the operator under construction is."""
        return self.builder.location

    def constant(self, weight: Weight, hint: str = "constant") -> Value:
        """The constant that holds a weight: one per parameter, however often it is read.

        A parameter that is read in a second layout is laid out again by operators, so that it
        stays one tensor when it is trained.
        """
        array = np.ascontiguousarray(weight.array, dtype=np.float32).reshape(weight.shape)
        if not weight.name:
            return self.builder.constant(identifier(hint), array)
        if weight.name not in self._parameters:
            origin = Origin(weight.name, weight.steps)
            value = self.builder.constant(identifier(weight.name), array, origin)
            self._parameters[weight.name] = (value, weight)
            return value
        value, first = self._parameters[weight.name]
        if first.steps == weight.steps:
            return value
        key = (weight.name, weight.steps)
        if key not in self._relaid:
            self._relaid[key] = self._lay_out(value, first, weight)
        return self._relaid[key]

    def _lay_out(self, value: Value, first: Weight, wanted: Weight) -> Value:
        steps: list[Permute | Reshape] = []
        for step in reversed(first.steps):
            if isinstance(step, Permute):
                steps.append(Permute(tuple(int(axis) for axis in np.argsort(step.axes))))
            else:
                steps.append(Reshape(step.target, step.source))
        view = Weight(first.array)
        for step in (*steps, *wanted.steps):
            if isinstance(step, Permute):
                view = view.permute(*step.axes)
            else:
                view = view.reshape(*step.target)
        for step in view.steps:
            if isinstance(step, Permute):
                value = self.builder.add(shape_ops.Transpose(step.axes), value)
            else:
                value = self.builder.add(shape_ops.Reshape(step.target), value)
        return value

    def value(self, operand: Operand, hint: str = "constant") -> Value:
        """An operand as a value of the graph."""
        return self.constant(operand, hint) if isinstance(operand, Weight) else operand

    def reshape(self, x: Value, *shape: int) -> Value:
        """Reshape an activation; raises UnsupportedError when that mixes the batch with the
        rest.
        """
        if shape == x.type.shape:
            return x
        if not shape or shape[0] != 1:
            raise UnsupportedError(
                f"it gives shape {list(shape)} for one sample {list(x.type.shape)}: the leading "
                "dimension has to stay the batch (flatten with x.flatten(1), and squeeze and "
                "permute only the dimensions behind the first)"
            )
        return self.builder.add(shape_ops.Reshape(tuple(shape)), x)

    def permute(self, x: Value, *axes: int) -> Value:
        """Transpose an activation; raises UnsupportedError when the batch does not stay first."""
        if axes == tuple(range(len(axes))):
            return x
        if axes[0] != 0:
            raise UnsupportedError(
                f"it permutes the dimensions to {list(axes)}: the batch has to stay the leading one"
            )
        return self.builder.add(shape_ops.Transpose(tuple(axes)), x)

    def channels_last(self, x: Value) -> Value:
        """[N,C] unchanged, [N,C,L] as [N,1,L,C], [N,C,H,W] as [N,H,W,C]."""
        rank = x.type.rank
        if rank == 2:
            return x
        if rank == 3:
            n, c, length = x.type.shape
            x = self.reshape(x, n, c, 1, length)
        elif rank != 4:
            raise UnsupportedError(
                f"it reads {x.type}; kilograd works on one or two spatial dimensions"
            )
        return self.permute(x, 0, 2, 3, 1)

    def channels_first(self, y: Value, rank: int) -> Value:
        """The inverse of `channels_last` for a result that has `rank` dimensions in the model."""
        if rank == 2:
            return y
        y = self.permute(y, 0, 3, 1, 2)
        if rank == 3:
            n, c, _, length = y.type.shape
            y = self.reshape(y, n, c, length)
        return y


def axis_of(axis: int, rank: int) -> int:
    """A possibly negative axis of an activation as a non-negative one that is not the batch."""
    result = axis % rank if rank else axis
    if result == 0:
        raise UnsupportedError("it works along dimension 0, which is the batch")
    return result
