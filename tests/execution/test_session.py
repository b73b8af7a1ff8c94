"""Sessions: fitting, judging, state in the user's terms, optimisers as PyTorch has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import kilograd as kg


class Small(nn.Module):
    """A 1-D convolution with batch norm, a 2-D one, a linear layer: every kind of layout step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm1d(8)
        self.fc = nn.Linear(8 * 10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.norm(self.conv(x))).flatten(1))


def small() -> Small:
    torch.manual_seed(0)
    model = Small()
    with torch.no_grad():
        model.norm.running_mean.normal_()
        model.norm.running_var.uniform_(0.5, 2)
        model.norm.weight.uniform_(0.5, 2)
        model.norm.bias.normal_()
    return model.eval()


RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 3, 10)).astype(np.float32)
Y = RNG.integers(0, 4, 24)


def session(where: str = "on_host", **options) -> kg.program.Session:
    program = kg.compile(small(), X[:1], device="stm32f746", name="small", **options)
    return getattr(program, where)()


def torch_output(model: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(X)).numpy()


def test_predictions_accuracy_and_loss_are_those_of_the_model():
    host, model = session(), small()
    np.testing.assert_allclose(host.predict(X), torch_output(model), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(host.predict(X[3]), host.predict(X[3:4]))
    assert host.accuracy(X, Y) == np.mean(torch_output(model).argmax(1) == Y)
    loss = nn.functional.cross_entropy(torch.from_numpy(torch_output(model)), torch.from_numpy(Y))
    assert host.loss(X, Y) == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize(
    "update",
    [
        kg.update.all(),
        {"conv.weight": kg.update.channels(0.34), "fc": kg.update.channels(0.5)},
        kg.update.biases(),
    ],
)
def test_state_goes_back_into_the_model(update):
    host, model = session(update=update), small()
    host.fit(X, Y, epochs=2, lr=0.05, progress=False)
    learned = {name: torch.from_numpy(a.copy()) for name, a in host.state_dict().items()}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    missing = model.load_state_dict(learned, strict=False)
    assert not missing.unexpected_keys
    assert any(not torch.equal(before[name], learned[name]) for name in learned)
    np.testing.assert_allclose(host.predict(X), torch_output(model), rtol=1e-3, atol=1e-4)
    other = session(update=update)
    other.load_state_dict(host.state_dict())
    np.testing.assert_allclose(other.predict(X), host.predict(X), rtol=1e-5, atol=1e-6)


def test_load_state_dict_refuses_what_is_not_trained():
    host = session(update={"fc": kg.update.full()})
    with pytest.raises(kg.InputError, match=r"not trained.*conv\.weight.*fc\.weight"):
        host.load_state_dict({"conv.weight": np.zeros((8, 3, 3))})
    with pytest.raises(kg.InputError, match=r"fc\.bias has shape \[4\]"):
        host.load_state_dict({"fc.bias": np.zeros(5)})


def test_fit_returns_the_curves_and_repeats_itself():
    first, second, third = session(), session(), session()
    options = {"epochs": 2, "lr": 0.01, "progress": False}
    history = first.fit(X, Y, validation=(X, Y), **options)
    assert len(history.losses) == 48
    assert len(history.validation_losses) == len(history.validation_accuracies) == 2
    assert history.validation_losses[-1] == pytest.approx(first.loss(X, Y))
    assert second.fit(X, Y, **options).losses == history.losses
    assert third.fit(X, Y, seed=1, **options).losses != history.losses
    assert first.step == 48
    first.reset()
    assert first.step == 0 and np.array_equal(first.predict(X), session().predict(X))


def test_checkpoints_pass_between_host_and_board(tmp_path: Path):
    host, board = session(), session("on_emulator")
    host.fit(X, Y, progress=False)
    host.save(tmp_path / "host.kgcp")
    board.load(tmp_path / "host.kgcp")
    assert board.predict(X[:4]).tobytes() == host.predict(X[:4]).tobytes()
    board.train_step(X[0], Y[0], lr=0.1)
    board.save(tmp_path / "board.kgcp")
    host.load(tmp_path / "board.kgcp")
    assert board.predict(X[:4]).tobytes() == host.predict(X[:4]).tobytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.9},
        {"weight_decay": 0.01},
        {"momentum": 0.8, "weight_decay": 0.1, "accumulate": 3},
        {"momentum": 0.9, "atomic": False},
    ],
)
def test_optimisers_are_those_of_pytorch(settings):
    model = nn.Sequential(nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 4))
    rate, period = 0.05, settings.get("accumulate", 1)
    program = kg.compile(model, torch.zeros(1, 30), optimizer=kg.SGD(lr=rate, **settings))
    host, flat = program.on_host(), X.reshape(24, 30)
    theirs = {key: settings.get(key, 0.0) for key in ("momentum", "weight_decay")}
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, **theirs)
    for step in range(12):
        loss = nn.functional.cross_entropy(
            model(torch.from_numpy(flat[step : step + 1])), torch.tensor([Y[step]])
        )
        (loss / period).backward()
        assert host.train_step(flat[step], Y[step]) == pytest.approx(loss.item(), rel=1e-4)
        if (step + 1) % period == 0:
            optimizer.step()
            optimizer.zero_grad()
    for name, array in host.state_dict().items():
        truth = model.state_dict()[name].numpy()
        assert np.linalg.norm(array - truth) <= 1e-5 * np.linalg.norm(truth), name


def test_two_sessions_of_one_program_do_not_share():
    program = kg.compile(small(), X[:1], name="small")
    first, second = program.on_host(), program.on_host()
    untouched = second.predict(X)
    first.train_step(X[0], Y[0], lr=0.5)
    assert np.array_equal(second.predict(X), untouched)
    assert not np.array_equal(first.predict(X), untouched)


def test_instructions_and_profile_are_counted():
    board = session("on_emulator")
    board.train_step(X[0], Y[0])
    profile = board.profile()
    assert sum(profile.values()) == board.instructions
    with pytest.raises(kg.InputError, match="on_emulator"):
        session().profile()
