"""Layers with weights: convolutions, linear layers, matrix products, norms, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kilograd.errors import UnsupportedError
from kilograd.frontend.lowering.context import Lowering, Operand, Weight
from kilograd.frontend.lowering.moved import Activation, Misplaced, Moved, Source
from kilograd.frontend.lowering.pointwise import binary, softmax
from kilograd.frontend.lowering.pooling import Pair, spatial, spatial_padding
from kilograd.frontend.lowering.shapes import transpose
from kilograd.ir import DType, Value
from kilograd.ops.affine import ChannelAffine
from kilograd.ops.binary import Mul
from kilograd.ops.conv import Conv2d, DepthwiseConv2d
from kilograd.ops.conv_transpose import ConvTranspose2d
from kilograd.ops.embedding import Embedding
from kilograd.ops.linear import Linear
from kilograd.ops.matmul import BatchMatMul
from kilograd.ops.norm import GroupNorm, LayerNorm


def same_padding(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    lower: bool = False,
) -> list[Pair]:
    """Padding after which the output has ceil(size / stride) pixels; the odd one goes behind, or
    in front with `lower`.
    """
    result = []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        small, large = total // 2, total - total // 2
        result.append((large, small) if lower else (small, large))
    return result


def _constant_weight(weight: Operand, what: str) -> Weight:
    if isinstance(weight, Weight):
        return weight
    raise UnsupportedError(f"its {what} is computed from the input; it has to be a parameter")


def _picture_weight(weight: Weight) -> Weight:
    """A one-dimensional kernel as a two-dimensional one of height 1."""
    if len(weight.shape) == 3:
        return weight.reshape(*weight.shape[:2], 1, weight.shape[2])
    return weight


def conv(
    low: Lowering,
    x: Value,
    weight: Operand,
    bias: Operand | None,
    stride: Sequence[int],
    padding: Sequence[Pair],
    dilation: Sequence[int],
    groups: int,
) -> Value:
    """Convolution; `weight` is [O, I/groups, K...], one or two spatial dimensions."""
    rank = x.type.rank
    kernel = _constant_weight(weight, "weight")
    if len(kernel.shape) != rank:
        raise UnsupportedError(f"its weight {list(kernel.shape)} does not fit {x.type}")
    pads = spatial_padding(padding, rank)
    steps, spread = spatial(stride, rank, 1), spatial(dilation, rank, 1)
    kernel = _picture_weight(kernel)
    y = low.channels_last(x)
    channels_out, per_group, *sizes = kernel.shape
    operands = []
    op: Conv2d | DepthwiseConv2d
    if groups == channels_out and per_group == 1 and groups > 1:
        kernel = kernel.permute(2, 3, 0, 1).reshape(*sizes, channels_out)
        op = DepthwiseConv2d(stride=steps, padding=pads, dilation=spread, bias=bias is not None)
    else:
        kernel = kernel.permute(2, 3, 1, 0)
        op = Conv2d(
            stride=steps, padding=pads, dilation=spread, groups=groups, bias=bias is not None
        )
    operands = [low.constant(kernel, "weight")]
    if bias is not None:
        operands.append(low.constant(_constant_weight(bias, "bias"), "bias"))
    return low.channels_first(low.builder.add(op, y, *operands), rank)


def conv_transpose(
    low: Lowering,
    x: Value,
    weight: Operand,
    bias: Operand | None,
    stride: Sequence[int],
    padding: Sequence[Pair],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Value:
    """Transposed convolution; `weight` is [I, O/groups, K...]."""
    rank = x.type.rank
    kernel = _constant_weight(weight, "weight")
    if len(kernel.shape) != rank:
        raise UnsupportedError(f"its weight {list(kernel.shape)} does not fit {x.type}")
    kernel = _picture_weight(kernel).permute(2, 3, 1, 0)
    op = ConvTranspose2d(
        stride=spatial(stride, rank, 1),
        padding=spatial_padding(padding, rank),
        output_padding=spatial(output_padding, rank, 0),
        dilation=spatial(dilation, rank, 1),
        groups=groups,
        bias=bias is not None,
    )
    operands = [low.constant(kernel, "weight")]
    if bias is not None:
        operands.append(low.constant(_constant_weight(bias, "bias"), "bias"))
    y = low.channels_last(x)
    return low.channels_first(low.builder.add(op, y, *operands), rank)


def linear(low: Lowering, x: Activation, weight: Weight, bias: Operand | None) -> Activation:
    """x times `weight` [I, O] plus `bias` [O]."""
    if isinstance(x, Moved):
        x.rows(1)
        y = linear(low, x.value, weight, bias)
        assert isinstance(y, Value)
        return x.carry(y, x.stride // x.shape[-1] * y.type.shape[-1])
    operands = [low.constant(weight, "weight")]
    if bias is not None:
        vector = _constant_weight(bias, "bias")
        operands.append(low.constant(vector.reshape(math.prod(vector.shape)), "bias"))
    return low.builder.add(Linear(bias=bias is not None), x, *operands)


def matmul(low: Lowering, x: Source, y: Source) -> Activation:
    """Matrix product as NumPy defines it; a weight of two dimensions on the right is a linear
    layer.
    """
    if isinstance(x, Weight):
        raise UnsupportedError("a parameter stands on the left of the matrix product")
    if isinstance(y, Weight) and len(y.shape) == 3 and y.shape[0] == 1:
        y = y.reshape(*y.shape[1:])
    if isinstance(y, Weight) and len(y.shape) == 2:
        return linear(low, x, y, None)
    if isinstance(y, Weight):
        raise UnsupportedError(
            f"the parameter on the right of the matrix product has shape {list(y.shape)}; "
            "only two dimensions are supported"
        )
    if isinstance(x, Moved) or isinstance(y, Moved):
        return _matmul_moved(low, x, y)
    if x.type.rank < 3 or y.type.rank != x.type.rank or x.type.shape[:-2] != y.type.shape[:-2]:
        raise UnsupportedError(
            f"it multiplies {x.type} by {y.type}; the dimensions in front of the last two have "
            "to be equal, the batch among them"
        )
    if (factor := _common_factor(low, x, y)) is not None:
        number, x, y = factor
        product = low.builder.add(BatchMatMul(), x, y)
        return low.builder.add(Mul(), product, low.constant(Weight(np.array(number)), "scale"))
    return low.builder.add(BatchMatMul(), x, y)


def _matmul_moved(low: Lowering, x: Activation, y: Activation) -> Moved:
    """Products of matrices side by side along the axis that holds the batch: [B * H, T, D]."""
    a, b = (m if isinstance(m, Moved) else None for m in (x, y))
    if a is None or b is None:
        moved = a or b
        assert moved is not None
        raise Misplaced(moved)
    a.rows(2)
    b.rows(2)
    sizes = [math.prod(m.shape[-2:]) for m in (a, b)]
    if a.shape[:-2] != b.shape[:-2] or a.stride // sizes[0] != b.stride // sizes[1]:
        raise Misplaced(a)
    product = matmul(low, a.value, b.value)
    assert isinstance(product, Value)
    return a.carry(product, a.stride // sizes[0] * math.prod(product.type.shape[-2:]))


def _common_factor(low: Lowering, x: Value, y: Value) -> tuple[float, Value, Value] | None:
    """c c, x and y where the operands are c x and c y: exporters of attention scale both sides, the
    product is smaller.
    """
    pair = [_scaled(low, value) for value in (x, y)]
    if pair[0] is None or pair[1] is None or pair[0][0] != pair[1][0]:
        return None
    return pair[0][0] * pair[1][0], pair[0][1], pair[1][1]


def _scaled(low: Lowering, value: Value) -> tuple[float, Value] | None:
    """The number and the value that make `value` as their product."""
    node = next((n for n in reversed(low.builder.nodes) if value in n.outputs), None)
    if node is None or not isinstance(node.op, Mul):
        return None
    for factor, other in (node.inputs, node.inputs[::-1]):
        tensor = low.builder.constants.get(factor)
        if tensor is not None and tensor.origin is None and tensor.array.size == 1:
            return float(tensor.array.reshape(())), other
    return None


def attention(
    low: Lowering,
    query: Value,
    key: Value,
    value: Value,
    scale: float | None,
    mask: np.ndarray | None = None,
) -> Activation:
    """softmax(scale query key^T + mask) value over the last two dimensions, scale 1 /
    sqrt(features) by default (Vaswani et al., 2017); the mask is known at compile time.
    """
    factor = 1.0 / math.sqrt(query.type.shape[-1]) if scale is None else scale
    swapped = transpose(low, key, -2, -1)
    scores = binary(low, "mul", matmul(low, query, swapped), factor)
    if mask is not None:
        if np.isneginf(mask).all(axis=-1).any():
            raise UnsupportedError("its mask hides everything from some position")
        scores = binary(low, "add", scores, Weight(mask))
    return matmul(low, softmax(low, scores, -1), value)


def additive_mask(mask: np.ndarray) -> np.ndarray:
    """The mask of attention as numbers to add: booleans say what to keep, the rest gets -inf."""
    if mask.dtype.kind == "b":
        return np.where(mask, 0.0, -np.inf).astype(np.float32)
    return np.asarray(mask, np.float32)


def masked_fill(low: Lowering, x: Activation, mask: np.ndarray, number: float) -> Activation:
    """`number` where the constant `mask` is true, else x."""
    if math.isinf(number):
        filled = np.where(mask, number, 0.0).astype(np.float32)
        return binary(low, "add", x, Weight(filled))
    kept = binary(low, "mul", x, Weight(np.where(mask, 0.0, 1.0).astype(np.float32)))
    if not number:
        return kept
    return binary(low, "add", kept, Weight(np.where(mask, number, 0.0).astype(np.float32)))


def embedding(low: Lowering, table: Operand, ids: Operand, padding: int = -1) -> Operand:
    """The rows of a table [V, D] by integers; `padding` is the id whose row gets no gradient.

    Ids that are known give a parameter under another shape where they are all of its rows in order
    (the positions of a sequence of full length), else a lookup that trains the rows it reads.
    """
    rows = _constant_weight(table, "table")
    if isinstance(ids, Value):
        if ids.type.dtype is not DType.I32:
            raise UnsupportedError(f"its ids are {ids.type}; they have to be integers")
        return low.builder.add(Embedding(padding), low.constant(rows, "table"), ids)
    known = ids.array
    count, width = rows.shape
    if known.size and not 0 <= known.min() <= known.max() < count:
        raise UnsupportedError(f"it reads row {known.max()} of a table with {count} rows")
    if not rows.name:
        return Weight(rows.array[known])
    if padding < 0 and np.array_equal(known.reshape(-1), np.arange(count)):
        return rows.reshape(*known.shape, width)
    index = low.builder.constant("ids", known.astype(np.int32))
    value = low.builder.add(Embedding(padding, known=True), low.constant(rows, "table"), index)
    low.shared.add(value)
    return value


def batch_norm(
    low: Lowering,
    x: Value,
    mean: Operand,
    variance: Operand,
    scale: Operand | None,
    shift: Operand | None,
    epsilon: float,
) -> Value:
    """Batch norm with its running statistics: (x - mean) / sqrt(variance + epsilon), a constant,
    then scale and shift, which are the user's.
    """
    rank = x.type.rank
    statistics = [_constant_weight(w, "running statistics").array for w in (mean, variance)]
    mu, var = (array.astype(np.float64) for array in statistics)
    inverse = 1.0 / np.sqrt(var + epsilon)
    y = low.builder.add(
        ChannelAffine(),
        low.channels_last(x),
        low.builder.constant("norm_scale", inverse.astype(np.float32)),
        low.builder.constant("norm_shift", (-mu * inverse).astype(np.float32)),
    )
    return low.channels_first(_affine(low, y, scale, shift), rank)


def _affine(low: Lowering, y: Value, scale: Operand | None, shift: Operand | None) -> Value:
    """scale * y + shift per channel, for parameters that may be missing."""
    if scale is None and shift is None:
        return y
    channels = y.type.shape[-1]
    if scale is None:
        scale = Weight(np.ones(channels, np.float32))
    if shift is None:
        shift = Weight(np.zeros(channels, np.float32))
    pair = (
        low.constant(_constant_weight(scale, "scale"), "scale"),
        low.constant(_constant_weight(shift, "shift"), "shift"),
    )
    if all(
        not w.name and np.all(w.array == neutral)
        for w, neutral in ((scale, 1), (shift, 0))
        if isinstance(w, Weight)
    ):
        return y
    return low.builder.add(ChannelAffine(), y, *pair)


def layer_norm(
    low: Lowering,
    x: Value,
    axes_count: int,
    scale: Operand | None,
    shift: Operand | None,
    epsilon: float,
) -> Value:
    """Layer norm over the last `axes_count` axes (Ba et al., 2016)."""
    shape = x.type.shape[x.type.rank - axes_count :]
    if axes_count >= x.type.rank:
        raise UnsupportedError("it normalises over the batch dimension as well")
    count, tiny = axes_count, float(epsilon)
    if scale is None and shift is None:
        return low.builder.add(LayerNorm(count, tiny, affine=False), x)
    scale = Weight(np.ones(shape, np.float32)) if scale is None else scale
    shift = Weight(np.zeros(shape, np.float32)) if shift is None else shift
    pair = (
        low.constant(_constant_weight(scale, "scale"), "scale"),
        low.constant(_constant_weight(shift, "shift"), "shift"),
    )
    return low.builder.add(LayerNorm(count, tiny), x, *pair)


def group_norm(
    low: Lowering,
    x: Value,
    groups: int,
    scale: Operand | None,
    shift: Operand | None,
    epsilon: float,
) -> Value:
    """Group norm (Wu and He, 2018); with one channel a group it is instance norm."""
    rank = x.type.rank
    channels = x.type.shape[1]
    scale = Weight(np.ones(channels, np.float32)) if scale is None else scale
    shift = Weight(np.zeros(channels, np.float32)) if shift is None else shift
    pair = (
        low.constant(_constant_weight(scale, "scale"), "scale"),
        low.constant(_constant_weight(shift, "shift"), "shift"),
    )
    y = low.builder.add(GroupNorm(groups, float(epsilon)), low.channels_last(x), *pair)
    return low.channels_first(y, rank)
