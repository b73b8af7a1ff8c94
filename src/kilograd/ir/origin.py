"""Where a tensor of the program comes from in the user's model, and how to give it back.

A parameter reaches the program through a chain of invertible steps (transposed to our layout,
scaled by a folded batch norm, rounded to integers, cut into a trained and a frozen part). The chain
is kept, so that trained values return to the user as floats under the user's own name and layout.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Permute:
    """Dimension i of the result is dimension axes[i] of the operand."""

    axes: tuple[int, ...]

    def apply(self, array: Array) -> Array:
        """User's layout to ours."""
        return np.transpose(array, self.axes)

    def invert(self, array: Array) -> Array:
        """Ours to the user's."""
        return np.transpose(array, np.argsort(self.axes))


@dataclass(frozen=True)
class Reshape:
    """The same elements in another shape."""

    source: tuple[int, ...]
    target: tuple[int, ...]

    def apply(self, array: Array) -> Array:
        """User's shape to ours."""
        return np.reshape(array, self.target)

    def invert(self, array: Array) -> Array:
        """Ours to the user's."""
        return np.reshape(array, self.source)


@dataclass(frozen=True)
class Reorder:
    """Element i of the result along `axis` is element order[i] of the operand."""

    axis: int
    order: tuple[int, ...]

    def apply(self, array: Array) -> Array:
        """The user's order to ours."""
        return np.take(array, self.order, self.axis)

    def invert(self, array: Array) -> Array:
        """Ours to the user's."""
        return np.take(array, np.argsort(self.order), self.axis)


@dataclass(frozen=True, eq=False)
class Affine:
    """result = scale * operand + offset, with float arrays that broadcast against it (folded batch
    norm).
    """

    scale: Array
    offset: Array

    def apply(self, array: Array) -> Array:
        """User's value to the folded one."""
        return np.asarray(array * self.scale + self.offset, dtype=np.float32)

    def invert(self, array: Array) -> Array:
        """The folded value to the user's."""
        return np.asarray((array - self.offset) / self.scale, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Quantized:
    """result = round(operand / scales) as integers, limited to +-limit: int8 up to a limit of 127,
    int32 above.

    `scales` is a positive float array that broadcasts against the operand; the zero point is 0.
    Ties round to even. Inverting gives real values, float32.
    """

    scales: Array
    limit: int = 127

    def apply(self, array: Array) -> Array:
        """Real values to integers."""
        whole = np.rint(np.asarray(array, np.float64) / self.scales)
        dtype = np.int8 if self.limit <= 127 else np.int32
        return np.asarray(np.clip(whole, -self.limit, self.limit), dtype)

    def invert(self, array: Array) -> Array:
        """Integers to real values."""
        return np.asarray(array * np.asarray(self.scales, np.float64), np.float32)


Step = Permute | Reshape | Reorder | Affine | Quantized


@dataclass(frozen=True)
class Part:
    """The half-open range [start, stop) of one axis that this tensor holds of the whole, in our
    layout.
    """

    axis: int
    start: int
    stop: int
    whole: int


@dataclass(frozen=True)
class Origin:
    """The user's parameter that a tensor holds: `name`, its steps to our layout, and which part of
    it.
    """

    name: str
    steps: tuple[Step, ...] = ()
    part: Part | None = None

    def then(self, step: Step) -> Origin:
        """The origin after one more step; only whole tensors take steps."""
        assert self.part is None, "layout steps come before a tensor is cut"
        return replace(self, steps=(*self.steps, step))

    def reordered(self, axis: int, order: tuple[int, ...]) -> Origin:
        """The origin with the elements along `axis` in another order, rounded last as before."""
        last = self.steps[-1] if self.steps else None
        if not isinstance(last, Quantized):
            return self.then(Reorder(axis, order))
        scales = np.asarray(last.scales)
        if scales.ndim > axis and scales.shape[axis] == len(order):
            scales = np.take(scales, order, axis)
        rounded = replace(last, scales=scales)
        return replace(self, steps=(*self.steps[:-1], Reorder(axis, order), rounded))

    def cut(self, axis: int, start: int, stop: int, whole: int) -> Origin:
        """The origin of the range [start, stop) of `axis`."""
        return replace(self, part=Part(axis, start, stop, whole))

    def to_program(self, value: Array) -> Array:
        """The user's whole parameter as this tensor stores it (cut to its part)."""
        for step in self.steps:
            value = step.apply(value)
        if self.part is not None:
            index = [slice(None)] * value.ndim
            index[self.part.axis] = slice(self.part.start, self.part.stop)
            value = value[tuple(index)]
        if np.issubdtype(value.dtype, np.integer):
            return np.ascontiguousarray(value)
        return np.ascontiguousarray(value, dtype=np.float32)


def to_user(tensors: Iterable[tuple[Origin, Array]]) -> dict[str, Array]:
    """The user's parameters from the tensors that hold them; parts of one parameter are joined
    first.
    """
    groups: dict[str, list[tuple[Origin, Array]]] = {}
    for origin, array in tensors:
        groups.setdefault(origin.name, []).append((origin, array))
    result: dict[str, Array] = {}
    for name, members in groups.items():
        first, value = members[0]
        if first.part is not None:
            members.sort(key=lambda member: member[0].part.start if member[0].part else 0)
            value = np.concatenate([array for _, array in members], axis=first.part.axis)
        for step in reversed(first.steps):
            value = step.invert(value)
        result[name] = np.ascontiguousarray(value)
    return result
