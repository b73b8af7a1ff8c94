"""Layout: transposes vanish between the operators, and into constants, inputs and outputs.

Front ends import in the framework's layout and put a Transpose on both sides of every operator that
wants channels last. One walk over the program keeps, for each value, a `View`: where it is found in
the arranged program. Transposes only change views; operators that do not care about layout work on
the base and pass the view on; Linear after flatten permutes its weight; an operator that insists on
plain operands gets them, at the price of the transposes that then remain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from kilograd.ir.builder import Builder
from kilograd.ir.graph import Graph, Node, Value
from kilograd.ir.operator import Operator
from kilograd.ir.origin import Permute
from kilograd.ir.origin import Reshape as ReshapeStep
from kilograd.ir.rewrite import eliminate_dead
from kilograd.ops.affine import ChannelAffine
from kilograd.ops.binary import Binary
from kilograd.ops.linear import Linear
from kilograd.ops.norm import LayerNorm
from kilograd.ops.reduce import Reduce, Spread
from kilograd.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from kilograd.ops.softmax import LogSoftmax, Softmax
from kilograd.ops.unary import Unary
from kilograd.transforms.ports import Port, Ports
from kilograd.transforms.view import (
    View,
    degenerate,
    in_order,
    match_groups,
    regroup,
    solid_axes,
)

__all__ = ["Port", "Ports", "arrange"]

Axes = tuple[int, ...]


def arrange(graph: Graph) -> tuple[Graph, Ports]:
    """The same function with as few transposes as can be, and the ports to feed and read it.

    Inputs and outputs may be laid out differently from the user's; the ports say how. Origins of
    permuted constants record the steps.
    """
    choices: dict[Value, Axes] = {}
    for value in graph.inputs:
        best = min(
            _candidates(value),
            key=lambda axes: _transposed_bytes(_walk(graph, {**choices, value: axes})[0]),
        )
        choices[value] = best
    return _walk(graph, choices)


def _candidates(value: Value) -> list[Axes]:
    """Layouts to try for an input: the user's, then channels last."""
    rank = value.type.rank
    plain = tuple(range(rank))
    return [plain, (0, *range(2, rank), 1)] if rank > 2 else [plain]


def _transposed_bytes(graph: Graph) -> int:
    return sum(n.outputs[0].type.bytes for n in graph.nodes if isinstance(n.op, Transpose))


def _walk(graph: Graph, choices: Mapping[Value, Axes]) -> tuple[Graph, Ports]:
    arranger = _Arranger(graph)
    inputs = tuple(arranger.input(v, choices.get(v, View.of(v).axes)) for v in graph.inputs)
    for node in graph.nodes:
        with arranger.builder.at(node.location):
            arranger.visit(node)
    results = [arranger.output(value) for value in graph.outputs]
    updates = {arranger.views[s].base: arranger.plain(v) for s, v in graph.updates.items()}
    arranged = arranger.builder.finish([value for value, _ in results], updates)
    return eliminate_dead(arranged), Ports(inputs, tuple(port for _, port in results))


class _Arranger:
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
        self.views[value] = self._tidy(View(stored, inverse))
        return Port(value.name, shape, axes)

    def output(self, value: Value) -> tuple[Value, Port]:
        """The value to return, and the port that gives it back in the user's layout."""
        view = self.settled(self.views[value])
        if view.axes and view.axes[0] != 0:
            view = View.of(self.plain_view(view))
        inverse = tuple(view.axes.index(axis) for axis in range(len(view.axes)))
        return view.base, Port(value.name, value.type.shape, inverse)

    def visit(self, node: Node) -> None:
        """Rebuild one node, on views where its operator has a rule for them."""
        for kind, rule in RULES:
            if isinstance(node.op, kind) and rule(self, node):
                return
        self.rebuild(node, node.op, [self.plain(value) for value in node.inputs])

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
                self.views[old] = self._tidy(View(value, view.axes, view.pending))
                assert self.views[old].shape == old.type.shape
        return True

    def _tidy(self, view: View) -> View:
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
        """The value that a view stands for."""
        view = self.settled(view)
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
        base = self.plain_view(self._tidy(View(view.base, places)))
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
        return self._tidy(View(self.reshaped(view.base, shape), axes))

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


