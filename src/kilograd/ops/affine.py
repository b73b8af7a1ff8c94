"""One scale and one shift a channel: batch normalisation with fixed statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import TensorType
from kilograd.ops.binary import Mul, sum_to


@dataclass(frozen=True)
class ChannelAffine(Operator):
    """Inputs x [..., C], scale [C] and shift [C]: x scale + shift, in place over x."""

    name: ClassVar[str] = "channel_affine"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of x."""
        x, scale, shift = types
        if x.rank < 2 or scale.shape != x.shape[-1:] or shift.shape != x.shape[-1:]:
            raise InputError(
                f"channel affine: {x} has {x.shape[-1:]} channels, scale is {scale}, shift {shift}"
            )
        return (x,)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition."""
        x, scale, shift = arrays
        return (x * scale + shift,)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """d_y scale, and over all rows the sums of d_y x and of d_y."""
        (d_y,), (x, scale, shift) = cotangents, node.inputs
        assert d_y is not None
        d_scale = sum_to(builder, d_y, scale, x) if wanted[1] else None
        d_shift = sum_to(builder, d_y, shift) if wanted[2] else None
        d_x = builder.add(Mul(), d_y, scale, name=f"d_{x.name}") if wanted[0] else None
        return [d_x, d_scale, d_shift]

    def cost(self, *types: TensorType) -> Cost:
        """One multiply-accumulate an element."""
        x = types[0]
        return Cost(x.size, sum(t.bytes for t in types), x.bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (x, scale, shift), (y,) = operands.inputs, operands.outputs
        channels = x.type.shape[-1]
        arguments = (y, x, scale, shift, x.type.size // channels, channels)
        return [Call("affine.h", "kg_channel_affine_f32", arguments)]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """A map and a vector."""
        rng = np.random.default_rng(0)

        def draw(*shape: int) -> np.ndarray:
            return np.asarray(rng.standard_normal(shape), np.float32)

        return [
            Example(cls(), (draw(*shape, 5), draw(5), draw(5)), 1e-6, (0, 1, 2), (0,))
            for shape in ((1, 3, 4), (1,))
        ]
