"""What the PyTorch front end refuses, and what it says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kilograd.errors import InputError, UnsupportedError
from kilograd.frontend import load
from tests.frontend.networks import Apply, draw

X = draw(1, 4)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.rnn(x)[0]
        return torch.cumsum(y, 1)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def branch(x: Tensor) -> Tensor:
    if x.sum() > 0:
        return x
    return -x


def message(kind: type[Exception], model: Any, x: Any = X) -> str:
    with pytest.raises(kind) as caught:
        load(model, x)
    return str(caught.value)


def test_all_unsupported_operators_at_once() -> None:
    text = message(UnsupportedError, Recurrent(), draw(1, 3, 4))
    assert "2 operators" in text
    assert "aten.lstm.input in rnn (test_torch_errors.py:" in text
    assert "aten.cumsum.default in model (test_torch_errors.py:" in text


def test_a_dependent_operator_is_not_blamed() -> None:
    text = message(UnsupportedError, Apply(lambda x: torch.relu(torch.cumsum(x, 1))))
    assert "one operator" in text and "relu" not in text


@pytest.mark.parametrize(
    ("function", "shape", "words"),
    [
        (lambda x: x.softmax(0), (1, 4), "the batch"),
        (lambda x: x.mean(), (1, 4), "over the batch dimension as well"),
        (lambda x: x.squeeze(), (1, 4, 1), "x.squeeze(-1)"),
        (lambda x: x.view(4, 1), (1, 4), "leading dimension has to stay the batch"),
        (lambda x: x.permute(1, 0, 2), (1, 4, 2), "permutes the dimensions to [1, 0, 2]"),
        (lambda x: x[:, None].expand(2, 3, 4), (1, 4), "expands the batch"),
        (lambda x: x + x.sum(1), (1, 4), "would move the batch"),
        (lambda x: x + torch.ones(3, 4), (1, 4), "over the batch dimension"),
        (lambda x: torch.cat([x, x]), (1, 4), "the batch"),
        (lambda x: x[0], (1, 4), "the batch"),
        (lambda x: x.amax(1), (1, 4, 2, 2), "spatial"),
        (lambda x: nn.functional.pad(x, (1, 1), mode="reflect"), (1, 4, 5), "'reflect'"),
        (lambda x: x.double() * 2, (1, 4), "torch.float64"),
        (lambda x: torch.div(x, 2, rounding_mode="floor"), (1, 4), "'floor'"),
        (nn.functional.selu, (1, 4), "aten.selu"),
        (lambda x: 2**x, (1, 4), "exponent"),
        (lambda x: torch.ones(3, 4) @ x, (1, 4, 2), "left of the matrix product"),
        (lambda x: x[x > 0], (1, 4), "depends on the values of the input"),
        (lambda x: nn.functional.interpolate(x, scale_factor=2, mode="bilinear"), (1, 1, 3, 3),
         "aten.upsample_bilinear2d"),
    ],
)  # fmt: skip
def test_unsupported(function: Any, shape: tuple[int, ...], words: str) -> None:
    text = message(UnsupportedError, Apply(function), draw(*shape))
    assert words in text
    assert "(networks.py:" in text


def test_three_dimensional_convolution() -> None:
    assert "aten.conv3d" in message(UnsupportedError, nn.Conv3d(1, 1, 2), draw(1, 1, 3, 3, 3))


def test_control_flow_on_values() -> None:
    text = message(UnsupportedError, Apply(branch))
    assert "torch.export" in text and "test_torch_errors.py:" in text


def test_one_input_one_output() -> None:
    assert "2 inputs (x, y)" in message(UnsupportedError, TwoInputs())
    assert "2 tensors" in message(UnsupportedError, TwoInputs(), (X, X))
    assert "returns 2 tensors" in message(UnsupportedError, Apply(lambda x: (x, x + 1)))
    program = torch.export.export(TwoInputs(), (X, X))
    assert "2 input tensors (x, y)" in message(UnsupportedError, program, None)


def test_training_mode() -> None:
    program = torch.export.export(nn.Dropout(0.5).train(), (X,))
    assert "model.eval()" in message(UnsupportedError, program)
    model = nn.BatchNorm1d(4).train()
    program = torch.export.export(
        model, (draw(2, 4),), dynamic_shapes=({0: torch.export.Dim("b")},)
    )
    assert "model.eval()" in message(UnsupportedError, program)
    assert "calls" in message(UnsupportedError, Counting())


def test_not_finite() -> None:
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight[0, :3] = float("nan")
        model.bias[0] = float("inf")
    text = message(InputError, model)
    assert "weight (3 of 8)" in text and "bias (1 of 2)" in text


def test_example_input() -> None:
    model = nn.Linear(4, 2)
    assert "needs an example input" in message(InputError, model, None)
    assert "[2, 4]" in message(InputError, model, draw(2, 4))
    assert "int64" in message(InputError, model, np.ones((1, 4), np.int64))
    assert "str" in message(InputError, model, "x")
    text = message(InputError, model, draw(1, 5))
    assert "[1, 5]" in text and "1x5 and 4x2" in text
    program = torch.export.export(model, (X,))
    text = message(InputError, program, draw(1, 5))
    assert "[1, 5]" in text and "[1, 4]" in text
    program = torch.export.export(model, (draw(2, 4),))
    assert "[2, 4]" in message(InputError, program, None)


def test_dynamic_without_example() -> None:
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(nn.Linear(4, 2), (draw(2, 4),), dynamic_shapes=shapes)
    assert "dynamic shapes" in message(InputError, program, None)


def test_element_type() -> None:
    text = message(InputError, nn.Linear(4, 2).half())
    assert "weight" in text and "torch.float16" in text


def test_constant_output() -> None:
    model = Apply(lambda x: torch.ones(1, 2))
    assert "does not depend on its input" in message(InputError, model)


def test_kinds_of_model() -> None:
    assert ".onnx" in message(InputError, object())
    assert "scripted" in message(InputError, torch.jit.script(nn.Linear(4, 2)))
    assert "OrderedDict" in message(InputError, nn.Linear(4, 2).state_dict())


def test_files(tmp_path: Path) -> None:
    missing = tmp_path / "none.pt2"
    assert str(missing) in message(InputError, missing)
    broken = tmp_path / "broken.pt2"
    broken.write_bytes(b"nonsense")
    text = message(InputError, broken)
    assert str(broken) in text and "torch.export.save" in text
    other = tmp_path / "weights.pth"
    other.write_bytes(b"")
    text = message(InputError, str(other))
    assert ".pt2" in text and ".onnx" in text


def test_without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install torch==2.13.0" in message(InputError, path)
