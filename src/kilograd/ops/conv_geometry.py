"""Where the kernel of a convolution meets its input, and what convolutions are on arrays.

Output pixel (oh, ow) meets input pixel (oh s - p + kh d, ow s - p + kw d) under tap (kh, kw).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.operator import Array, Namespace
from kilograd.ir.types import DType, TensorType

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

NO_PADDING: Padding = ((0, 0), (0, 0))


def image_shape(name: str, x: TensorType, dtype: DType = DType.F32) -> tuple[int, int, int]:
    """H, W, C of one image [1,H,W,C] of `dtype`; raises InputError for anything else."""
    if x.rank != 4 or x.dtype is not dtype or x.shape[0] != 1:
        raise InputError(f"{name}: takes one {dtype.text} image [1,H,W,C], not {x}")
    return x.shape[1], x.shape[2], x.shape[3]


@dataclass(frozen=True)
class Geometry:
    """Sizes (H, W) in, (OH, OW) out, kernel (KH, KW), and how the kernel moves; `before` is the
    padding (top, left).
    """

    size_in: Pair
    size_out: Pair
    kernel: Pair
    stride: Pair
    dilation: Pair
    before: Pair

    def __str__(self) -> str:
        """The `kg_window` as a C compound literal."""
        return f"&(const kg_window){self.initializer}"

    @property
    def initializer(self) -> str:
        """The fields of the `kg_window` in braces."""
        fields = {
            "H": self.size_in[0], "W": self.size_in[1],
            "OH": self.size_out[0], "OW": self.size_out[1],
            "KH": self.kernel[0], "KW": self.kernel[1],
            "stride_h": self.stride[0], "stride_w": self.stride[1],
            "dilation_h": self.dilation[0], "dilation_w": self.dilation[1],
            "pad_top": self.before[0], "pad_left": self.before[1],
        }  # fmt: skip
        body = ", ".join(f".{name} = {number}" for name, number in fields.items())
        return f"{{{body}}}"

    @property
    def taps(self) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
        """For each tap: kh, kw, and the index of the padded input's pixels that it meets."""
        for kh in range(self.kernel[0]):
            for kw in range(self.kernel[1]):
                index = [
                    slice(k * d, k * d + (count - 1) * s + 1, s)
                    for k, d, s, count in zip(
                        (kh, kw), self.dilation, self.stride, self.size_out, strict=True
                    )
                ]
                yield kh, kw, (slice(None), *index)

    @property
    def padded_size(self) -> Pair:
        """Rows and columns of the padded input, as far as the kernel or the input goes."""
        rows, columns = (
            max(before + size, (count - 1) * s + (k - 1) * d + 1)
            for before, size, count, s, k, d in zip(
                self.before, self.size_in, self.size_out, self.stride, self.kernel, self.dilation,
                strict=True,
            )
        )  # fmt: skip
        return rows, columns

    @property
    def inside(self) -> tuple[slice, ...]:
        """The index of the input in the padded input."""
        return (
            slice(None),
            *(slice(b, b + size) for b, size in zip(self.before, self.size_in, strict=True)),
        )


def forward_geometry(
    name: str, size_in: Pair, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> Geometry:
    """The geometry of a convolution; raises InputError where the kernel does not fit the input."""
    counts = []
    for size, k, s, pads, d in zip(size_in, kernel, stride, padding, dilation, strict=True):
        count = (size + sum(pads) - (k - 1) * d - 1) // s + 1
        if min(k, s, d) < 1 or min(pads) < 0 or count < 1:
            raise InputError(
                f"{name}: a kernel of {k} (stride {s}, dilation {d}) does not fit {size} positions "
                f"padded by {pads}"
            )
        counts.append(count)
    before = (padding[0][0], padding[1][0])
    return Geometry(size_in, (counts[0], counts[1]), kernel, stride, dilation, before)


def check_groups(name: str, groups: int, **channels: int) -> None:
    """Raise InputError unless `groups` divides every channel count."""
    for what, count in channels.items():
        if groups < 1 or count % groups:
            raise InputError(f"{name}: {groups} groups do not divide {count} {what} channels")


def zeros(xp: Namespace, like: Array, *shape: int) -> Array:
    """A fresh array of zeros with the element type and device of `like`."""
    zero = xp.zeros_like(xp.reshape(like, (-1,))[:1])
    return xp.broadcast_to(zero, shape) + zero


def pad_image(xp: Namespace, x: Array, geometry: Geometry) -> Array:
    """`x` between zeros."""
    n, _, _, c = x.shape
    padded = zeros(xp, x, n, *geometry.padded_size, c)
    padded[geometry.inside] = x
    return padded


def group_slices(groups: int, size: int) -> list[slice]:
    """The channels of each group."""
    step = size // groups
    return [slice(q * step, (q + 1) * step) for q in range(groups)]


def convolve(xp: Namespace, x: Array, w: Array, geometry: Geometry, groups: int) -> Array:
    """x [N,H,W,C] and w [KH,KW,C/groups,O] to [N,OH,OW,O]."""
    padded = pad_image(xp, x, geometry)
    pieces = []
    for c, o in zip(
        group_slices(groups, x.shape[-1]), group_slices(groups, w.shape[-1]), strict=True
    ):
        pieces.append(
            sum(
                xp.matmul(padded[index][..., c], w[kh, kw, :, o]) for kh, kw, index in geometry.taps
            )
        )
    return xp.concat(pieces, axis=-1)


def convolve_grad_input(
    xp: Namespace, d_y: Array, w: Array, geometry: Geometry, groups: int
) -> Array:
    """d_y [N,OH,OW,O] and w [KH,KW,I,O] to [N,H,W,groups I]: the transpose of `convolve` in x."""
    pieces = []
    for o in group_slices(groups, w.shape[-1]):
        padded = zeros(xp, d_y, d_y.shape[0], *geometry.padded_size, w.shape[2])
        for kh, kw, index in geometry.taps:
            padded[index] += xp.matmul(d_y[..., o], xp.permute_dims(w[kh, kw, :, o], (1, 0)))
        pieces.append(padded[geometry.inside])
    return xp.concat(pieces, axis=-1)


def convolve_grad_weight(
    xp: Namespace, x: Array, d_y: Array, geometry: Geometry, groups: int, part: slice
) -> Array:
    """x [N,H,W,C] and d_y [N,OH,OW,O] to [KH,KW,I,O]: the transpose of `convolve` in w, for the
    input channels `part` of each group.
    """
    padded = pad_image(xp, x, geometry)
    channels = [list(range(x.shape[-1]))[c][part] for c in group_slices(groups, x.shape[-1])]
    outputs = group_slices(groups, d_y.shape[-1])
    taps = []
    for _, _, index in geometry.taps:
        groups_of_tap = []
        for c, o in zip(channels, outputs, strict=True):
            rows = xp.reshape(padded[index][..., c[0] : c[-1] + 1], (-1, len(c)))
            columns = xp.reshape(d_y[..., o], (-1, o.stop - o.start))
            groups_of_tap.append(xp.matmul(xp.permute_dims(rows, (1, 0)), columns))
        taps.append(xp.concat(groups_of_tap, axis=-1))
    return xp.reshape(xp.stack(taps), (*geometry.kernel, len(channels[0]), d_y.shape[-1]))


def drawer(seed: int) -> Callable[..., np.ndarray]:
    """A function from a shape to normal numbers, for examples."""
    rng = np.random.default_rng(seed)
    return lambda *shape: rng.standard_normal(shape).astype(np.float32)
