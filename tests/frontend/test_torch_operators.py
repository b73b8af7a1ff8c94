"""Every operator that PyTorch models may use, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kilograd.frontend import load
from kilograd.ir import DType
from tests.frontend.cases import CASES, IMAGE, SEQUENCE, VECTOR, Case, MultiheadAttention, encoder
from tests.frontend.networks import Apply, assert_same, draw, sample, shaken, torch_function


class Gelu(nn.Module):
    """An exact GELU with its weight on the side that addmm takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 4))
        self.bias = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(torch.addmm(self.bias, x, self.weight))


ATEN: dict[str, Case] = {
    "addmm": (Gelu(), VECTOR),
    "alpha": (Apply(lambda x: torch.sub(x, torch.relu(x), alpha=2)), VECTOR),
    "rsqrt": (Apply(lambda x: (x * x + 1.0).rsqrt()), VECTOR),
    "abs": (Apply(torch.abs), VECTOR),
    "expand": (Apply(lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 4, 5) + 0), IMAGE),
    "unbind": (Apply(lambda x: x.unbind(1)[2]), SEQUENCE),
    "unflatten": (Apply(lambda x: x.unflatten(1, (3, -1))), VECTOR),
    "narrow": (Apply(lambda x: x.narrow(1, 2, 2)), SEQUENCE),
    "encoder_layer": (encoder(), SEQUENCE),  # PyTorch cannot export it alone to ONNX.
    "divisor": (nn.AvgPool2d(2, divisor_override=3), IMAGE),
    "adaptive_uneven": (nn.AdaptiveAvgPool2d((3, 4)), IMAGE),
    "adaptive_max": (nn.AdaptiveMaxPool2d((3, 4)), IMAGE),
    "adaptive_partial": (nn.AdaptiveAvgPool2d((None, 2)), IMAGE),
    "upsample_fraction": (nn.Upsample(scale_factor=1.6), IMAGE),
    "pad_negative": (Apply(lambda x: F.pad(x, (-1, 1))), IMAGE),
    "constants": (Apply(lambda x: x + torch.arange(6.0) * 2), VECTOR),
    "to_float": (Apply(lambda x: x.to(torch.float32).detach() * 2), VECTOR),
}


@pytest.mark.parametrize("name", sorted({**CASES, **ATEN}))
def test_operator(name: str) -> None:
    module, shape = {**CASES, **ATEN}[name]
    shaken(module)
    x = sample(module, shape)
    imported = load(module, x)
    assert_same(imported, torch_function(module), x)
    origins = {t.origin.name for t in imported.graph.constants.values() if t.origin}
    assert origins == set(imported.parameters) == {name for name, _ in module.named_parameters()}
    assert all(v.type.dtype in (DType.F32, DType.U8, DType.I32) for v in imported.graph.values())


@pytest.mark.parametrize("name", [
    "conv2d", "linear", "batch_norm2d", "layer_norm", "group_norm", "positions",
])  # fmt: skip
def test_core_aten(name: str) -> None:
    """A program that was decomposed to core ATen operators gives the same."""
    module, shape = CASES[name]
    shaken(module)
    x = sample(module, shape)
    program = torch.export.export(module, (x,)).run_decompositions()
    assert_same(load(program), torch_function(module), x)


def test_attention_between_two_tensors() -> None:
    """PyTorch splits the parameter of the projections, which then stands in the program in parts
    that nobody trains; the notes say so.
    """
    module, x = shaken(MultiheadAttention(factor=2.0)), draw(*SEQUENCE)
    imported = load(module, x)
    assert_same(imported, torch_function(module), x)
    assert "attention.in_proj_weight" in imported.notes[0]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.adaptive_avg_pool2d(F.max_pool2d(x, 2), 1).flatten(1),
        lambda x: F.hardswish(F.elu(x)).clone().permute(0, 2, 3, 1).mean(-1),
        lambda x: F.log_softmax(F.interpolate(F.pad(x, (1, 1)), scale_factor=2), dim=1),
        lambda x: torch.cat(torch.split(x, 1, 1)[::-1], 1).squeeze(-1)[:, 1],
    ],
)
def test_core_aten_functions(function: Callable[[Tensor], Tensor]) -> None:
    module, x = Apply(function), draw(*IMAGE)
    program = torch.export.export(module, (x,)).run_decompositions()
    assert_same(load(program), torch_function(module), x)
