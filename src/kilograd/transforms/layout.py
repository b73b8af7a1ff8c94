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

from kilograd.ir.graph import Graph, Node, Value
from kilograd.ir.operator import Operator
from kilograd.ir.rewrite import eliminate_dead
from kilograd.ops.affine import ChannelAffine
from kilograd.ops.binary import Binary
from kilograd.ops.linear import Linear
from kilograd.ops.norm import LayerNorm
from kilograd.ops.reduce import Reduce, Spread
from kilograd.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from kilograd.ops.softmax import LogSoftmax, Softmax
from kilograd.ops.unary import Unary
from kilograd.transforms.arranger import Arranger, Axes
from kilograd.transforms.ports import Port, Ports
from kilograd.transforms.view import (
    View,
    in_order,
    match_groups,
    regroup,
    solid_axes,
)

__all__ = ["Port", "Ports", "arrange"]


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
    arranger = Arranger(graph)
    inputs = tuple(arranger.input(v, choices.get(v, View.of(v).axes)) for v in graph.inputs)
    for node in graph.nodes:
        with arranger.builder.at(node.location):
            _visit(arranger, node)
    results = [arranger.output(value) for value in graph.outputs]
    updates = {arranger.views[s].base: arranger.plain(v) for s, v in graph.updates.items()}
    arranged = arranger.builder.finish([value for value, _ in results], updates)
    return eliminate_dead(arranged), Ports(inputs, tuple(port for _, port in results))


def _visit(a: Arranger, node: Node) -> None:
    """Rebuild one node, on views where its operator has a rule for them."""
    for kind, rule in RULES:
        if isinstance(node.op, kind) and rule(a, node):
            return
    a.rebuild(node, node.op, [a.plain(value) for value in node.inputs])


Rule = Callable[[Arranger, Node], bool]


def _transpose(a: Arranger, node: Node) -> bool:
    assert isinstance(node.op, Transpose)
    view = a.settled(a.views[node.inputs[0]])
    axes = tuple(view.axes[axis] for axis in node.op.axes)
    a.views[node.outputs[0]] = a.tidy(View(view.base, axes))
    return True


def _reshape(a: Arranger, node: Node) -> bool:
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


def _unary(a: Arranger, node: Node) -> bool:
    view = a.views[node.inputs[0]]
    return a.rebuild(node, node.op, [view.base], view)


def _common_axes(a: Arranger, node: Node) -> Axes | None:
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


def _binary(a: Arranger, node: Node) -> bool:
    axes = _common_axes(a, node)
    if axes is None:
        return False
    operands = [_without_leading_ones(a, a.aligned(value, axes)) for value in node.inputs]
    shape = node.op.infer(*(value.type for value in operands))[0].shape
    if len(shape) != len(axes):
        return False
    return a.rebuild(node, node.op, operands, View(node.outputs[0], axes))


def _without_leading_ones(a: Arranger, value: Value) -> Value:
    """A constant that broadcasts without its leading axes of size 1: it is no batch of one."""
    shape = list(value.type.shape)
    while len(shape) > 1 and shape[0] == 1:
        shape.pop(0)
    return a.permuted_constant(value, [shape]) if a.may_permute(value) else value


def _concat(a: Arranger, node: Node) -> bool:
    axes = _common_axes(a, node)
    if axes is None:
        return False
    assert isinstance(node.op, Concat)
    operands = [a.aligned(value, axes) for value in node.inputs]
    axis = axes[node.op.axis % len(axes)]
    return a.rebuild(node, Concat(axis), operands, View(node.outputs[0], axes))


def _slice(a: Arranger, node: Node) -> bool:
    assert isinstance(node.op, Slice)
    view = a.settled(a.views[node.inputs[0]])
    op = replace(node.op, axis=view.axes[node.op.axis % len(view.axes)])
    return not view.plain and a.rebuild(node, op, [view.base], view)


def _pad(a: Arranger, node: Node) -> bool:
    assert isinstance(node.op, Pad)
    view = a.settled(a.views[node.inputs[0]])
    pads = tuple(node.op.pads[view.axes.index(axis)] for axis in range(len(view.axes)))
    return not view.plain and a.rebuild(node, replace(node.op, pads=pads), [view.base], view)


def _run(view: View, axes: Sequence[int]) -> Axes | None:
    """The base's axes for those of the view, ascending, if they are neighbours."""
    places = sorted(view.axes[axis] for axis in axes)
    return tuple(places) if places == list(range(places[0], places[-1] + 1)) else None


def _reduce(a: Arranger, node: Node) -> bool:
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


def _spread(a: Arranger, node: Node) -> bool:
    assert isinstance(node.op, Spread)
    view = a.settled(a.views[node.inputs[0]])
    places = _run(view, node.op.axes) if node.op.keep else None
    if view.plain or places is None:
        return False
    sizes = tuple(node.op.sizes[node.op.axes.index(view.axes.index(axis))] for axis in places)
    return a.rebuild(node, replace(node.op, axes=places, sizes=sizes), [view.base], view)


def _rows(a: Arranger, node: Node) -> bool:
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


def _linear(a: Arranger, node: Node) -> bool:
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
