"""Networks of token ids: what sessions and the C refuse, and how tables are trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import kilograd as kg
from kilograd.execution.session import INPUT, Session
from kilograd.program import Program

IDS = np.array([[3, 1, 3, 0, 9, 3]])


class Bag(nn.Module):
    """Ids -> the mean of token and position vectors -> logits; the table of positions is longer
    than the sequence.
    """

    def __init__(self, padding: int | None = None, tied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Embedding(10, 4, padding_idx=padding)
        self.positions = nn.Embedding(8, 4)
        self.head = nn.Linear(4, 10)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        y: Tensor = self.head(torch.tanh(x).mean(1))
        return y


def compiled(model: nn.Module, device: str = "host", **options: Any) -> Program:
    return kg.compile(model, IDS, device=device, **options)


def operators(program: Program) -> list[str]:
    return [node.op.name for node in program.train.graph.nodes]


def follow(model: nn.Module, session: Session, **options: Any) -> None:
    """Three steps here and in PyTorch give the same losses and the same parameters."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, **options)
    for step in range(3):
        ids = np.roll(IDS, step)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(torch.from_numpy(ids)), torch.tensor([step]))
        loss.backward()
        optimizer.step()
        assert session.train_step(ids, step, lr=0.3) == pytest.approx(loss.item(), rel=1e-5)
    state = session.state_dict()
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(state[name], parameter.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", [None, 3])
def test_plain_sgd_visits_the_rows_that_were_read(padding: int | None):
    model = Bag(padding)
    program = compiled(model)
    assert operators(program).count("embedding_step") == 2
    assert "embedding_grad" not in operators(program)
    follow(model, program.on_host())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [({"momentum": 0.9}, {"momentum": 0.9}), ({"weight_decay": 0.1}, {"weight_decay": 0.1})],
)
def test_other_optimizers_make_the_whole_gradient(ours: dict[str, Any], theirs: dict[str, Any]):
    model = Bag()
    program = compiled(model, optimizer=kg.SGD(**ours))
    assert operators(program).count("embedding_grad") == 2
    follow(model, program.on_host(), **theirs)


def test_a_table_that_is_the_last_layer_too():
    model = Bag(tied=True)
    program = compiled(model)
    assert operators(program).count("embedding_grad") == 1
    follow(model, program.on_host())


def test_a_frozen_table_stays_in_flash():
    program = compiled(Bag(), update=kg.update.last(1))
    assert [tensor.origin.name for tensor in program.train.graph.state.values()] == [
        "head.weight", "head.bias",
    ]  # fmt: skip
    assert not {"embedding_step", "embedding_grad"} & set(operators(program))


def test_a_table_is_trained_whole_or_not_at_all():
    with pytest.raises(kg.InputError, match=r"tokens.weight.*no input channels"):
        compiled(Bag(), update={"tokens": kg.update.channels(0.5)})


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([[0, 1, 2, 10, 4, 5]], "token id 10 is out of range: the network has ids 0 to 9"),
        ([[0, 1, 2, -1, 4, 5]], "token id -1 is out of range"),
        ([[0, 1, 2, 2**40, 4, 5]], "token id 1099511627776 is out of range"),
        ([[0, 1, 2, 0.5, 4, 5]], "token ids are whole numbers"),
        ([[0, 1, 2, float("nan"), 4, 5]], "token ids are whole numbers"),
        ([[0, 1, 2]], r"samples of shape \[6\]"),
    ],
)
def test_sessions_refuse_ids_that_the_table_has_not(ids: Any, words: str):
    session = compiled(Bag()).on_host()
    for call in (session.predict, lambda x: session.train_step(x, 0), lambda x: session.fit(x, 0)):
        with pytest.raises(kg.InputError, match=words):
            call(ids)
    assert session.step == 0


def test_any_array_of_whole_numbers_will_do():
    session = compiled(Bag()).on_host()
    wanted = session.predict(IDS)
    for ids in (IDS.astype(np.uint8), IDS.astype(np.float32), torch.from_numpy(IDS), IDS[0]):
        np.testing.assert_array_equal(session.predict(ids), wanted)


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("wrong", [10, -1, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("place", ["host", "emulator"])
def test_the_c_reports_ids_out_of_range_and_changes_nothing(place: str, wrong: int, atomic: bool):
    program = compiled(Bag(), "cortex-m7-256k", optimizer=kg.SGD(lr=0.1, atomic=atomic))
    session = program.on_host() if place == "host" else program.on_emulator()
    bad = IDS.astype(np.int32)
    bad[0, -1] = wrong
    backend = session._backend
    before = backend.read_state()
    assert backend.predict(bad.tobytes())[0] == INPUT
    assert backend.train_step(bad.tobytes(), np.int32(0).tobytes(), 0.1, 0)[0] == INPUT
    assert backend.read_state() == before
    with pytest.raises(kg.InputError, match="a token id is out of range; nothing was changed"):
        session._raise_for(INPUT)
    session.train_step(IDS, 1)


def test_the_smallest_table_decides():
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow = nn.Embedding(10, 4), nn.Embedding(7, 4)

        def forward(self, ids: Tensor) -> Tensor:
            return (self.wide(ids[:, :3]) * self.narrow(ids.flip(1)[:, :3])).mean(1)

    class Sliced(Pair):
        def forward(self, ids: Tensor) -> Tensor:
            return (self.wide(ids[:, :3]) * self.narrow(ids[:, 3:])).mean(1)

    with pytest.raises(kg.UnsupportedError, match=r"aten\.flip"):
        compiled(Pair())
    session = compiled(Sliced()).on_host()
    with pytest.raises(kg.InputError, match="ids 0 to 6"):
        session.predict(IDS)


def test_infinity_in_a_row_is_found_before_the_table_is_changed():
    session = compiled(Bag(), loss="mse").on_host()
    before = session.raw_state()
    with pytest.raises(kg.NonFiniteError):
        session.train_step(IDS, np.full((1, 10), 1e30), lr=1e20)
    for name, array in session.raw_state().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x * 2.0, "token ids can only be looked up in an embedding"),
        (lambda x: x.float().mean(1), "it makes torch.float32 of token ids"),
        (lambda x: nn.functional.one_hot(x, 10), "kilograd has no such operator"),
    ],
)
def test_arithmetic_on_ids_is_refused(function: Any, words: str):
    from tests.frontend.networks import Apply

    with pytest.raises(kg.UnsupportedError, match=words):
        compiled(Apply(function))


def test_gradients_scaled_by_frequency_are_refused():
    with pytest.raises(kg.UnsupportedError, match="scale_grad_by_freq"):
        compiled(nn.Sequential(nn.Embedding(10, 4, scale_grad_by_freq=True), nn.Flatten()))


def test_real_numbers_given_as_whole_ones():
    with pytest.raises(kg.InputError, match=r"int64, token ids; for real numbers use x.float\(\)"):
        kg.compile(nn.Linear(6, 2), IDS)
