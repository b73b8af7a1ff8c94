"""PyTorch models: export with torch.export, then walk the ATen graph.

    nn.Module -> ExportedProgram -> functional, otherwise undecomposed ATen graph -> our graph

The graph is not decomposed, so that linear, layer norm, hard-swish and the like arrive as such; a
program that was decomposed before arrives in core ATen operators, which have rows of their own.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from kilograd.errors import CompilerBug, InputError, UnsupportedError, UserError
from kilograd.frontend.imported import Imported
from kilograd.frontend.lowering import (
    Lowering,
    Misplaced,
    Moved,
    Problem,
    Problems,
    Weight,
    identifier,
    shape_of,
)
from kilograd.frontend.places import source_line
from kilograd.frontend.torch_program import (
    example_tensor,
    export,
    first_line,
    specialise,
)
from kilograd.frontend.torch_table import (
    IGNORED,
    INTEGERS,
    LAYOUT,
    MOVABLE,
    POINTWISE,
    TABLE,
    Arguments,
)
from kilograd.ir import DType, Location, TensorType, Value, eliminate_dead, verify

_ELEMENTS = {torch.float32: DType.F32, torch.int64: DType.I32, torch.int32: DType.I32}
"""Element types of the model's tensors as those of the program."""

_UNUSABLE = object()
"""Stands for a tensor that a problem keeps from being computed."""


def load(model: Any, example_input: Any) -> Imported:
    """Import a torch.nn.Module or an ExportedProgram; see `frontend.load`."""
    example = None if example_input is None else example_tensor(example_input)
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("the model is a scripted module; pass the torch.nn.Module it was made of")
    if isinstance(model, torch.nn.Module):
        if example is None:
            raise InputError(
                "a torch.nn.Module needs an example input (one sample, batch 1), which fixes its "
                "shapes"
            )
        return _import(export(model, example), identifier(type(model).__name__.lower()), example)
    if isinstance(model, ExportedProgram):
        return _import(model, "network", example)
    raise InputError(
        f"the model is a {type(model).__qualname__}; pass a torch.nn.Module or a "
        "torch.export.ExportedProgram"
    )


def load_file(path: Path, example_input: Any) -> Imported:
    """Import a `.pt2` file that torch.export.save wrote."""
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise InputError(
            f"{path}: not a program that torch.export.save wrote ({first_line(error)})"
        ) from None
    example = None if example_input is None else example_tensor(example_input)
    return _import(program, identifier(path.stem.lower()), example)


def _import(program: ExportedProgram, name: str, example: torch.Tensor | None) -> Imported:
    return _Walk(specialise(program, example)).run(name)


def _location(node: torch.fx.Node) -> Location:
    stack = node.meta.get("nn_module_stack") or {}
    layer = ""
    if stack:
        path = str(list(stack.values())[-1][0])
        layer = re.sub(r"^(L\['self'\]|L__self__|self)\.?", "", path)
        layer = re.sub(r"@\d+$", "", layer)
    return Location(layer, source_line(node.meta.get("stack_trace") or ""))


def _reason(node: torch.fx.Node) -> str:
    """Why a node without a row cannot be compiled."""
    fake = node.meta.get("val")
    if isinstance(fake, torch.SymInt | torch.SymFloat | torch.SymBool):
        return "a number computed from the input steers the program"
    if isinstance(fake, torch.Tensor) and not all(isinstance(size, int) for size in fake.shape):
        return "the shape of its result depends on the values of the input"
    return "kilograd has no such operator"


