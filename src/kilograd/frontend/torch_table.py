"""One row per ATen operator: how it is lowered.

A row reads its arguments by their name in the ATen schema, whichever overload it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kilograd.errors import UnsupportedError
from kilograd.frontend import lowering as lo
from kilograd.frontend.lowering import Activation, Lowering, Moved, Operand, Source, Weight
from kilograd.ir import Value


@dataclass(frozen=True)
class Arguments:
    """The arguments of one node by name; `result` is what torch says the node gives."""

    named: dict[str, Any]
    result: Any

    @property
    def x(self) -> Any:
        """The first tensor, which schemas call `self` or `input`."""
        return self.named["self"] if "self" in self.named else self.named["input"]

    def __getitem__(self, name: str) -> Any:
        """The argument, or None where the overload has none of that name."""
        return self.named.get(name)


Row = Callable[[Lowering, Arguments], Any]


def _pairs(padding: Sequence[int]) -> list[tuple[int, int]]:
    return [(amount, amount) for amount in padding]


def _conv(low: Lowering, a: Arguments) -> Value:
    padding = a["padding"]
    weight, dims = a["weight"], a.x.type.rank - 2
    stride, dilation = (list(a[key]) * (dims if len(a[key]) == 1 else 1) for key in
                        ("stride", "dilation"))  # fmt: skip
    if padding == "same":
        kernel = weight.shape[2:]
        pads = lo.same_padding(a.x.type.shape[2:], kernel, stride, dilation)
    else:
        pads = _pairs([0] * dims if padding == "valid" else padding)
    return lo.conv(low, a.x, weight, a["bias"], stride, pads, dilation, a["groups"])


def _conv_transpose(low: Lowering, a: Arguments) -> Value:
    return lo.conv_transpose(
        low, a.x, a["weight"], a["bias"], a["stride"], _pairs(a["padding"]), a["output_padding"],
        a["dilation"], a["groups"],
    )  # fmt: skip


def _convolution(low: Lowering, a: Arguments) -> Value:
    return (_conv_transpose if a["transposed"] else _conv)(low, a)


def _linear(low: Lowering, a: Arguments) -> Activation:
    if not isinstance(a["weight"], Weight):
        raise UnsupportedError("its weight is computed from the input; it has to be a parameter")
    return lo.linear(low, a.x, a["weight"].permute(1, 0), a["bias"])


def _addmm(low: Lowering, a: Arguments) -> Activation:
    bias, weight = a.x, a["mat2"]
    plain = isinstance(weight, Weight) and isinstance(bias, Weight) and len(bias.shape) == 1
    if plain and a["beta"] == 1 and a["alpha"] == 1 and isinstance(a["mat1"], Value | Moved):
        return lo.linear(low, a["mat1"], weight, bias)
    product = lo.matmul(low, a["mat1"], weight)
    if a["alpha"] != 1:
        product = lo.binary(low, "mul", product, float(a["alpha"]))
    if a["beta"] != 1:
        raise UnsupportedError(f"beta={a['beta']}; only 1 is supported")
    return lo.binary(low, "add", product, bias)


def _batch_norm(low: Lowering, a: Arguments) -> Value:
    if a["training"]:
        raise UnsupportedError(
            "batch norm in training mode; export the model in evaluation mode (model.eval())"
        )
    if a["running_mean"] is None:
        raise UnsupportedError("batch norm without running statistics depends on the batch")
    return lo.batch_norm(
        low, a.x, a["running_mean"], a["running_var"], a["weight"], a["bias"], a["eps"]
    )


def _layer_norm(low: Lowering, a: Arguments) -> Value:
    return lo.layer_norm(low, a.x, len(a["normalized_shape"]), a["weight"], a["bias"], a["eps"])


def _group_norm(low: Lowering, a: Arguments) -> Value:
    groups = a["group"] if a["num_groups"] is None else a["num_groups"]
    return lo.group_norm(low, a.x, groups, a["weight"], a["bias"], a["eps"])


def _instance_norm(low: Lowering, a: Arguments) -> Value:
    if not a["use_input_stats"]:
        return _batch_norm(low, a)
    return lo.group_norm(low, a.x, a.x.type.shape[1], a["weight"], a["bias"], a["eps"])


def _first_of(row: Row) -> Row:
    """A row whose ATen operator has further results, which nothing may read."""
    return lambda low, a: (row(low, a), None, None)


def _unary(kind: str) -> Row:
    return lambda low, a: lo.unary(low, kind, a.x)


def _binary(kind: str) -> Row:
    def row(low: Lowering, a: Arguments) -> Activation:
        other = a["other"]
        if a["rounding_mode"] is not None:
            raise UnsupportedError(f"division that rounds ({a['rounding_mode']!r})")
        if a["alpha"] not in (None, 1):
            if not isinstance(other, Value | Moved):
                scaled = other.array * a["alpha"] if isinstance(other, Weight) else None
                other = other * a["alpha"] if scaled is None else Weight(scaled)
            else:
                other = lo.binary(low, "mul", other, float(a["alpha"]))
        return lo.binary(low, kind, a.x, other)

    return row


def _rsub(low: Lowering, a: Arguments) -> Activation:
    if a["alpha"] not in (None, 1):
        raise UnsupportedError(f"rsub with alpha={a['alpha']}; only 1 is supported")
    return lo.binary(low, "sub", a["other"], a.x)


def _clamp(low: Lowering, a: Arguments) -> Value:
    lowest = a["min"] if a["min_val"] is None else a["min_val"]
    highest = a["max"] if a["max_val"] is None else a["max_val"]
    if isinstance(lowest, Value | Weight) or isinstance(highest, Value | Weight):
        raise UnsupportedError("its limits are tensors; only numbers are supported")
    return lo.clamp(low, a.x, lowest, highest)


def _elu(low: Lowering, a: Arguments) -> Value:
    if a["scale"] != 1 or a["input_scale"] != 1:
        raise UnsupportedError("ELU with a scale (SELU)")
    return lo.elu(low, a.x, a["alpha"])


def _power(low: Lowering, a: Arguments) -> Value:
    if not isinstance(a.x, Value) or not isinstance(a["exponent"], int | float):
        raise UnsupportedError("the exponent has to be a number")
    return lo.power(low, a.x, float(a["exponent"]))


def _max_pool(low: Lowering, a: Arguments) -> Value:
    return lo.max_pool(
        low, a.x, a["kernel_size"], a["stride"] or a["kernel_size"], _pairs(a["padding"]),
        a["dilation"], a["ceil_mode"],
    )  # fmt: skip


def _avg_pool(low: Lowering, a: Arguments) -> Value:
    return lo.avg_pool(
        low, a.x, a["kernel_size"], a["stride"] or a["kernel_size"], _pairs(a["padding"]),
        a["ceil_mode"], a["count_include_pad"], a["divisor_override"] or 0,
    )  # fmt: skip


def _adaptive(kind: str) -> Row:
    return lambda low, a: lo.adaptive_pool(low, a.x, a["output_size"], kind)


def _reduce(mean: bool) -> Row:
    def row(low: Lowering, a: Arguments) -> Value:
        return lo.reduce(low, a.x, a["dim"] or None, mean, bool(a["keepdim"]))

    return row


def _amax(low: Lowering, a: Arguments) -> Value:
    return lo.global_max(low, a.x, a["dim"] or range(a.x.type.rank), a["keepdim"])


def _softmax(low: Lowering, a: Arguments) -> Activation:
    return lo.softmax(low, a.x, a["dim"])


def _log_softmax(low: Lowering, a: Arguments) -> Activation:
    return lo.log_softmax(low, a.x, a["dim"])


def _matmul(low: Lowering, a: Arguments) -> Activation:
    return lo.matmul(low, a.x, a["mat2"] if a["other"] is None else a["other"])


def _baddbmm(low: Lowering, a: Arguments) -> Activation:
    """The masked scores of nn.MultiheadAttention that also returns its weights."""
    if a["beta"] != 1 or a["alpha"] != 1:
        raise UnsupportedError(f"beta={a['beta']}, alpha={a['alpha']}; only 1 is supported")
    return lo.binary(low, "add", a.x, lo.matmul(low, a["batch1"], a["batch2"]))


def _attention(low: Lowering, a: Arguments) -> Activation:
    if a["dropout_p"]:
        raise UnsupportedError(
            "attention with dropout; export the model in evaluation mode (model.eval())"
        )
    query, key = a["query"].type.shape, a["key"].type.shape
    mask = _mask(a["attn_mask"])
    if a["is_causal"]:
        mask = lo.additive_mask(np.tri(query[-2], key[-2], dtype=bool))
    return lo.attention(low, a["query"], a["key"], a["value"], a["scale"], mask)


def _mask(mask: Any) -> np.ndarray | None:
    """What is added to the scores: a mask of numbers as it is, one of booleans keeps the true."""
    if isinstance(mask, Value | Moved):
        raise UnsupportedError("its mask is computed from the input; only a constant is supported")
    return None if mask is None else lo.additive_mask(mask.array)


def _masked_fill(low: Lowering, a: Arguments) -> Activation:
    number = a["value"].array if isinstance(a["value"], Weight) else a["value"]
    if not isinstance(a["mask"], Weight) or not isinstance(number, int | float | np.ndarray):
        raise UnsupportedError("its mask is computed from the input; only a constant is supported")
    return lo.masked_fill(low, a.x, a["mask"].array, float(number))


def _embedding(low: Lowering, a: Arguments) -> Operand:
    if a["scale_grad_by_freq"]:
        raise UnsupportedError("an embedding with scale_grad_by_freq")
    return lo.embedding(low, a["weight"], a["indices"], a["padding_idx"])


def _identity(low: Lowering, a: Arguments) -> Source:
    x: Source = a.x
    return x


def _dropout(low: Lowering, a: Arguments) -> Source:
    if a["train"] and a["p"]:
        raise UnsupportedError(
            "dropout in training mode; export the model in evaluation mode (model.eval())"
        )
    return _identity(low, a)


def _reshape(low: Lowering, a: Arguments) -> Source:
    shape = a["size"] if a["shape"] is None else a["shape"]
    return lo.reshape(low, a.x, shape)


def _flatten(low: Lowering, a: Arguments) -> Source:
    return lo.flatten(low, a.x, a["start_dim"], a["end_dim"])


def _unflatten(low: Lowering, a: Arguments) -> Source:
    shape = lo.shape_of(a.x)
    axis, sizes = a["dim"] % len(shape), list(a["sizes"])
    if -1 in sizes:
        sizes[sizes.index(-1)] = shape[axis] // -math.prod(sizes)
    return lo.reshape(low, a.x, (*shape[:axis], *sizes, *shape[axis + 1 :]))


def _squeeze(low: Lowering, a: Arguments) -> Source:
    axes = a["dim"]
    return lo.squeeze(low, a.x, [axes] if isinstance(axes, int) else axes)


def _expand(low: Lowering, a: Arguments) -> Value:
    shape = tuple(a.result.shape) if a["size"] is None else a["size"]
    return lo.expand(low, a.x, shape)


def _concat(low: Lowering, a: Arguments) -> Value:
    return lo.concat(low, a["tensors"], a["dim"])


def _stack(low: Lowering, a: Arguments) -> Value:
    axis = a["dim"] % len(a.result.shape)
    return lo.concat(low, [lo.unsqueeze(low, x, [axis]) for x in a["tensors"]], axis)


def _slice(low: Lowering, a: Arguments) -> Activation:
    return lo.slice_axis(low, a.x, a["dim"], a["start"], a["end"], a["step"])


def _narrow(low: Lowering, a: Arguments) -> Activation:
    return lo.slice_axis(low, a.x, a["dim"], a["start"], a["start"] + a["length"])


def _select(low: Lowering, a: Arguments) -> Activation:
    return lo.select(low, a.x, a["dim"], a["index"])


def _split(low: Lowering, a: Arguments) -> tuple[Activation, ...]:
    """split, split_with_sizes, chunk: torch says how large the pieces are."""
    axis = a["dim"]
    return lo.split(low, a.x, axis, [piece.shape[axis] for piece in a.result])


def _unbind(low: Lowering, a: Arguments) -> tuple[Activation, ...]:
    return tuple(lo.select(low, a.x, a["dim"], i) for i in range(len(a.result)))


def _pad(low: Lowering, a: Arguments) -> Value:
    if a["mode"] not in (None, "constant"):
        raise UnsupportedError(f"padding of mode {a['mode']!r}; only constant padding is supported")
    amounts = a["pad"]
    pads = [(amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)]
    pads += [(0, 0)] * (a.x.type.rank - len(pads))
    return lo.pad(low, a.x, pads[::-1], a["value"] or 0.0)


def _upsample(low: Lowering, a: Arguments) -> Value:
    output = tuple(a.result.shape[2:])
    factors = a["scale_factors"] or [a["scales"], a["scales_h"], a["scales_w"]]
    given = [factor for factor in factors if factor] or [None] * len(output)

    scales = [0.0 if factor is None else 1.0 / factor for factor in given]
    return lo.upsample_nearest(low, a.x, output, scales)


TABLE: dict[str, Row] = {
    "aten._adaptive_avg_pool2d": _adaptive("avg"),
    "aten._log_softmax": _log_softmax,
    "aten._native_batch_norm_legit_no_training": _first_of(_batch_norm),
    "aten._softmax": _softmax,
    "aten._to_copy": _identity,
    "aten._unsafe_view": _reshape,
    "aten.abs": _unary("abs"),
    "aten.adaptive_avg_pool1d": _adaptive("avg"),
    "aten.adaptive_avg_pool2d": _adaptive("avg"),
    "aten.adaptive_max_pool1d": _first_of(_adaptive("max")),
    "aten.adaptive_max_pool2d": _first_of(_adaptive("max")),
    "aten.add": _binary("add"),
    "aten.addmm": _addmm,
    "aten.alias": _identity,
    "aten.amax": _amax,
    "aten.avg_pool1d": _avg_pool,
    "aten.avg_pool2d": _avg_pool,
    "aten.batch_norm": _batch_norm,
    "aten.baddbmm": _baddbmm,
    "aten.bmm": _matmul,
    "aten.cat": _concat,
    "aten.chunk": _split,
    "aten.clamp": _clamp,
    "aten.clamp_max": _clamp,
    "aten.clamp_min": _clamp,
    "aten.clone": _identity,
    "aten.constant_pad_nd": _pad,
    "aten.contiguous": _identity,
    "aten.conv1d": _conv,
    "aten.conv2d": _conv,
    "aten.conv_transpose1d": _conv_transpose,
    "aten.conv_transpose2d": _conv_transpose,
    "aten.convolution": _convolution,
    "aten.detach": _identity,
    "aten.div": _binary("div"),
    "aten.dropout": _dropout,
    "aten.elu": _elu,
    "aten.embedding": _embedding,
    "aten.erf": _unary("erf"),
    "aten.exp": _unary("exp"),
    "aten.expand": _expand,
    "aten.expand_as": _expand,
    "aten.feature_dropout": _dropout,
    "aten.flatten": _flatten,
    "aten.gelu": lambda low, a: lo.gelu(low, a.x, a["approximate"]),
    "aten.group_norm": _group_norm,
    "aten.hardsigmoid": _unary("hardsigmoid"),
    "aten.hardswish": _unary("hardswish"),
    "aten.hardtanh": _clamp,
    "aten.instance_norm": _instance_norm,
    "aten.layer_norm": _layer_norm,
    "aten.leaky_relu": lambda low, a: lo.leaky_relu(low, a.x, a["negative_slope"]),
    "aten.lift_fresh_copy": _identity,
    "aten.linear": _linear,
    "aten.log": _unary("log"),
    "aten.log_softmax": _log_softmax,
    "aten.masked_fill": _masked_fill,
    "aten.matmul": _matmul,
    "aten.max_pool1d": _max_pool,
    "aten.max_pool2d": _max_pool,
    "aten.max_pool2d_with_indices": _first_of(_max_pool),
    "aten.mean": _reduce(mean=True),
    "aten.mm": _matmul,
    "aten.mul": _binary("mul"),
    "aten.narrow": _narrow,
    "aten.native_dropout": _first_of(_dropout),
    "aten.native_group_norm": _first_of(_group_norm),
    "aten.native_layer_norm": _first_of(_layer_norm),
    "aten.neg": _unary("neg"),
    "aten.pad": _pad,
    "aten.permute": lambda low, a: lo.permute(low, a.x, a["dims"]),
    "aten.pow": _power,
    "aten.reciprocal": _unary("reciprocal"),
    "aten.relu": _unary("relu"),
    "aten.relu6": lambda low, a: lo.clamp(low, a.x, 0.0, 6.0),
    "aten.reshape": _reshape,
    "aten.rsqrt": _unary("rsqrt"),
    "aten.rsub": _rsub,
    "aten.scaled_dot_product_attention": _attention,
    "aten.select": _select,
    "aten.sigmoid": _unary("sigmoid"),
    "aten.silu": _unary("silu"),
    "aten.slice": _slice,
    "aten.softmax": _softmax,
    "aten.split": _split,
    "aten.split_with_sizes": _split,
    "aten.sqrt": _unary("sqrt"),
    "aten.squeeze": _squeeze,
    "aten.stack": _stack,
    "aten.sub": _binary("sub"),
    "aten.sum": _reduce(mean=False),
    "aten.t": lambda low, a: lo.transpose(low, a.x, -2, -1),
    "aten.tanh": _unary("tanh"),
    "aten.to": _identity,
    "aten.transpose": lambda low, a: lo.transpose(low, a.x, a["dim0"], a["dim1"]),
    "aten.unbind": _unbind,
    "aten.unflatten": _unflatten,
    "aten.unsqueeze": lambda low, a: lo.unsqueeze(low, a.x, [a["dim"]]),
    "aten.upsample_nearest1d": _upsample,
    "aten.upsample_nearest2d": _upsample,
    "aten.view": _reshape,
}

LAYOUT = {
    "aten._unsafe_view", "aten.alias", "aten.clone", "aten.contiguous", "aten.detach",
    "aten.embedding", "aten.flatten", "aten.permute", "aten.reshape", "aten.squeeze", "aten.t",
    "aten.transpose", "aten.unflatten", "aten.unsqueeze", "aten.view",
}  # fmt: skip
"""Rows that keep track of a parameter, so that it stays one under another shape."""

POINTWISE = {
    "aten.abs", "aten.clamp", "aten.clamp_max", "aten.clamp_min", "aten.elu", "aten.erf",
    "aten.exp", "aten.gelu", "aten.hardsigmoid", "aten.hardswish", "aten.hardtanh",
    "aten.leaky_relu", "aten.log", "aten.neg", "aten.pow", "aten.reciprocal", "aten.relu",
    "aten.relu6", "aten.rsqrt", "aten.sigmoid", "aten.silu", "aten.sqrt", "aten.tanh",
}  # fmt: skip
"""Rows of one tensor that work on any shape."""

MOVABLE = {
    "aten._softmax", "aten._to_copy", "aten._unsafe_view", "aten.add", "aten.addmm", "aten.alias",
    "aten.baddbmm", "aten.bmm", "aten.chunk", "aten.clone", "aten.contiguous", "aten.detach",
    "aten.div", "aten.dropout", "aten.flatten", "aten.linear", "aten.log_softmax",
    "aten.masked_fill", "aten.matmul", "aten.mm", "aten.mul", "aten.narrow", "aten.permute",
    "aten.reshape", "aten.rsub", "aten.select", "aten.slice", "aten.softmax", "aten.split",
    "aten.split_with_sizes", "aten.squeeze", "aten.sub", "aten.t", "aten.to", "aten.transpose",
    "aten.unbind", "aten.unflatten", "aten.unsqueeze", "aten.view",
}  # fmt: skip
"""Rows that know tensors whose batch is not in front."""

INTEGERS = {
    "aten._to_copy", "aten.alias", "aten.cat", "aten.chunk", "aten.clone", "aten.contiguous",
    "aten.detach", "aten.embedding", "aten.flatten", "aten.narrow", "aten.permute", "aten.reshape",
    "aten.select", "aten.slice", "aten.split", "aten.split_with_sizes", "aten.squeeze", "aten.t",
    "aten.to", "aten.transpose", "aten.unbind", "aten.unflatten", "aten.unsqueeze", "aten.view",
}  # fmt: skip
"""Rows that take integers."""

IGNORED = {"aten._assert_tensor_metadata", "aten._assert_scalar", "aten._assert_async"}
"""Checks that torch makes while it exports; they have no result."""
