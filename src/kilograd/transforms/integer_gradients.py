"""Int8 gradients: the float gradients of a quantised training graph, made integer.

%d: f32 = q_conv2d_grad_input(%d_y, %w, %scales)
->
%d, %e, %wanted = integer_conv2d_grad_input(%d_y, %d_y.e, %w, %multipliers, %shift, %seed)

Differentiation builds gradients in float32 and real units. This walk goes through its result in
order; where the rule of an operator finds its gradient integer, or is worth a conversion, it builds
the integer operator, and everything else reads a float32 made from the integers. So float32 begins
where a network is float32, at the loss and a float32 head, and ends at the first int8 tensor, whose
gradient is given an exponent of its own; what lies behind gets it from there (`ig_narrow.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from kilograd.errors import InputError
from kilograd.ir import Builder, DType, Graph, Node, Operator, Value, eliminate_dead
from kilograd.ops.binary import Add
from kilograd.ops.ig_conv import (
    IntegerConv2dGradInput,
    IntegerConv2dGradWeight,
    IntegerLinearGradInput,
    IntegerLinearGradWeight,
    float_fields,
    scale_multipliers,
)
from kilograd.ops.ig_convert import GradientDequantize, GradientQuantize
from kilograd.ops.ig_depthwise import (
    IntegerDepthwiseConv2dGradInput,
    IntegerDepthwiseConv2dGradWeight,
    channel_multipliers,
)
from kilograd.ops.ig_elementwise import GradientAdd, GradientMean, GradientSum, GradientTable
from kilograd.ops.ig_narrow import ShiftStep
from kilograd.ops.ig_step import IntegerStep, channel_ratios
from kilograd.ops.max_pool import MaxPool2dGrad
from kilograd.ops.optimizer import Assign, FiniteCheck
from kilograd.ops.q_conv_grad import (
    QConv2dGradInput,
    QConv2dGradWeight,
    QLinearGradInput,
    QLinearGradWeight,
)
from kilograd.ops.q_convert import QMask
from kilograd.ops.q_depthwise_grad import QDepthwiseConv2dGradInput, QDepthwiseConv2dGradWeight
from kilograd.ops.q_optimizer import QSgdCheck, QSgdStep
from kilograd.ops.q_table import QTableGrad
from kilograd.ops.random import AdvanceSeed
from kilograd.ops.reduce import Reduce, Spread
from kilograd.ops.shape import Reshape, Slice, SliceGrad, Transpose

FIRST_SALT = 1 << 16
"""Random numbers of gradients; those of weights have smaller salts."""

_SLOPE_BITS = 15


@dataclass(frozen=True)
class Integers:
    """A gradient as integers, i8 or sums i32: `array` times unit 2^exponent."""

    array: Value
    exponent: Value
    unit: float = 1.0


def integer_gradients(train: Graph, seed: int) -> Graph:
    """The training graph with integer gradients. `seed` starts the random numbers where the graph
    has none of its own.

    The shifts are states whose first values are guesses; `calibrate_shifts` finds better ones.
    """
    walk = _Walk(train, seed)
    for node in train.nodes:
        with walk.builder.at(node.location):
            if not _made_integer(walk, node):
                walk.keep(node)
    return walk.finish()


def _made_integer(walk: _Walk, node: Node) -> bool:
    rule = _RULES.get(type(node.op))
    try:
        return rule is not None and rule(walk, node)
    except InputError:  # sums that may overflow: the integer operator's own limits
        return False


def float_gradients(train: Graph) -> tuple[str, ...]:
    """What reads integer gradients as float32, a line each: layers without integer gradients, and
    steps that need floats.
    """
    made = {n.outputs[0] for n in train.nodes if isinstance(n.op, GradientDequantize)}
    return tuple(
        dict.fromkeys(
            f"{node.location}: {node.op.name} takes its gradient as float32"
            for node in train.nodes
            if any(value in made for value in node.inputs) and not node.op.check
        )
    )


class _Walk:
    """What has been built so far, and what each float gradient has become."""

    def __init__(self, graph: Graph, seed: int) -> None:
        self.graph = graph
        self.builder = Builder(replace(graph, nodes=()))
        self.builder.reserve(value.name for value in graph.values())
        self.integers: dict[Value, Integers] = {}
        self.floats: set[Value] = {*graph.inputs, *graph.constants, *graph.state}
        self.stands_for: dict[Value, Value] = {}
        self._seed = next((v for v in graph.state if v.name == "random_seed"), None)
        self._start = seed
        self._wanted: list[tuple[Value, Value]] = []
        self._salt = FIRST_SALT
        self._constants: dict[str, Value] = {}

    def seed(self) -> Value:
        """The seed of the step's random numbers."""
        if self._seed is None:
            self._seed = self.builder.new_state("random_seed", np.array([self._start], np.uint32))
        return self._seed

    def salt(self) -> int:
        """A number that no other tensor's random numbers have."""
        self._salt += 1
        return self._salt

    def constant(self, name: str, array: np.ndarray) -> Value:
        """A constant that all who ask for this name share."""
        if name not in self._constants:
            self._constants[name] = self.builder.constant(name, array)
        return self._constants[name]

    def integer(self, d: Value) -> Integers:
        """The gradient `d` as int8; a float one is converted, once it is known to be finite."""
        if d not in self.integers:
            self.builder.add_multi(FiniteCheck(), d)
            op = GradientQuantize(self.salt())
            g, exponent = self.builder.add_multi(op, d, self.seed(), name=f"{d.name}.integer")
            self.integers[d] = Integers(g, exponent)
        return self.integers[d]

    def narrowed(self, node: Node, op: Operator, guess: int, *before: Value) -> bool:
        """Add an operator that narrows its sums, which reads a shift and the seed last, for the
        node's output.
        """
        (d,) = node.outputs
        shift = self.builder.new_state(f"{d.name}.shift", np.array(guess, np.int32))
        g, exponent, wanted = self.builder.add_multi(
            op, *before, shift, self.seed(), name=f"{d.name}.integer"
        )
        self._wanted.append((shift, wanted))
        self.integers[d] = Integers(g, exponent)
        return True

    def keep(self, node: Node) -> None:
        """The node as it is; gradients that it reads become float32."""
        for value in node.inputs:
            if value in self.integers and value not in self.floats:
                made = self.integers[value]
                op = GradientDequantize(made.unit)
                self._append(Node(op, (made.array, made.exponent), (value,), node.location))
        self._append(node)

    def _append(self, node: Node) -> None:
        self.builder.nodes.append(node)
        self.floats.update(node.outputs)

    def finish(self) -> Graph:
        """The whole graph, with the steps of the shifts."""
        updates = {s: self.stands_for.get(v, v) for s, v in self.graph.updates.items()}
        for shift, wanted in self._wanted:
            updates[shift] = self.builder.add(ShiftStep(), shift, wanted, name=f"{shift.name}.next")
        if self._seed is not None and self._seed not in updates:
            updates[self._seed] = self.builder.add(AdvanceSeed(), self._seed)
        return eliminate_dead(self.builder.finish(self.graph.outputs, updates))


