"""Puts channels in another order, so that chosen input channels of a weight come first.

A partial update trains the first channels of a weight: a slice stays a prefix. Which channels those
are is a matter of their order, and the order is free wherever nothing but sums over all channels
and operators on single channels look at them::

    conv a -> relu -> depthwise -> relu -> conv b      a's outputs, the depthwise weight and b's
                                                       inputs are permuted together

All tensors whose channels have to stay together are a `Channels`: through activations, pools,
depthwise convolutions and residual sums. The function stays the same. Integer sums are exact, so an
int8 network gives the same bits; in floating point, a convolution adds its terms in another order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kilograd.errors import InputError
from kilograd.ir import Graph, Node, Tensor, TensorType, Value
from kilograd.ops.affine import ChannelAffine
from kilograd.ops.avg_pool import AdaptiveAvgPool2d, AvgPool2d
from kilograd.ops.binary import Binary
from kilograd.ops.conv import Conv2d
from kilograd.ops.depthwise import DepthwiseConv2d
from kilograd.ops.linear import Linear
from kilograd.ops.max_pool import AdaptiveMaxPool2d, MaxPool2d
from kilograd.ops.q_conv import QConv2d
from kilograd.ops.q_convert import Dequantize, Quantize
from kilograd.ops.q_depthwise import QDepthwiseConv2d
from kilograd.ops.q_elementwise import QAdd, QMul
from kilograd.ops.q_linear import QLinear
from kilograd.ops.q_pool import QMean
from kilograd.ops.q_table import QTable
from kilograd.ops.reduce import Reduce
from kilograd.ops.resize import UpsampleNearest2d
from kilograd.ops.shape import Pad, Reshape
from kilograd.ops.unary import Unary

Order = tuple[int, ...]

_MIXING = {Conv2d: 3, Linear: 1, QConv2d: 0, QLinear: 0}
"""Operators that sum over all input channels, and the axis of the output channels of the weight."""
_DEPTHWISE = (DepthwiseConv2d, QDepthwiseConv2d)
_SAME = (
    *(Unary, AvgPool2d, AdaptiveAvgPool2d, MaxPool2d, AdaptiveMaxPool2d, UpsampleNearest2d),
    *(QTable, Quantize, Dequantize, QMean),
)
"""Operators that treat every channel alike and by itself; subclasses too."""
_TOGETHER = (Binary, ChannelAffine, QAdd, QMul)
"""Operators that join the same channel of several operands."""


@dataclass(eq=False)
class Channels:
    """Channels that can only be reordered together.

    `count` channels; `members` are the constants that have them, with the axis and how many times
    they follow one another there (a flattened image has them once a pixel). `fixed` says why their
    order cannot change, and is empty where it can.
    """

    count: int
    members: set[tuple[Value, int, int]] = field(default_factory=set)
    fixed: str = ""


@dataclass(frozen=True)
class _Place:
    """Where the channels of an activation are: `repeats` times along its last axis."""

    channels: int
    repeats: int


class ChannelMap:
    """Which channels of a forward graph belong together."""

    def __init__(self, graph: Graph) -> None:
        """Follow the channels through the graph, float or int8."""
        self._graph = graph
        self._groups: list[Channels] = []
        self._parent: list[int] = []
        self._places: dict[Value, _Place] = {}
        self._constants: dict[tuple[Value, int], int] = {}
        for value in graph.inputs:
            self._fix(self._new(value), "it is an input of the network")
        for node in graph.nodes:
            self._visit(node)
        for value in graph.outputs:
            if value in self._places:
                self._fix(self._places[value], "it is an output of the network")

    def of_weight(self, value: Value, axis: int) -> Channels:
        """The channels along an axis of a weight."""
        index = self._constants.get((value, axis))
        if index is None:
            return Channels(value.type.shape[axis], fixed="its operator cannot be reordered")
        return self._groups[self._find(index)]

    @property
    def groups(self) -> list[Channels]:
        """All sets of channels that are an axis of a constant, in order of the graph."""
        roots = dict.fromkeys(self._find(index) for index in range(len(self._groups)))
        return [self._groups[root] for root in roots if self._groups[root].members]

    def inputs_of(self, weight: Value) -> Channels:
        """The input channels of a weight."""
        readers = [node for node in self._graph.nodes if weight in node.inputs]
        axis = readers[0].op.channel_axis if readers else None
        if axis is None:
            return Channels(1, fixed="it has no input channels")
        found = self.of_weight(weight, axis)
        repeats = [n for value, a, n in found.members if (value, a) == (weight, axis)]
        if not found.fixed and repeats != [1]:
            return Channels(found.count, fixed="it reads a flattened image")
        return found

    # Walking -------------------------------------------------------------------------------------

    def _visit(self, node: Node) -> None:
        op, outputs = node.op, node.outputs
        known = [value for value in node.inputs if value in self._places]
        if type(op) in _MIXING and len(known) == 1 and self._plain(node):
            self._mix(node)
        elif isinstance(op, _DEPTHWISE) and len(known) == 1 and self._plain(node):
            place = self._places[node.inputs[0]]
            self._attach(node.inputs[1], 2, place)
            self._attach_vectors(node.inputs[2:], place)
            self._places[outputs[0]] = place
        elif isinstance(op, Reshape):
            self._reshape(node)
        elif isinstance(op, _SAME) and len(known) == 1:
            for value in outputs:
                self._places[value] = self._places[known[0]]
        elif isinstance(op, _TOGETHER) and known:
            self._join(node, known)
        elif _keeps_last(node) and len(known) == 1:
            self._places[outputs[0]] = self._places[known[0]]
        else:
            reason = f"{op.name} of {node.location} looks at single channels"
            for value in (*known, *outputs):
                self._fix(self._places.get(value) or self._new(value), reason)

    def _plain(self, node: Node) -> bool:
        """Whether the layer is whole, ungrouped, and reads constants besides its input."""
        whole = getattr(node.op, "parts", 1) == 1 and getattr(node.op, "groups", 1) == 1
        return whole and all(value in self._graph.constants for value in node.inputs[1:])

    def _mix(self, node: Node) -> None:
        axis = node.op.channel_axis
        assert axis is not None
        self._attach(node.inputs[1], axis, self._places[node.inputs[0]])
        place = self._new(node.outputs[0])
        self._attach(node.inputs[1], _MIXING[type(node.op)], place)  # type: ignore[index]
        self._attach_vectors(node.inputs[2:], place)

    def _attach_vectors(self, values: Sequence[Value], place: _Place) -> None:
        for value in values:
            self._attach(value, value.type.rank - 1, place)

    def _reshape(self, node: Node) -> None:
        (x,), (y,) = node.inputs, node.outputs
        place = self._places.get(x)
        if place is None:
            self._fix(self._new(y), "it is made of constants")
            return
        last, count = y.type.shape[-1], self._groups[self._find(place.channels)].count
        wide = last % (count * place.repeats) == 0 and _splits(x.type.shape, last)
        if last == x.type.shape[-1]:
            self._places[y] = place
        elif wide:
            self._places[y] = _Place(place.channels, last // count)
        else:
            reason = f"{node.location} reshapes it"
            self._fix(place, reason)
            self._fix(self._new(y), reason)

    def _join(self, node: Node, known: list[Value]) -> None:
        """Operands with the channels of the result, and those that have one for all."""
        last = node.outputs[0].type.shape[-1]
        wide = [v for v in known if v.type.shape[-1] == last]
        if not wide:
            self._fix(self._new(node.outputs[0]), f"{node.location} makes channels by broadcasting")
            return
        place = self._places[wide[0]]
        for value in wide[1:]:
            other = self._places[value]
            self._union(place.channels, other.channels)
            if place.repeats != other.repeats:
                self._fix(place, f"{node.location} joins unlike layouts")
        for value in node.inputs:
            if value in self._graph.constants and value.type.rank and value.type.shape[-1] == last:
                self._attach(value, value.type.rank - 1, place)
        self._places[node.outputs[0]] = place

    # Sets of channels ----------------------------------------------------------------------------

    def _new(self, value: Value) -> _Place:
        self._groups.append(Channels(value.type.shape[-1] if value.type.rank else 1))
        self._parent.append(len(self._parent))
        place = _Place(len(self._groups) - 1, 1)
        self._places[value] = place
        return place

    def _find(self, index: int) -> int:
        while self._parent[index] != index:
            index = self._parent[index]
        return index

    def _union(self, a: int, b: int) -> None:
        a, b = self._find(a), self._find(b)
        if a == b:
            return
        kept, gone = self._groups[a], self._groups[b]
        kept.members |= gone.members
        kept.fixed = kept.fixed or gone.fixed
        if kept.count != gone.count:
            kept.fixed = kept.fixed or "it is tied to channels of another number"
        self._parent[b] = a

    def _fix(self, place: _Place, reason: str) -> None:
        group = self._groups[self._find(place.channels)]
        group.fixed = group.fixed or reason

    def _attach(self, value: Value, axis: int, place: _Place) -> None:
        index = self._constants.setdefault((value, axis), place.channels)
        self._union(place.channels, index)
        group = self._groups[self._find(place.channels)]
        if any((v, a) == (value, axis) and n != place.repeats for v, a, n in group.members):
            group.fixed = group.fixed or "one weight reads it in two layouts"
        group.members.add((value, axis, place.repeats))


def _keeps_last(node: Node) -> bool:
    """Whether a reduction or padding leaves the last axis alone."""
    op, rank = node.op, node.inputs[0].type.rank
    if isinstance(op, Reduce):
        return rank - 1 not in op.axes
    return isinstance(op, Pad) and op.pads[-1] == (0, 0)


def _splits(shape: tuple[int, ...], last: int) -> bool:
    """Whether `last` is the product of the last few sizes of `shape`."""
    product = 1
    for size in reversed(shape):
        product *= size
        if product == last:
            return True
    return False


# Reordering --------------------------------------------------------------------------------------


def reorder(graph: Graph, orders: Iterable[tuple[Channels, Order]]) -> Graph:
    """The same function with channels in another order: place i takes channel order[i]."""
    constants = dict(graph.constants)
    renamed: dict[Value, Value] = {}
    for channels, order in orders:
        for value, axis, repeats in sorted(channels.members, key=lambda m: (m[0].name, m[1])):
            current = renamed.get(value, value)
            moved = _moved(current, constants.pop(current), axis, _repeated(order, repeats))
            renamed[value] = moved[0]
            constants[moved[0]] = moved[1]
    ordered = [renamed.get(value, value) for value in graph.constants]
    nodes = tuple(
        replace(node, inputs=tuple(renamed.get(value, value) for value in node.inputs))
        for node in graph.nodes
    )
    return replace(graph, nodes=nodes, constants={value: constants[value] for value in ordered})


def _repeated(order: Order, repeats: int) -> Order:
    count = len(order)
    return tuple(block * count + index for block in range(repeats) for index in order)


def _moved(value: Value, tensor: Tensor, axis: int, order: Order) -> tuple[Value, Tensor]:
    array = np.ascontiguousarray(np.take(tensor.array, order, axis))
    origin = tensor.origin.reordered(axis, order) if tensor.origin else None
    meaning = value.type.quantization
    if meaning is not None and meaning.axis == axis:
        meaning = replace(meaning, scales=tuple(meaning.scales[i] for i in order))
    type_ = TensorType(value.type.shape, value.type.dtype, meaning)
    return Value(value.name, type_), Tensor(array, origin)


def to_front(graph: Graph, wanted: Mapping[Value, Sequence[int]]) -> Graph:
    """The same function, with the wanted input channels of each weight in front.

    Weights that share channels (they read the same tensor, or tensors joined by residual sums) may
    want different ones as long as the smaller set is part of the larger. Raises InputError where it
    is not, and for channels whose order cannot change.
    """
    channel_map, requests = ChannelMap(graph), {}
    for weight, indices in wanted.items():
        channels = channel_map.inputs_of(weight)
        is_prefix = set(indices) == set(range(len(indices)))
        if channels.fixed and not is_prefix:
            raise InputError(
                f"update: the channels {list(indices)} of {_name(graph, weight)} cannot be brought "
                f"to the front: {channels.fixed}. Train its first channels "
                "(kg.update.channels(fraction)), or all"
            )
        if not channels.fixed:
            requests.setdefault(channels, []).append((weight, tuple(indices)))
    orders = [(channels, _order(graph, channels, asked)) for channels, asked in requests.items()]
    return reorder(graph, [(c, order) for c, order in orders if order != tuple(range(c.count))])


def _order(graph: Graph, channels: Channels, asked: list[tuple[Value, Order]]) -> Order:
    order: list[int] = []
    previous = None
    for weight, indices in sorted(asked, key=lambda request: len(request[1])):
        if not set(order) <= set(indices):
            raise InputError(
                f"update: {_name(graph, previous)} and {_name(graph, weight)} read the same "
                f"channels, so the smaller choice must be part of the larger; {sorted(order)} is "
                f"not part of {sorted(indices)}"
            )
        order += sorted(set(indices) - set(order))
        previous = weight
    return (*order, *sorted(set(range(channels.count)) - set(order)))


def _name(graph: Graph, weight: Value | None) -> str:
    origin = graph.constants[weight].origin if weight is not None else None
    return origin.name if origin else str(weight)
