"""Quantised pooling: means as one requantised sum a window, maxima as comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import TensorType
from kilograd.ops.avg_pool import AvgPool2d
from kilograd.ops.max_pool import MaxPool2d
from kilograd.ops.q_convert import limited
from kilograd.ops.q_elementwise import Source, check_sources
from kilograd.ops.q_types import HIGH, LOW, activation, check_activation, check_output
from kilograd.ops.reduce import Spread
from kilograd.ops.requantize import quantize_multiplier, quantize_multipliers, requantize, to_int8
from kilograd.ops.windows import distinct


@dataclass(frozen=True)
class QMean(Operator):
    """The mean over H and W of x i8 [N,H,W,C], quantised as `source` says: [N,C], or [N,1,1,C] if
    `keep`, quantised with `scale` and `zero_point`. One rounding.
    """

    name: ClassVar[str] = "q_mean"
    scale: float
    zero_point: int
    source: Source
    keep: bool = False

    def _factor(self, count: int) -> tuple[int, int]:
        return quantize_multiplier(self.source[0] / (self.scale * count))

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """[N,C] or [N,1,1,C]."""
        (x,) = types
        check_output(self.name, self.scale, self.zero_point)
        check_sources(self.name, [self.source], types)
        if x.rank != 4 or math.prod(x.shape[1:3]) >= 1 << 22:
            raise InputError(f"{self.name}: takes an image [N,H,W,C] below 2^22 pixels, not {x}")
        self._factor(math.prod(x.shape[1:3]))
        middle = (1, 1) if self.keep else ()
        return (activation((x.shape[0], *middle, x.shape[3]), self.scale, self.zero_point),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Exact integers."""
        (x,) = arrays
        count = math.prod(x.shape[1:3])
        sums = xp.sum(xp.astype(x, xp.int64) - self.source[1], axis=(1, 2), keepdims=self.keep)
        result = requantize(xp, sums, *self._factor(count))
        return (to_int8(xp, result, self.zero_point, LOW, HIGH),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """Every pixel gets its share, nothing where the result saturates."""
        (x,) = node.inputs
        d_y = limited(builder, cotangents[0], node.outputs[0], LOW, HIGH)
        spread = Spread((1, 2), x.type.shape[1:3], mean=True, keep=self.keep)
        return [builder.add(spread, d_y, name=f"d_{x.name}")]

    def cost(self, *types: TensorType) -> Cost:
        """One pass."""
        return Cost(bytes_read=types[0].bytes, bytes_written=self.infer(*types)[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call an image."""
        (x,), (y,) = operands.inputs, operands.outputs
        batch, h, w, c = x.type.shape
        rest = (h, w, w * c, c, self.source[1], *self._factor(h * w), self.zero_point)
        return [
            Call("q_pool.h", "kg_average_s8", (y.offset(n * c), x.offset(n * h * w * c), *rest))
            for n in range(batch)
        ]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Few channels and many, one pixel, saturation."""
        rng = np.random.default_rng(0)

        def make(op: QMean, *shape: int) -> Example:
            x = rng.integers(-128, 128, shape).astype(np.int8)
            return Example(op, (x,), batched=(0,), types=(activation(shape, *op.source),))

        return [
            make(cls(0.02, 4, (0.1, -5)), 1, 5, 7, 23),
            make(cls(0.002, 4, (0.1, -5), keep=True), 2, 3, 4, 6),
            make(cls(0.1, -5, (0.1, -5)), 1, 1, 1, 3),
        ]


@dataclass(frozen=True)
class QAvgPool2d(AvgPool2d):
    """AvgPool2d over x i8 [N,H,W,C], quantised as `source` says; the result is quantised with
    `scale` and `zero_point`. Padding is a real 0. One rounding.
    """

    name: ClassVar[str] = "q_avg_pool2d"
    scale: float = 1.0
    zero_point: int = 0
    source: Source = (1.0, 0)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """i8 [N,OH,OW,C]."""
        (x,) = types
        check_output(self.name, self.scale, self.zero_point)
        check_sources(self.name, [self.source], types)
        (y,) = super().infer(TensorType(x.shape))
        for divisor in np.unique(self.divisors(x.shape[1:3])):
            quantize_multiplier(self.source[0] / (self.scale * int(divisor)))
        return (activation(y.shape, self.scale, self.zero_point),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """Exact integers: the sums of the windows, in float64, then a factor each."""
        (x,) = arrays
        divisors = self.divisors(x.shape[1:3])
        plain = AvgPool2d(
            self.kernel, self.stride, self.padding, self.include_pad, self.extra, divisor=1
        )
        (sums,) = plain.reference(xp, xp.astype(x, xp.float64) - self.source[1])
        factors = [
            quantize_multiplier(self.source[0] / (self.scale * int(n))) for n in divisors.flat
        ]
        multiplier, shift = (
            xp.asarray(np.array(column).reshape(*divisors.shape, 1))
            for column in zip(*factors, strict=True)
        )
        result = requantize(xp, xp.astype(sums, xp.int64), multiplier, shift)
        return (to_int8(xp, result, self.zero_point, LOW, HIGH),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """That of AvgPool2d, nothing where the result saturates."""
        d_y = limited(builder, cotangents[0], node.outputs[0], LOW, HIGH)
        return super().gradient(builder, node, [d_y], wanted)

    def cost(self, *types: TensorType) -> Cost:
        """Every tap is read."""
        (y,) = self.infer(*types)
        return Cost(bytes_read=y.bytes * math.prod(self.kernel), bytes_written=y.bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call an image, with a table of the factors."""
        (x,), (y,) = operands.inputs, operands.outputs
        batch, h, w, c = x.type.shape
        divisors = self.divisors((h, w))
        least, most = int(divisors.min()), int(divisors.max())
        multiplier, shift = quantize_multipliers(
            [self.source[0] / (self.scale * n) for n in range(least, most + 1)]
        )

        def literal(numbers: np.ndarray) -> str:
            return f"(const int32_t[]){{{', '.join(map(str, numbers))}}}"

        means = (
            f"&(const kg_means_s8){{.multiplier = {literal(multiplier)}, "
            f".shift = {literal(shift)}, .least = {least}, .x_zero_point = {self.source[1]}, "
            f".zero_point = {self.zero_point}}}"
        )
        rest = self.rest((h, w), divisors.shape, c)
        sizes = x.type.size // batch, y.type.size // batch
        return [
            Call(
                "q_pool.h", "kg_avg_pool2d_s8",
                (y.offset(n * sizes[1]), x.offset(n * sizes[0]), means, *rest),
            )
            for n in range(batch)
        ]  # fmt: skip

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Those of AvgPool2d, quantised."""
        rng, source = np.random.default_rng(0), (0.1, -5)
        examples = []
        for example in AvgPool2d.examples():
            op = example.op
            assert isinstance(op, AvgPool2d)
            mine = cls(
                op.kernel, op.stride, op.padding, op.include_pad, op.extra, op.divisor, 0.04, 7,
                source,
            )  # fmt: skip
            x = rng.integers(-128, 128, example.inputs[0].shape).astype(np.int8)
            types = (activation(x.shape, *source),)
            examples.append(Example(mine, (x,), batched=(0,), types=types))
        return examples


@dataclass(frozen=True)
class QMaxPool2d(MaxPool2d):
    """MaxPool2d over x i8 [N,H,W,C]; the result has the quantisation of x."""

    name: ClassVar[str] = "q_max_pool2d"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """[N,OH,OW,C] once as i8, and as u8 with the index."""
        (x,) = types
        check_activation(self.name, x)
        y, *index = super().infer(TensorType(x.shape))
        return (x.with_shape(*y.shape), *index)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """That of MaxPool2d; float32 holds every int8."""
        y, *index = super().reference(xp, xp.astype(arrays[0], xp.float32))
        return (xp.astype(y, xp.int8), *index)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call an image."""
        calls = super().emit(operands)
        return [replace(call, header="q_pool.h", function="kg_max_pool2d_s8") for call in calls]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Those of MaxPool2d, quantised; ties, too."""
        examples = []
        for number, example in enumerate(MaxPool2d.examples()):
            op = example.op
            assert isinstance(op, MaxPool2d)
            mine = cls(op.kernel, op.stride, op.padding, op.dilation, op.index)
            x = (distinct(number, *example.inputs[0].shape) * 8 % 200 - 128).astype(np.int8)
            examples.append(Example(mine, (x,), batched=(0,), types=(activation(x.shape, 0.1, 3),)))
        return examples
