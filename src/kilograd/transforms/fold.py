"""Folding: what can be computed at compile time is, and what does nothing goes.

* a node whose inputs are all constants becomes a constant, unless that would lose a parameter;
* a per-channel scale and shift joins the convolution or linear layer before it, whose weights then
  hold the product (`Origin` remembers how to undo it);
* a vector added to a linear layer without bias becomes its bias;
* operators that return their input vanish, and with them whatever nobody reads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kilograd.ir.graph import Graph, Node, Tensor, Value
from kilograd.ir.operator import Operator
from kilograd.ir.origin import Affine, Origin, Permute, Step
from kilograd.ir.origin import Reshape as ReshapeStep
from kilograd.ir.rewrite import eliminate_dead
from kilograd.ir.types import DType, TensorType
from kilograd.ops.affine import ChannelAffine
from kilograd.ops.binary import Add
from kilograd.ops.conv import Conv2d
from kilograd.ops.conv_transpose import ConvTranspose2d
from kilograd.ops.depthwise import DepthwiseConv2d
from kilograd.ops.linear import Linear
from kilograd.ops.pool import AdaptiveAvgPool2d
from kilograd.ops.reduce import Reduce, Spread
from kilograd.ops.resize import UpsampleNearest2d
from kilograd.ops.shape import Concat, Pad, Reshape, Slice, Transpose

SMALLEST_SCALE = 1e-12
"""A scale below this could not be divided out again, so it is not folded."""

Layer = Conv2d | ConvTranspose2d | DepthwiseConv2d | Linear


def fold(graph: Graph) -> Graph:
    """The same function of the inputs and of the parameters' values, with less to execute."""
    return _Folder(eliminate_dead(graph)).run()


