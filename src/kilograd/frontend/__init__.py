"""From the user's model to a float graph; the only place that imports torch and onnx."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from kilograd.errors import InputError
from kilograd.frontend.imported import Imported

__all__ = ["Imported", "load"]

_ACCEPTED = (
    "a torch.nn.Module, a torch.export.ExportedProgram, or the path of a .pt2 file "
    "(torch.export.save) or an .onnx file"
)


def load(model: Any, example_input: Any = None) -> Imported:
    """Import a model for a batch of 1.

    `model` is a torch.nn.Module, a torch.export.ExportedProgram, or the path of a `.pt2` or `.onnx`
    file. `example_input` is one sample with its leading batch dimension of 1, an array or a tensor;
    only its shape counts. It may be left out where a file or an exported program states its shapes.

    Raises InputError for a file or an input that is not what it has to be, and UnsupportedError
    with every operator that kilograd cannot compile.
    """
    if isinstance(model, str | os.PathLike):
        return _load_file(Path(model), example_input)
    kind = type(model)
    if any(base.__module__.split(".")[0] == "torch" for base in kind.__mro__):
        result: Imported = _torch_export().load(model, example_input)
        return result
    if any(base.__module__.split(".")[0] == "onnx" for base in kind.__mro__):
        raise InputError("an ONNX model is taken as a file: onnx.save(model, 'model.onnx')")
    raise InputError(f"the model is a {kind.__module__}.{kind.__qualname__}; pass {_ACCEPTED}")


def _load_file(path: Path, example_input: Any) -> Imported:
    suffix = path.suffix.lower()
    if suffix not in (".pt2", ".onnx"):
        raise InputError(f"{path}: a model is {_ACCEPTED}")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    if suffix == ".onnx":
        result: Imported = _onnx().load(path, example_input)
        return result
    result = _torch_export().load_file(path, example_input)
    return result


def _torch_export() -> ModuleType:
    _require("torch", "pip install torch==2.13.0 (or pip install 'kilograd[torch]')")
    from kilograd.frontend import torch_export

    return torch_export


def _onnx() -> ModuleType:
    _require("onnx", "pip install 'kilograd[onnx]'")
    from kilograd.frontend import onnx

    return onnx


def _require(package: str, command: str) -> None:
    try:
        import_module(package)
    except ImportError:
        raise InputError(
            f"this model needs the package {package}, which is not installed: {command}"
        ) from None
