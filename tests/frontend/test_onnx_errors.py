"""What the ONNX front end refuses, and what it says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kilograd.errors import InputError, UnsupportedError
from kilograd.frontend import load
from tests.frontend.test_onnx_operators import N, build, ints, weight


def save(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def message(kind: type[Exception], model: Any, x: Any = None) -> str:
    with pytest.raises(kind) as caught:
        load(model, x)
    return str(caught.value)


def test_all_unsupported_operators_at_once(tmp_path: Path) -> None:
    nodes = [
        N("CumSum", ["x", "axis"], ["a"], name="/steps/CumSum"),
        N("Relu", ["a"], ["b"]),
        N("FancyOp", ["b"], ["c"], domain="com.example", name="custom"),
        N("Softmax", ["x"], ["d"], axis=0, name="/head/Softmax"),
        N("Add", ["c", "d"], ["y"]),
    ]
    model = build(nodes, (1, 5), {"axis": np.array(1, np.int64)})
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    text = message(UnsupportedError, save(model, tmp_path))
    assert "3 operators" in text
    assert "CumSum in steps" in text
    assert "com.example.FancyOp in custom" in text
    assert "Softmax in head: it works along dimension 0, which is the batch" in text


@pytest.mark.parametrize(
    ("nodes", "shape", "weights", "words"),
    [
        ([N("Resize", ["x", "", "s"], ["y"], mode="linear")], (1, 2, 4, 4),
         {"s": np.float32([1, 1, 2, 2])}, "'linear'"),
        ([N("Resize", ["x", "", "s"], ["y"], nearest_mode="ceil")], (1, 2, 4, 4),
         {"s": np.float32([1, 1, 2, 2])}, "reads other pixels"),
        ([N("Resize", ["x", "", "s"], ["y"])], (1, 2, 4, 4),
         {"s": np.float32([1, 2, 1, 1])}, "the channels"),
        ([N("Pad", ["x", "p"], ["y"], mode="edge")], (1, 2, 4, 4),
         {"p": ints(0, 0, 1, 1, 0, 0, 1, 1)}, "'edge'"),
        ([N("Cast", ["x"], ["y"], to=TensorProto.INT64)], (1, 4), {}, "INT64"),
        ([N("Gather", ["w", "x"], ["y"])], (1, 4), {"w": weight(5, 4)}, "ids are f32[1,4]"),
        ([N("Gather", ["x", "i"], ["y"], axis=1)], (1, 4), {"i": ints(2, 0)}, "several elements"),
        ([N("Slice", ["x", "s", "e", "a", "t"], ["y"])], (1, 4),
         {"s": ints(3), "e": ints(0), "a": ints(1), "t": ints(-1)}, "step of -1"),
        ([N("Reshape", ["x", "s"], ["y"])], (1, 4), {"s": ints(4, 1)}, "the batch"),
        ([N("Squeeze", ["x"], ["y"])], (1, 1, 4), {}, "batch dimension"),
        ([N("Conv", ["x", "x"], ["y"])], (1, 1, 4, 4), {}, "computed from the input"),
        ([N("Pow", ["x", "x"], ["y"])], (1, 4), {}, "exponent"),
        ([N("BatchNormalization", ["x", "a", "a", "a", "a"], ["y", "m", "v"], training_mode=1)],
         (1, 3, 4, 4), {"a": weight(3)}, "training mode"),
    ],
)  # fmt: skip
def test_unsupported(
    nodes: list[onnx.NodeProto],
    shape: tuple[int, ...],
    weights: dict[str, np.ndarray],
    words: str,
    tmp_path: Path,
) -> None:
    assert words in message(UnsupportedError, save(build(nodes, shape, weights), tmp_path))


def test_files(tmp_path: Path) -> None:
    missing = tmp_path / "none.onnx"
    assert str(missing) in message(InputError, missing)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nonsense")
    assert str(broken) in message(InputError, broken)
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    assert str(empty) in message(InputError, empty)
    model = build([N("Relu", ["z"], ["y"], name="act")], (1, 4), {})
    text = message(InputError, save(model, tmp_path))
    assert "Relu in act reads z" in text
    assert "onnx.save" in message(InputError, model)


def test_one_input_one_output(tmp_path: Path) -> None:
    model = build([N("Add", ["x", "z"], ["y"])], (1, 4), {})
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4]))
    assert "2 inputs (x, z)" in message(UnsupportedError, save(model, tmp_path))
    model = build([N("Relu", ["x"], ["y"]), N("Neg", ["x"], ["z"])], (1, 4), {})
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4]))
    assert "2 outputs (y, z)" in message(UnsupportedError, save(model, tmp_path))


def test_shapes(tmp_path: Path) -> None:
    path = save(build([N("Relu", ["x"], ["y"])], (1, "height", 4), {}), tmp_path)
    text = message(InputError, path)
    assert "(height)" in text and str(path) in text
    assert load(path, np.ones((1, 3, 4), np.float32)).graph.outputs[0].type.shape == (1, 3, 4)
    text = message(InputError, path, np.ones((1, 3, 5), np.float32))
    assert "[1, 3, 5]" in text and "[batch, height, 4]" in text
    assert "[2, 3, 4]" in message(InputError, path, np.ones((2, 3, 4), np.float32))
    model = build([N("Relu", ["x"], ["y"])], (1, 4), {})
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    assert "[8, 4]" in message(InputError, save(model, tmp_path))


def test_element_types(tmp_path: Path) -> None:
    model = build([N("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], (1, 4), {})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    assert "DOUBLE" in message(UnsupportedError, save(model, tmp_path))


def test_not_finite(tmp_path: Path) -> None:
    array = weight(4, 2)
    array[1, 1] = np.nan
    path = save(build([N("MatMul", ["x", "w"], ["y"])], (1, 4), {"w": array}), tmp_path)
    assert "w (1 of 8)" in message(InputError, path)


def test_constant_output(tmp_path: Path) -> None:
    path = save(
        build([N("Shape", ["x"], ["s"]), N("Cast", ["s"], ["y"], to=1)], (1, 4), {}), tmp_path
    )
    assert "does not depend on the input" in message(InputError, path)


def test_without_onnx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'kilograd[onnx]'" in message(InputError, path)