class _Walk:
    """One pass over the graph of an exported program."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.low = Lowering()
        self.problems = Problems()
        self.env: dict[torch.fx.Node, Any] = {}
        self.frozen: dict[str, None] = {}
        self.buffers: set[str] = set()

    def run(self, name: str) -> Imported:
        self._check_outputs()
        self._bind_inputs()
        result: Any = None
        for node in self.program.graph.nodes:
            if node.op == "call_function":
                self.env[node] = self._visit(node)
            elif node.op == "get_attr":
                self.env[node] = _UNUSABLE
            elif node.op == "output":
                result = self._result(node)
        if isinstance(result, Moved):
            self._misplaced(result)
        self.problems.check()
        if not isinstance(result, Value):
            raise InputError("the output of the model does not depend on its input")
        graph = verify(eliminate_dead(self.low.builder.finish([result])))
        return Imported(graph, name, self._parameters(), self._notes())

    def _check_outputs(self) -> None:
        specs = self.program.graph_signature.output_specs
        mutated = [spec.target for spec in specs if spec.kind is OutputKind.BUFFER_MUTATION]
        if mutated:
            raise UnsupportedError(
                f"the model writes its buffers {', '.join(map(str, mutated))} in forward; export "
                "it in evaluation mode (model.eval()), and keep no state between calls"
            )
        outputs = [spec for spec in specs if spec.kind is OutputKind.USER_OUTPUT]
        if len(outputs) != 1:
            raise UnsupportedError(
                f"the model returns {len(outputs)} tensors; this version compiles networks with "
                "one input tensor and one output tensor"
            )

    def _result(self, node: torch.fx.Node) -> Any:
        specs = self.program.graph_signature.output_specs
        for spec, item in zip(specs, node.args[0], strict=True):  # type: ignore[arg-type]
            if spec.kind is OutputKind.USER_OUTPUT:
                return self.env.get(item) if isinstance(item, torch.fx.Node) else item
        return None

    def _bind_inputs(self) -> None:
        tensors = {**self.program.state_dict, **self.program.constants}
        names = self._canonical_names()
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        broken = []
        for node in self.program.graph.nodes:
            if node.op != "placeholder":
                continue
            spec = specs[node.name]
            if spec.kind is InputKind.USER_INPUT:
                if isinstance(node.meta.get("val"), torch.Tensor):
                    self.env[node] = self._input(node)
                continue
            target = str(spec.target)
            array = tensors[target].detach().cpu().numpy().copy()  # The model may be trained on.
            if node.users and array.dtype.kind == "f" and not np.isfinite(array).all():
                count = int(array.size - np.isfinite(array).sum())
                broken.append(f"{target} ({count} of {array.size})")
            trained = spec.kind is InputKind.PARAMETER
            self.env[node] = Weight(array, names.get(target, target) if trained else "")
        if broken:
            raise InputError(
                f"NaN or infinity in the weights: {', '.join(broken)}; load a checkpoint that "
                "trained well"
            )

    def _input(self, node: torch.fx.Node) -> Value:
        fake = node.meta["val"]
        if fake.dtype not in _ELEMENTS:
            raise UnsupportedError(
                f"the input holds {fake.dtype}; this version takes float32, or int64 and int32 for "
                "token ids"
            )
        type_ = TensorType(tuple(fake.shape), _ELEMENTS[fake.dtype])
        return self.low.builder.input(identifier(node.name), type_)

    def _canonical_names(self) -> dict[str, str]:
        """The first name of each parameter, for those that share their memory with another."""
        first: dict[tuple[int, int, tuple[int, ...], tuple[int, ...]], str] = {}
        result = {}
        for name, tensor in self.program.state_dict.items():
            key = (
                tensor.untyped_storage().data_ptr(), tensor.storage_offset(),
                tuple(tensor.shape), tuple(tensor.stride()),
            )  # fmt: skip
            result[name] = first.setdefault(key, name) if tensor.numel() else name
        return result

    def _visit(self, node: torch.fx.Node) -> Any:
        name = str(node.target)
        inputs = [self.env.get(argument, _UNUSABLE) for argument in node.all_input_nodes]
        if getattr(node.target, "__name__", "") == "getitem":
            source = inputs[0]
            return source if source is _UNUSABLE else source[node.args[1]]
        if not isinstance(node.target, torch._ops.OpOverload | torch._ops.HigherOrderOperator):
            return _UNUSABLE  # Arithmetic on shapes that depend on the input's values.
        location = _location(node)
        packet = ".".join(name.split(".")[:2])
        if packet in IGNORED:
            return _UNUSABLE
        known = [value for value in inputs if value is not _UNUSABLE]
        constant = len(known) == len(inputs) and all(isinstance(v, Weight) for v in known)
        if constant and packet not in LAYOUT:
            return self._compute(node)
        if packet not in TABLE:
            self.problems.add(Problem(name, location, _reason(node)))
            return _UNUSABLE
        if len(known) < len(inputs):
            return _UNUSABLE
        if packet not in INTEGERS and any(
            isinstance(value, Value) and value.type.dtype is DType.I32 for value in known
        ):
            reason = "it computes with integers; token ids can only be looked up in an embedding"
            self.problems.add(Problem(name, location, reason))
            return _UNUSABLE
        try:
            with self.low.builder.at(location):
                result = self._lower(packet, node, [v for v in known if isinstance(v, Moved)])
        except Misplaced as error:
            self._misplaced(error.moved)
            return _UNUSABLE
        except UserError as error:
            self.problems.add(Problem(name, location, str(error)))
            return _UNUSABLE
        if isinstance(result, Moved) and not result.operator:
            result = replace(result, operator=name)
        return self._checked(node, result, location)

    def _lower(self, packet: str, node: torch.fx.Node, moved: list[Moved]) -> Any:
        """The row of an operator, `moved` being those of its operands whose batch is elsewhere."""
        arguments = self._arguments(node)
        if moved and packet in POINTWISE:
            named = {
                key: item.value if isinstance(item, Moved) else item
                for key, item in arguments.named.items()
            }
            return moved[0].carry(TABLE[packet](self.low, Arguments(named, arguments.result)))
        if moved and packet not in MOVABLE:
            raise Misplaced(moved[0])
        return TABLE[packet](self.low, arguments)

    def _misplaced(self, moved: Moved) -> None:
        self.problems.add(Problem(moved.operator, moved.location, moved.reason))

    def _checked(self, node: torch.fx.Node, result: Any, location: Location) -> Any:
        fakes: Any = node.meta.get("val")
        pairs = zip(result, fakes, strict=False) if isinstance(result, tuple) else [(result, fakes)]
        for value, fake in pairs:
            if not isinstance(value, Value | Moved):
                continue
            dtype = value.type.dtype if isinstance(value, Value) else DType.F32
            if _ELEMENTS.get(fake.dtype) is not dtype:
                reason = f"it computes in {fake.dtype}; this version computes in float32"
                if dtype is DType.I32:
                    reason = f"it makes {fake.dtype} of token ids; only an embedding reads them"
                self.problems.add(Problem(str(node.target), location, reason))
                return _UNUSABLE
            if shape_of(value) != tuple(fake.shape):
                raise CompilerBug(
                    f"{node.target} in {location} gives {list(fake.shape)}, "
                    f"imported as {list(shape_of(value))}"
                )
        return result

    def _arguments(self, node: torch.fx.Node) -> Arguments:
        """Arguments by their name in the ATen schema, defaults included."""
        values: dict[str, Any] = {}
        positional = list(node.args)
        for index, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
            if index < len(positional):
                values[argument.name] = positional[index]
            elif argument.name in node.kwargs:
                values[argument.name] = node.kwargs[argument.name]
            else:
                values[argument.name] = argument.default_value
        resolved = torch.fx.node.map_arg(values, lambda item: self.env[item])
        return Arguments(dict(resolved), node.meta.get("val"))

    def _compute(self, node: torch.fx.Node) -> Any:
        """The value of a node that depends on constants only."""

        def tensor(item: torch.fx.Node) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(self.env[item].array))

        for argument in node.all_input_nodes:
            if self.env[argument].name:
                self.frozen[self.env[argument].name] = None
        args = torch.fx.node.map_arg(node.args, tensor)
        kwargs = torch.fx.node.map_arg(node.kwargs, tensor)
        result = node.target(*args, **kwargs)  # type: ignore[operator]
        if isinstance(result, tuple | list):
            return tuple(Weight(item.numpy()) for item in result)
        return Weight(result.numpy()) if isinstance(result, torch.Tensor) else result

    def _parameters(self) -> dict[str, tuple[int, ...]]:
        return {
            name: tuple(tensor.shape)
            for name, tensor in self.program.state_dict.items()
            if isinstance(tensor, torch.nn.Parameter)
        }

    def _notes(self) -> tuple[str, ...]:
        if not self.frozen:
            return ()
        return (
            f"{', '.join(self.frozen)}: used only through a computation on constants, whose result "
            "is compiled in; they cannot be trained on the device.",
        )
