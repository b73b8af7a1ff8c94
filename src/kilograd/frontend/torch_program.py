"""Exported programs of fixed shape, batch 1 and evaluation mode, or why there is none."""

from __future__ import annotations

import inspect
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from kilograd.errors import InputError, UnsupportedError
from kilograd.frontend.places import user_frame


def example_tensor(example_input: Any) -> torch.Tensor:
    """The example input as a float32 tensor of batch 1, or int64 where it holds token ids."""
    if isinstance(example_input, tuple | list) and any(
        hasattr(item, "shape") for item in example_input
    ):
        if len(example_input) != 1:
            raise UnsupportedError(
                f"the example input is {len(example_input)} tensors; this version compiles "
                "networks with one input tensor and one output tensor"
            )
        (example_input,) = example_input
    if isinstance(example_input, torch.Tensor):
        tensor = example_input.detach().cpu()
    else:
        try:
            tensor = torch.from_numpy(np.array(example_input))
        except TypeError:
            raise InputError(
                f"the example input is a {type(example_input).__name__}; pass an array or a tensor"
            ) from None
    whole = tensor.dtype in (torch.int64, torch.int32)
    if not tensor.dtype.is_floating_point and not whole:
        raise InputError(
            f"the example input holds {tensor.dtype}; this version takes float32 (x.float()), or "
            "int64 for token ids (x.long())"
        )
    if tensor.ndim < 2 or tensor.shape[0] != 1:
        raise InputError(
            f"the example input has shape {list(tensor.shape)}; pass one sample with its leading "
            "batch dimension of 1, as in x[:1]"
        )
    if whole:
        return torch.zeros_like(tensor, dtype=torch.int64)  # Ids that every table has.
    return tensor.to(torch.float32).contiguous()


def export(model: torch.nn.Module, example: torch.Tensor) -> ExportedProgram:
    """Export in evaluation mode; the model keeps its modes."""
    _check_arity(model)
    for name, tensor in model.named_parameters():
        if tensor.dtype is not torch.float32:
            raise InputError(
                f"the parameter {name} holds {tensor.dtype}; this version takes float32 "
                "(model.float())"
            )
        if tensor.device.type != "cpu":
            raise InputError(f"the parameter {name} is on {tensor.device}; use model.cpu()")
    with _evaluating(model):
        try:
            with torch.no_grad():
                model(example)
        except Exception as error:
            raise InputError(
                f"the model fails on an input of shape {list(example.shape)}"
                f"{_where(error.__traceback__)}: {first_line(error)}{_hint(example)}"
            ) from None
        try:
            return quietly(torch.export.export, model, (example,))
        except Exception as error:
            raise UnsupportedError(
                "torch.export cannot turn the model into a graph of fixed shape"
                f"{_where(error.__traceback__)}: {first_line(error)}\n"
                "Control flow and shapes may depend on the shape of the input, not on its values."
            ) from None


def _hint(example: torch.Tensor) -> str:
    """What whole numbers as an example input mean."""
    if example.dtype.is_floating_point:
        return ""
    return f" (the example input holds {example.dtype}, token ids; for real numbers use x.float())"


def quietly(function: Callable[..., ExportedProgram], *arguments: Any) -> ExportedProgram:
    """Call into torch.export without the warnings and the graphs that it prints."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            return function(*arguments)
    finally:
        logging.disable(level)


def _check_arity(model: torch.nn.Module) -> None:
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(needed) > 1:
        raise UnsupportedError(
            f"forward takes {len(needed)} inputs ({', '.join(needed)}); this version compiles "
            "networks with one input tensor and one output tensor"
        )


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def first_line(error: BaseException) -> str:
    """The first line of a message of torch's, which can be pages long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _where(trace: TracebackType | None) -> str:
    """` at model.py:41` for the last frame in the user's code, if there is one."""
    frames = [
        (frame.filename, frame.lineno or 0)
        for frame in traceback.extract_tb(trace)
        if not frame.filename.startswith(str(Path(__file__).parent))
    ]
    source = user_frame(frames)
    return f" at {source}" if source else ""


def specialise(program: ExportedProgram, example: torch.Tensor | None) -> ExportedProgram:
    """The program for the shape of `example` (default: its own), functional and not decomposed."""
    shape = _input_shape(program)
    if example is not None and not _fits(shape, tuple(example.shape)):
        text = ["?" if size is None else size for size in shape]
        raise InputError(
            f"the example input has shape {list(example.shape)}, the program was exported for "
            f"[{', '.join(map(str, text))}]"
        )
    if None in shape:
        if example is None:
            raise InputError(
                "the program was exported with dynamic shapes; pass an example input, which fixes "
                "them"
            )
        program = _fixed(program, example)
        shape = tuple(example.shape)
    if shape[0] != 1:
        raise InputError(
            f"the program was exported for an input of shape {list(shape)}; export it for one "
            "sample, with a leading batch dimension of 1"
        )
    if all(_functional(node) for node in program.graph.nodes):
        return program
    return quietly(program.run_decompositions, {})


def _functional(node: torch.fx.Node) -> bool:
    """Whether a node is no call of a subgraph and writes none of its operands."""
    if node.op == "get_attr":
        return False
    target = node.target
    return not isinstance(target, torch._ops.HigherOrderOperator) and not (
        isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable
    )


def _input_shape(program: ExportedProgram) -> tuple[int | None, ...]:
    """The shape of the only user input; None for what is dynamic."""
    signature = program.graph_signature
    names = {
        spec.arg.name
        for spec in signature.input_specs
        if spec.kind is InputKind.USER_INPUT and hasattr(spec.arg, "name")
    }
    users = [
        node
        for node in program.graph.nodes
        if node.op == "placeholder"
        and node.name in names
        and isinstance(node.meta.get("val"), torch.Tensor)
    ]
    if len(users) != 1:
        found = ", ".join(node.name for node in users)
        raise UnsupportedError(
            f"the model takes {len(users)} input tensors ({found}); this version compiles networks "
            "with one input tensor and one output tensor"
        )
    return tuple(size if isinstance(size, int) else None for size in users[0].meta["val"].shape)


def _fits(wanted: Sequence[int | None], shape: Sequence[int]) -> bool:
    return len(wanted) == len(shape) and all(
        a is None or a == b for a, b in zip(wanted, shape, strict=True)
    )


def _fixed(program: ExportedProgram, example: torch.Tensor) -> ExportedProgram:
    try:
        return quietly(torch.export.export, program.module(), (example,))
    except Exception as error:
        raise UnsupportedError(
            f"the program cannot be fixed to the shape {list(example.shape)}: {first_line(error)} "
            "(export it in evaluation mode, model.eval(), and with a batch of 1)"
        ) from None
