"""Losses see the user's axes, however the program stores its arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import kilograd as kg


class Between(nn.Module):
    """A convolution or a linear layer on each end, in one of the orders that store an output
    differently.
    """

    def __init__(self, order: str, channels: int, height: int, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.order, self.shape = order, (channels, height, width)
        size = channels * height * width
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.fc = nn.Linear(size, size)

    def forward(self, x):
        for letter in self.order:
            if letter == "c":
                x = self.conv(x)
            elif letter == "l":
                x = self.fc(x.flatten(1)).reshape(1, *self.shape)
            elif letter == "t":
                x = x.transpose(2, 3)
            elif letter == "f":
                x = x.flatten(2)
            elif letter == "s":
                x = torch.softmax(x, 1)
        return x


ORDERS = ["c", "l", "ct", "lc", "cl", "clt", "cf", "lf"]


@pytest.mark.parametrize("order", ORDERS)
def test_cross_entropy_over_positions(order):
    model = Between(order, 4, 4, 4)
    check(model, (1, 4, 4, 4), "cross_entropy", functional.cross_entropy)


@pytest.mark.parametrize("order", ["c", "ct", "l", "cl"])
def test_cross_entropy_of_unequal_sides(order):
    model = Between(order, 3, 4, 5)
    check(model, (1, 3, 4, 5), "cross_entropy", functional.cross_entropy)


@pytest.mark.parametrize("order", ["cs", "csf", "ls", "cst"])
def test_cross_entropy_through_softmax(order):
    model = Between(order, 3, 4, 5)

    def loss(output, target):
        return functional.nll_loss(output.contiguous().log(), target)

    check(model, (1, 3, 4, 5), "cross_entropy", loss)


@pytest.mark.parametrize("order", ["c", "l", "ct", "lc", "cl", "clt"])
@pytest.mark.parametrize("name", ["autoencoder", "mse"])
def test_squared_error(order, name):
    model = Between(order, 4, 4, 4)
    check(model, (1, 4, 4, 4), name, functional.mse_loss)


def check(model: nn.Module, shape: tuple[int, ...], name: str, reference) -> None:
    """Losses, accuracy and one step of every parameter equal PyTorch's."""
    program = kg.compile(model, torch.zeros(shape), loss=name, optimizer=kg.SGD(lr=0.1))
    session = program.on_host(poison=True)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    output = model(torch.from_numpy(x))
    y = {
        "cross_entropy": rng.integers(0, shape[1], (1, *output.shape[2:])),
        "mse": rng.standard_normal(output.shape).astype(np.float32),
        "autoencoder": x,
    }[name]
    loss = reference(output, torch.from_numpy(y))
    given = None if name == "autoencoder" else y
    assert session.loss(x, given) == pytest.approx(loss.item(), rel=1e-4)
    if name == "cross_entropy":
        assert session.accuracy(x, y) == np.mean(output.argmax(1).numpy() == y)
    assert session.train_step(x, given) == pytest.approx(loss.item(), rel=1e-4)
    loss.backward()
    parameters = dict(model.named_parameters())
    for key, array in session.state_dict().items():
        wanted = parameters[key] - 0.1 * parameters[key].grad
        np.testing.assert_allclose(array, wanted.detach().numpy(), atol=2e-5)


def test_one_class_and_shapes_that_are_no_autoencoder():
    with pytest.raises(kg.InputError, match=r"two classes.*\[1, 1\].*bce_with_logits"):
        kg.compile(nn.Linear(4, 1), torch.zeros(1, 4))
    with pytest.raises(kg.InputError, match=r"takes \[1, 4\] and gives \[1, 3\]"):
        kg.compile(nn.Linear(4, 3), torch.zeros(1, 4), loss="autoencoder")
