"""A network compiles to the same program from PyTorch and from PyTorch's ONNX file."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pytest
import torch

import kilograd as kg
from kilograd.ir import Graph, evaluate
from tests.agreement.networks import NETWORKS, Network, data_folder
from tests.agreement.samples import draw_input


def export(model: Any, example: torch.Tensor, path) -> Any:
    """As the exporter can, without folding: it would merge batch norm into weights of its own."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (example,), path, dynamo=False, opset_version=17, do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )  # fmt: skip
    return path


def distinct(model: Any) -> Any:
    """The model with no two parameters equal, as after training.

    The exporter writes tensors of equal values once (the scales of all batch norms of a fresh
    network are ones), and whoever reads the file sees one parameter with several readers.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    return model


def signature(graph: Graph) -> list[str]:
    """The operators in order, with attributes and types, without names."""
    return [
        f"{node.op}({', '.join(str(v.type) for v in node.inputs)})"
        f" -> {', '.join(str(v.type) for v in node.outputs)}"
        for node in graph.nodes
    ]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_same_program(network: Network, tmp_path):
    if "weights" in network.options and not data_folder().is_dir():
        pytest.skip(f"no data folder at {data_folder()}; set KILOGRAD_DATA")
    model, example = network.build()
    path = export(distinct(model), example, tmp_path / f"{network.name}.onnx")
    options = {"loss": network.loss, "update": kg.update.all()}
    ours = kg.compile(model, example, **options)
    theirs = kg.compile(path, **options)
    for a, b in ((ours.predict, theirs.predict), (ours.train, theirs.train)):
        wanted, found = signature(a.graph), signature(b.graph)
        different = Counter(found) - Counter(wanted), Counter(wanted) - Counter(found)
        assert found == wanted, f"only from ONNX, only from PyTorch: {different}"
    assert theirs.arena_bytes == ours.arena_bytes
    assert theirs.state_bytes == ours.state_bytes
    x = draw_input(model, example, np.random.default_rng(0))
    outputs = []
    for program in (ours, theirs):
        port, graph = program.ports.inputs[0], program.predict.graph
        outputs.append(evaluate(graph, {graph.inputs[0].name: port.to_program(x)}).outputs[0])
    scale = np.abs(outputs[0]).max()
    assert np.abs(outputs[0] - outputs[1]).max() <= 1e-5 * scale
    names = [sorted(t.origin.name for t in p.train.graph.state.values()) for p in (ours, theirs)]
    assert names[0] == names[1]
