"""One row per ONNX operator: how it is lowered (operator sets 13 and later).

What the standard passes as an input but has to be known here (axes, shapes, pads) is read from a
constant, or from an attribute where an older operator set has it there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from kilograd.errors import UnsupportedError
from kilograd.frontend import lowering as lo
from kilograd.frontend.lowering import Activation, Lowering, Moved, Operand, Source, Weight
from kilograd.ir import DType, Value

Pair = tuple[int, int]


@dataclass(frozen=True)
class Arguments:
    """One node with its operands."""

    node: onnx.NodeProto
    operands: tuple[Source | None, ...]
    opset: int

    @property
    def x(self) -> Any:
        """The first operand."""
        return self.operands[0]

    def operand(self, index: int) -> Any:
        """An operand, or None where it is left out."""
        return self.operands[index] if index < len(self.operands) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute: strings decoded, and numbers as they were written, of which
        the file holds the nearest float32.
        """
        for item in self.node.attribute:
            if item.name == name:
                value = onnx.helper.get_attribute_value(item)
                if isinstance(value, float):
                    return float(str(np.float32(value)))
                return value.decode() if isinstance(value, bytes) else value
        return default

    def constant(self, index: int, what: str) -> np.ndarray | None:
        """The data of an operand that has to be constant, or None where it is left out."""
        operand = self.operand(index)
        if isinstance(operand, Value | Moved):
            raise UnsupportedError(f"its {what} is computed from the input")
        return None if operand is None else np.asarray(operand.array)

    def integers(self, index: int, name: str) -> list[int] | None:
        """Integers from an operand, else from the attribute `name`, else None."""
        array = self.constant(index, name)
        if array is not None:
            return [int(item) for item in array.reshape(-1)]
        value = self.attribute(name)
        return None if value is None else [int(item) for item in value]

    def number(self, index: int, name: str, default: float | None) -> float | None:
        """A number from an operand, else `default`."""
        array = self.constant(index, name)
        return default if array is None else float(array.reshape(-1)[0])


Row = Callable[[Lowering, Arguments], Any]


def _window(a: Arguments, kernel: Sequence[int]) -> tuple[list[int], list[Pair], list[int]]:
    """Stride, padding and dilation of a convolution or pool."""
    count = len(kernel)
    stride = list(a.attribute("strides", [1] * count))
    dilation = list(a.attribute("dilations", [1] * count))
    auto = a.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sizes = a.x.type.shape[2:]
        lower = auto == "SAME_LOWER"
        return stride, lo.same_padding(sizes, kernel, stride, dilation, lower), dilation
    pads = list(a.attribute("pads", [0] * 2 * count)) if auto == "NOTSET" else [0] * 2 * count
    return stride, [(pads[i], pads[i + count]) for i in range(count)], dilation


def _kernel(a: Arguments) -> tuple[int, ...]:
    weight = a.operand(1)
    if not isinstance(weight, Weight):
        raise UnsupportedError("its weight is computed from the input; it has to be a parameter")
    return weight.shape[2:]


def _conv(low: Lowering, a: Arguments) -> Value:
    stride, pads, dilation = _window(a, _kernel(a))
    groups = a.attribute("group", 1)
    return lo.conv(low, a.x, a.operand(1), a.operand(2), stride, pads, dilation, groups)


def _conv_transpose(low: Lowering, a: Arguments) -> Value:
    if a.attribute("output_shape") is not None or a.attribute("auto_pad", "NOTSET") != "NOTSET":
        raise UnsupportedError("output_shape or auto_pad; only explicit pads are supported")
    kernel = _kernel(a)
    stride, pads, dilation = _window(a, kernel)
    output_padding = list(a.attribute("output_padding", [0] * len(kernel)))
    return lo.conv_transpose(
        low, a.x, a.operand(1), a.operand(2), stride, pads, output_padding, dilation,
        a.attribute("group", 1),
    )  # fmt: skip


