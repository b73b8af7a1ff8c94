"""A network for other classes: fresh rows, old rows, in the layouts that last layers come in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import kilograd as kg

X = np.random.default_rng(0).standard_normal((6, 2, 6, 6)).astype(np.float32)


def linear_head() -> nn.Module:
    """The linear layer's weight is permuted, because it follows a flattening."""
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))


def conv_head() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(body, nn.Conv2d(4, 5, 1), nn.Flatten(), nn.Softmax(1))


@pytest.fixture(params=[linear_head, conv_head])
def model(request) -> nn.Module:
    torch.manual_seed(0)
    return request.param().eval()


def logits(model: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        y = model(torch.from_numpy(x))
    return (y.log() if isinstance(model[-1], nn.Softmax) else y).numpy()


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_old_rows_keep_what_they_say(model: nn.Module, precision: str):
    options = {"precision": "int8", "calibration": X} if precision == "int8" else {}
    session = kg.compile(model, X[:1], classes=[3, None, 0], **options).on_host(optimize="-O1")
    ours, theirs = session.predict(X), logits(model, X)
    assert ours.shape == (6, 3)
    if isinstance(model[-1], nn.Softmax):
        ours = np.log(ours)
    tolerance = 1e-4 if precision == "float32" else 0.05
    difference = (ours[:, 0] - ours[:, 2]) - (theirs[:, 3] - theirs[:, 0])
    assert np.abs(difference).max() < tolerance


def test_a_fresh_head_learns_more_classes_than_there_were(model: nn.Module):
    session = kg.compile(model, X[:1], classes=6, optimizer=kg.SGD(lr=0.1)).on_host(optimize="-O1")
    before = session.loss(X, np.arange(6))
    session.fit(X, np.arange(6), epochs=60)
    assert session.loss(X, np.arange(6)) < 0.5 * before
    shapes = {name: array.shape for name, array in session.state_dict().items()}
    assert (6, 64) in shapes.values() or (6, 4, 1, 1) in shapes.values()
    again = kg.compile(model, X[:1], classes=6).on_host(optimize="-O1")
    again.load_state_dict(session.state_dict())
    np.testing.assert_allclose(again.predict(X), session.predict(X), rtol=1e-6)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (1, "two classes"),
        ([0, 5], "5 is none of the network's 5"),
        ([0, "a"], "'a' is none"),
        ([True, False], "True is none"),
        (2.5, "classes=2.5 is neither"),
        ("ab", "classes='ab' is neither"),
        (True, "classes=True is neither"),
    ],
)
def test_bad_classes(classes, message: str):
    with pytest.raises(kg.InputError, match=message):
        kg.compile(linear_head(), X[:1], classes=classes)


def test_a_network_without_a_classifier():
    with pytest.raises(kg.InputError, match="not fully connected"):
        kg.compile(nn.Sequential(nn.Conv2d(2, 4, 3)), X[:1], loss="mse", classes=3)
