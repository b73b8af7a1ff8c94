"""Nearest-neighbour resizing of NHWC images, and its gradient.

    y[oh, ow, c] = x[f(oh), f(ow), c],   f(o) = min(size - 1, floor(float32(o) * float32(scale)))

This is PyTorch's `mode="nearest"` bit for bit (the product is rounded to float32 there, too), and
ONNX Resize with mode nearest, coordinate_transformation_mode asymmetric, nearest_mode floor, as
well as ONNX Upsample. At whole factors it is also ONNX's half_pixel with a rounding nearest_mode,
which reads the same pixels; other ONNX modes read others and are not covered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from array_api_compat import device

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import TensorType
from kilograd.ops.windows import Pair, distinct, image_shape


def nearest_sources(size: int, output: int, scale: float) -> np.ndarray:
    """Which of `size` positions each of `output` positions reads; `scale` input positions an output
    position, 0 standing for size / output.
    """
    positions = np.arange(output, dtype=np.float32) * np.float32(scale or size / output)
    return np.minimum(positions.astype(np.int64), size - 1)


def _whole_factor(size: int, output: int, scale: float) -> int:
    """The factor if position o reads o // factor, else 0."""
    factor = output // size
    if factor * size != output:
        return 0
    same = np.array_equal(nearest_sources(size, output, scale), np.arange(output) // factor)
    return factor if same else 0


@dataclass(frozen=True)
class UpsampleNearest2d(Operator):
    """x [N,H,W,C] of any element type, resized to `output` (OH, OW), larger or smaller.

    `scale` is (vertical, horizontal) input pixels an output pixel, where the framework was given a
    scale factor (its reciprocal) that the rounded sizes do not reproduce; 0 stands for H/OH, W/OW.
    """

    name: ClassVar[str] = "upsample_nearest2d"
    output: Pair
    scale: tuple[float, float] = (0.0, 0.0)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """[N,OH,OW,C]."""
        (x,) = types
        if x.rank != 4 or min(self.output) < 1 or min(self.scale) < 0:
            raise InputError(f"{self.name}: cannot resize {x} to {self.output}")
        return (x.with_shape(x.shape[0], *self.output, x.shape[3]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """`take` along both axes."""
        (x,) = arrays
        for axis, output, scale in zip((1, 2), self.output, self.scale, strict=True):
            sources = nearest_sources(x.shape[axis], output, scale)
            x = xp.take(x, xp.asarray(sources, device=device(x)), axis=axis)
        return (x,)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """Every pixel gets the sum over its copies."""
        (d_y,) = cotangents
        assert d_y is not None
        (x,) = node.inputs
        op = UpsampleNearest2dGrad(x.type.shape[1:3], self.scale)
        return [builder.add(op, d_y, name=f"d_{x.name}")]

    def cost(self, *types: TensorType) -> Cost:
        """A copy."""
        size = self.infer(*types)[0].bytes
        return Cost(bytes_read=size, bytes_written=size)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """Repetition for whole factors, else the general formula."""
        (x,), (y,) = operands.inputs, operands.outputs
        n, h, w, c = x.type.shape
        function, rest = _kernel("kg_upsample_nearest", "kg_resize_nearest", (h, w), self)
        calls = []
        for i in range(n):
            images = (y.offset(i * y.type.size // n), x.offset(i * x.type.size // n))
            arguments = (*images, h, w, c * x.type.dtype.bytes, *rest)
            calls.append(Call("resize.h", function, arguments))
        return calls

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Whole factors, others, smaller, a given scale, bytes, a factor whose reciprocal rounds
        down.
        """
        image = distinct(0, 1, 3, 4, 5)
        return [
            Example(cls((6, 8)), (image,), 0.0, (0,), (0,)),
            Example(cls((3, 12)), (distinct(1, 2, 3, 4, 2),), 0.0, (0,), (0,)),
            Example(cls((7, 9)), (image,), 0.0, (0,), (0,)),
            Example(cls((2, 1)), (image,), 0.0, (0,), (0,)),
            Example(cls((7, 10), (1 / 2.5, 1 / 2.5)), (image,), 0.0, (0,), (0,)),
            Example(cls((6, 9)), (distinct(2, 1, 3, 4, 3).astype(np.int8),), 0.0, (), (0,)),
            Example(cls((123, 2)), (distinct(3, 1, 3, 1, 1),), 0.0, (0,), (0,)),
        ]


def _kernel(
    whole: str, general: str, size: Sequence[int], op: UpsampleNearest2d
) -> tuple[str, tuple[int | float, ...]]:
    """The function to call for an image of `size`, and its last arguments."""
    factors = tuple(map(_whole_factor, size, op.output, op.scale))
    if all(factors):
        return whole, factors
    scales = (s or n / o for n, o, s in zip(size, op.output, op.scale, strict=True))
    return general, (*op.output, *scales)


@dataclass(frozen=True)
class UpsampleNearest2dGrad(Operator):
    """d_y [N,OH,OW,C] to d_x [N,H,W,C] for an image of `size` (H, W)."""

    name: ClassVar[str] = "upsample_nearest2d_grad"
    size: tuple[int, ...]
    scale: tuple[float, float] = (0.0, 0.0)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """[N,H,W,C]."""
        (d_y,) = types
        n, _, _, c = image_shape(self.name, d_y)
        return (d_y.with_shape(n, *self.size, c),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The transpose of `take` along both axes, as matrices of zeros and ones."""
        (d_y,) = arrays
        for axis, size, scale in zip((1, 2), self.size, self.scale, strict=True):
            sources = nearest_sources(size, d_y.shape[axis], scale)
            ones = (np.arange(size)[:, None] == sources).astype(np.float32)
            matrix = xp.astype(xp.asarray(ones, device=device(d_y)), d_y.dtype)
            d_y = xp.moveaxis(xp.tensordot(matrix, d_y, axes=((1,), (axis,))), 0, axis)
        return (d_y,)

    def cost(self, *types: TensorType) -> Cost:
        """Additions are not counted as multiply-accumulates."""
        return Cost(bytes_read=types[0].bytes, bytes_written=self.infer(*types)[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """Windows for whole factors, else the general formula."""
        (d_y,), (d_x,) = operands.inputs, operands.outputs
        n, oh, ow, c = d_y.type.shape
        forward = UpsampleNearest2d((oh, ow), self.scale)
        function, rest = _kernel(
            "kg_upsample_nearest_grad_f32", "kg_resize_nearest_grad_f32", self.size, forward
        )
        calls = []
        for i in range(n):
            images = (d_x.offset(i * d_x.type.size // n), d_y.offset(i * d_y.type.size // n))
            calls.append(Call("resize.h", function, (*images, *self.size, c, *rest)))
        return calls

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """The gradients of UpsampleNearest2d's float examples."""
        result = []
        for example in UpsampleNearest2d.examples():
            op, (x,) = example.op, example.inputs
            assert isinstance(op, UpsampleNearest2d)
            if x.dtype == np.float32:
                d_y = distinct(9, x.shape[0], *op.output, x.shape[3])
                result.append(Example(cls(x.shape[1:3], op.scale), (d_y,), 1e-6, batched=(0,)))
        return result
