"""ONNX files that PyTorch's exporters write, against PyTorch."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kilograd import zoo
from kilograd.frontend import load
from kilograd.ir import to_user
from tests.frontend.cases import CASES
from tests.frontend.networks import assert_same, draw, sample, shaken, torch_function

OLD_FORMS = {
    "batch_norm2d", "chunk", "clamp", "conv1d_same", "dropout", "flatten_part", "gelu",
    "group_norm", "hardswish", "layer_norm", "linear_sequence", "mean_apart", "mean_space", "pad",
    "relu6",    "select", "slice_step", "softmax_rows", "split", "squeeze", "sum_apart", "upsample",
}  # fmt: skip
"""What the exporter writes otherwise for operator set 13 than for 18."""


def export(model: nn.Module, x: torch.Tensor, path: Path, **options: Any) -> Path:
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), path, **{"dynamo": False, **options})
    return path


@pytest.mark.parametrize("name", sorted(CASES))
def test_operator(name: str, tmp_path: Path) -> None:
    module, shape = CASES[name]
    shaken(module)
    x = sample(module, shape)
    for opset in (13, 18) if name in OLD_FORMS else (18,):
        path = export(module, x, tmp_path / f"v{opset}.onnx", opset_version=opset)
        assert_same(load(path, x), torch_function(module), x)


@pytest.mark.parametrize("name", ["autoencoder", "bert", "dscnn", "mcunet_5fps", "resnet8", "unet"])
def test_zoo(name: str, tmp_path: Path) -> None:
    model, x = zoo.create(name)
    imported = load(export(model, x, tmp_path / f"{name}.onnx", opset_version=17))
    assert imported.name == name
    assert_same(imported, torch_function(model), x)


@pytest.mark.parametrize("name", ["bert", "lenet", "se_net"])
def test_dynamo_exporter(name: str, tmp_path: Path) -> None:
    model, x = zoo.create(name)
    imported = load(export(model, x, tmp_path / "net.onnx", dynamo=True))
    assert_same(imported, torch_function(model), x)
    sources = {node.location.source.split(":")[0] for node in imported.graph.nodes}
    assert f"{type(model).__module__.split('.')[-1]}.py" in sources


def test_names_layouts_and_locations(tmp_path: Path) -> None:
    model, x = zoo.create("lenet")
    imported = load(export(model, x, tmp_path / "net.onnx"))
    tensors = [(t.origin, t.array) for t in imported.graph.constants.values() if t.origin]
    returned = to_user(tensors)
    assert set(returned) == set(imported.parameters)
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(returned[name], parameter.detach().numpy())
    layers = {node.location.layer for node in imported.graph.nodes}
    wanted = {name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert wanted <= layers


def test_dynamic_batch(tmp_path: Path) -> None:
    model, x = zoo.create("lenet")
    axes = {"image": {0: "batch"}}
    path = export(model, x, tmp_path / "net.onnx", input_names=["image"], dynamic_axes=axes)
    assert_same(load(path), torch_function(model), x)


@pytest.mark.parametrize("name", ["silu", "gelu"])
@pytest.mark.parametrize("opset", [13, 17])
def test_spelt_out_activations_are_one_operator(name: str, opset: int, tmp_path: Path) -> None:
    module, shape = CASES[name]
    graph = load(export(module, draw(*shape), tmp_path / "a.onnx", opset_version=opset)).graph
    assert [node.op.name for node in graph.nodes] == [name]


class Normed(nn.Module):
    """A batch norm behind each of the layers that exporters fold it into."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.up, self.norm2 = nn.ConvTranspose2d(4, 4, 3), nn.BatchNorm2d(4)
        self.head, self.norm3 = nn.Linear(4, 3), nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm2(self.up(torch.relu(self.norm(self.conv(x))))))
        return self.norm3(self.head(x.mean((2, 3))))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"dynamo": True, "optimize": True},
            r"batch norm into conv\.weight, up\.weight, head\.weight, which .*optimize=False",
        ),
        ({"dynamo": False}, r"merged weights into onnx::Conv_\d+, onnx::Conv_\d+, names"),
        ({"dynamo": True, "optimize": False}, None),
    ],
    ids=["optimized", "torchscript", "plain"],
)
def test_a_folded_batch_norm_is_told(
    options: dict[str, Any], expected: str | None, tmp_path: Path
) -> None:
    model, x = shaken(Normed()).eval(), torch.zeros(1, 1, 8, 8)
    imported = load(export(model, x, tmp_path / "net.onnx", **options))
    assert_same(imported, torch_function(model), x)
    if expected is None:
        assert imported.notes == ()
    else:
        assert len(imported.notes) == 1 and re.search(expected, imported.notes[0])
