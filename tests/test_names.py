"""Names of the user's that C, or the generated project, has other plans for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

import kilograd as kg
from kilograd.codegen.names import identifier, network_name, tensor_names

X = torch.zeros(1, 4)


class Scaled(nn.Module):
    """A linear layer behind a scale whose parameter has the name given."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.randn(4)))
        self.names = names
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        for name in self.names:
            x = x * getattr(self, name)
        return self.fc(x)


def loss_of(model: nn.Module, **options) -> None:
    """One step on the host gives the loss of PyTorch."""
    x = torch.linspace(-1, 1, 4).reshape(1, 4)
    loss = kg.compile(model, X, **options).on_host().train_step(x.numpy(), 2)
    expected = nn.functional.cross_entropy(model(x), torch.tensor([2])).item()
    assert loss == pytest.approx(expected, rel=1e-5)


NAMES = ["target", "step", "learning_rate", "loss", "init", "input", "t", "NULL", "class", "NET"]


@pytest.mark.parametrize("update", [kg.update.all(), {"fc": kg.update.full()}])
def test_parameters_with_the_names_of_the_project(update):
    loss_of(Scaled(*NAMES, "KG_OK", "SIZE_MAX"), update=update)


def test_a_constant_with_the_name_of_an_initial_value():
    loss_of(Scaled("w", "w_init"), update={"w": kg.update.full()})


@pytest.mark.parametrize("argument", ["target", "step", "learning_rate", "loss"])
def test_inputs_with_the_names_of_arguments(argument):
    scope = {"nn": nn}
    exec(
        "class Model(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.fc = nn.Linear(4, 3)\n"
        f"    def forward(self, {argument}):\n        return self.fc({argument})\n",
        scope,
    )
    loss_of(scope["Model"]())


@pytest.mark.parametrize(
    "name", ["main", "Harness", "stdint", "NULL", "int", "kilograd_base", "3-d"]
)
def test_networks_with_the_names_of_files(name):
    program = kg.compile(Scaled(), X, name=name, device="cortex-m7-256k")
    assert len(program.files()) == len({file.lower() for file in program.files()})
    assert "int main" in program.files()["main.c"]
    loss_of(Scaled(), name=name)


def test_comments_in_names_stay_in_comments(tmp_path):
    rng = np.random.default_rng(0)
    name = "a*/b/*c\nd??/"
    weight = numpy_helper.from_array(rng.standard_normal((4, 3)).astype(np.float32), name)
    ports = (
        [helper.make_tensor_value_info("*/x", 1, [1, 4])],
        [helper.make_tensor_value_info("y/*", 1, None)],
    )
    node = helper.make_node("Gemm", ["*/x", name], ["y/*"], name="*/ layer /*")
    graph = helper.make_graph([node], "g", *ports, [weight])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "m.onnx")
    session = kg.compile(tmp_path / "m.onnx").on_host()
    assert np.isfinite(session.train_step(np.ones((1, 4)), 1))
    assert list(session.state_dict()) == [name]


def test_identifiers():
    assert identifier("block1.0.weight") == "block1_0_weight"
    assert identifier("int") == "int_" and identifier("3") == "_3" and identifier("é") == "x"
    assert network_name("my-net") == "my_net" and network_name("Math") == "Math_net"
    assert list(tensor_names(["a.b", "a_b", "a.b_2", "save"]).values()) == [
        "a_b", "a_b_2", "a_b_2_2", "save_2",
    ]  # fmt: skip
