"""From framework operators to ours, for every front end: NCHW semantics in, an IR graph out.

A front end walks its own graph and calls these functions with a `Lowering`, activations
(`Value`, leading batch dimension of 1), and data known at compile time (`Weight`). Convolutions,
pools and norms over channels run channels last, so each is wrapped in a pair of transposes:

    [N,C,H,W] -> transpose -> [N,H,W,C] -> operator -> transpose -> [N,O,H',W']

and what is one-dimensional in space becomes a picture of height 1. The transforms cancel the
transposes; nothing is optimised here.
"""

from kilograd.frontend.lowering.context import Lowering, Operand, Weight, identifier
from kilograd.frontend.lowering.layers import (
    additive_mask,
    attention,
    batch_norm,
    conv,
    conv_transpose,
    embedding,
    group_norm,
    layer_norm,
    linear,
    masked_fill,
    matmul,
    same_padding,
)
from kilograd.frontend.lowering.moved import Activation, Misplaced, Moved, Source
from kilograd.frontend.lowering.pointwise import (
    binary,
    clamp,
    elu,
    gelu,
    hard_sigmoid,
    leaky_relu,
    log_softmax,
    power,
    reduce,
    softmax,
    unary,
)
from kilograd.frontend.lowering.pooling import (
    adaptive_pool,
    avg_pool,
    global_max,
    max_pool,
    upsample_nearest,
)
from kilograd.frontend.lowering.problems import Problem, Problems
from kilograd.frontend.lowering.shapes import (
    concat,
    expand,
    flatten,
    pad,
    permute,
    reshape,
    select,
    shape_of,
    slice_axis,
    split,
    squeeze,
    transpose,
    unsqueeze,
)

__all__ = [
    "Activation",
    "Lowering",
    "Misplaced",
    "Moved",
    "Operand",
    "Problem",
    "Problems",
    "Source",
    "Weight",
    "adaptive_pool",
    "additive_mask",
    "attention",
    "avg_pool",
    "batch_norm",
    "binary",
    "clamp",
    "concat",
    "conv",
    "conv_transpose",
    "elu",
    "embedding",
    "expand",
    "flatten",
    "gelu",
    "global_max",
    "group_norm",
    "hard_sigmoid",
    "identifier",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "masked_fill",
    "matmul",
    "max_pool",
    "pad",
    "permute",
    "power",
    "reduce",
    "reshape",
    "same_padding",
    "select",
    "shape_of",
    "slice_axis",
    "softmax",
    "split",
    "squeeze",
    "transpose",
    "unary",
    "unsqueeze",
    "upsample_nearest",
]