Rule = Callable[[_Arranger, Node], bool]


def _transpose(a: _Arranger, node: Node) -> bool:
    assert isinstance(node.op, Transpose)
    view = a.settled(a.views[node.inputs[0]])
    axes = tuple(view.axes[axis] for axis in node.op.axes)
    a.views[node.outputs[0]] = a._tidy(View(view.base, axes))
    return True


def _reshape(a: _Arranger, node: Node) -> bool:
    assert isinstance(node.op, Reshape)
    view = a.views[node.inputs[0]]
    if view.base in a.builder.constants or not node.op.shape:
        return False
    view = View(view.base, view.axes, node.op.shape)
    if view.axes == tuple(range(len(view.axes))):
        a.views[node.outputs[0]] = View.of(a.reshaped(view.base, node.op.shape))
    else:
        a.views[node.outputs[0]] = a.regrouped(view) or view
    return True


def _unary(a: _Arranger, node: Node) -> bool:
    view = a.views[node.inputs[0]]
    return a.rebuild(node, node.op, [view.base], view)


def _common_axes(a: _Arranger, node: Node) -> Axes | None:
    """The layout that most of the operands of full rank are in, if it is not the plain one."""
    rank = node.outputs[0].type.rank
    found: dict[Axes, int] = {}
    for value in node.inputs:
        view = a.settled(a.views[value])
        if view.base in a.builder.constants or len(view.axes) != rank:
            continue
        if not view.plain and view.axes[0] == 0:
            found[view.axes] = found.get(view.axes, 0) + view.base.type.bytes
    return max(found, key=lambda axes: found[axes]) if found else None


def _binary(a: _Arranger, node: Node) -> bool:
    axes = _common_axes(a, node)
    if axes is None:
        return False
    operands = [_without_leading_ones(a, a.aligned(value, axes)) for value in node.inputs]
    shape = node.op.infer(*(value.type for value in operands))[0].shape
    if len(shape) != len(axes):
        return False
    return a.rebuild(node, node.op, operands, View(node.outputs[0], axes))


def _without_leading_ones(a: _Arranger, value: Value) -> Value:
    """A constant that broadcasts without its leading axes of size 1: it is no batch of one."""
    shape = list(value.type.shape)
    while len(shape) > 1 and shape[0] == 1:
        shape.pop(0)
    return a.permuted_constant(value, [shape]) if a.may_permute(value) else value


def _concat(a: _Arranger, node: Node) -> bool:
    axes = _common_axes(a, node)
    if axes is None:
        return False
    assert isinstance(node.op, Concat)
    operands = [a.aligned(value, axes) for value in node.inputs]
    axis = axes[node.op.axis % len(axes)]
    return a.rebuild(node, Concat(axis), operands, View(node.outputs[0], axes))


def _slice(a: _Arranger, node: Node) -> bool:
    assert isinstance(node.op, Slice)
    view = a.settled(a.views[node.inputs[0]])
    op = replace(node.op, axis=view.axes[node.op.axis % len(view.axes)])
    return not view.plain and a.rebuild(node, op, [view.base], view)


def _pad(a: _Arranger, node: Node) -> bool:
    assert isinstance(node.op, Pad)
    view = a.settled(a.views[node.inputs[0]])
    pads = tuple(node.op.pads[view.axes.index(axis)] for axis in range(len(view.axes)))
    return not view.plain and a.rebuild(node, replace(node.op, pads=pads), [view.base], view)


def _run(view: View, axes: Sequence[int]) -> Axes | None:
    """The base's axes for those of the view, ascending, if they are neighbours."""
    places = sorted(view.axes[axis] for axis in axes)
    return tuple(places) if places == list(range(places[0], places[-1] + 1)) else None