Rule = Callable[[_Walk, Node], bool]
"""Builds the integer form of a node; False where it has none."""


def _input_guess(terms: int) -> int:
    """The shift of sums of as many products, each factor being far from its bound."""
    return max(30 - 7 - 4 - math.ceil(math.log2(terms)) // 2, 0)


def _layer_input(
    op: type[IntegerConv2dGradInput | IntegerLinearGradInput],
) -> Rule:
    def rule(walk: _Walk, node: Node) -> bool:
        d_y, *weights, _ = node.inputs
        made, meaning = walk.integer(d_y), weights[0].type.quantization
        assert meaning is not None
        groups = getattr(node.op, "groups", 1)
        terms = math.prod(weights[0].type.shape[:-1]) // groups
        multiplier, unit = scale_multipliers(meaning.scales, terms)
        constant = walk.constant(f"{weights[0].name}.multipliers", multiplier)
        whole = op(**float_fields(node.op), unit=unit, salt=walk.salt())
        operands = (made.array, made.exponent, *weights, constant)
        return walk.narrowed(node, whole, _input_guess(terms), *operands)

    return rule


def _depthwise_input(walk: _Walk, node: Node) -> bool:
    op = cast(QDepthwiseConv2dGradInput, node.op)
    d_y, weights = node.inputs[0], node.inputs[1 : 1 + op.parts]
    made, taps = walk.integer(d_y), math.prod(weights[0].type.shape[:2])
    scales = [s for w in weights if w.type.quantization for s in w.type.quantization.scales]
    multiplier, unit = channel_multipliers(scales, taps)
    constant = walk.constant(f"{weights[0].name}.multipliers", multiplier)
    whole = IntegerDepthwiseConv2dGradInput(**float_fields(op), unit=unit, salt=walk.salt())
    operands = (made.array, made.exponent, *weights, constant)
    return walk.narrowed(node, whole, _input_guess(taps), *operands)


def _weight(op: type[Any]) -> Rule:
    def rule(walk: _Walk, node: Node) -> bool:
        x, d_y = node.inputs
        made = walk.integer(d_y)
        (d_w,) = node.outputs
        sums = walk.builder.add(op(**float_fields(node.op)), x, made.array, name=f"{d_w.name}.sums")
        walk.integers[d_w] = Integers(sums, made.exponent, cast(Any, node.op).x_scale)
        return True

    return rule


def _bias(walk: _Walk, node: Node) -> bool:
    op, (d_y,), (d_b,) = cast(Reduce, node.op), node.inputs, node.outputs
    rows = op.axes == tuple(range(d_y.type.rank - 1)) and not (op.mean or op.keep)
    if d_y not in walk.integers or not rows:
        return False
    made = walk.integer(d_y)
    sums = walk.builder.add(GradientSum(), made.array, name=f"{d_b.name}.sums")
    walk.integers[d_b] = Integers(sums, made.exponent)
    return True


def _mask(walk: _Walk, node: Node) -> bool:
    """Worth a conversion: the gradient of an int8 tensor begins here."""
    d_y, y = node.inputs
    made = walk.integer(d_y)
    g = walk.builder.add(node.op, made.array, y, name=f"{node.outputs[0].name}.integer")
    walk.integers[node.outputs[0]] = Integers(g, made.exponent)
    return True


def _move(walk: _Walk, node: Node) -> bool:
    """Elements move, or meet zeros."""
    d_y, *rest = node.inputs
    if d_y not in walk.integers or walk.integers[d_y].array.type.dtype is not DType.I8:
        return False
    made = walk.integer(d_y)
    g = walk.builder.add(node.op, made.array, *rest, name=f"{node.outputs[0].name}.integer")
    walk.integers[node.outputs[0]] = Integers(g, made.exponent)
    return True


def _max_pool(walk: _Walk, node: Node) -> bool:
    """Windows that overlap may send a pixel more than int8 holds."""
    return not cast(MaxPool2dGrad, node.op).overlaps and _move(walk, node)


def _add(walk: _Walk, node: Node) -> bool:
    a, b = node.inputs
    if not (a in walk.integers or b in walk.integers) or a.type != b.type:
        return False
    one, other = walk.integer(a), walk.integer(b)
    operands = (one.array, one.exponent, other.array, other.exponent)
    return walk.narrowed(node, GradientAdd(walk.salt()), 17, *operands)


def _mean(walk: _Walk, node: Node) -> bool:
    op, (d,) = cast(Spread, node.op), node.inputs
    if d not in walk.integers or not op.mean:
        return False
    made = walk.integer(d)
    whole = GradientMean(op.axes, op.sizes, op.keep, walk.salt())
    g, exponent = walk.builder.add_multi(
        whole, made.array, made.exponent, walk.seed(), name=f"{node.outputs[0].name}.integer"
    )
    walk.integers[node.outputs[0]] = Integers(g, exponent)
    return True


def _table(walk: _Walk, node: Node) -> bool:
    d, x, slopes = node.inputs
    if d not in walk.integers:
        return False
    real = walk.graph.constants[slopes].array
    largest = float(np.max(np.abs(real)))
    unit = _SLOPE_BITS - math.frexp(largest)[1] if largest > 0 else 0
    whole = np.rint(real * 2.0**unit).astype(np.int32)
    made = walk.integer(d)
    operands = (made.array, made.exponent, x, walk.constant(f"{slopes.name}.integer", whole))
    return walk.narrowed(node, GradientTable(unit, walk.salt()), _SLOPE_BITS, *operands)


def _check(walk: _Walk, node: Node) -> bool:
    """Integers are finite."""
    _, gradient, *extra = node.inputs
    return gradient in walk.integers and not extra


def _step(walk: _Walk, node: Node) -> bool:
    op = cast(QSgdStep, node.op)
    w, direction, rate, _, *extra = node.inputs
    if direction not in walk.integers or not op.aware:
        return False
    made, meaning = walk.integers[direction], w.type.quantization
    assert meaning is not None
    ratios = channel_ratios([made.unit / scale for scale in meaning.scales])
    tables = [
        walk.constant(f"{w.name}.{what}", array)
        for what, array in zip(("fraction", "power"), ratios, strict=True)
    ]
    whole = IntegerStep(op.axis, op.rounding, op.salt)
    beside = extra[: len(whole.extra(w.type))]
    results = walk.builder.add_multi(
        whole, w, made.array, made.exponent, rate, *tables, *beside, name=f"{w.name}.next"
    )
    walk.stands_for.update(zip(node.outputs, results, strict=True))
    return True


def _assign(walk: _Walk, node: Node) -> bool:
    """An integer step waits for no check, and so needs no copy."""
    (source,), (state,) = node.inputs, node.outputs
    if source not in walk.stands_for:
        return False
    walk.stands_for[state] = walk.stands_for[source]
    return True


_RULES: dict[type[Operator], Rule] = {
    Add: _add,
    Assign: _assign,
    MaxPool2dGrad: _max_pool,
    QConv2dGradInput: _layer_input(IntegerConv2dGradInput),
    QConv2dGradWeight: _weight(IntegerConv2dGradWeight),
    QDepthwiseConv2dGradInput: _depthwise_input,
    QDepthwiseConv2dGradWeight: _weight(IntegerDepthwiseConv2dGradWeight),
    QLinearGradInput: _layer_input(IntegerLinearGradInput),
    QLinearGradWeight: _weight(IntegerLinearGradWeight),
    QMask: _mask,
    QSgdCheck: _check,
    QSgdStep: _step,
    QTableGrad: _table,
    Reduce: _bias,
    Reshape: _move,
    Slice: _move,
    SliceGrad: _move,
    Spread: _mean,
    Transpose: _move,
}
