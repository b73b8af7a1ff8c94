"""Moves of a tensor between RAM and secondary storage.

A value that `page_out` defines lies in storage and takes no RAM; `page_in` defines a copy of it in
RAM. Both are the identity, so a paged program means what the unpaged one means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import TensorType


@dataclass(frozen=True)
class _Page(Operator):
    may_fail = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The same type."""
        return types

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """y = x."""
        return arrays

    def cost(self, *types: TensorType) -> Cost:
        """One pass over the tensor; time and energy of the storage are the device's to say."""
        return Cost(bytes_read=types[0].bytes, bytes_written=types[0].bytes)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """A tensor of floats, and one of bytes whose number is odd."""
        return (
            Example(cls(), (np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 4, 6),)),
            Example(cls(), (np.arange(-7, 8, dtype=np.int8).reshape(1, 15),)),
        )


@dataclass(frozen=True)
class PageOut(_Page):
    """Writes a tensor to storage; the output is the page."""

    name = "page_out"

    def emit(self, operands: Operands) -> Sequence[Call]:
        """kg_page_out(page, tensor, bytes)."""
        (tensor,), (page,) = operands.inputs, operands.outputs
        arguments = (page, tensor, tensor.type.bytes)
        return (Call("storage.h", "kg_page_out", arguments, "KG_ERROR_STORAGE"),)


@dataclass(frozen=True)
class PageIn(_Page):
    """Reads a page, or a constant or state that lies in storage, into RAM."""

    name = "page_in"

    def emit(self, operands: Operands) -> Sequence[Call]:
        """kg_page_in(page, tensor, bytes)."""
        (page,), (tensor,) = operands.inputs, operands.outputs
        arguments = (page, tensor, tensor.type.bytes)
        return (Call("storage.h", "kg_page_in", arguments, "KG_ERROR_STORAGE"),)
