"""Checks that a graph is well formed: every stage's output goes through here."""

from __future__ import annotations

from kilograd.errors import CompilerBug, UserError
from kilograd.ir.graph import Graph, Node, Value
from kilograd.ir.printing import print_around, print_graph


def verify(graph: Graph) -> Graph:
    """Return `graph`, or raise CompilerBug with the program around the fault.

    Names are unique, values are defined before use, node types are what the operators infer,
    constants and states have the shape and element type of their value, updates pair equal types.
    """
    defined: set[Value] = set()
    names: set[str] = set()

    def define(value: Value) -> None:
        if value.name in names:
            raise CompilerBug(f"{value} is defined twice\n{print_graph(graph)}")
        names.add(value.name)
        defined.add(value)

    for value in graph.inputs:
        define(value)
    for value, tensor in (*graph.constants.items(), *graph.state.items()):
        define(value)
        if tensor.array.shape != value.type.shape or tensor.array.dtype != value.type.dtype.numpy:
            raise CompilerBug(
                f"{value}: {value.type} holds {tensor.array.dtype}{list(tensor.array.shape)}"
            )
    for node in graph.nodes:
        _verify_node(graph, node, defined)
        for value in node.outputs:
            define(value)
    for value in graph.outputs:
        if value not in defined:
            raise CompilerBug(f"the output {value} is never defined\n{print_graph(graph)}")
    for state, successor in graph.updates.items():
        if state not in graph.state or successor not in defined or state.type != successor.type:
            raise CompilerBug(f"update {state} <- {successor} does not fit\n{print_graph(graph)}")
    return graph


def _verify_node(graph: Graph, node: Node, defined: set[Value]) -> None:
    for value in node.inputs:
        if value not in defined:
            raise CompilerBug(f"{value} is read before it is defined\n{print_around(graph, node)}")
    try:
        types = node.op.infer(*(value.type for value in node.inputs))
    except UserError as error:
        raise CompilerBug(f"{error}\n{print_around(graph, node)}") from error
    if types != tuple(value.type for value in node.outputs):
        found = ", ".join(str(value.type) for value in node.outputs)
        wanted = ", ".join(map(str, types))
        raise CompilerBug(f"outputs are {found}, inferred {wanted}\n{print_around(graph, node)}")
    if node.op.check != (not node.outputs):
        raise CompilerBug(f"only a check has no output\n{print_around(graph, node)}")
