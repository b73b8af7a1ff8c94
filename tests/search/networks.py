"""Small networks and tasks for the search."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kilograd.compiler import Prepared, prepare
from kilograd.options import SGD
from kilograd.search.layers import Layers, layers_of
from kilograd.search.measure import Bench
from kilograd.search.store import Store
from kilograd.search.task import Task, make_task
from kilograd.search.training import Training

FEATURES, CLASSES = 16, 3


def perceptron(path: Path, widths: tuple[int, ...] = (FEATURES, 12, 8, CLASSES)) -> Path:
    """Linear layers with ReLU between them, as an ONNX file; no PyTorch takes part."""
    rng = np.random.default_rng(0)
    nodes, constants, name = [], [], "x"
    for index, (before, after) in enumerate(pairwise(widths)):
        last = index == len(widths) - 2
        weight = (rng.standard_normal((before, after)) / np.sqrt(before)).astype(np.float32)
        bias = np.zeros(after, np.float32)
        constants += [
            numpy_helper.from_array(weight, f"fc{index}.weight"),
            numpy_helper.from_array(bias, f"fc{index}.bias"),
        ]
        out = "y" if last else f"h{index}"
        nodes.append(
            helper.make_node("Gemm", [name, f"fc{index}.weight", f"fc{index}.bias"], [out])
        )
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"{out}r"]))
        name = f"{out}r"
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, widths[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, widths[-1]])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def blobs(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Samples of three overlapping classes."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((CLASSES, FEATURES)) * 0.7
    y = np.arange(count) % CLASSES
    x = centres[y] + rng.standard_normal((count, FEATURES))
    return x.astype(np.float32), y


def task(**options: object) -> Task:
    return make_task(blobs(), shape=(FEATURES,), classes=CLASSES, **options)


def bench(folder: Path, **options: object) -> tuple[Prepared, Layers, Bench]:
    """A prepared perceptron, its layers, and a bench with a store in `folder`."""
    network = prepare(perceptron(folder / "net.onnx"), optimizer=SGD(lr=0.05))
    arguments = {
        "trainer": network,
        "network": network.inputs,
        "task": task(),
        "training": Training(2, 0.05),
        "store": Store(folder / "store"),
        "jobs": 1,
        "progress": False,
    } | options
    return network, layers_of(network.forward), Bench(**arguments)
