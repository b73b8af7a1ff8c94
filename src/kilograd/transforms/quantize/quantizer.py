"""The state of the walk: every value of the float graph as float32, as int8, or as both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from kilograd.ir.builder import Builder
from kilograd.ir.graph import Graph, Node, Tensor, Value
from kilograd.ir.operator import Operator
from kilograd.ir.types import DType, Quantization, TensorType
from kilograd.ops.pool import AdaptiveMaxPool2d, MaxPool2d
from kilograd.ops.q_convert import Dequantize, Quantize
from kilograd.ops.resize import UpsampleNearest2d
from kilograd.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from kilograd.ops.unary import Clamp, HardSigmoid, HardSwish, Relu, Sigmoid, Tanh
from kilograd.transforms.quantize.judge import Score
from kilograd.transforms.quantize.ranges import (
    LEVELS,
    RANGES,
    Histogram,
    Range,
    input_range,
    quantization,
)

TRANSPARENT = (
    AdaptiveMaxPool2d, Clamp, Concat, MaxPool2d, Pad, Relu, Reshape, Slice, Transpose,
    UpsampleNearest2d,
)  # fmt: skip
"""Operators that commute with rounding and limiting: what their only reader does not need of the
range, their input does not need either.
"""


Reason = str | None
"""Why a node must stay float32, None when it need not."""


@dataclass
class Report:
    """What was not done as asked: `kept` are (layer, operator, reason) of what stays float32, and
    `notes` are sentences that the user should see. `score` compares int8 and float32 on labelled
    data, where there were any. `settings` are the arguments of `quantize` that are no data.
    """

    kept: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    score: Score | None = None
    settings: dict[str, str | float] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line an entry."""
        lines = [f"{layer}: {operator} stays float32: {why}" for layer, operator, why in self.kept]
        return "\n".join([*lines, *self.notes, *([str(self.score)] if self.score else [])])