def _gemm(low: Lowering, a: Arguments) -> Activation:
    weight, bias = a.operand(1), a.operand(2)
    if a.attribute("transA", 0) or not isinstance(weight, Weight) or isinstance(a.x, Weight):
        raise UnsupportedError("only a product of the input and a constant matrix is supported")
    if a.attribute("transB", 0):
        weight = weight.permute(1, 0)
    alpha, beta = a.attribute("alpha", 1.0), a.attribute("beta", 1.0)
    vector = isinstance(bias, Weight) and bias.shape in (weight.shape[1:], (1, weight.shape[1]))
    if alpha == beta == 1.0 and (bias is None or vector):
        return lo.linear(low, a.x, weight, bias)
    y = lo.linear(low, a.x, weight, None)
    if alpha != 1.0:
        y = lo.binary(low, "mul", y, alpha)
    if bias is None or beta == 0.0:
        return y
    if beta != 1.0:
        raise UnsupportedError(f"beta={beta}; only 0 and 1 are supported")
    return lo.binary(low, "add", y, bias)


def _batch_norm(low: Lowering, a: Arguments) -> Value:
    if a.attribute("training_mode", 0):
        raise UnsupportedError("batch norm in training mode; export the model for inference")
    scale, shift, mean, variance = (a.operand(i) for i in range(1, 5))
    return lo.batch_norm(low, a.x, mean, variance, scale, shift, a.attribute("epsilon", 1e-5))


def _layer_norm(low: Lowering, a: Arguments) -> Value:
    rank = a.x.type.rank
    count = rank - a.attribute("axis", -1) % rank
    epsilon = a.attribute("epsilon", 1e-5)
    return lo.layer_norm(low, a.x, count, a.operand(1), a.operand(2), epsilon)


def _group_norm(low: Lowering, a: Arguments) -> Value:
    groups, channels = a.attribute("num_groups"), a.x.type.shape[1]
    scale, shift = (_per_channel(a.operand(i), groups, channels) for i in (1, 2))
    return lo.group_norm(low, a.x, groups, scale, shift, a.attribute("epsilon", 1e-5))


