"""Names, layouts and places that the PyTorch front end keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kilograd.ops.conv import Conv2d
from torch import Tensor, nn

from kilograd import zoo
from kilograd.frontend import load
from kilograd.ir import Graph, Origin, to_user
from kilograd.ops.affine import ChannelAffine
from kilograd.ops.linear import Linear
from tests.frontend.networks import Apply, assert_same, draw, shaken, torch_function


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return torch.relu(y)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block())
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean((2, 3)))


class Tied(nn.Module):
    """One matrix under two names, read in both layouts."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(6, 3)
        self.again = nn.Linear(6, 3)
        self.again.weight = self.encode.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.encode(x) + self.again(torch.tanh(x))
        return torch.tanh(y) @ self.encode.weight


def origins(graph: Graph) -> dict[str, Origin]:
    return {t.origin.name: t.origin for t in graph.constants.values() if t.origin}


def test_parameters_return_in_the_users_names_and_layouts() -> None:
    for name in ("mlp", "lenet", "resnet8", "dscnn", "tcn", "se_net"):
        model, x = zoo.create(name)
        imported = load(model, x)
        tensors = [(t.origin, t.array) for t in imported.graph.constants.values() if t.origin]
        returned = to_user(tensors)
        wanted = dict(model.named_parameters())
        assert set(returned) == set(wanted) == set(imported.parameters)
        for key, parameter in wanted.items():
            assert imported.parameters[key] == tuple(parameter.shape)
            np.testing.assert_array_equal(returned[key], parameter.detach().numpy())


def test_locations() -> None:
    graph = load(shaken(Net()), draw(1, 3, 5, 5)).graph
    conv = next(node for node in graph.nodes if isinstance(node.op, Conv2d))
    assert conv.location.layer == "blocks.0.conv"
    file, line = conv.location.source.split(":")
    assert file == "test_torch_import.py"
    text = Path(__file__).read_text().splitlines()[int(line) - 1]
    assert "self.norm(self.conv(x))" in text
    relu = next(node for node in graph.nodes if node.op.name == "relu")
    assert relu.location.layer == "blocks.0"
    head = next(node for node in graph.nodes if isinstance(node.op, Linear))
    assert head.location.layer == "head"
    assert all(node.location.source for node in graph.nodes)


def test_batch_norm_is_a_constant_and_a_trained_pair() -> None:
    graph = load(shaken(Net()), draw(1, 3, 5, 5)).graph
    affines = [node for node in graph.nodes if isinstance(node.op, ChannelAffine)]
    assert len(affines) == 2
    fixed, trained = ([graph.constants[v].origin for v in node.inputs[1:]] for node in affines)
    assert fixed == [None, None]
    assert [o.name for o in trained if o] == ["blocks.0.norm.weight", "blocks.0.norm.bias"]


def test_a_parameter_is_one_constant() -> None:
    model = shaken(Tied())
    x = draw(1, 6)
    imported = load(model, x)
    assert_same(imported, torch_function(model), x)
    names = [t.origin.name for t in imported.graph.constants.values() if t.origin]
    assert sorted(names) == ["again.bias", "encode.bias", "encode.weight"]


def test_the_model_keeps_its_modes_and_its_batch_norm() -> None:
    model = Net()
    model.blocks.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    load(model, draw(1, 3, 5, 5))
    assert model.training and not model.blocks[0].training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_saved_and_exported_programs(tmp_path: Path) -> None:
    model, x = shaken(Net()), draw(1, 3, 5, 5)
    program = torch.export.export(model, (x,))
    torch.export.save(program, tmp_path / "My net.pt2")
    direct = load(model, x)
    saved = load(tmp_path / "My net.pt2")
    assert (direct.name, saved.name) == ("net", "my_net")
    assert str(direct.graph) == str(saved.graph) == str(load(program, x).graph)
    assert direct.parameters == saved.parameters


def test_dynamic_batch_is_fixed_by_the_example() -> None:
    model, x = shaken(Net()), draw(1, 3, 5, 5)
    shapes = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(model, (draw(2, 3, 5, 5),), dynamic_shapes=shapes)
    imported = load(program, x)
    assert_same(imported, torch_function(model), x)
    assert set(origins(imported.graph)) == {name for name, _ in model.named_parameters()}
    conv = next(node for node in imported.graph.nodes if isinstance(node.op, Conv2d))
    assert conv.location.layer == "blocks.0.conv"


def test_example_inputs() -> None:
    model = nn.Linear(6, 2)
    x = draw(1, 6)
    graphs = {str(load(model, e).graph) for e in (x, x.numpy(), x.double().numpy(), (x,))}
    assert len(graphs) == 1


def test_computed_weights_are_noted() -> None:
    model = shaken(nn.utils.parametrizations.weight_norm(nn.Linear(6, 2)))
    x = draw(1, 6)
    imported = load(model, x)
    assert_same(imported, torch_function(model), x)
    assert len(imported.notes) == 1
    assert "parametrizations.weight.original0" in imported.notes[0]


def test_buffers_are_no_parameters() -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.arange(6.0))

        def forward(self, x: Tensor) -> Tensor:
            return x - self.mean

    model, x = Shift(), draw(1, 6)
    imported = load(model, x)
    assert_same(imported, torch_function(model), x)
    assert imported.parameters == {} and not origins(imported.graph)


def test_no_grad_inside_forward() -> None:
    def function(x: Tensor) -> Tensor:
        with torch.no_grad():
            y = x * 2
        return torch.relu(y)

    x = draw(1, 6)
    assert_same(load(Apply(function), x), torch_function(Apply(function)), x)


@pytest.mark.parametrize("name", zoo.names())
def test_zoo(name: str) -> None:
    model, x = zoo.create(name)
    imported = load(model, x)
    assert_same(imported, torch_function(model), x)
