"""Chains of quantised convolutions computed some rows at a time.

    a = conv_1(x),  b = conv_2(a),  y = conv_3(b)

Of a and b only the band of rows exists that the next stage has yet to read: for a kernel of K rows
and stride s that is K rows when y is made row by row, and s more for each further row at a time.
Every row is computed once, so the work is that of the stages, and the bits are theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import TensorType
from kilograd.ops.conv_geometry import Geometry
from kilograd.ops.q_conv import QConv2d, output_fields, q_conv_example
from kilograd.ops.q_depthwise import QDepthwiseConv2d, q_depthwise_example
from kilograd.ops.q_types import activation

Stage = QConv2d | QDepthwiseConv2d

OPERANDS = 4
"""Weight, bias, multiplier and shift: what each stage reads besides its image."""

_BAND_BYTES = 12
"""The `kg_band` of a stage."""


def streamable(op: Operator, *types: TensorType) -> bool:
    """Whether an operator with operands of these types can be a stage: a quantised convolution
    whose weight is in one piece and whose every window meets the image.
    """
    if not isinstance(op, Stage) or op.parts != 1:
        return False
    geometry = op.geometry(*types)
    reach = (geometry.kernel[0] - 1) * geometry.dilation[0]
    last = (geometry.size_out[0] - 1) * geometry.stride[0] - geometry.before[0]
    return geometry.before[0] <= reach and last < geometry.size_in[0]


@lru_cache(maxsize=4096)
def band_rows(geometries: tuple[Geometry, ...], rows: int) -> tuple[int, ...]:
    """The most rows that the bands between stages of these geometries hold at a time, when the
    result is made `rows` rows at a time: `kg_stream_s8` without the arithmetic.
    """
    last = len(geometries) - 1
    begin, end, most = ([0] * len(geometries) for _ in range(3))
    while end[last] < geometries[last].size_out[0]:
        following = list(end)
        following[last] = min(end[last] + rows, geometries[last].size_out[0])
        for i in range(last, 0, -1):
            g = geometries[i]
            first = max(0, end[i] * g.stride[0] - g.before[0])
            begin[i - 1], end[i - 1] = first, max(end[i - 1], first)
            reach = (g.kernel[0] - 1) * g.dilation[0] + 1
            behind = min(g.size_in[0], (following[i] - 1) * g.stride[0] - g.before[0] + reach)
            following[i - 1] = max(behind, end[i - 1])
        end = following
        most = [max(m, e - b) for m, e, b in zip(most, end, begin, strict=True)]
    return tuple(most[:last])


def layout(
    geometries: tuple[Geometry, ...], row_bytes: Sequence[int], rows: int
) -> tuple[list[int], int]:
    """Where in scratch each band lies, and where what the stages need begins; `row_bytes` are those
    of the results of all stages but the last.
    """
    offsets, at = [], _BAND_BYTES * len(geometries)
    for count, size in zip(band_rows(geometries, rows), row_bytes, strict=True):
        offsets.append(at)
        at += -(-count * size // 4) * 4
    return offsets, at


@dataclass(frozen=True)
class QStream(Operator):
    """Inputs x i8 [1,H,W,C], then weight, bias, multiplier and shift of each of `stages`: what the
    stages make of x one after the other.

    The result is made `rows` rows at a time. It has no gradient: chains are made once the backward
    pass is built, of layers that it passes by.
    """

    name: ClassVar[str] = "q_stream"
    stages: tuple[Stage, ...]
    rows: int = 1

    @property
    def attributes(self) -> dict[str, Any]:
        """The stages as they are printed on their own."""
        return {"stages": " > ".join(map(str, self.stages)), "rows": self.rows}

    def images(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The types of x and of every stage's result; raises InputError for what does not fit."""
        if len(types) != 1 + OPERANDS * len(self.stages) or not self.stages or self.rows < 1:
            raise InputError(
                f"{self.name}: {len(self.stages)} stages, {self.rows} rows at a time, do not go "
                f"with {len(types)} operands"
            )
        images = [types[0]]
        for stage, operands in zip(self.stages, _shared_out(types), strict=True):
            if not streamable(stage, images[-1], *operands):
                raise InputError(f"{self.name}: {stage} of {images[-1]} cannot be a stage")
            images += stage.infer(images[-1], *operands)
        return tuple(images)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The result of the last stage."""
        return self.images(*types)[-1:]

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The references of the stages, one after the other."""
        x = arrays[0]
        for stage, operands in zip(self.stages, _shared_out(arrays), strict=True):
            (x,) = stage.reference(xp, x, *operands)
        return (x,)

    def geometries(self, *types: TensorType) -> tuple[Geometry, ...]:
        """Of every stage, over whole images."""
        operands = zip(self.images(*types)[:-1], _shared_out(types), strict=True)
        return tuple(
            stage.geometry(image, *weights)
            for stage, (image, weights) in zip(self.stages, operands, strict=True)
        )

    def _layout(self, *types: TensorType) -> tuple[list[int], int]:
        row_bytes = [math.prod(image.shape[2:]) for image in self.images(*types)[1:-1]]
        return layout(self.geometries(*types), row_bytes, self.rows)

    def cost(self, *types: TensorType) -> Cost:
        """The work of the stages; scratch has the bands, and what the hungriest stage needs."""
        images = zip(self.images(*types)[:-1], _shared_out(types), strict=True)
        costs = [
            stage.cost(image, *weights)
            for stage, (image, weights) in zip(self.stages, images, strict=True)
        ]
        return Cost(
            macs=sum(cost.macs for cost in costs),
            bytes_read=sum(cost.bytes_read for cost in costs),
            bytes_written=sum(cost.bytes_written for cost in costs),
            scratch_bytes=self._layout(*types)[1] + max(cost.scratch_bytes for cost in costs),
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        x, (y,) = operands.inputs[0], operands.outputs
        types = tuple(operand.type for operand in operands.inputs)
        images = self.images(*types)
        bands, room = self._layout(*types)
        fields = []
        for stage, geometry, (x_type, y_type), (weight, bias, factor, shift), band in zip(
            self.stages, self.geometries(*types), pairwise(images),
            _shared_out(operands.inputs), [*bands, 0], strict=True,
        ):  # fmt: skip
            groups = stage.groups if isinstance(stage, QConv2d) else 0
            limits = (stage.zero_point, stage.low, stage.high)
            out = output_fields(bias, factor, shift, *limits)
            fields.append(
                f"{{.window = {geometry.initializer}, .out = {out}, "
                f".weight = {{{weight}, {weight.type.shape[-1]}}}, .C = {x_type.shape[3]}, "
                f".O = {y_type.shape[3]}, .groups = {groups}, "
                f".x_zero_point = {stage.x_zero_point}, .band = {band}}}"
            )
        table = f"(const kg_stage_s8[]){{{', '.join(fields)}}}"
        arguments = (y, x, table, len(self.stages), self.rows, operands.scratch, room)
        dense = all(isinstance(stage, QConv2d) for stage in self.stages)
        return [Call("q_stream.h", "kg_stream_dense_s8" if dense else "kg_stream_s8", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Two stages and more; kernels of 1 to 7, strides, dilation, uneven padding; bands of one
        row, of some, of all; images of one row, and rows that nobody reads.
        """
        one, two, three = (((k, k), (k, k)) for k in (1, 2, 3))
        odd, conv, depth = ((0, 1), (1, 0)), dense_stage, depthwise_stage
        block = (conv(12, 1, low=-5), depth(3, 1, one, low=-5), conv(4, 1))
        make = stream_example
        return [
            make(0, (7, 9, 5), block, 1, batched=True),
            make(1, (7, 9, 5), block, 3),
            make(2, (7, 9, 5), block, 7),
            make(3, (1, 9, 5), block, 2),
            make(4, (12, 11, 3), (conv(6, 3, one, 2), depth(3, 1, one), conv(5, 1)), 2),
            make(5, (13, 8, 4), (conv(9, 1), depth(5, 2, two), conv(3, 1)), 2),
            make(6, (11, 9, 2), (conv(7, 1), depth(7, 1, three, high=60)), 2),
            make(7, (14, 14, 2), (conv(5, 1), depth(7, 2, three), conv(3, 3, one)), 1),
            make(8, (9, 7, 6), (depth(3, 2, odd), conv(4, 1)), 2),
            make(9, (9, 7, 6), (depth(3, 1, odd), conv(4, 3, odd, 2), depth(3, 1, one)), 1),
            make(10, (15, 6, 3), (conv(4, 3, two, dilation=2), depth(3, 3, one)), 1),
            make(11, (11, 6, 3), (conv(4, 2), conv(3, 1, stride=3), depth(3, 1, two, 2)), 2),
            make(12, (9, 9, 4), (conv(8, 3, one, groups=2), conv(4, 1), conv(6, 2)), 4),
            make(13, (8, 20, 8), (*block, *block), 3),
            make(14, (6, 5, 3), (depth(3, 1, one),), 4),
        ]  # fmt: skip


def _shared_out(operands: Sequence[Any]) -> list[Any]:
    """The operands of each stage, without its image."""
    return [operands[i : i + OPERANDS] for i in range(1, len(operands), OPERANDS)]


Part = Callable[[int, tuple[int, ...], int], Example]
"""An example of a stage from a seed, the shape of its image and the image's zero point."""


def _scale(terms: int) -> float:
    """At which sums of so many random products fill int8 and few are cut off."""
    return 0.06 * math.sqrt(terms)


def dense_stage(
    channels: int, kernel: int, padding: Any = ((0, 0), (0, 0)), stride: int = 1, *,
    dilation: int = 1, groups: int = 1, low: int = -128,
) -> Part:  # fmt: skip
    """A convolution to so many channels, for `stream_example`."""

    def make(seed: int, shape: tuple[int, ...], x_zero_point: int) -> Example:
        pairs = ((stride, stride), padding, (dilation, dilation))
        scale = _scale(kernel * kernel * shape[3] // groups)
        op = QConv2d(scale, seed % 7 - 3, x_zero_point, *pairs, groups, low=low)
        return q_conv_example(seed, op, shape, (channels, kernel, kernel, shape[3] // groups))

    return make


def depthwise_stage(
    kernel: int, stride: int = 1, padding: Any = ((0, 0), (0, 0)), dilation: int = 1, *,
    low: int = -128, high: int = 127,
) -> Part:  # fmt: skip
    """A depthwise convolution, for `stream_example`."""

    def make(seed: int, shape: tuple[int, ...], x_zero_point: int) -> Example:
        pairs = ((stride, stride), padding, (dilation, dilation))
        scale = _scale(kernel * kernel)
        op = QDepthwiseConv2d(scale, seed % 7 - 3, x_zero_point, *pairs, low=low, high=high)
        return q_depthwise_example(seed, op, shape, (kernel, kernel, shape[3]))

    return make


def stream_example(
    seed: int, shape: tuple[int, ...], parts: Sequence[Part], rows: int, batched: bool = False
) -> Example:
    """A chain of random layers."""
    image = activation((1, *shape), 0.05, 4)
    rng = np.random.default_rng(seed)
    arrays: list[Any] = [rng.integers(-128, 128, image.shape).astype(np.int8)]
    types, stages = [image], []
    for i, part in enumerate(parts):
        assert image.quantization is not None
        layer = part(seed + i, image.shape, image.quantization.zero_point)
        assert isinstance(layer.op, Stage) and layer.types is not None
        arrays += layer.inputs[1:]
        types += layer.types[1:]
        stages.append(layer.op)
        (image,) = layer.op.infer(*layer.types)
    return Example(
        QStream(tuple(stages), rows),
        tuple(arrays),
        batched=(0,) if batched else (),
        types=tuple(types),
    )
