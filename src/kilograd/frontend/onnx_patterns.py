"""Recognises what exporters spell out, so that it arrives as one operator.

x * sigmoid(x)                          SiLU
0.5 * x * (1 + erf(x / sqrt(2)))        GELU, with its factors in any order
isnan(x) ? 0 : x                        x: the softmax of a row that a mask hides altogether
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper


def fuse(graph: onnx.GraphProto) -> list[NodeProto]:
    """The nodes in order, the last node of each pattern replaced by the operator.

    What the pattern alone reads stays in the list and is never used.
    """
    finder = _Finder(graph)
    nodes = [finder.replacement(node) or node for node in graph.node]
    read = {name for node in nodes for name in node.input}
    return [node for node in nodes if node.op_type != "IsNaN" or node.output[0] in read]


class _Finder:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self.producers = {name: node for node in graph.node for name in node.output}
        self.numbers: dict[str, float] = {}
        for tensor in graph.initializer:
            self._note(tensor.name, tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    self._note(node.output[0], attribute.t)
                if node.op_type == "Constant" and attribute.name == "value_float":
                    self.numbers[node.output[0]] = attribute.f

    def _note(self, name: str, tensor: onnx.TensorProto) -> None:
        if math.prod(tensor.dims) == 1 and tensor.data_type == onnx.TensorProto.FLOAT:
            self.numbers[name] = float(np.reshape(numpy_helper.to_array(tensor), ()))

    def replacement(self, node: NodeProto) -> NodeProto | None:
        if node.op_type == "Where":
            return self._guarded(node)
        if node.op_type != "Mul" or node.domain not in ("", "ai.onnx"):
            return None
        for x, other in (node.input, node.input[::-1]):
            producer = self.producers.get(other)
            if producer is not None and producer.op_type == "Sigmoid" and producer.input[0] == x:
                return _node(node, "Silu", x)
        numbers, rest = self._factors(node.output[0])
        if len(rest) != 2 or not math.isclose(math.prod(numbers), 0.5, rel_tol=1e-5):
            return None
        for x, other in (rest, rest[::-1]):
            if self._is_gate(x, other):
                return _node(node, "Gelu", x)
        return None

    def _guarded(self, node: NodeProto) -> NodeProto | None:
        """The identity for a Where that only keeps NaN out."""
        condition, replacement, x = node.input
        test = self.producers.get(condition)
        if test is None or test.op_type != "IsNaN" or test.input[0] != x:
            return None
        return _node(node, "Identity", x) if self.numbers.get(replacement) == 0.0 else None

    def _factors(self, name: str) -> tuple[list[float], list[str]]:
        """The numbers and the tensors that a chain of Mul multiplies."""
        if name in self.numbers:
            return [self.numbers[name]], []
        producer = self.producers.get(name)
        if producer is None or producer.op_type != "Mul":
            return [], [name]
        parts = [self._factors(item) for item in producer.input]
        return parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]

    def _is_gate(self, x: str, name: str) -> bool:
        """Whether `name` is 1 + erf(x / sqrt(2))."""
        add = self.producers.get(name)
        if add is None or add.op_type != "Add":
            return False
        rest = [item for item in add.input if self.numbers.get(item) != 1.0]
        erf = self.producers.get(rest[0]) if len(rest) == 1 else None
        if erf is None or erf.op_type != "Erf":
            return False
        scaled = self.producers.get(erf.input[0])
        if scaled is None or scaled.op_type not in ("Mul", "Div") or x not in scaled.input:
            return False
        factor = next((self.numbers[item] for item in scaled.input if item in self.numbers), 0.0)
        wanted = math.sqrt(2.0) if scaled.op_type == "Div" else math.sqrt(0.5)
        return math.isclose(factor, wanted, rel_tol=1e-5) and (
            scaled.op_type == "Mul" or scaled.input[0] == x
        )


def _node(last: NodeProto, kind: str, *inputs: str) -> NodeProto:
    """One node with the results, the name and the metadata of the last node of a pattern."""
    result = onnx.helper.make_node(kind, list(inputs), _names(last.output), name=last.name)
    result.metadata_props.extend(last.metadata_props)
    return result


def _names(names: Iterable[str]) -> list[str]:
    return list(names)