def _reduce(a: _Arranger, node: Node) -> bool:
    assert isinstance(node.op, Reduce)
    view = a.settled(a.views[node.inputs[0]])
    places = _run(view, node.op.axes)
    if view.plain or places is None:
        return False
    if not node.op.keep:
        kept = [axis for axis in view.axes if axis not in places]
        view = View(view.base, tuple(sorted(kept).index(axis) for axis in kept))
    return a.rebuild(
        node, replace(node.op, axes=places), [a.settled(a.views[node.inputs[0]]).base], view
    )


def _spread(a: _Arranger, node: Node) -> bool:
    assert isinstance(node.op, Spread)
    view = a.settled(a.views[node.inputs[0]])
    places = _run(view, node.op.axes) if node.op.keep else None
    if view.plain or places is None:
        return False
    sizes = tuple(node.op.sizes[node.op.axes.index(view.axes.index(axis))] for axis in places)
    return a.rebuild(node, replace(node.op, axes=places, sizes=sizes), [view.base], view)


def _rows(a: _Arranger, node: Node) -> bool:
    """Operators that treat all rows along their trailing axes alike: the rows may be permuted, and
    for layer norm, with its parameters, what is inside a row as well.
    """
    view = a.settled(a.views[node.inputs[0]])
    rank = len(view.axes)
    axes_count = node.op.axes_count if isinstance(node.op, LayerNorm) else 1
    first = rank - axes_count
    if view.plain or sorted(view.axes[first:]) != list(range(first, rank)):
        return False
    order = tuple(view.axes[first:].index(axis) for axis in range(first, rank))
    parameters = [a.plain(value) for value in node.inputs[1:]]
    if order != tuple(range(axes_count)):
        if not all(map(a.may_permute, parameters)):
            return False
        parameters = [a.permuted_constant(value, [order]) for value in parameters]
    return a.rebuild(node, node.op, [view.base, *parameters], view)


def _linear(a: _Arranger, node: Node) -> bool:
    """Permute the rows of the weight, so that the features may stay in the base's order."""
    assert isinstance(node.op, Linear)
    view = a.views[node.inputs[0]]
    weight = node.inputs[1]
    shape = view.shape
    groups = match_groups(view.transposed, shape)
    if view.plain or node.op.parts != 1 or groups is None or view.axes[0] != 0:
        return False
    *others, last = groups
    solid = [axis for axis in last.after if shape[axis] != 1]
    places = sorted(view.axes[axis] for axis in last.before)
    if solid != [len(shape) - 1] or places != solid_axes(view)[-len(places) :] or not others:
        return False
    if not all(in_order(view, group) for group in others):
        return False
    stored = a.views[weight]
    if not in_order(view, last):
        if not (stored.plain and a.may_permute(stored.base)):
            return False
        sizes = [view.transposed[axis] for axis in last.before]
        order = sorted(range(len(sizes)), key=lambda i: view.axes[last.before[i]])
        matrix = list(weight.type.shape)
        steps: list[Axes | list[int]] = [[*sizes, matrix[1]], (*order, len(order)), matrix]
        rows = a.permuted_constant(stored.base, steps)
    else:
        rows = a.plain(weight)
    features, axes = regroup(view, groups, shape)
    x = a.reshaped(view.base, features)
    rest = [a.plain(value) for value in node.inputs[2:]]
    return a.rebuild(node, node.op, [x, rows, *rest], View(x, axes))


RULES: tuple[tuple[type[Operator], Rule], ...] = (
    (Transpose, _transpose),
    (Reshape, _reshape),
    (Unary, _unary),
    (Binary, _binary),
    (Concat, _concat),
    (Slice, _slice),
    (Pad, _pad),
    (Reduce, _reduce),
    (Spread, _spread),
    (Linear, _linear),
    (ChannelAffine, _rows),
    (LayerNorm, _rows),
    (LogSoftmax, _rows),
    (Softmax, _rows),
)
