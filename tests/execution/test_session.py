"""Sessions against PyTorch: fitting, judging, and the way of parameters there and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import kilograd as kg
from kilograd.execution.session import Session


class Mixed(nn.Module):
    """1-D and 2-D convolutions with batch norm, a depthwise one, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.sequence = nn.Sequential(
            nn.Conv1d(3, 4, 3, padding=1, bias=False), nn.BatchNorm1d(4), nn.ReLU()
        )
        self.picture = nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8),
        )  # fmt: skip
        self.fc = nn.Linear(8 * 12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.sequence(x).reshape(x.shape[0], 4, 3, 4)
        return self.fc(torch.flatten(self.picture(y), 1))


def model() -> nn.Module:
    """With statistics and scales of batch norm that folding has to undo."""
    torch.manual_seed(0)
    mixed = Mixed()
    for module in mixed.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.05, 0.2)
    return mixed.eval()


EXAMPLE = torch.zeros(1, 3, 12)
PARTIAL = {"*": kg.update.full(), "picture.0.weight": kg.update.channels(0.5)}


def data(count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, 3, 12)).astype(np.float32)
    return x, rng.integers(0, 3, count)


@pytest.fixture(scope="module")
def program() -> kg.Program:
    return kg.compile(model(), EXAMPLE, update=PARTIAL, device="stm32f746")


@pytest.fixture
def session(program: kg.Program) -> Session:
    return program.on_host()


def same(a: Session, b: Session) -> bool:
    left, right = a.raw_state(), b.raw_state()
    return all(left[name].tobytes() == right[name].tobytes() for name in left)


def test_fit_tells_the_curves(session: Session):
    x, y = data()
    history = session.fit(x, y, epochs=15, lr=0.02, validation=(x, y), progress=False)
    assert len(history.losses) == 15 * len(x)
    assert len(history.validation_losses) == len(history.validation_accuracies) == 15
    assert history.validation_losses[-1] < 0.5 * history.validation_losses[0]
    assert history.validation_losses[-1] == session.loss(x, y)
    assert history.validation_accuracies[-1] == session.accuracy(x, y)
    assert session.step == 15 * len(x)


def test_the_seed_decides_the_order(program: kg.Program):
    x, y = data()
    runs = []
    for seed, shuffle in ((0, True), (0, True), (1, True), (0, False)):
        session = program.on_host()
        options = {"epochs": 2, "lr": 0.05, "seed": seed, "shuffle": shuffle, "progress": False}
        runs.append((session.fit(x, y, **options).losses, session))
    assert runs[0][0] == runs[1][0] and same(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]
    by_hand = program.on_host()
    losses = [by_hand.train_step(x[i % len(x)], y[i % len(x)], lr=0.05) for i in range(2 * len(x))]
    assert losses == runs[3][0] and same(by_hand, runs[3][1])


def test_loss_and_accuracy_are_those_of_pytorch(session: Session):
    x, y = data()
    with torch.no_grad():
        logits = model()(torch.from_numpy(x))
    np.testing.assert_allclose(session.predict(x), logits.numpy(), rtol=1e-4, atol=1e-5)
    expected = functional.cross_entropy(logits, torch.from_numpy(y)).item()
    assert session.loss(x, y) == pytest.approx(expected, rel=1e-5)
    assert session.accuracy(x, y) == np.mean(logits.argmax(1).numpy() == y)


def test_trained_parameters_go_back_into_the_model(session: Session):
    x, y = data()
    session.fit(x, y, epochs=3, lr=0.05, progress=False)
    untrained, trained = model(), model()
    arrays = session.state_dict()
    assert all(array.flags.writeable for array in arrays.values())
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    result = trained.load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    assert "picture.0.weight" in state and "sequence.0.weight" in state
    with torch.no_grad():
        before, after = (net(torch.from_numpy(x)).numpy() for net in (untrained, trained))
    np.testing.assert_allclose(session.predict(x), after, rtol=1e-4, atol=1e-4)
    assert np.abs(after - before).max() > 0.1
    frozen = state["picture.0.weight"].numpy()[:, 2:]
    np.testing.assert_allclose(frozen, untrained.state_dict()["picture.0.weight"].numpy()[:, 2:],
                               rtol=1e-5)  # fmt: skip


def test_state_dict_round_trip(program: kg.Program, session: Session):
    x, y = data()
    session.fit(x, y, lr=0.05, progress=False)
    other = program.on_host()
    other.load_state_dict(session.state_dict())
    for name, array in session.raw_state().items():
        np.testing.assert_allclose(other.raw_state()[name], array, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other.predict(x), session.predict(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(kg.InputError, match=r"nothing\.weight"):
        other.load_state_dict({"nothing.weight": np.zeros(3)})
    with pytest.raises(kg.InputError, match=r"fc\.bias has shape \[3\]"):
        other.load_state_dict({"fc.bias": np.zeros(4)})


def test_checkpoints_pass_between_host_and_emulator(program: kg.Program, tmp_path):
    x, y = data()
    host, board = program.on_host(), program.on_emulator()
    host.fit(x, y, lr=0.05, progress=False)
    host.save(tmp_path / "host.kgcp")
    board.load(tmp_path / "host.kgcp")
    assert same(host, board)
    board.train_step(x[0], y[0], lr=0.05)
    assert not same(host, board)
    board.save(tmp_path / "board.kgcp")
    host.load(tmp_path / "board.kgcp")
    assert same(host, board)
    assert host.predict(x).tobytes() == board.predict(x).tobytes()
    for one in (host, board):
        one.reset()
        assert one.step == 0
    assert same(host, board) and same(host, program.on_host())


@pytest.mark.parametrize("atomic", [True, False])
def test_ten_updates_of_sgd(atomic: bool):
    """Momentum, weight decay and accumulation over two samples, against torch.optim.SGD.

    Without batch norm: decay of a folded weight is decay of the product.
    """
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    optimizer = kg.SGD(**settings, accumulate=2, atomic=atomic)
    session = kg.compile(net, torch.zeros(1, 1, 6, 6), optimizer=optimizer).on_host()
    reference = torch.optim.SGD(net.parameters(), **settings)
    rng = np.random.default_rng(0)
    for _ in range(10):
        x = rng.standard_normal((2, 1, 6, 6)).astype(np.float32)
        y = rng.integers(0, 5, 2)
        losses = [session.train_step(*pair) for pair in zip(x, y, strict=True)]
        reference.zero_grad()
        expected = functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y))
        expected.backward()
        reference.step()
        assert np.mean(losses) == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    trained = session.state_dict()
    assert trained.keys() == dict(net.named_parameters()).keys()
    for name, parameter in net.named_parameters():
        wanted = parameter.detach().numpy()
        error = np.linalg.norm(trained[name] - wanted) / np.linalg.norm(wanted)
        assert error <= 1e-5, f"{name}: {error:.2e}"