class Quantizer:
    """One walk over a float graph; rules ask it for operands and give it results."""

    def __init__(
        self,
        graph: Graph,
        feeds: Mapping[str, np.ndarray],
        seen: Mapping[Value, Histogram],
        method: str,
        head: Node | None,
        headroom: float = 1.0,
    ) -> None:
        """`feeds` is what was fed to the inputs, `seen` what came of it; `head` is the node that
        stays float32 whatever rules there are. `headroom` stretches the ranges of weights and
        results.
        """
        self.headroom = headroom
        self.graph = graph
        self.head = head
        self.builder = Builder()
        self.report = Report()
        self.integers: dict[Value, Value] = {}
        self.reals: dict[Value, Value] = {}
        self.readers = graph.readers()
        self._seen = seen
        self._choose = RANGES[method]
        self._ranges: dict[Value, Range] = {}
        self._results = set(graph.results())
        for value in graph.inputs:
            self.reals[value] = self.builder.input(value.name, value.type)
            if value.type.dtype is not DType.F32:  # token ids
                continue
            whole, judge = seen[value], self.judge(value)
            if (seen[judge].minimum, seen[judge].maximum) == (whole.minimum, whole.maximum):
                choice = self._choose(whole)
                self._ranges[judge] = input_range(feeds[value.name], choice)

    # Ranges

    def judge(self, value: Value) -> Value:
        """The value whose range decides the quantisation of `value`: its own, or that of what its
        only reader makes of it.
        """
        while value not in self._results and len(self.readers[value]) == 1:
            (reader,) = self.readers[value]
            if reader is self.head or not isinstance(reader.op, TRANSPARENT):
                break
            value = reader.outputs[0]
        return value

    def quantization(self, value: Value) -> Quantization:
        """Scale and zero point of the int8 form of `value`."""
        judge = self.judge(value)
        if judge not in self._ranges:
            low, high = self._choose(self._seen[judge])
            if judge not in self._results and len(self.readers[judge]) == 1:
                (reader,) = self.readers[judge]
                first, last = _sensitive(reader.op)
                low, high = max(low, first), min(high, last)
            low, high = low * self.headroom, high * self.headroom
            self._ranges[judge] = (low, high)
        return quantization(*self._ranges[judge])

    # Operands

    def shared_parameter(self, node: Node) -> Reason:
        """That the node reads a parameter which another node reads, if it does."""
        for value in node.inputs:
            tensor = self.graph.constants.get(value)
            if tensor is not None and tensor.origin and len(self.readers[value]) > 1:
                return f"its parameter {value} is shared with another layer"
        return None

    def is_integer(self, value: Value) -> bool:
        """True when the value exists as int8."""
        return value in self.integers

    def real(self, value: Value) -> Value:
        """The value as float32."""
        if value not in self.reals:
            if value in self.graph.constants:
                tensor = self.graph.constants[value]
                self.reals[value] = self.constant(value.name, tensor)
            else:
                source = self.integers[value]
                scale, zero_point = meaning(source.type)
                self.reals[value] = self.builder.add(
                    Dequantize(scale, zero_point), source, name=f"{value.name}.real"
                )
        return self.reals[value]

    def integer(self, value: Value) -> Value:
        """The value, which is no constant, as int8."""
        if value not in self.integers:
            q = self.quantization(value)
            self.integers[value] = self.builder.add(
                Quantize(q.scales[0], q.zero_point), self.reals[value], name=f"{value.name}.q"
            )
        return self.integers[value]

    def constant(self, name: str, tensor: Tensor, quantized: Quantization | None = None) -> Value:
        """A constant with the meaning of its integers."""
        type_ = TensorType(tensor.array.shape, DType.of(tensor.array), quantized)
        value = Value(self.builder.fresh(name), type_)
        self.builder.constants[value] = tensor
        return value

    # Results

    def made(self, node: Node, value: Value) -> None:
        """`value` is the int8 form of the node's first output."""
        self.integers[node.outputs[0]] = value

    def _unfused(self, node: Node, inputs: list[Value]) -> tuple[Value, ...]:
        """The node's outputs, its clamp a node of its own: only that has a gradient."""
        name, bounds = node.outputs[0].name, _bounded(node.op)
        if bounds is None:
            return self.builder.add_multi(node.op, *inputs, name=name)
        plain: Any = replace(cast(Any, node.op), low=-math.inf, high=math.inf)
        limit = Relu() if bounds == (0, math.inf) else Clamp(*bounds)
        return self.builder.add_multi(limit, self.builder.add(plain, *inputs), name=name)

    def keep_float(self, node: Node, reason: str) -> None:
        """Copy the node, between float32 values."""
        inputs = [self.real(value) for value in node.inputs]
        outputs = self._unfused(node, inputs)
        self.reals.update(zip(node.outputs, outputs, strict=True))
        if reason:
            self.report.kept.append((str(node.location), node.op.name, reason))


def _bounded(op: Operator) -> tuple[float, float] | None:
    """The limits of an operator with a clamp fused into it."""
    low, high = getattr(op, "low", -math.inf), getattr(op, "high", math.inf)
    return None if isinstance(op, Clamp) or (low, high) == (-math.inf, math.inf) else (low, high)


def meaning(type_: TensorType) -> tuple[float, int]:
    """Scale and zero point of an int8 activation."""
    assert type_.quantization is not None
    return type_.quantization.scales[0], type_.quantization.zero_point


def to_integer(real: float, q: Quantization) -> int:
    """The int8 nearest to a real number, infinities included."""
    scaled = np.rint(np.clip(real / q.scales[0], -512, 512)) + q.zero_point
    return int(np.clip(scaled, -128, 127))


def _sensitive(op: Operator) -> Range:
    """The part of the real line outside of which a function is constant, or nearly so: to half a
    step of an int8 result over its whole range.
    """
    if isinstance(op, HardSwish):
        return -3.0, math.inf
    if isinstance(op, HardSigmoid) and op.alpha > 0:
        return -op.beta / op.alpha, (1 - op.beta) / op.alpha
    if isinstance(op, Sigmoid):
        return -math.log(2 * LEVELS), math.log(2 * LEVELS)
    if isinstance(op, Tanh):
        return -math.atanh(1 - 1 / LEVELS), math.atanh(1 - 1 / LEVELS)
    return -math.inf, math.inf
