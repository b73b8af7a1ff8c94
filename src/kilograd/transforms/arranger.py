"""The state of one walk of `layout`: the arranged program so far, and how to get values of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kilograd.ir.builder import Builder
from kilograd.ir.graph import Graph, Node, Value
from kilograd.ir.operator import Operator
from kilograd.ir.origin import Permute
from kilograd.ir.origin import Reshape as ReshapeStep
from kilograd.ops.shape import Reshape, Transpose
from kilograd.transforms.ports import Port
from kilograd.transforms.view import View, degenerate, in_order, match_groups, regroup

Axes = tuple[int, ...]


class Arranger:
    """One walk: the program under construction and the views found so far."""

    def __init__(self, graph: Graph) -> None:
        """Take over constants and states as they are."""
        self.builder = Builder()
        self.views: dict[Value, View] = {}
        self._sources: dict[Value, Value] = {}  # what a reshape was made from
        self._made: dict[object, Value] = {}
        readers, results = graph.readers(), set(graph.results())
        self._shared = {v for v in graph.constants if len(readers[v]) > 1 or v in results}
        self._owners: dict[Value, Value] = {}  # the original of a permuted constant
        for value in (*graph.constants, *graph.state):
            self.builder.reserve([value.name])
            self.views[value] = View.of(value)
        self.builder.constants.update(graph.constants)
        self.builder.state.update(graph.state)

    def input(self, value: Value, axes: Axes) -> Port:
        """Declare an input that is stored as transpose(user's, axes)."""
        shape = value.type.shape
        stored = self.builder.input(
            value.name, value.type.with_shape(*(shape[axis] for axis in axes))
        )
        inverse = tuple(axes.index(axis) for axis in range(len(axes)))
        self.views[value] = self.tidy(View(stored, inverse))
        return Port(value.name, shape, axes)

    def output(self, value: Value) -> tuple[Value, Port]:
        """The value to return, and the port that gives it back in the user's layout."""
        view = self.settled(self.views[value])
        if view.axes and view.axes[0] != 0:
            view = View.of(self.plain_view(view))
        inverse = tuple(view.axes.index(axis) for axis in range(len(view.axes)))
        return view.base, Port(value.name, value.type.shape, inverse)

    # Building

    def rebuild(
        self, node: Node, op: Operator, inputs: Sequence[Value], view: View | None = None
    ) -> bool:
        """Add `op`; its outputs stand for the node's, as `view` with each of them for its base."""
        names = [value.name for value in node.outputs]
        values = self.builder.add_multi(op, *inputs, name=names[0] if names else "")
        for old, value in zip(node.outputs, values, strict=True):
            if view is None:
                self.views[old] = View.of(value)
            else:
                self.views[old] = self.tidy(View(value, view.axes, view.pending))
                assert self.views[old].shape == old.type.shape
        return True

    def tidy(self, view: View) -> View:
        """A transpose that moves only axes of size 1 becomes a reshape."""
        if view.plain or not view.axes or view.axes[0] != 0 or not degenerate(view):
            return view
        if view.base in self.builder.constants:
            return view
        return View.of(self.reshaped(view.base, view.shape))

    def reshaped(self, value: Value, shape: Sequence[int]) -> Value:
        """`value` under another shape; reshapes in a row become one, or none."""
        value = self._sources.get(value, value)
        if value.type.shape == tuple(shape):
            return value
        key = ("reshape", value, tuple(shape))
        if key not in self._made:
            self._made[key] = self.builder.add(Reshape(tuple(shape)), value, name=value.name)
            self._sources[self._made[key]] = value
        return self._made[key]

    def transposed(self, value: Value, axes: Axes) -> Value:
        """`value` transposed, once however many ask for it."""
        if axes == tuple(range(len(axes))):
            return value
        key = ("transpose", value, axes)
        if key not in self._made:
            self._made[key] = self.builder.add(Transpose(axes), value, name=value.name)
        return self._made[key]

    def permuted_constant(self, value: Value, shapes_and_axes: Sequence[Axes | list[int]]) -> Value:
        """A constant after reshapes (lists) and permutations (tuples), with its origin's steps."""
        tensor = self.builder.constants[value]
        array, origin = tensor.array, tensor.origin
        for item in shapes_and_axes:
            step: ReshapeStep | Permute
            if isinstance(item, list):
                step = ReshapeStep(array.shape, tuple(item))
                identity = array.shape == tuple(item)
            else:
                step, identity = Permute(item), item == tuple(range(len(item)))
            if not identity:
                array = step.apply(array)
                origin = origin.then(step) if origin else None
        if array is tensor.array:
            return value
        key = ("constant", value, tuple(map(str, shapes_and_axes)))
        if key not in self._made:
            self._made[key] = self.builder.constant(value.name, array, origin)
            self._owners[self._made[key]] = self._owners.get(value, value)
        return self._made[key]

    def may_permute(self, value: Value) -> bool:
        """True for a constant whose layout may change: no one's parameter, or with one reader."""
        if value not in self.builder.constants:
            return False
        shared = self._owners.get(value, value) in self._shared
        return self.builder.constants[value].origin is None or not shared

    # From views to values

    def plain(self, value: Value) -> Value:
        """The value itself, for an operator that wants it."""
        return self.plain_view(self.views[value])

    def plain_view(self, view: View) -> Value:
        """The value that a view stands for, by one transpose at most."""
        if view.pending is not None:
            transposed = self.plain_view(replace(view, pending=None))
            return self.reshaped(transposed, view.pending)
        if view.plain:
            return view.base
        if self.may_permute(view.base):
            return self.permuted_constant(view.base, [view.axes])
        return self.transposed(view.base, view.axes)

    def settled(self, view: View) -> View:
        """The view without a pending reshape, by as small a transpose of the base as that takes."""
        if view.pending is None:
            return view
        groups = match_groups(view.transposed, view.pending)
        if groups is None or view.axes[0] != 0:
            base = self.plain_view(replace(view, pending=None))
            return View.of(self.reshaped(base, view.pending))
        order = sorted(groups, key=lambda g: min(view.axes[axis] for axis in g.before))
        front = [axis for group in order for axis in group.before]
        ones = [axis for axis in range(len(view.axes)) if axis not in front]
        places = tuple(view.axes[axis] for axis in (*front, *ones))
        base = self.plain_view(self.tidy(View(view.base, places)))
        moved = View(base, tuple(places.index(axis) for axis in view.axes), view.pending)
        found = self.regrouped(moved)
        assert found is not None
        return found

    def regrouped(self, view: View) -> View | None:
        """The pending reshape applied to the base, where it commutes with the transpose."""
        assert view.pending is not None
        groups = match_groups(view.transposed, view.pending)
        if groups is None or view.axes[0] != 0:
            return None
        if not all(in_order(view, group) for group in groups):
            return None
        shape, axes = regroup(view, groups, view.pending)
        return self.tidy(View(self.reshaped(view.base, shape), axes))

    def aligned(self, value: Value, axes: Axes) -> Value:
        """The base that stands for `value` under a view with these axes (of at least its rank)."""
        view = self.settled(self.views[value])
        rank, missing = len(axes), len(axes) - len(view.axes)
        if missing == 0 and view.axes == axes:
            return view.base
        inverse = tuple(axes.index(axis) for axis in range(rank))
        full = [1] * missing + list(view.shape)
        target = [full[axis] for axis in inverse]
        if self.may_permute(view.base):
            return self.permuted_constant(view.base, [view.axes, full, inverse])
        if not view.shape:
            return view.base
        base = self.plain_view(view)
        base = self.reshaped(base, full)
        if degenerate(View(base, inverse)):
            return self.reshaped(base, target)
        return self.transposed(base, inverse)
