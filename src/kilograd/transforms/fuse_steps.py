"""Fuses the gradient of an int8 weight with its check and its step.

%g = q_conv2d_grad_weight(%x, %d_y)
q_sgd_check(%w, %g)                         ->   %next = q_weight_step(%x, %d_y, %w, ...)
%next = q_sgd_step(%w, %g, ...)

Only where nobody else reads the gradient, so not with momentum, weight decay or accumulation.
"""

from __future__ import annotations

from dataclasses import replace

from kilograd.ir import Graph, Node
from kilograd.ops.q_conv_grad import QConv2dGradWeight, QLinearGradWeight
from kilograd.ops.q_optimizer import QSgdCheck, QSgdStep
from kilograd.ops.q_weight_step import QWeightStep, fusible


def fuse_steps(graph: Graph) -> Graph:
    """The training graph without the float32 gradients of the int8 weights for which one operator
    can do; it stands where the gradient stood.
    """
    readers, producers, results = graph.readers(), graph.producers(), set(graph.results())
    fused: dict[int, Node] = {}
    gone: set[int] = set()
    for node in graph.nodes:
        if not isinstance(node.op, QSgdStep):
            continue
        w, d_w, *rest = node.inputs
        source = producers.get(d_w)
        checks = [reader for reader in readers[d_w] if reader is not node]
        if source is None or d_w in results or not all(map(_is_plain_check, checks)):
            continue
        grad = source.op
        if isinstance(grad, QConv2dGradWeight | QLinearGradWeight) and fusible(
            grad, node.op, w.type
        ):
            op, inputs = QWeightStep(grad, node.op), (*source.inputs, w, *rest)
            fused[id(source)] = Node(op, inputs, node.outputs, source.location)
            gone |= {id(node), *map(id, checks)}
    nodes = (fused.get(id(node), node) for node in graph.nodes if id(node) not in gone)
    return replace(graph, nodes=tuple(nodes))


def _is_plain_check(node: Node) -> bool:
    return node.op == QSgdCheck()
