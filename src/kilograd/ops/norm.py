"""Layer and group normalisation: n = (x - mean) / sqrt(variance + epsilon), then n scale + shift.

The variance is that of the population. The gradients compute mean and variance again from x, which
they need in any case, so that nothing else is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import (
    Argument,
    Array,
    Call,
    Cost,
    Example,
    Namespace,
    Operand,
    Operands,
    Operator,
)
from kilograd.ir.types import TensorType
from kilograd.ops.binary import sum_to


def _normalize(
    xp: Namespace, x: Array, axes: tuple[int, ...], epsilon: float
) -> tuple[Array, Array]:
    """The normalised array and the inverse deviation."""
    deviation = x - xp.mean(x, axis=axes, keepdims=True)
    variance = xp.mean(deviation * deviation, axis=axes, keepdims=True)
    inverse = 1 / xp.sqrt(variance + epsilon)
    return deviation * inverse, inverse


def _backward(xp: Namespace, g: Array, x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """From the cotangent of the normalised array to that of x."""
    n, inverse = _normalize(xp, x, axes, epsilon)
    mean_g = xp.mean(g, axis=axes, keepdims=True)
    mean_gn = xp.mean(g * n, axis=axes, keepdims=True)
    return inverse * (g - mean_g - n * mean_gn)


def _draw(*shapes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(7)
    return tuple(np.asarray(rng.standard_normal(shape) + 0.5, np.float32) for shape in shapes)


class _Layer(Operator):
    """What the layer normalisations share; the C kernels take rows, row length and epsilon last."""

    axes_count: int
    epsilon: float

    def axes(self, x: TensorType | Array) -> tuple[int, ...]:
        """The trailing axes of a tensor of this rank."""
        rank = len(x.shape)
        return tuple(range(rank - self.axes_count, rank))

    def sizes(self, x: TensorType) -> tuple[Argument, ...]:
        """Rows, row length, epsilon."""
        length = math.prod(x.shape[x.rank - self.axes_count :])
        return x.size // length, length, self.epsilon


@dataclass(frozen=True)
class LayerNorm(_Layer):
    """Normalises x over its `axes_count` trailing axes, in place.

    Inputs x and, if `affine`, scale and shift of the shape of those axes.
    """

    name: ClassVar[str] = "layer_norm"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    axes_count: int = 1
    epsilon: float = 1e-5
    affine: bool = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of x."""
        x, parameters = types[0], types[1:]
        if not 0 < self.axes_count < x.rank:
            raise InputError(f"layer norm: {self.axes_count} axes of {x} leave no batch dimension")
        shape = x.shape[x.rank - self.axes_count :]
        if len(parameters) != 2 * self.affine or any(t.shape != shape for t in parameters):
            raise InputError(
                f"layer norm: {x} over {self.axes_count} axes takes scale and shift of "
                f"{list(shape)}, not {', '.join(map(str, parameters))}"
            )
        return (x,)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        y, _ = _normalize(xp, arrays[0], self.axes(arrays[0]), self.epsilon)
        return (y * arrays[1] + arrays[2] if self.affine else y,)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """One operator each for x and scale; a sum for shift."""
        (d_y,), (x, *parameters) = cotangents, node.inputs
        assert d_y is not None
        result: list[Value | None] = [None] * len(node.inputs)
        if wanted[0]:
            grad_input = LayerNormGradInput(self.axes_count, self.epsilon, self.affine)
            result[0] = builder.add(grad_input, d_y, x, *parameters[:1], name=f"d_{x.name}")
        if self.affine and wanted[1]:
            grad_scale = LayerNormGradScale(self.axes_count, self.epsilon)
            result[1] = builder.add(grad_scale, d_y, x, name=f"d_{parameters[0].name}")
        if self.affine and wanted[2]:
            result[2] = sum_to(builder, d_y, parameters[1])
        return result

    def cost(self, *types: TensorType) -> Cost:
        """Two multiply-accumulates an element."""
        x = types[0]
        return Cost(2 * x.size, sum(t.bytes for t in types), x.bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (x, *parameters), (y,) = operands.inputs, operands.outputs
        scale, shift = parameters if self.affine else ("NULL", "NULL")
        return [Call("norm.h", "kg_layer_norm_f32", (y, x, scale, shift, *self.sizes(x.type)))]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """One axis and two, with and without parameters, longer than eight chains."""
        return [
            Example(cls(), _draw((1, 3, 21), (21,), (21,)), 2e-6, (0, 1, 2), (0,)),
            Example(cls(2, 1e-3), _draw((1, 2, 3, 2), (3, 2), (3, 2)), 2e-6, (0, 1, 2), (0,)),
            Example(cls(affine=False), _draw((1, 16)), 2e-6, (0,), (0,)),
        ]


@dataclass(frozen=True)
class LayerNormGradInput(_Layer):
    """Inputs d_y, x and, if `affine`, scale: d_x, in place over d_y or x."""

    name: ClassVar[str] = "layer_norm_grad_input"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (0, 1))
    axes_count: int = 1
    epsilon: float = 1e-5
    affine: bool = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of x."""
        return (types[1],)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        d_y, x = arrays[:2]
        g = d_y * arrays[2] if self.affine else d_y
        return (_backward(xp, g, x, self.axes(x), self.epsilon),)

    def cost(self, *types: TensorType) -> Cost:
        """Four multiply-accumulates an element, the statistics included."""
        x = types[1]
        return Cost(4 * x.size, sum(t.bytes for t in types), x.bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (d_y, x, *scales), (d_x,) = operands.inputs, operands.outputs
        scale: Operand | str = scales[0] if self.affine else "NULL"
        arguments = (d_x, d_y, x, scale, *self.sizes(x.type))
        return [Call("norm.h", "kg_layer_norm_grad_input_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """With and without a scale."""
        shapes = (1, 3, 21), (1, 3, 21), (21,)
        return [
            Example(cls(), _draw(*shapes), 2e-6, batched=(0, 1)),
            Example(cls(affine=False), _draw(*shapes[:2]), 2e-6, batched=(0, 1)),
        ]


@dataclass(frozen=True)
class LayerNormGradScale(_Layer):
    """Inputs d_y and x: the sum over rows of d_y times the normalised x."""

    name: ClassVar[str] = "layer_norm_grad_scale"
    axes_count: int = 1
    epsilon: float = 1e-5

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of the trailing axes."""
        x = types[1]
        return (x.with_shape(*x.shape[x.rank - self.axes_count :]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        d_y, x = arrays
        n, _ = _normalize(xp, x, self.axes(x), self.epsilon)
        return (xp.sum(d_y * n, axis=tuple(range(x.ndim - self.axes_count))),)

    def cost(self, *types: TensorType) -> Cost:
        """Two multiply-accumulates an element, the statistics included."""
        (d_scale,) = self.infer(*types)
        return Cost(2 * types[1].size, sum(t.bytes for t in types), d_scale.bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (d_y, x), (d_scale,) = operands.inputs, operands.outputs
        arguments = (d_scale, d_y, x, *self.sizes(x.type))
        return [Call("norm.h", "kg_layer_norm_grad_scale_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """One axis and two."""
        return [Example(cls(count), _draw((1, 3, 2, 11), (1, 3, 2, 11)), 2e-6) for count in (1, 2)]


class _Group(Operator):
    """What the group normalisations share.

    The C kernels take scratch, batch, pixels, channels, channels a group and epsilon last.
    """

    groups: int
    epsilon: float

    def split(self, xp: Namespace, x: Array) -> Array:
        """[N, P, groups, channels of a group]: mean and variance are over axes 1 and 3."""
        return xp.reshape(x, (x.shape[0], -1, self.groups, x.shape[-1] // self.groups))

    def sizes(self, operands: Operands, x: TensorType) -> tuple[Argument, ...]:
        """Scratch, sizes, epsilon."""
        batch, channels = x.shape[0], x.shape[-1]
        pixels = x.size // (batch * channels)
        return operands.scratch, batch, pixels, channels, channels // self.groups, self.epsilon


@dataclass(frozen=True)
class GroupNorm(_Group):
    """Normalises x [N, ..., C] over all but N and each of `groups` runs of channels, in place.

    Inputs x, scale [C] and shift [C]. As many groups as channels: instance normalisation.
    """

    name: ClassVar[str] = "group_norm"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)
    groups: int
    epsilon: float = 1e-5

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of x."""
        x, scale, shift = types
        channels = x.shape[-1]
        if x.rank < 2 or channels % self.groups or not scale.shape == shift.shape == (channels,):
            raise InputError(
                f"group norm: {self.groups} groups do not divide the channels of {x}, or scale "
                f"{scale} and shift {shift} are not one number a channel"
            )
        return (x,)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        x, scale, shift = arrays
        n, _ = _normalize(xp, self.split(xp, x), (1, 3), self.epsilon)
        return (xp.reshape(n, x.shape) * scale + shift,)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """One operator each for x and scale; a sum for shift."""
        (d_y,), (x, scale, shift) = cotangents, node.inputs
        assert d_y is not None
        d_x = d_scale = None
        if wanted[0]:
            grad_input = GroupNormGradInput(self.groups, self.epsilon)
            d_x = builder.add(grad_input, d_y, x, scale, name=f"d_{x.name}")
        if wanted[1]:
            grad_scale = GroupNormGradScale(self.groups, self.epsilon)
            d_scale = builder.add(grad_scale, d_y, x, name=f"d_{scale.name}")
        return [d_x, d_scale, sum_to(builder, d_y, shift) if wanted[2] else None]

    def cost(self, *types: TensorType) -> Cost:
        """Two multiply-accumulates an element; two numbers a channel aside."""
        x = types[0]
        return Cost(2 * x.size, sum(t.bytes for t in types), x.bytes, 8 * x.shape[-1])

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (x, scale, shift), (y,) = operands.inputs, operands.outputs
        arguments = (y, x, scale, shift, *self.sizes(operands, x.type))
        return [Call("norm.h", "kg_group_norm_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """One group, some, as many as channels."""
        return [
            Example(cls(groups), _draw((1, 2, 3, 6), (6,), (6,)), 2e-6, (0, 1, 2), (0,))
            for groups in (1, 2, 6)
        ]


@dataclass(frozen=True)
class GroupNormGradInput(_Group):
    """Inputs d_y, x and scale: d_x, in place over d_y or x."""

    name: ClassVar[str] = "group_norm_grad_input"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (0, 1))
    groups: int
    epsilon: float = 1e-5

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of x."""
        return (types[1],)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        d_y, x, scale = arrays
        g = self.split(xp, d_y * scale)
        return (xp.reshape(_backward(xp, g, self.split(xp, x), (1, 3), self.epsilon), x.shape),)

    def cost(self, *types: TensorType) -> Cost:
        """Four multiply-accumulates an element; four numbers a channel aside."""
        x = types[1]
        return Cost(4 * x.size, sum(t.bytes for t in types), x.bytes, 16 * x.shape[-1])

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (d_y, x, scale), (d_x,) = operands.inputs, operands.outputs
        arguments = (d_x, d_y, x, scale, *self.sizes(operands, x.type))
        return [Call("norm.h", "kg_group_norm_grad_input_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """One group, some, as many as channels."""
        shapes = (1, 2, 3, 6), (1, 2, 3, 6), (6,)
        return [Example(cls(groups), _draw(*shapes), 2e-6, batched=(0, 1)) for groups in (1, 2, 6)]


@dataclass(frozen=True)
class GroupNormGradScale(_Group):
    """Inputs d_y and x: the sum over batch and pixels of d_y times the normalised x."""

    name: ClassVar[str] = "group_norm_grad_scale"
    groups: int
    epsilon: float = 1e-5

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """One number a channel."""
        return (types[1].with_shape(types[1].shape[-1]),)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        d_y, x = arrays
        n, _ = _normalize(xp, self.split(xp, x), (1, 3), self.epsilon)
        return (xp.sum(d_y * xp.reshape(n, x.shape), axis=tuple(range(x.ndim - 1))),)

    def cost(self, *types: TensorType) -> Cost:
        """Two multiply-accumulates an element; four numbers a channel aside."""
        x = types[1]
        return Cost(2 * x.size, sum(t.bytes for t in types), 4 * x.shape[-1], 16 * x.shape[-1])

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (d_y, x), (d_scale,) = operands.inputs, operands.outputs
        arguments = (d_scale, d_y, x, *self.sizes(operands, x.type))
        return [Call("norm.h", "kg_group_norm_grad_scale_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """One group, some, as many as channels; two samples."""
        return [Example(cls(groups), _draw(*((2, 2, 3, 6),) * 2), 2e-6) for groups in (1, 2, 6)]