class _Folder:
    """One walk over the program; `read` says what to read instead of a value."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants: dict[Value, Tensor] = dict(graph.constants)
        self.nodes: dict[Value, Node] = {}  # by first output, in order
        self.read: dict[Value, Value] = {}
        self.names = {value.name for value in graph.values()}
        self.uses: dict[Value, int] = {}
        for value in (*graph.results(), *(v for node in graph.nodes for v in node.inputs)):
            self.uses[value] = self.uses.get(value, 0) + 1

    def run(self) -> Graph:
        """Visit every node of a forward graph, which has no checks."""
        for node in self.graph.nodes:
            inputs = tuple(self.read.get(value, value) for value in node.inputs)
            node = replace(node, inputs=inputs)
            assert not node.op.check
            if not (
                self.evaluated(node)
                or self.identical(node)
                or self.absorbed(node)
                or self.biased(node)
            ):
                self.nodes[node.outputs[0]] = node
        outputs = tuple(self.read.get(value, value) for value in self.graph.outputs)
        updates = {s: self.read.get(v, v) for s, v in self.graph.updates.items()}
        nodes = tuple(self.nodes.values())
        folded = replace(
            self.graph, nodes=nodes, constants=self.constants, outputs=outputs, updates=updates
        )
        return _named_after_parameters(eliminate_dead(folded))

    def forward(self, old: Value, value: Value) -> bool:
        """Read `value` instead of `old`, which joins its readers."""
        self.read[old] = value
        self.uses[value] = self.uses.get(value, 0) - 1 + self.uses.get(old, 0)
        return True

    def constant(self, like: Value, array: np.ndarray, origin: Origin | None) -> Value:
        """A constant, named after `like`."""
        number, name = 0, like.name
        while name in self.names:
            number += 1
            name = f"{like.name}_{number}"
        self.names.add(name)
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        value = Value(name, TensorType(array.shape, DType.of(array), like.type.quantization))
        self.constants[value] = Tensor(array, origin)
        return value

    # Constants

    def evaluated(self, node: Node) -> bool:
        """Compute a node of constants; a parameter may only be laid out anew, for one reader."""
        if node.op.mutates or not node.inputs:
            return False
        if not all(value in self.constants for value in node.inputs):
            return False
        tensors = [self.constants[value] for value in node.inputs]
        origins = [tensor.origin for tensor in tensors if tensor.origin]
        origin = None
        if origins:
            step = _layout_step(node)
            if step is None or self.uses[node.inputs[0]] > 1 or origins[0].part is not None:
                return False
            origin = origins[0].then(step)
        results = node.op.reference(np, *(tensor.array for tensor in tensors))
        for old, array in zip(node.outputs, results, strict=True):
            array = np.asarray(array, old.type.dtype.numpy)
            value = self.constant(old, array.reshape(old.type.shape), origin)
            self.read[old], self.uses[value] = value, self.uses.get(old, 0)
        return True

    # Nothing to do

    def identical(self, node: Node) -> bool:
        """Drop a node that returns its input; join reshapes in a row, and transposes."""
        if len(node.outputs) != 1 or not node.inputs:
            return False
        x, y, op = node.inputs[0], node.outputs[0], node.op
        if x.type == y.type and _returns_input(op, x.type):
            return self.forward(y, x)
        if x.type == y.type and isinstance(op, ChannelAffine) and self.neutral(node):
            return self.forward(y, x)
        source = self.nodes.get(x)
        if isinstance(op, Reduce) and op.axes[0] > 0 and x.type.size == y.type.size:
            return self.instead(node, Reshape(y.type.shape), x)
        if source is None:
            return False
        if isinstance(op, Reshape) and isinstance(source.op, Reshape):
            start = source.inputs[0]
            if start.type == y.type:
                return self.forward(y, start)
            return self.instead(node, op, start)
        if isinstance(op, Transpose) and isinstance(source.op, Transpose):
            axes = tuple(source.op.axes[axis] for axis in op.axes)
            if axes == tuple(range(len(axes))):
                return self.forward(y, source.inputs[0])
            return self.instead(node, Transpose(axes), source.inputs[0])
        return False

    def instead(self, node: Node, op: Operator, x: Value) -> bool:
        """Compute the node's output by `op` from x."""
        self.uses[x] = self.uses.get(x, 0) + 1
        self.uses[node.inputs[0]] -= 1
        self.nodes[node.outputs[0]] = replace(node, op=op, inputs=(x,))
        return True

    def neutral(self, node: Node) -> bool:
        """True for a scale of ones and a shift of zeros that are no one's parameters."""
        tensors = [self.constants.get(value) for value in node.inputs[1:]]
        return all(
            tensor is not None and tensor.origin is None and bool(np.all(tensor.array == number))
            for tensor, number in zip(tensors, (1, 0), strict=True)
        )

    # Scale and shift

    def absorbed(self, node: Node) -> bool:
        """Fold a ChannelAffine into the node before it."""
        if not isinstance(node.op, ChannelAffine):
            return False
        x, *parameters = node.inputs
        source = self.nodes.get(x)
        if source is None or self.uses[x] != 1:
            return False
        affine = [self.parameter(value) for value in parameters]
        before = [self.parameter(value) for value in source.inputs[1:]]
        if any(tensor is None for tensor in (*affine, *before)):
            return False
        scale, shift = (tensor for tensor in affine if tensor is not None)
        known = [tensor for tensor in before if tensor is not None]
        if isinstance(source.op, ChannelAffine):
            merged = _merge(known, scale, shift)
        elif isinstance(source.op, Layer) and _is_open(source.op):
            merged = _into_layer(source.op, known, scale, shift)
        else:
            return False
        if merged is None:
            return False
        names = [*source.inputs[1:], *parameters[1:]]
        values = [
            self.constant(like, tensor.array, tensor.origin)
            for like, tensor in zip(names, merged, strict=False)
        ]
        self.uses.update((value, 1) for value in values)
        op = source.op if isinstance(source.op, ChannelAffine) else replace(source.op, bias=True)
        del self.nodes[x]
        self.nodes[node.outputs[0]] = replace(
            source, op=op, inputs=(source.inputs[0], *values), outputs=node.outputs
        )
        return True

    def biased(self, node: Node) -> bool:
        """A vector added to the result of a linear layer without bias is its bias."""
        if not isinstance(node.op, Add) or (node.op.low, node.op.high) != (-math.inf, math.inf):
            return False
        for x, bias in (node.inputs, node.inputs[::-1]):
            source, tensor = self.nodes.get(x), self.constants.get(bias)
            if source is None or tensor is None or self.uses[x] != 1:
                continue
            op = source.op
            if not isinstance(op, Linear) or op.bias or not _is_open(op):
                continue
            if bias.type.shape != x.type.shape[-1:]:
                continue
            del self.nodes[x]
            self.nodes[node.outputs[0]] = replace(
                source, op=replace(op, bias=True), inputs=(*source.inputs, bias),
                outputs=node.outputs,
            )  # fmt: skip
            return True
        return False

    def parameter(self, value: Value) -> Tensor | None:
        """A constant that may be replaced by a product of it: no parameter with other readers."""
        tensor = self.constants.get(value)
        if tensor is None or (tensor.origin is not None and self.uses[value] > 1):
            return None
        return None if tensor.origin is not None and tensor.origin.part is not None else tensor


