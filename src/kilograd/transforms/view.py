"""Views: how a value of the imported graph is found in a value of the arranged one.

    v = reshape(transpose(base, axes), shape)

A view costs nothing until an operator insists on the plain value. Axes of size 1 go wherever they
are convenient; the leading one, the batch, counts as larger than 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kilograd.ir.graph import Value


@dataclass(frozen=True)
class View:
    """reshape(transpose(base, axes), shape); `shape` None leaves the shape of the transpose."""

    base: Value
    axes: tuple[int, ...]
    pending: tuple[int, ...] | None = None

    @staticmethod
    def of(value: Value) -> View:
        """The plain value."""
        return View(value, tuple(range(value.type.rank)))

    @property
    def transposed(self) -> tuple[int, ...]:
        """The shape between the transpose and the reshape."""
        return tuple(self.base.type.shape[axis] for axis in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value that the view stands for."""
        return self.transposed if self.pending is None else self.pending

    @property
    def plain(self) -> bool:
        """True when the view is its base."""
        return self.pending is None and self.axes == tuple(range(len(self.axes)))


@dataclass(frozen=True)
class Group:
    """Neighbouring axes before and after a reshape that hold the same elements."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def match_groups(before: Sequence[int], after: Sequence[int]) -> list[Group] | None:
    """The smallest groups of axes that a reshape keeps apart, axes of size 1 dropped from `before`
    and given to a neighbour in `after`; None when the leading axis (the batch) is not kept.
    """
    if not before or not after or before[0] != after[0]:
        return None
    solid_before = [axis for axis in range(1, len(before)) if before[axis] != 1]
    solid_after = [axis for axis in range(1, len(after)) if after[axis] != 1]
    runs: list[tuple[list[int], list[int]]] = []
    while solid_before and solid_after:
        left, right = [solid_before.pop(0)], [solid_after.pop(0)]
        while (gap := _size(before, left) - _size(after, right)) != 0:
            side, rest = (left, solid_before) if gap < 0 else (right, solid_after)
            side.append(rest.pop(0))
        runs.append((left, right))
    groups = [Group((0,), (0,))]
    begin = 1
    for k, (left, right) in enumerate(runs):
        end = right[-1] + 1 if k < len(runs) - 1 else len(after)
        groups.append(Group(tuple(left), tuple(range(begin, end))))
        begin = end
    if not runs:
        groups = [Group((0,), tuple(range(len(after))))]
    return groups


def _size(shape: Sequence[int], axes: Sequence[int]) -> int:
    return math.prod(shape[axis] for axis in axes)


def solid_axes(view: View) -> list[int]:
    """The axes of the base that are larger than 1, or the batch, in order."""
    batch = view.axes[0] if view.axes else -1
    return [i for i, size in enumerate(view.base.type.shape) if size != 1 or i == batch]


def in_order(view: View, group: Group) -> bool:
    """True when the group's axes are neighbours in the base, in the same order."""
    solid = solid_axes(view)
    places = [solid.index(view.axes[axis]) for axis in group.before]
    return places == list(range(places[0], places[0] + len(places)))


def regroup(
    view: View, groups: Sequence[Group], shape: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The base's shape and the axes after a reshape to `shape` whose groups are all in order."""
    order = sorted(groups, key=lambda group: view.axes[group.before[0]])
    placed = [axis for group in order for axis in group.after]
    return tuple(shape[axis] for axis in placed), tuple(
        placed.index(axis) for axis in range(len(shape))
    )


def degenerate(view: View) -> bool:
    """True when the transpose moves only axes of size 1 (other than the batch): a reshape."""
    places = [axis for axis in view.axes if axis in solid_axes(view)]
    return places == sorted(places)
