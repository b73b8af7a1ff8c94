"""Moves of a tensor between RAM and secondary storage.

A value that `page_out` defines lies in storage and takes no RAM; `page_in` defines a copy of it in
RAM. Both are the identity, so a paged program means what the unpaged one means.

`block_bytes` is that of the storage, whose transfers start and end at its multiples. A tensor that
is no multiple passes its last bytes through one block of RAM, the scratch of the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import TensorType


@dataclass(frozen=True)
class Paging(Operator):
    """Base of the operators that read or write storage in transfers of whole blocks."""

    block_bytes: int = 1

    may_fail = True
    writes: ClassVar[bool] = False
    """Whether the outputs lie in storage."""

    def reads(self, position: int) -> bool:
        """Whether the input at that position lies in storage."""
        return False


@dataclass(frozen=True)
class _Page(Paging):
    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The same type."""
        return types

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """y = x."""
        return arrays

    def cost(self, *types: TensorType) -> Cost:
        """One pass over the tensor; time and energy of the storage are the device's to say."""
        size = types[0].bytes
        scratch = self.block_bytes if size % self.block_bytes else 0
        return Cost(bytes_read=size, bytes_written=size, scratch_bytes=scratch)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """A tensor of floats, one of an odd number of bytes, and both in blocks."""
        floats = np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 4, 6)
        odd = np.arange(-7, 8, dtype=np.int8).reshape(1, 15)
        return tuple(
            Example(cls(block_bytes), (tensor,))
            for block_bytes in (1, 32)
            for tensor in (floats, odd, np.tile(odd, 3))
        )


@dataclass(frozen=True)
class PageOut(_Page):
    """Writes a tensor to storage; the output is the page."""

    name = "page_out"
    writes = True

    def emit(self, operands: Operands) -> Sequence[Call]:
        """kg_page_out(page, tensor, bytes, block)."""
        (tensor,), (page,) = operands.inputs, operands.outputs
        arguments = (page, tensor, tensor.type.bytes, operands.scratch)
        return (Call("page.h", "kg_page_out", arguments, "KG_ERROR_STORAGE"),)


@dataclass(frozen=True)
class PageIn(_Page):
    """Reads a page, or a constant or state that lies in storage, into RAM."""

    name = "page_in"

    def reads(self, position: int) -> bool:
        """The only one."""
        return True

    def emit(self, operands: Operands) -> Sequence[Call]:
        """kg_page_in(page, tensor, bytes, block)."""
        (page,), (tensor,) = operands.inputs, operands.outputs
        arguments = (page, tensor, tensor.type.bytes, operands.scratch)
        return (Call("page.h", "kg_page_in", arguments, "KG_ERROR_STORAGE"),)
