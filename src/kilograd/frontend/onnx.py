"""ONNX models: fix the shapes, compute what is constant, lower the rest.

    file -> opset >= 13, functions inlined -> nodes in order -> our graph

Exporters leave chains that compute shapes (Shape, Gather, Concat, Reshape). Shapes are known here,
so such chains are computed with the reference evaluator of the onnx package as they are met.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import inliner, numpy_helper, version_converter
from onnx.reference import ReferenceEvaluator

from kilograd.errors import InputError, UnsupportedError, UserError
from kilograd.frontend.imported import Imported
from kilograd.frontend.lowering import (
    Lowering,
    Misplaced,
    Moved,
    Problem,
    Problems,
    Source,
    Weight,
    identifier,
)
from kilograd.frontend.onnx_notes import exporter_notes
from kilograd.frontend.onnx_patterns import fuse
from kilograd.frontend.onnx_table import (
    INTEGERS,
    LAYOUT,
    MOVABLE,
    POINTWISE,
    TABLE,
    Arguments,
)
from kilograd.frontend.places import source_line
from kilograd.ir import DType, Location, TensorType, Value, eliminate_dead, verify

OLDEST_OPSET = 13

_ELEMENTS = {
    onnx.TensorProto.FLOAT: DType.F32,
    onnx.TensorProto.INT64: DType.I32,
    onnx.TensorProto.INT32: DType.I32,
}
"""Element types of the input as those of the program."""


def load(path: Path, example_input: Any) -> Imported:
    """Import an `.onnx` file; see `frontend.load`."""
    model = _modern(_read(path), path)
    return _Walk(model, path).run(example_input)


def _read(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{path}: not an ONNX model ({lines[0]})") from None
    if not model.graph.node:
        raise InputError(f"{path}: not an ONNX model (it has no nodes)")
    return model


def _modern(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Local functions inlined, and at least the oldest operator set that the table is for."""
    if model.functions:
        model = inliner.inline_local_functions(model)
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    if version is None:
        raise UnsupportedError(f"{path}: the model uses no operators of the ONNX standard")
    if version >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{path}: the model is of operator set {version} and cannot be converted to "
            f"{OLDEST_OPSET} ({lines[0]}); export it with opset_version={OLDEST_OPSET} or later"
        ) from None


