"""Between float32 and int8 (real = scale * (q - zero_point)), and the mask of a limited result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType
from kilograd.ops.q_types import HIGH, LOW, activation, check_activation, check_output, check_weight


@dataclass(frozen=True)
class Quantize(Operator):
    """f32 to i8: clamp(rint(x inverse) + zero_point, -128, 127), inverse being 1 / scale in
    float32, the product rounded to float32, ties to even; NaN becomes the zero point.
    """

    name: ClassVar[str] = "quantize"
    scale: float
    zero_point: int

    @property
    def inverse(self) -> float:
        """1 / scale, rounded to float32."""
        return float(np.float32(1 / self.scale))

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of x, as i8."""
        (x,) = types
        check_output(self.name, self.scale, self.zero_point)
        if x.dtype is not DType.F32:
            raise InputError(f"{self.name}: takes f32, not {x}")
        return (activation(x.shape, self.scale, self.zero_point),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The formula in float32."""
        scaled = xp.astype(arrays[0], xp.float32) * self.inverse
        scaled = xp.where(xp.isnan(scaled), xp.zeros_like(scaled), scaled)
        limited = xp.clip(scaled, float(LOW - self.zero_point), float(HIGH - self.zero_point))
        return (xp.astype(xp.astype(xp.round(limited), xp.int32) + self.zero_point, xp.int8),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """Straight through, but for what sits on a bound."""
        return [limited(builder, cotangents[0], node.outputs[0], LOW, HIGH)]

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        return Cost(bytes_read=types[0].bytes, bytes_written=types[0].size)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (x,), (y,) = operands.inputs, operands.outputs
        arguments = (y, x, x.type.size, self.inverse, self.zero_point)
        return [Call("q_convert.h", "kg_quantize_s8", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Both ends of the range and beyond, ties, what is not finite."""
        rng = np.random.default_rng(0)
        x = (rng.standard_normal((1, 5, 7)) * 3).astype(np.float32)
        ties = (np.arange(-300, 300, dtype=np.float32) / 2).reshape(1, -1)
        odd = np.array([[np.inf, -np.inf, np.nan, -0.0, 1e30, -1e30, 1e-40]], np.float32)
        return [
            Example(cls(0.05, -3), (x,), batched=(0,)),
            Example(cls(1.0, 0), (ties,), batched=(0,)),
            Example(cls(1.0, -128), (ties,), batched=(0,)),
            Example(cls(0.3, 127), (odd,), batched=(0,)),
        ]


@dataclass(frozen=True)
class Dequantize(Operator):
    """i8 to f32: scale * (q - zero_point), rounded once; the fields are those of the input."""

    name: ClassVar[str] = "dequantize"
    scale: float
    zero_point: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of x, as f32."""
        (x,) = types
        if check_activation(self.name, x, self.zero_point) != self.scale:
            raise InputError(f"{self.name}: the scale {self.scale} is not that of {x}")
        return (TensorType(x.shape, DType.F32),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The formula in float32."""
        whole = xp.astype(arrays[0], xp.int32) - self.zero_point
        return (xp.astype(whole, xp.float32) * float(np.float32(self.scale)),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """The cotangent itself: cotangents are in real units."""
        return [cotangents[0]]

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        return Cost(bytes_read=types[0].bytes, bytes_written=4 * types[0].size)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (x,), (y,) = operands.inputs, operands.outputs
        arguments = (y, x, x.type.size, float(self.scale), self.zero_point)
        return [Call("q_convert.h", "kg_dequantize_s8", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every int8."""
        every = np.arange(-128, 128, dtype=np.int8).reshape(1, -1)
        return [
            Example(
                cls(scale, zero), (every,), batched=(0,),
                types=(activation(every.shape, scale, zero),),
            )
            for scale, zero in ((0.0371, -7), (3.0, 0))
        ]  # fmt: skip


@dataclass(frozen=True)
class QMask(Operator):
    """Inputs d_y f32, or i8 where gradients are integers, and y i8: d_y where low < y < high, else
    0; in place over d_y.
    """

    name: ClassVar[str] = "q_mask"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    low: int = LOW
    high: int = HIGH

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The type of d_y."""
        d_y, y = types
        known = d_y.dtype in (DType.F32, DType.I8) and y.dtype is DType.I8
        if d_y.shape != y.shape or not known:
            raise InputError(f"{self.name}: takes f32 or i8 and i8 of one shape, not {d_y}, {y}")
        return (d_y,)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        d_y, y = arrays
        return (xp.where((y > self.low) & (y < self.high), d_y, xp.zeros_like(d_y)),)

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        return Cost(bytes_read=sum(t.bytes for t in types), bytes_written=types[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (d_y, y), (d_x,) = operands.inputs, operands.outputs
        arguments = (d_x, d_y, y, y.type.size, self.low, self.high)
        if d_y.type.dtype is DType.I8:
            return [Call("ig_elementwise.h", "kg_ig_mask", arguments)]
        return [Call("q_convert.h", "kg_mask_s8", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every int8, whole range and part of it; float and integer gradients."""
        every = np.arange(-128, 128, dtype=np.int8).reshape(1, -1)
        d_y = np.random.default_rng(0).standard_normal(every.shape).astype(np.float32)
        y_type = activation(every.shape, 0.1, 3)
        return [
            Example(
                op, (array, every), batched=(0, 1),
                types=(TensorType(array.shape, DType.of(array)), y_type),
            )
            for op in (cls(), cls(-20, 99))
            for array in (d_y, every[:, ::-1].copy())
        ]  # fmt: skip


def limited(builder: Builder, d_y: Value | None, y: Value, low: int, high: int) -> Value:
    """The cotangent of what was limited to [low, high] and gave y."""
    assert d_y is not None
    return builder.add(QMask(low, high), d_y, y, name=d_y.name)


def weight_scales(builder: Builder, weight: Value, axis: int) -> Value:
    """The scales of an int8 weight, one for each of its channels along `axis`, as a constant."""
    check_weight("gradient", weight.type, axis)
    return channel_scales(builder, weight)


def channel_scales(builder: Builder, parameter: Value) -> Value:
    """The scales f32[C] of a quantised weight or bias, as a constant that its readers share."""
    meaning = parameter.type.quantization
    assert meaning is not None and meaning.axis is not None
    name = f"{parameter.name}.scales"
    known = next((value for value in builder.constants if value.name == name), None)
    return known or builder.constant(name, np.array(meaning.scales, np.float32))
