"""What users name a model by: a file, `module:function`, or a network of the zoo."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kilograd.errors import InputError, UserError

_FILES = (".onnx", ".pt2")


@dataclass(frozen=True)
class Model:
    """What `kilograd.compile` takes: a path or a module, an example input, the name for its C."""

    source: Any
    example_input: Any
    name: str | None


def resolve(text: str, folder: Path, shape: tuple[int, ...] | None) -> Model:
    """The model of that name; files and modules are looked for in `folder`.

    `shape` is that of the input, with its leading batch dimension, where the model does not say it.
    Raises InputError for a model that cannot be found or made.
    """
    example = None if shape is None else _zeros(shape)
    if Path(text).suffix.lower() in _FILES:
        return Model(folder / text, example, None)
    if ":" in text:
        return _from_function(text, folder, example)
    return _from_zoo(text, example)


def _zeros(shape: tuple[int, ...]) -> Any:
    import numpy as np

    if not shape or shape[0] != 1 or min(shape) < 1:
        raise InputError(
            f"the input shape {','.join(map(str, shape))} needs a leading batch dimension of 1, "
            "as in 1,3,32,32"
        )
    return np.zeros(shape, np.float32)


def _from_function(text: str, folder: Path, example: Any) -> Model:
    module_name, _, attribute = text.partition(":")
    try:
        function = _attribute(module_name, attribute, folder)
    except UserError:
        raise
    except Exception as error:
        raise InputError(
            f"{text}: importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
    model = function
    if not _is_module(function):
        if not callable(function):
            raise InputError(f"{text} is a {type(function).__name__}, no function or model")
        try:
            model = function()
        except UserError:
            raise
        except Exception as error:
            raise InputError(
                f"{text}() failed: {type(error).__name__}: {error}; it is called without arguments "
                "and returns a torch.nn.Module, or a pair (module, example_input)"
            ) from error
    if isinstance(model, tuple) and len(model) == 2:
        model, own_example = model
        example = own_example if example is None else example
    if not _is_module(model):
        raise InputError(
            f"{text} gave a {type(model).__name__}; it returns a torch.nn.Module, or a pair "
            "(module, example_input)"
        )
    if example is None:
        raise InputError(
            f"{text} gives no example input; return (module, example_input), or name the shape: "
            "--input-shape 1,3,32,32"
        )
    return Model(model, example, None)


def _attribute(module_name: str, attribute: str, folder: Path) -> Any:
    for place in (str(Path.cwd()), str(folder.resolve())):
        if place not in sys.path:
            sys.path.insert(0, place)
    importlib.invalidate_caches()
    if importlib.util.find_spec(module_name.split(".")[0] or " ") is None:
        raise InputError(
            f"there is no Python module '{module_name}' in {folder.resolve()} or installed"
        )
    value: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise InputError(f"the module {module_name} has no '{attribute}'")
        value = getattr(value, part)
    return value


def _is_module(value: Any) -> bool:
    """Whether a value is a `torch.nn.Module`, without importing PyTorch."""
    return hasattr(value, "named_parameters") and not isinstance(value, type)


def _from_zoo(name: str, example: Any) -> Model:
    from kilograd import zoo

    if name not in zoo.names():
        raise InputError(
            f"there is no model '{name}'; name an .onnx or .pt2 file, module:function, or a "
            f"network of the zoo: {', '.join(zoo.names())}"
        )
    model, own_example = zoo.create(name)
    return Model(model, own_example if example is None else example, name)
