"""Graphs as text: one line a node, stable, made for diffs and for error messages."""

from __future__ import annotations

from kilograd.ir.graph import Graph, Node


def print_node(node: Node) -> str:
    """`%y: f32[1,10] = linear(%x, %w)   fc (model.py:12)`."""
    results = ", ".join(f"{value}: {value.type}" for value in node.outputs)
    call = f"{node.op}({', '.join(map(str, node.inputs))})"
    text = f"{results} = {call}" if results else call
    return f"{text:<72}  {node.location}"


def print_graph(graph: Graph) -> str:
    """The whole program."""
    lines = ["graph(" + ", ".join(f"{value}: {value.type}" for value in graph.inputs) + ") {"]
    for kind, tensors in (("constant", graph.constants), ("state", graph.state)):
        for value, tensor in tensors.items():
            origin = f"  {tensor.origin.name}" if tensor.origin else ""
            lines.append(f"  {kind} {value}: {value.type}{origin}")
    lines += [f"  {print_node(node)}".rstrip() for node in graph.nodes]
    lines += [f"  update {state} <- {value}" for state, value in graph.updates.items()]
    lines += ["  return " + ", ".join(map(str, graph.outputs)), "}"]
    return "\n".join(lines)


def print_around(graph: Graph, node: Node, radius: int = 4) -> str:
    """The lines around a node, with an arrow at it, for reports of compiler bugs."""
    index = next(i for i, other in enumerate(graph.nodes) if other is node)
    lines = []
    for i in range(max(0, index - radius), min(len(graph.nodes), index + radius + 1)):
        arrow = "-->" if i == index else "   "
        lines.append(f"{arrow} {print_node(graph.nodes[i])}".rstrip())
    return "\n".join(lines)
