"""Typed SSA programs: types, graphs, operators, building, checking, printing, interpreting."""

from kilograd.ir.builder import Builder
from kilograd.ir.graph import Graph, Location, Node, Tensor, Value
from kilograd.ir.interpret import evaluate
from kilograd.ir.operator import Call, Cost, Example, Operand, Operands, Operator
from kilograd.ir.origin import Affine, Origin, Part, Permute, Quantized, Reshape, to_user
from kilograd.ir.printing import print_graph
from kilograd.ir.rewrite import eliminate_dead, substitute
from kilograd.ir.types import DType, Quantization, TensorType, f32, i32
from kilograd.ir.verify import verify

__all__ = [
    "Affine",
    "Builder",
    "Call",
    "Cost",
    "DType",
    "Example",
    "Graph",
    "Location",
    "Node",
    "Operand",
    "Operands",
    "Operator",
    "Origin",
    "Part",
    "Permute",
    "Quantization",
    "Quantized",
    "Reshape",
    "Tensor",
    "TensorType",
    "Value",
    "eliminate_dead",
    "evaluate",
    "f32",
    "i32",
    "print_graph",
    "substitute",
    "to_user",
    "verify",
]