def _per_channel(operand: Operand, groups: int, channels: int) -> Operand:
    """Operator set 18 has one scale a group; later ones have one a channel."""
    if isinstance(operand, Weight) and operand.shape == (groups,) and groups != channels:
        return Weight(np.repeat(operand.array, channels // groups))
    return operand


def _instance_norm(low: Lowering, a: Arguments) -> Value:
    groups, epsilon = a.x.type.shape[1], a.attribute("epsilon", 1e-5)
    return lo.group_norm(low, a.x, groups, a.operand(1), a.operand(2), epsilon)


def _unary(kind: str) -> Row:
    return lambda low, a: lo.unary(low, kind, a.x)


def _clip(low: Lowering, a: Arguments) -> Value:
    return lo.clamp(low, a.x, a.number(1, "min", None), a.number(2, "max", None))


def _hard_sigmoid(low: Lowering, a: Arguments) -> Value:
    alpha = a.attribute("alpha", 0.2)
    if np.float32(alpha) == np.float32(1 / 6):
        alpha = 1 / 6  # PyTorch's slope, as the float32 of the file rounds it.
    return lo.hard_sigmoid(low, a.x, alpha, a.attribute("beta", 0.5))


def _binary(kind: str) -> Row:
    def row(low: Lowering, a: Arguments) -> Activation:
        return lo.binary(low, kind, *(_plain(a.operand(i)) for i in (0, 1)))

    return row


def _plain(operand: Source) -> Source:
    """A single number is a constant of the formula, not a parameter to train."""
    if isinstance(operand, Weight) and math.prod(operand.shape) == 1:
        return Weight(operand.array.reshape(()))
    return operand


def _sum(low: Lowering, a: Arguments) -> Value:
    total = a.x
    for operand in a.operands[1:]:
        assert operand is not None
        total = lo.binary(low, "add", total, operand)
    return total  # type: ignore[no-any-return]


def _power(low: Lowering, a: Arguments) -> Value:
    exponent = a.constant(1, "exponent")
    if exponent is None or exponent.size != 1 or not isinstance(a.x, Value):
        raise UnsupportedError("the exponent has to be a single number")
    return lo.power(low, a.x, float(exponent.reshape(-1)[0]))


def _max_pool(low: Lowering, a: Arguments) -> tuple[Value | None, ...]:
    kernel = a.attribute("kernel_shape")
    stride, pads, dilation = _window(a, kernel)
    ceil = bool(a.attribute("ceil_mode", 0))
    return (lo.max_pool(low, a.x, kernel, stride, pads, dilation, ceil),)


def _avg_pool(low: Lowering, a: Arguments) -> Value:
    kernel = a.attribute("kernel_shape")
    stride, pads, dilation = _window(a, kernel)
    if any(d != 1 for d in dilation):
        raise UnsupportedError("an average pool with dilations")
    ceil, counted = bool(a.attribute("ceil_mode", 0)), bool(a.attribute("count_include_pad", 0))
    return lo.avg_pool(low, a.x, kernel, stride, pads, ceil, counted)


def _global_pool(kind: str) -> Row:
    return lambda low, a: lo.adaptive_pool(low, a.x, (1,) * (a.x.type.rank - 2), kind)


def _reduce(mean: bool) -> Row:
    def row(low: Lowering, a: Arguments) -> Value:
        axes = a.integers(1, "axes")
        if not axes and a.attribute("noop_with_empty_axes", 0):
            return a.x  # type: ignore[no-any-return]
        return lo.reduce(low, a.x, axes or None, mean, bool(a.attribute("keepdims", 1)))

    return row


def _reduce_max(low: Lowering, a: Arguments) -> Value:
    axes = a.integers(1, "axes") or range(a.x.type.rank)
    return lo.global_max(low, a.x, axes, bool(a.attribute("keepdims", 1)))


def _softmax(low: Lowering, a: Arguments) -> Activation:
    return lo.softmax(low, a.x, a.attribute("axis", -1))


def _log_softmax(low: Lowering, a: Arguments) -> Activation:
    return lo.log_softmax(low, a.x, a.attribute("axis", -1))


def _identity(low: Lowering, a: Arguments) -> Source:
    result: Source = a.x
    return result


def _dropout(low: Lowering, a: Arguments) -> Source:
    training = a.constant(2, "training_mode")
    if training is not None and bool(training.reshape(-1)[0]):
        raise UnsupportedError("dropout in training mode; export the model for inference")
    return _identity(low, a)


def _cast(low: Lowering, a: Arguments) -> Source:
    if isinstance(a.x, Value) and a.x.type.dtype is DType.I32:
        if a.attribute("to") in (onnx.TensorProto.INT64, onnx.TensorProto.INT32):
            return a.x
        raise UnsupportedError("it makes numbers of token ids; only an embedding reads them")
    if a.attribute("to") != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(a.attribute("to"))
        raise UnsupportedError(f"it converts to {kind}; this version computes in float32")
    return _identity(low, a)


def _cast_like(low: Lowering, a: Arguments) -> Source:
    """A constant takes the type of the second operand, of which only the type is read."""
    like = a.operand(1)
    if isinstance(a.x, Weight):
        value = like.value if isinstance(like, Moved) else like
        kind = value.array.dtype if isinstance(value, Weight) else value.type.dtype.numpy
        return Weight(a.x.array.astype(kind))
    return _identity(low, a)


def _shape(low: Lowering, a: Arguments) -> Weight:
    shape = lo.shape_of(a.x)
    start, end = a.attribute("start", 0), a.attribute("end", len(shape))
    return Weight(np.array(shape[start:end], np.int64))


def _where(low: Lowering, a: Arguments) -> Activation:
    """A constant condition that keeps the input or puts a number in its place."""
    condition, numbers = a.constant(0, "condition"), [a.operand(1), a.operand(2)]
    weights = [x for x in numbers if isinstance(x, Weight)]
    if condition is None or len(weights) != 1 or math.prod(weights[0].shape) != 1:
        raise UnsupportedError("only a constant number in the place of some elements is supported")
    fills = isinstance(numbers[0], Weight)
    kept = numbers[1] if fills else numbers[0]
    mask = condition.astype(bool)
    number = float(weights[0].array.reshape(()))
    return lo.masked_fill(low, kept, mask if fills else ~mask, number)


def _size(low: Lowering, a: Arguments) -> Weight:
    return Weight(np.array(math.prod(lo.shape_of(a.x)), np.int64))


def _reshape(low: Lowering, a: Arguments) -> Source:
    wanted, shape = a.integers(1, "shape") or [], lo.shape_of(a.x)
    if not a.attribute("allowzero", 0):
        wanted = [shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    return lo.reshape(low, a.x, wanted)


def _flatten(low: Lowering, a: Arguments) -> Source:
    shape = lo.shape_of(a.x)
    axis = a.attribute("axis", 1) % (len(shape) + 1)
    return lo.reshape(low, a.x, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _transpose(low: Lowering, a: Arguments) -> Source:
    rank = len(lo.shape_of(a.x))
    return lo.permute(low, a.x, a.attribute("perm", list(range(rank))[::-1]))


def _squeeze(low: Lowering, a: Arguments) -> Source:
    return lo.squeeze(low, a.x, a.integers(1, "axes"))


def _unsqueeze(low: Lowering, a: Arguments) -> Source:
    return lo.unsqueeze(low, a.x, a.integers(1, "axes") or [])


def _expand(low: Lowering, a: Arguments) -> Value:
    wanted, shape = a.integers(1, "shape") or [], a.x.type.shape
    if len(wanted) < len(shape):
        wanted = [1] * (len(shape) - len(wanted)) + wanted
    if len(wanted) == len(shape):
        wanted = [max(size, old) for size, old in zip(wanted, shape, strict=True)]
    return lo.expand(low, a.x, wanted)


def _concat(low: Lowering, a: Arguments) -> Value:
    return lo.concat(low, [x for x in a.operands if x is not None], a.attribute("axis"))


def _slice(low: Lowering, a: Arguments) -> Activation:
    starts, ends = a.integers(1, "starts") or [], a.integers(2, "ends") or []
    axes = a.integers(3, "axes") or list(range(len(starts)))
    steps = a.integers(4, "steps") or [1] * len(starts)
    x: Activation = a.x
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        x = lo.slice_axis(low, x, axis, start, end, step)
    return x


def _split(low: Lowering, a: Arguments) -> tuple[Activation, ...]:
    shape = lo.shape_of(a.x)
    axis = a.attribute("axis", 0) % len(shape)
    size, count = shape[axis], len(a.node.output)
    sizes = a.integers(1, "split")
    if not sizes:
        each = -(-size // count)
        sizes = [min(each, size - i * each) for i in range(count)]
    return lo.split(low, a.x, axis, sizes)


def _gather(low: Lowering, a: Arguments) -> Source:
    ids, axis = a.operand(1), a.attribute("axis", 0)
    if isinstance(a.x, Weight):
        if axis == 0 and len(a.x.shape) == 2 and (a.x.name or isinstance(ids, Value)):
            return lo.embedding(low, a.x, ids)
        if isinstance(ids, Value):
            raise UnsupportedError(
                f"it looks up axis {axis} of a constant {list(a.x.shape)}; only the rows of a "
                "matrix (an embedding) are supported"
            )
        return Weight(np.take(a.x.array, ids.array, axis))
    index = a.constant(1, "indices")
    assert index is not None
    if index.size != 1:
        steps = np.diff(index.reshape(-1))
        if index.ndim == 1 and index.size and (steps == 1).all():
            return lo.slice_axis(low, a.x, axis, int(index[0]), int(index[-1]) + 1)
        raise UnsupportedError("it gathers several elements; only one, or a range, is supported")
    picked = lo.select(low, a.x, axis, int(index.reshape(-1)[0]))
    if index.ndim == 0:
        return picked
    return lo.unsqueeze(low, picked, [axis % len(lo.shape_of(a.x))])


def _pad(low: Lowering, a: Arguments) -> Value:
    mode = a.attribute("mode", "constant")
    if mode != "constant":
        raise UnsupportedError(f"padding of mode {mode!r}; only constant padding is supported")
    amounts, rank = a.integers(1, "pads") or [], a.x.type.rank
    axes = a.integers(3, "axes")
    pads = [(0, 0)] * rank
    count = len(amounts) // 2
    for i, axis in enumerate(range(rank) if axes is None else axes):
        pads[axis % rank] = (amounts[i], amounts[i + count])
    value = a.number(2, "constant_value", 0.0)
    return lo.pad(low, a.x, pads, 0.0 if value is None else value)


def _resize(low: Lowering, a: Arguments) -> Value:
    """Nearest-neighbour Resize, and the Upsample that it replaced."""
    mode = a.attribute("mode", "nearest")
    shape: tuple[int, ...] = a.x.type.shape
    if mode != "nearest":
        raise UnsupportedError(f"resizing of mode {mode!r}; only nearest is supported")
    upsample = a.node.op_type == "Upsample"
    scales = a.constant(1 if upsample else 2, "scales")
    sizes = None if upsample else a.integers(3, "sizes")
    output, factors = list(shape), [1.0] * len(shape)
    axes = [axis % len(shape) for axis in a.attribute("axes", range(len(shape)))]
    if sizes:
        for axis, size in zip(axes, sizes, strict=True):
            output[axis], factors[axis] = size, size / shape[axis]
    elif scales is not None and scales.size:
        for axis, factor in zip(axes, scales.reshape(-1), strict=True):
            output[axis], factors[axis] = math.floor(shape[axis] * factor), float(factor)
    else:
        raise UnsupportedError("neither scales nor sizes are given")
    if output[:2] != list(shape[:2]):
        raise UnsupportedError("it resizes the batch or the channels")
    transform = a.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = a.attribute("nearest_mode", "round_prefer_floor")
    if upsample:
        transform, rounding = "asymmetric", "floor"

    def source(axis: int, i: int) -> int:
        size, wanted, factor = shape[2 + axis], output[2 + axis], factors[2 + axis]
        at = _coordinate(transform, i, size, wanted, factor)
        return min(max(_ROUND[rounding](at), 0), size - 1)

    inverse = [1.0 / factor for factor in factors[2:]]
    return lo.upsample_nearest(low, a.x, output[2:], inverse, source)


def _coordinate(transform: str, i: int, size: int, wanted: int, factor: float) -> float:
    """The input coordinate of output index i, as the Resize operator defines it."""
    if transform == "asymmetric":
        return i / factor
    if transform == "half_pixel" or (transform == "pytorch_half_pixel" and wanted > 1):
        return (i + 0.5) / factor - 0.5
    if transform == "align_corners" and wanted > 1:
        return i * (size - 1) / (wanted - 1)
    if transform in ("align_corners", "pytorch_half_pixel"):
        return 0.0
    raise UnsupportedError(f"coordinate_transformation_mode {transform!r}")


_ROUND: dict[str, Callable[[float], int]] = {
    "ceil": math.ceil,
    "floor": math.floor,
    "round_prefer_ceil": lambda at: math.floor(at + 0.5),
    "round_prefer_floor": lambda at: math.ceil(at - 0.5),
}


TABLE: dict[str, Row] = {
    "Abs": _unary("abs"),
    "Add": _binary("add"),
    "AveragePool": _avg_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": _binary("div"),
    "Dropout": _dropout,
    "Elu": lambda low, a: lo.elu(low, a.x, a.attribute("alpha", 1.0)),
    "Erf": _unary("erf"),
    "Exp": _unary("exp"),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda low, a: lo.gelu(low, a.x, a.attribute("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool("avg"),
    "GlobalMaxPool": _global_pool("max"),
    "GroupNormalization": _group_norm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary("hardswish"),
    "Identity": _identity,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda low, a: lo.leaky_relu(low, a.x, a.attribute("alpha", 0.01)),
    "Log": _unary("log"),
    "LogSoftmax": _log_softmax,
    "MatMul": lambda low, a: lo.matmul(low, a.x, a.operand(1)),
    "MaxPool": _max_pool,
    "Mul": _binary("mul"),
    "Neg": _unary("neg"),
    "Pad": _pad,
    "Pow": _power,
    "Reciprocal": _unary("reciprocal"),
    "ReduceMax": _reduce_max,
    "ReduceMean": _reduce(mean=True),
    "ReduceSum": _reduce(mean=False),
    "Relu": _unary("relu"),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Sigmoid": _unary("sigmoid"),
    "Silu": _unary("silu"),
    "Size": _size,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _unary("sqrt"),
    "Squeeze": _squeeze,
    "Sub": _binary("sub"),
    "Sum": _sum,
    "Tanh": _unary("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
    "Where": _where,
}

LAYOUT = {
    "Flatten", "Gather", "Identity", "Reshape", "Shape", "Size", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip
"""Rows that keep track of a parameter, so that it stays one under another shape."""

POINTWISE = {
    "Abs", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log",
    "Neg", "Pow", "Reciprocal", "Relu", "Sigmoid", "Silu", "Sqrt", "Tanh",
}  # fmt: skip
"""Rows of one tensor that work on any shape."""

MOVABLE = {
    "Add", "Cast", "CastLike", "Div", "Dropout", "Flatten", "Gather", "Gemm", "Identity",
    "LogSoftmax", "MatMul", "Mul", "Reshape", "Shape", "Size", "Slice", "Softmax", "Split",
    "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
"""Rows that know tensors whose batch is not in front."""

INTEGERS = {
    "Cast", "Concat", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Size", "Slice", "Split",
    "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Rows that take integers."""