class _Walk:
    """One pass over the nodes of a model."""

    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        self.model = model
        self.path = path
        self.low = Lowering()
        self.problems = Problems()
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.env: dict[str, Source | None] = {}
        """The operand of each tensor; None where a problem keeps it from being computed."""

    def run(self, example_input: Any) -> Imported:
        graph = self.model.graph
        if len(graph.output) != 1:
            names = ", ".join(item.name for item in graph.output)
            raise UnsupportedError(
                f"{self.path}: the model has {len(graph.output)} outputs ({names}); this version "
                "compiles networks with one input tensor and one output tensor"
            )
        self._bind_input(example_input)
        self._bind_weights()
        self._visit_all(fuse(graph))
        result = self.env.get(graph.output[0].name)
        if isinstance(result, Moved):
            self._misplaced(result)
        self.problems.check()
        if not isinstance(result, Value):
            raise InputError(f"{self.path}: the output does not depend on the input")
        built = verify(eliminate_dead(self.low.builder.finish([result])))
        shapes = {item.name: tuple(item.dims) for item in graph.initializer}
        origins = {t.origin.name for t in built.constants.values() if t.origin}
        parameters = {name: shape for name, shape in shapes.items() if name in origins}
        notes = exporter_notes(self.model, parameters)
        return Imported(built, identifier(self.path.stem.lower()), parameters, notes)

    def _bind_input(self, example_input: Any) -> None:
        graph = self.model.graph
        weights = {item.name for item in graph.initializer}
        inputs = [item for item in graph.input if item.name not in weights]
        if len(inputs) != 1:
            names = ", ".join(item.name for item in inputs)
            raise UnsupportedError(
                f"{self.path}: the model has {len(inputs)} inputs ({names}); this version compiles "
                "networks with one input tensor and one output tensor"
            )
        tensor = inputs[0].type.tensor_type
        if tensor.elem_type not in _ELEMENTS:
            kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
            raise UnsupportedError(
                f"{self.path}: the input holds {kind}; only FLOAT is supported, and INT64 and "
                "INT32 for token ids"
            )
        shape = self._input_shape(tensor, example_input)
        name = inputs[0].name
        type_ = TensorType(shape, _ELEMENTS[tensor.elem_type])
        self.env[name] = self.low.builder.input(identifier(name), type_)

    def _input_shape(self, tensor: Any, example_input: Any) -> tuple[int, ...]:
        dims: list[int | str] = [
            d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
        ]
        example = None if example_input is None else tuple(np.shape(example_input))
        if example is not None and (
            len(example) != len(dims)
            or any(isinstance(d, int) and d != e for d, e in zip(dims, example, strict=True))
        ):
            raise InputError(
                f"the example input has shape {list(example)}, {self.path} takes "
                f"[{', '.join(map(str, dims))}]"
            )
        if example is None and dims and isinstance(dims[0], str):
            dims[0] = 1
        shape = list(dims) if example is None else list(example)
        free = [str(d) for d in shape if isinstance(d, str)]
        if free:
            raise InputError(
                f"{self.path}: the input has dynamic dimensions ({', '.join(free)}) besides the "
                "batch; pass an example input, which fixes them"
            )
        if len(shape) < 2 or shape[0] != 1:
            raise InputError(
                f"{self.path} takes an input of shape {shape}; it has to be one sample with a "
                "leading batch dimension of 1 (or dynamic)"
            )
        return tuple(int(d) for d in shape)

    def _bind_weights(self) -> None:
        read = {name for node in self.model.graph.node for name in node.input}
        broken = []
        for item in self.model.graph.initializer:
            array = numpy_helper.to_array(item, base_dir=str(self.path.parent))
            is_float = array.dtype.kind == "f"
            if item.name in read and is_float and not np.isfinite(array).all():
                count = int(array.size - np.isfinite(array).sum())
                broken.append(f"{item.name} ({count} of {array.size})")
            named = is_float and array.ndim > 0
            self.env[item.name] = Weight(array, item.name if named else "")
        if broken:
            raise InputError(
                f"{self.path}: NaN or infinity in the weights: {', '.join(broken)}; export a model "
                "that trained well"
            )

    def _visit_all(self, nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            results = self._visit(node)
            for name, result in zip(node.output, results, strict=False):
                self.env[name] = result
            for name in node.output[len(results) :]:
                self.env[name] = None

    def _visit(self, node: onnx.NodeProto) -> tuple[Any, ...]:
        inputs = [self._operand(name, node) for name in node.input]
        missing = any(
            name and value is None for name, value in zip(node.input, inputs, strict=True)
        )
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        location = _location(node)
        if kind == "If" and isinstance(inputs[0], Weight):
            return self._branch(node, bool(inputs[0].array))
        known = not missing and all(not isinstance(value, Value | Moved) for value in inputs)
        has_graph = any(attribute.HasField("g") for attribute in node.attribute)
        if known and kind not in LAYOUT and not has_graph and node.domain in ("", "ai.onnx"):
            return self._compute(node, inputs)
        if kind not in TABLE:
            self.problems.add(Problem(kind, location))
            return ()
        if missing:
            return ()
        if kind not in INTEGERS and any(
            isinstance(value, Value) and value.type.dtype is DType.I32 for value in inputs
        ):
            reason = "it computes with integers; token ids can only be looked up in an embedding"
            self.problems.add(Problem(kind, location, reason))
            return ()
        try:
            with self.low.builder.at(location):
                result = self._lower(kind, node, inputs)
        except Misplaced as error:
            self._misplaced(error.moved)
            return ()
        except UserError as error:
            self.problems.add(Problem(kind, location, str(error)))
            return ()
        if isinstance(result, Moved) and not result.operator:
            result = replace(result, operator=kind)
        return result if isinstance(result, tuple) else (result,)

    def _lower(self, kind: str, node: onnx.NodeProto, inputs: list[Source | None]) -> Any:
        """The row of an operator; some of its operands may have their batch elsewhere."""
        moved = [value for value in inputs if isinstance(value, Moved)]
        if moved and kind in POINTWISE:
            plain = tuple(value.value if isinstance(value, Moved) else value for value in inputs)
            return moved[0].carry(TABLE[kind](self.low, Arguments(node, plain, self.opset)))
        if moved and kind not in MOVABLE:
            raise Misplaced(moved[0])
        return TABLE[kind](self.low, Arguments(node, tuple(inputs), self.opset))

    def _misplaced(self, moved: Moved) -> None:
        self.problems.add(Problem(moved.operator, moved.location, moved.reason))

    def _operand(self, name: str, node: onnx.NodeProto) -> Source | None:
        if name and name not in self.env:
            raise InputError(
                f"{self.path}: {node.op_type} in {_location(node)} reads {name}, which no earlier "
                "node computes"
            )
        return self.env[name] if name else None

    def _branch(self, node: onnx.NodeProto, condition: bool) -> tuple[Any, ...]:
        """The side of an If whose condition is constant."""
        wanted = "then_branch" if condition else "else_branch"
        graph = next(attribute.g for attribute in node.attribute if attribute.name == wanted)
        for item in graph.initializer:
            self.env[item.name] = Weight(numpy_helper.to_array(item), "")
        self._visit_all(graph.node)
        return tuple(self.env[item.name] for item in graph.output)

    def _compute(self, node: onnx.NodeProto, inputs: list[Source | None]) -> tuple[Weight, ...]:
        """The results of a node that depends on constants only."""
        names = [name for name in dict.fromkeys(node.input) if name]
        arrays = {
            name: value.array
            for name, value in zip(node.input, inputs, strict=True)
            if isinstance(value, Weight)
        }
        graph = onnx.helper.make_graph(
            [node],
            "constant",
            [onnx.helper.make_tensor_value_info(n, _element(arrays[n]), None) for n in names],
            [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name],
        )
        model = onnx.helper.make_model(graph, opset_imports=self.model.opset_import)
        model.ir_version = self.model.ir_version
        results = ReferenceEvaluator(model).run(None, arrays)
        return tuple(Weight(np.asarray(result)) for result in results)


def _element(array: np.ndarray) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


def _location(node: onnx.NodeProto) -> Location:
    """The layer from the name scopes that exporters leave, else the node's own name."""
    metadata = {item.key: item.value for item in node.metadata_props}
    source = source_line(metadata.get("pkg.torch.onnx.stack_trace", ""))
    scopes = metadata.get("pkg.torch.onnx.name_scopes")
    if scopes is not None:
        names = [str(name) for name in ast.literal_eval(scopes)]
        return Location(names[-2] if len(names) > 1 else "", source)
    if node.name.startswith("/"):
        return Location(_scope(node.name), source)
    return Location(node.name or (node.output[0] if node.output else ""), source)


def _scope(name: str) -> str:
    """`blocks.0.conv` from the `/blocks/blocks.0/conv/Conv` of the TorchScript exporter."""
    path: list[str] = []
    for part in name.strip("/").split("/")[:-1]:
        if path and re.match(re.escape(path[-1]) + r"\.", part):
            path[-1] = part
        else:
            path.append(part)
    return ".".join(path)