def _named_after_parameters(graph: Graph) -> Graph:
    """Constants that hold a parameter have its name, whatever they were merged from."""
    holds = {value: t.origin.name for value, t in graph.constants.items() if t.origin}
    taken = {value.name for value in graph.values() if value not in holds}
    renamed: dict[Value, Value] = {}
    for value, parameter in holds.items():
        base = name = re.sub(r"\W", "_", parameter if parameter[:1].isalpha() else f"v{parameter}")
        number = 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        renamed[value] = Value(name, value.type)
    nodes = (replace(n, inputs=tuple(renamed.get(v, v) for v in n.inputs)) for n in graph.nodes)
    return replace(
        graph,
        nodes=tuple(nodes),
        constants={renamed.get(value, value): t for value, t in graph.constants.items()},
        outputs=tuple(renamed.get(value, value) for value in graph.outputs),
    )


def _layout_step(node: Node) -> Step | None:
    """The step of a parameter's origin that a node amounts to."""
    if isinstance(node.op, Transpose):
        return Permute(node.op.axes)
    if isinstance(node.op, Reshape):
        return ReshapeStep(node.inputs[0].type.shape, node.op.shape)
    return None


def _returns_input(op: Operator, x: TensorType) -> bool:
    """True for an operator of one input, and an output of the same type, that only copies."""
    if isinstance(op, Transpose):
        return op.axes == tuple(range(x.rank))
    if isinstance(op, UpsampleNearest2d):
        return op.scale == (0.0, 0.0)
    if isinstance(op, Reduce | Spread):
        return op.axes[0] > 0  # over axes of size 1, the batch not among them
    return isinstance(op, AdaptiveAvgPool2d | Concat | Pad | Reshape | Slice)


def _is_open(op: Layer) -> bool:
    """True when nothing happens in the layer after its sum, and its weight is in one piece."""
    if isinstance(op, ConvTranspose2d):
        return True
    return op.parts == 1 and (op.low, op.high) == (-math.inf, math.inf)


def _merge(first: Sequence[Tensor], scale: Tensor, shift: Tensor) -> list[Tensor] | None:
    """Two scales and shifts as one, when none is a parameter."""
    if any(tensor.origin for tensor in (*first, scale, shift)):
        return None
    a, b = (tensor.array for tensor in first)
    return [Tensor(a * scale.array), Tensor(b * scale.array + shift.array)]


def _into_layer(
    op: Layer, layer: Sequence[Tensor], scale: Tensor, shift: Tensor
) -> list[Tensor] | None:
    """Weight and bias of a layer that scales and shifts its output channels; None where that could
    not be undone or would drop the only parameter.
    """
    weight, *bias = layer
    if np.abs(scale.array).min(initial=np.inf) < SMALLEST_SCALE:
        return None
    if scale.origin is not None and weight.origin is None:
        return None
    factor = _per_weight(op, weight.array.shape, scale.array)
    zero = np.zeros(1, np.float32)
    origin = weight.origin.then(Affine(factor, zero)) if weight.origin else None
    scaled = Tensor(np.asarray(weight.array * factor, np.float32), origin)
    old = bias[0].array if bias else np.zeros_like(shift.array)
    moved = np.asarray(old * scale.array, np.float32)
    total = np.asarray(moved + shift.array, np.float32)
    source = None
    if shift.origin is not None:
        source = shift.origin
        if np.any(moved):
            source = source.then(Affine(np.ones(1, np.float32), moved))
    elif bias and bias[0].origin is not None:
        source = bias[0].origin.then(Affine(scale.array, shift.array))
    return [scaled, Tensor(total, source)]


def _per_weight(op: Layer, shape: tuple[int, ...], scale: np.ndarray) -> np.ndarray:
    """The scale [O] so that it multiplies a weight of this shape."""
    if not isinstance(op, ConvTranspose2d):
        return scale
    out_of_group, channels_in = shape[2:]
    by_group = scale.reshape(op.groups, out_of_group).T
    return np.ascontiguousarray(np.repeat(by_group, channels_in // op.groups, axis=1))
