"""Arguments and arrays that are not what they have to be: one message each, and nothing changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import kilograd as kg

X = torch.zeros(1, 4)
ONES = np.ones((1, 4))


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def program():
    return kg.compile(mlp(), X, device="stm32f746")


@pytest.fixture
def session(program):
    return program.on_host()


BAD_CALLS = {
    "text label": (lambda s: s.train_step(ONES, "a"), "y holds"),
    "no label": (lambda s: s.train_step(ONES), "needs targets"),
    "half a label": (lambda s: s.train_step(ONES, 1.5), "whole numbers"),
    "NaN label": (lambda s: s.train_step(ONES, np.nan), "whole numbers"),
    "huge label": (lambda s: s.train_step(ONES, 2**40), "0 to 2"),
    "one hot": (lambda s: s.train_step(ONES, [0, 1, 0]), "3 labels for 1 samples"),
    "text": (lambda s: s.predict([["a", "b", "c", "d"]]), "x holds"),
    "complex": (lambda s: s.predict(ONES + 1j), "complex"),
    "ragged": (lambda s: s.predict([[1, 2], [3]]), "x is no array"),
    "two samples": (lambda s: s.train_step(np.ones((2, 4)), [1, 1]), "one sample, got 2; use fit"),
    "labels of fit": (lambda s: s.fit(np.ones((3, 4)), [1, 1]), "2 labels for 3"),
    "epochs": (lambda s: s.fit(ONES, [1], epochs=1.5), "epochs=1.5"),
    "labels of accuracy": (lambda s: s.accuracy(np.ones((3, 4)), [1]), "1 labels for 3"),
    "nothing to judge": (lambda s: s.accuracy(np.ones((0, 4)), []), "no samples"),
    "label of loss": (lambda s: s.loss(ONES, [7]), "label 7 is out of range"),
    "no label of loss": (lambda s: s.loss(ONES), "needs targets"),
    "text rate": (lambda s: s.train_step(ONES, 1, lr="0.1"), "lr='0.1'"),
    "infinite rate": (lambda s: s.train_step(ONES, 1, lr=np.inf), "lr=inf"),
    "NaN rate": (lambda s: s.train_step(ONES, 1, lr=np.nan), "lr=nan"),
    "rate beyond float32": (lambda s: s.train_step(ONES, 1, lr=1e39), "lr=1e"),
    "negative rate": (lambda s: s.train_step(ONES, 1, lr=-1), "lr=-1"),
    "checkpoint in a file": (lambda s: s.save("/dev/null/x"), "cannot write the checkpoint"),
    "parameter of text": (lambda s: s.load_state_dict({"0.bias": "abc"}), "0.bias"),
    "parameter of NaN": (lambda s: s.load_state_dict({"0.bias": [np.nan] * 8}), "8 that are not"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
@pytest.mark.parametrize("where", ["on_host", "on_emulator"])
def test_bad_calls_change_nothing(program, name, where):
    call, message = BAD_CALLS[name]
    session = getattr(program, where)()
    before = session.raw_state()
    with pytest.raises(kg.InputError, match=message):
        call(session)
    assert session.step == 0
    assert all(np.array_equal(before[k], v) for k, v in session.raw_state().items())


def test_what_counts_as_numbers(session):
    for x in (torch.ones(1, 4, requires_grad=True), [1, 1, 1, 1], ONES.astype(np.float64)):
        np.testing.assert_array_equal(session.predict(x), session.predict(ONES))
    assert session.predict(np.ones((0, 4))).shape == (0, 3)
    for y in (1, 1.0, True, np.int64(1), torch.tensor(1), [1]):
        session.train_step(ONES, y)
    assert len(session.fit(np.ones(4), 1, progress=False).losses) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": "0.1"}, {"lr": None}, {"lr": np.nan}, {"lr": 1e39}, {"momentum": "a"},
        {"momentum": 1.0}, {"momentum": np.nan}, {"weight_decay": 1e39}, {"weight_decay": -1.0},
        {"accumulate": 2.0}, {"accumulate": np.inf}, {"accumulate": "2"}, {"accumulate": 2**40},
        {"accumulate": 0}, {"accumulate": True},
    ],
)  # fmt: skip
def test_optimiser_settings(settings):
    with pytest.raises(kg.InputError, match=f"SGD: {next(iter(settings))}="):
        kg.SGD(**settings)


@pytest.mark.parametrize(
    "spec",
    [
        lambda: kg.update.last(1.5), lambda: kg.update.last("a"), lambda: kg.update.biases(-1),
        lambda: kg.update.channels("a"), lambda: kg.update.channels(1.1),
    ],
)  # fmt: skip
def test_update_settings(spec):
    with pytest.raises(kg.InputError, match=r"update\."):
        spec()


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd"}, {"budget": "256KB"}, {"name": 3}, {"device": 3}, {"device": None},
        {"loss": None}, {"update": 3}, {"precision": None},
    ],
)  # fmt: skip
def test_arguments_of_compile(options):
    with pytest.raises(kg.InputError):
        kg.compile(mlp(), X, **options)


def test_a_budget_of_nothing():
    with pytest.raises(kg.InfeasibleError, match="SRAM"):
        kg.compile(mlp(), X, device="stm32f746", budget=kg.Budget(sram=0))


def test_a_model_without_parameters():
    with pytest.raises(kg.InputError, match="no parameters"):
        kg.compile(nn.Flatten(), X)


def test_environment(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("KILOGRAD_DEBUG", "yes")
    kg.compile(mlp(), X)
    assert "kilograd differentiate" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KILOGRAD_DUMP", str(tmp_path / "file"))
    with pytest.raises(kg.InputError, match="KILOGRAD_DUMP"):
        kg.compile(mlp(), X)


def test_a_program_prints_short(program):
    assert repr(program) == "Program(sequential for stm32f746)"


def test_the_frozen_part_of_a_parameter_is_kept():
    spec = {"0.weight": kg.update.channels(0.5)}
    session = kg.compile(mlp(), X, update=spec).on_host()
    weight = session.state_dict()["0.weight"]
    trained = weight.copy()
    trained[:, :2] += 1
    session.load_state_dict({"0.weight": trained})
    np.testing.assert_array_equal(session.state_dict()["0.weight"], trained)
    with pytest.raises(kg.InputError, match="channels 0 to 1 are trained"):
        session.load_state_dict({"0.weight": weight + 1})
