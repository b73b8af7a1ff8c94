"""Operators of the ONNX standard in forms that exporters seldom write, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from kilograd.frontend import load
from kilograd.ops.linear import Linear
from kilograd.ops.norm import GroupNorm
from tests.frontend.networks import assert_same, draw

N = helper.make_node
Shape = tuple[int | str, ...]


def weight(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def build(
    nodes: Sequence[onnx.NodeProto],
    shape: Shape,
    weights: dict[str, np.ndarray],
    opset: int = 18,
) -> onnx.ModelProto:
    """A model from x to y; the batch is left dynamic so that ONNX Runtime takes any."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape[1:]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "test", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


IMAGE: tuple[int, ...] = (1, 4, 7, 6)
W = weight(5, 4, 3, 2)
CASES: dict[str, tuple[list[onnx.NodeProto], tuple[int, ...], dict[str, np.ndarray], int]] = {
    "conv_same_upper": (
        [N("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])], IMAGE, {"w": W}, 13,
    ),
    "conv_same_lower": (
        [N("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER", strides=[1, 2])], IMAGE, {"w": W}, 13,
    ),
    "conv_valid": ([N("Conv", ["x", "w"], ["y"], auto_pad="VALID")], IMAGE, {"w": W}, 13),
    "conv_uneven_pads": (
        [N("Conv", ["x", "w", "b"], ["y"], pads=[0, 1, 2, 0], dilations=[2, 1])],
        IMAGE, {"w": W, "b": weight(5)}, 13,
    ),
    "conv_transpose": (
        [N("ConvTranspose", ["x", "w"], ["y"], pads=[0, 1, 1, 0], strides=[2, 2])],
        IMAGE, {"w": weight(4, 3, 3, 3)}, 13,
    ),
    "gemm_plain": ([N("Gemm", ["x", "w"], ["y"])], (1, 5), {"w": weight(5, 3)}, 13),
    "gemm_scaled": (
        [N("Gemm", ["x", "w", "b"], ["y"], alpha=0.5, transB=1)],
        (1, 5), {"w": weight(3, 5), "b": weight(3)}, 13,
    ),
    "gemm_row": (
        [N("Gemm", ["x", "w", "b"], ["y"])], (1, 5), {"w": weight(5, 3), "b": weight(1, 3)}, 13,
    ),
    "matmul_activations": (
        [N("Transpose", ["x"], ["t"], perm=[0, 2, 1]), N("MatMul", ["x", "t"], ["y"])],
        (1, 3, 4), {}, 13,
    ),
    "layer_norm_axis": (
        [N("LayerNormalization", ["x", "w", "b"], ["y"], axis=1, epsilon=0.01)],
        (1, 3, 4), {"w": weight(3, 4), "b": weight(3, 4)}, 17,
    ),
    "group_norm_21": (
        [N("GroupNormalization", ["x", "w", "b"], ["y"], num_groups=2)],
        IMAGE, {"w": weight(4), "b": weight(4)}, 21,
    ),
    "instance_norm": (
        [N("InstanceNormalization", ["x", "w", "b"], ["y"])],
        IMAGE, {"w": weight(4), "b": weight(4)}, 13,
    ),
    "max_pool_same": (
        [N("MaxPool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER")],
        IMAGE, {}, 13,
    ),
    "avg_pool_excluded": (
        [N("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 0, 1])],
        IMAGE, {}, 13,
    ),
    "avg_pool_included": (
        [N("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1],
           count_include_pad=1)],
        IMAGE, {}, 13,
    ),
    "global_max": ([N("GlobalMaxPool", ["x"], ["y"])], IMAGE, {}, 13),
    "hard_sigmoid": ([N("HardSigmoid", ["x"], ["y"])], (1, 5), {}, 13),
    "hard_swish": ([N("HardSwish", ["x"], ["y"])], (1, 5), {}, 14),
    "clip_open": ([N("Clip", ["x", "", "m"], ["y"])], (1, 5), {"m": np.float32(0.5)}, 13),
    "gelu_tanh": ([N("Gelu", ["x"], ["y"], approximate="tanh")], (1, 5), {}, 20),
    "sum": ([N("Sum", ["x", "x", "w"], ["y"])], (1, 5), {"w": weight(5)}, 13),
    "reduce_all_axes_kept": (
        [N("ReduceMean", ["x"], ["y"], axes=[1, 2, 3], keepdims=1)], IMAGE, {}, 13,
    ),
    "reduce_input_axes": (
        [N("ReduceMean", ["x", "a"], ["y"], keepdims=0)], IMAGE, {"a": ints(-1, 1)}, 18,
    ),
    "reduce_nothing": (
        [N("ReduceSum", ["x"], ["y"], noop_with_empty_axes=1)], IMAGE, {}, 13,
    ),
    "shape_chain": (
        [
            N("Shape", ["x"], ["s"]), N("Gather", ["s", "zero"], ["n"], axis=0),
            N("Unsqueeze", ["n", "first"], ["n1"]), N("Concat", ["n1", "rest"], ["t"], axis=0),
            N("Reshape", ["x", "t"], ["y"]),
        ],
        IMAGE, {"zero": np.array(0, np.int64), "first": ints(0), "rest": ints(-1)}, 13,
    ),
    "reshape_zero": ([N("Reshape", ["x", "s"], ["y"])], IMAGE, {"s": ints(0, 0, -1)}, 13),
    "split_even": (
        [N("Split", ["x"], ["a", "b"], axis=1), N("Sub", ["a", "b"], ["y"])], IMAGE, {}, 13,
    ),
    "split_uneven": (
        [N("Split", ["x"], ["a", "b"], axis=2, num_outputs=2), N("Identity", ["b"], ["y"])],
        IMAGE, {}, 18,
    ),
    "gather_kept": ([N("Gather", ["x", "i"], ["y"], axis=2)], IMAGE, {"i": ints(-2)}, 13),
    "gather_range": ([N("Gather", ["x", "i"], ["y"], axis=1)], IMAGE, {"i": ints(1, 2)}, 13),
    "slice": (
        [N("Slice", ["x", "s", "e", "a", "t"], ["y"])],
        IMAGE, {"s": ints(1, -4), "e": ints(99, -1), "a": ints(1, 2), "t": ints(1, 2)}, 13,
    ),
    "pad_axes": (
        [N("Pad", ["x", "p", "v", "a"], ["y"])],
        IMAGE, {"p": ints(1, 0, 2, 1), "v": np.float32(-1.5), "a": ints(3, 2)}, 18,
    ),
    "expand": (
        [N("ReduceMean", ["x"], ["m"], axes=[2, 3]), N("Expand", ["m", "s"], ["y"])],
        IMAGE, {"s": ints(4, 3, 2)}, 13,
    ),
    "resize_half_pixel": (
        [N("Resize", ["x", "", "s"], ["y"])], IMAGE, {"s": floats(1, 1, 2, 3)}, 13,
    ),
    "resize_asymmetric": (
        [N("Resize", ["x", "", "s"], ["y"], coordinate_transformation_mode="asymmetric",
           nearest_mode="floor")],
        IMAGE, {"s": floats(1, 1, 1.5, 2.5)}, 13,
    ),
    "resize_sizes": (
        [N("Resize", ["x", "", "", "s"], ["y"], nearest_mode="floor", axes=[3, 2],
           coordinate_transformation_mode="asymmetric")],
        (1, 4, 3, 5), {"s": ints(7, 6)}, 18,
    ),
    "casts": (
        [N("Cast", ["x"], ["c"], to=TensorProto.FLOAT), N("Dropout", ["c"], ["y"])], (1, 5), {}, 13,
    ),
    "constant_branch": (
        [
            N("If", ["c"], ["y"],
              then_branch=helper.make_graph([N("Relu", ["x"], ["p"])], "p", [], [
                  helper.make_tensor_value_info("p", TensorProto.FLOAT, None)]),
              else_branch=helper.make_graph([N("Neg", ["x"], ["q"])], "q", [], [
                  helper.make_tensor_value_info("q", TensorProto.FLOAT, None)])),
        ],
        (1, 5), {"c": np.array(False)}, 13,
    ),
    "softmax_11": ([N("Relu", ["x"], ["r"]), N("Softmax", ["r"], ["y"])], (1, 5), {}, 11),
    "upsample_9": (
        [N("Upsample", ["x", "s"], ["y"], mode="nearest")], IMAGE, {"s": floats(1, 1, 2, 2)}, 9,
    ),
    "weight_computed": (
        [N("Mul", ["w", "two"], ["v"]), N("MatMul", ["x", "v"], ["y"])],
        (1, 5), {"w": weight(5, 2), "two": np.float32(2)}, 13,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_operator(name: str, tmp_path: Path) -> None:
    nodes, shape, weights, opset = CASES[name]
    path = tmp_path / "net.onnx"
    onnx.save(build(nodes, shape, weights, opset), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def expected(x: np.ndarray) -> Any:
        return session.run(None, {"x": x})[0]

    assert_same(load(path), expected, draw(*shape))


def test_group_norm_of_operator_set_18_scales_groups(tmp_path: Path) -> None:
    """One scale a group; ONNX Runtime is no witness, for the form was withdrawn."""
    node = N("GroupNormalization", ["x", "w", "b"], ["y"], num_groups=2)
    scale, shift = weight(2), weight(2, seed=4)
    onnx.save(build([node], IMAGE, {"w": scale, "b": shift}, 18), tmp_path / "net.onnx")

    def expected(x: np.ndarray) -> np.ndarray:
        pair = (torch.from_numpy(array).repeat_interleave(2) for array in (scale, shift))
        return torch.nn.functional.group_norm(torch.from_numpy(x), 2, *pair).numpy()

    imported = load(tmp_path / "net.onnx")
    assert isinstance(imported.graph.nodes[1].op, GroupNorm)
    assert_same(imported, expected, draw(*IMAGE))


def test_names(tmp_path: Path) -> None:
    """Nodes lead to places and initialisers to parameters; single numbers are no parameters."""
    weights = {"onnx::MatMul_12": weight(5, 2), "half": floats(0.5)}
    nodes = [
        N("MatMul", ["x", "onnx::MatMul_12"], ["h"], name="/head/head.0/MatMul"),
        N("Mul", ["h", "half"], ["y"], name="scale_it"),
    ]
    onnx.save(build(nodes, (1, 5), weights), tmp_path / "net.onnx")
    imported = load(tmp_path / "net.onnx")
    assert imported.parameters == {"onnx::MatMul_12": (5, 2)}
    linear, scale = imported.graph.nodes
    assert isinstance(linear.op, Linear)
    assert linear.location.layer == "head.0"
    assert scale.location.layer == "scale_it"
