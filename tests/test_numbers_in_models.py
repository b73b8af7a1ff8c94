"""Numbers and single-element parameters in the user's formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import kilograd as kg


class Formula(nn.Module):
    """A formula of the input and a parameter without dimensions, between two layers."""

    def __init__(self, formula) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        self.p = nn.Parameter(torch.tensor(1.5))
        self.formula = formula

    def forward(self, x):
        return self.last(self.formula(self.first(x), self.p))


FORMULAS = {
    "times": lambda x, p: 2 * x,
    "plus": lambda x, p: x + 1,
    "minus": lambda x, p: 1 - x,
    "over": lambda x, p: 3 / (x * x + 1),
    "scaled": lambda x, p: x * p,
    "shifted": lambda x, p: x / 2 - p,
    "squared": lambda x, p: x * p * p,
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_equal_those_of_pytorch(name, momentum):
    model = Formula(FORMULAS[name])
    program = kg.compile(
        model, torch.zeros(1, 6), optimizer=kg.SGD(lr=0.1, momentum=momentum),
        device="cortex-m7-256k",
    )  # fmt: skip
    host, board = program.on_host(poison=True), program.on_emulator()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    for index in range(3):
        x = np.random.default_rng(index).standard_normal((1, 6)).astype(np.float32)
        loss = nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.tensor([index]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert host.train_step(x, index) == pytest.approx(loss.item(), rel=1e-5)
        board.train_step(x, index)
    wanted = dict(model.named_parameters())
    for key, array in host.state_dict().items():
        np.testing.assert_allclose(array, wanted[key].detach().numpy(), atol=1e-5)
        assert array.tobytes() == board.state_dict()[key].tobytes()


@pytest.mark.parametrize("number", [float("inf"), float("nan"), -3e38, 1e-45])
def test_extreme_numbers(number):
    model = Formula(lambda x, p: x * number)
    y = kg.compile(model, torch.zeros(1, 6)).on_host().predict(np.ones((1, 6)))
    wanted = model(torch.ones(1, 6)).detach().numpy()
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(wanted))
