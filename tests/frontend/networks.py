"""Small PyTorch modules for the front end tests, and the comparison that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kilograd.frontend import Imported
from kilograd.ir import evaluate

TOLERANCE = 1e-5


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def shaken(module: nn.Module) -> nn.Module:
    """The module in evaluation mode with all parameters and running statistics random."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator))
            if name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return module.eval()


class Ids(nn.Module):
    """A module of token ids: a table of 11 rows of 6 numbers, then `layer`."""

    ids = 11

    def __init__(self, layer: nn.Module | None = None, **options: Any) -> None:
        super().__init__()
        self.table = nn.Embedding(self.ids, 6, **options)
        self.layer = nn.Identity() if layer is None else layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.table(x))
        return y


def sample(module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """An input: token ids for a module that says how many there are, else real numbers."""
    ids = getattr(module, "ids", 0)
    return draw_ids(*shape, below=ids) if ids else draw(*shape)


def draw_ids(*shape: int, below: int, seed: int = 1) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(imported: Imported, x: np.ndarray) -> np.ndarray:
    (value,) = imported.graph.inputs
    result: np.ndarray = evaluate(imported.graph, {value.name: x}).outputs[0]
    return result


def assert_same(imported: Imported, expected: Callable[[np.ndarray], Any], x: Tensor) -> None:
    """The graph gives what the framework gives, for one sample and for a batch of three."""
    shape = (3, *x.shape[1:])
    whole = x.dtype == torch.int64
    batch = draw_ids(*shape, below=int(x.max()) + 1) if whole else draw(*shape, seed=2)
    for data in (x, batch):
        wanted = np.asarray(expected(data.numpy()))
        found = run(imported, data.numpy())
        assert found.shape == wanted.shape
        scale = max(1.0, float(np.abs(wanted).max()))
        assert float(np.abs(found - wanted).max()) <= TOLERANCE * scale


def torch_function(module: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    def function(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            result: np.ndarray = module(torch.from_numpy(x.copy())).numpy()
        return result

    return function
