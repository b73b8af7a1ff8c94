"""Types of the tensors in a program: shape, element type and, for integers, what they stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np


class DType(Enum):
    """An element type; `name` is the text form, `c_name` the C99 type."""

    F32 = ("f32", "float", 4)
    I8 = ("i8", "int8_t", 1)
    U8 = ("u8", "uint8_t", 1)
    I32 = ("i32", "int32_t", 4)
    U32 = ("u32", "uint32_t", 4)

    def __init__(self, text: str, c_name: str, bytes_: int) -> None:
        """Keep the text form, the C type and the size of one element in bytes."""
        self.text = text
        self.c_name = c_name
        self.bytes = bytes_

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The NumPy element type of the same bits."""
        return np.dtype(_NUMPY[self.text])

    @staticmethod
    def of(array: np.ndarray) -> DType:
        """The element type of a NumPy array; raises KeyError for one that programs do not have."""
        return _FROM_NUMPY[array.dtype.name]


_NUMPY = {"f32": "float32", "i8": "int8", "u8": "uint8", "i32": "int32", "u32": "uint32"}
_FROM_NUMPY = {name: next(d for d in DType if d.text == text) for text, name in _NUMPY.items()}


@dataclass(frozen=True)
class Quantization:
    """Affine meaning of integers: real = scale * (q - zero_point); one scale, or one per channel.

    `axis` is the channel axis when there is one scale per channel, else None.
    """

    scales: tuple[float, ...]
    zero_point: int = 0
    axis: int | None = None


@dataclass(frozen=True)
class TensorType:
    """Shape and element type of a value; activations have the batch as leading dimension."""

    shape: tuple[int, ...]
    dtype: DType = DType.F32
    quantization: Quantization | None = None

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the packed tensor."""
        return self.size * self.dtype.bytes

    def with_shape(self, *shape: int) -> TensorType:
        """The same element type in another shape."""
        return TensorType(tuple(shape), self.dtype, self.quantization)

    def __str__(self) -> str:
        """`f32[1,16,16,8]`, as printed in programs and in generated code."""
        return f"{self.dtype.text}[{','.join(map(str, self.shape))}]"


def f32(*shape: int) -> TensorType:
    """Shorthand for a float32 tensor type."""
    return TensorType(shape, DType.F32)


def i32(*shape: int) -> TensorType:
    """Shorthand for an int32 tensor type."""
    return TensorType(shape, DType.I32)
