"""A training graph with what each of its nodes is there for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from kilograd.ir import Graph, Value
from kilograd.ops.q_convert import QMask
from kilograd.ops.q_mask import MaskBits, PackMask
from kilograd.planning.necessary import Alive
from kilograd.search.layers import Layers


class Form:
    """A training graph with, for its nodes and values, the layers that they are there for."""

    def __init__(self, graph: Graph, layers: Layers, atomic: bool) -> None:
        """`graph` is the training step of a scheme of these layers, before it is ordered."""
        self.graph, self.alive = graph, Alive(graph, atomic=atomic)
        self.paths = layers.paths
        self.biased = tuple(layer.path for layer in layers.body if layer.bias is not None)
        self._owners = {
            parameter.name: layer.path
            for layer in layers.body
            for parameter in (layer.weight, layer.bias)
            if parameter is not None
        }
        self._weights = {layer.weight.name for layer in layers.body}
        self.serves = self._served()
        """For every node the parameters that would not be trained without it."""
        self._first_backward = next(
            (i for i, node in enumerate(graph.nodes) if node.location.backward), len(graph.nodes)
        )
        self.least_k = [self._least(serves) for serves in self.serves]
        self.inputs = self._layer_inputs()

    def parameter(self, state: Value) -> str:
        """The name of the parameter that a state is, or lies beside; "" for none."""
        origin = self.graph.state[state].origin
        if origin is not None:
            return origin.name
        for other, tensor in self.graph.state.items():
            if tensor.origin is not None and state.name.startswith(f"{other.name}."):
                return tensor.origin.name
        return ""

    def owner(self, parameter: str) -> str | None:
        """The path of the layer of a parameter; None for the head's."""
        return self._owners.get(parameter)

    def k_of(self, path: str | None) -> int:
        """From how many biases on the layer's is trained."""
        return 0 if path is None else len(self.paths) - self.paths.index(path)

    def is_weight(self, parameter: str) -> bool:
        """True for the weight of a layer that is not the head."""
        return parameter in self._weights

    def _served(self) -> list[frozenset[str]]:
        by_value: dict[Value, set[str]] = {
            after: {self.parameter(state)} for state, after in self.graph.updates.items()
        }
        by_value = {value: names - {""} for value, names in by_value.items()}
        result: list[frozenset[str]] = []
        for node in reversed(self.graph.nodes):
            names: set[str] = set().union(*(by_value.get(v, set()) for v in node.outputs))
            if node.op.check:
                names |= {
                    self.parameter(value) for value in node.inputs if value in self.graph.state
                } - {""}
            result.append(frozenset(names))
            if not node.op.check:
                for value in node.inputs:
                    by_value.setdefault(value, set()).update(names)
        return result[::-1]

    @cached_property
    def reasons(self) -> list[frozenset[str]]:
        """For every node the parameters without which it would not be there: those that it serves,
        or, where it serves none, those of what it reads.
        """
        result: list[frozenset[str]] = []
        for node, serves in zip(self.graph.nodes, self.serves, strict=True):
            makers = {self.alive.producer.get(value, -1) for value in node.inputs} - {-1}
            result.append(serves or frozenset().union(*(result[maker] for maker in makers)))
        return result

    def is_for_weights(self, node: int) -> bool:
        """True for nodes that would not be there if no weight but the head's were trained."""
        reasons = self.reasons[node]
        return bool(reasons) and all(map(self.is_weight, reasons))

    def _least(self, serves: frozenset[str]) -> int:
        """The smallest k with which a node that serves these parameters is there."""
        return min((self.k_of(self.owner(name)) for name in serves), default=0)

    def there_with(self, k: int) -> Callable[[int], bool]:
        """Whether a node is there with the biases of the last k layers."""
        return lambda node: self.least_k[node] <= k

    def task_of(self, node: int) -> str | None:
        """The layer whose weight or bias alone a node of the backward pass serves."""
        owners = {self.owner(name) for name in self.serves[node]}
        return owners.pop() if len(owners) == 1 and node >= self._first_backward else None

    def serves_weight_alone(self, node: int) -> bool:
        """True for nodes that are there only if that weight is trained."""
        serves = self.serves[node]
        return bool(serves) and all(map(self.is_weight, serves))

    def weight_read(self, node: int) -> str | None:
        """The layer whose weight a node reads."""
        tensors = {**self.graph.constants, **self.graph.state}
        for value in self.graph.nodes[node].inputs:
            origin = tensors[value].origin if value in tensors else None
            if origin is not None and self.is_weight(origin.name):
                return self.owner(origin.name)
        return None

    def _layer_inputs(self) -> dict[str, frozenset[str]]:
        """The layers whose weight's gradient reads a value of the forward pass, by its name."""
        result: dict[str, set[str]] = {}
        for index, node in enumerate(self.graph.nodes):
            if self.serves_weight_alone(index) and node.location.backward:
                for value in node.inputs:
                    maker = self.alive.producer.get(value)
                    if maker is not None and (maker < 0 or self._is_forward(maker)):
                        result.setdefault(value.name, set()).update(
                            path for name in self.serves[index] if (path := self.owner(name))
                        )
        return {name: frozenset(paths) for name, paths in result.items()}

    def _is_forward(self, node: int) -> bool:
        return not self.graph.nodes[node].location.backward

    def places(self) -> dict[tuple[str, str, int], int]:
        """The nodes of the backward pass that are there with biases alone, by what they are."""
        result: dict[tuple[str, str, int], int] = {}
        for index, node in enumerate(self.graph.nodes):
            if not node.location.backward or node.op.alias or self.serves_weight_alone(index):
                continue
            kind = "mask" if isinstance(node.op, MaskBits | QMask) else node.op.name
            number = 0
            while (node.location.layer, kind, number) in result:
                number += 1
            result[node.location.layer, kind, number] = index
        return result

    def masked(self, value: Value) -> str | None:
        """The name of the value whose mask this one is."""
        maker = self.alive.producer.get(value, -1)
        node = self.graph.nodes[maker] if maker >= 0 else None
        return node.inputs[0].name if node and isinstance(node.op, PackMask) else None

    @cached_property
    def masks(self) -> Mapping[str, Value]:
        """The masks by the names of the values that they mask."""
        found = ((self.masked(value), value) for value in self.alive.producer)
        return {name: mask for name, mask in found if name is not None}

    def reader_k(self, node: int, value: Value) -> int:
        """The smallest k with which something behind the node, or the node, reads the value."""
        if node in self.alive.readers[value]:
            return 0
        return min(self.least_k[r] for r in self.alive.behind(node, value))

    def loose_parts(
        self, node: int, savers: Mapping[str, Sequence[str]]
    ) -> list[tuple[str | None, list[int], set[Value]]]:
        """The nodes that may run before or behind this one: those of each layer's gradients, with
        what masks its saved activation, then the others in groups; with the values that are counted
        for each, none twice.
        """
        alive, kept = self.alive, self.alive.kept(node)
        by_layer: dict[str, list[int]] = {}
        others = []
        for index in alive.loose(node):
            path = self.task_of(index)
            it = self.graph.nodes[index]
            if isinstance(it.op, PackMask):
                path = next(iter(savers.get(it.inputs[0].name, ())), None)
            if path is None:
                others.append(index)
            else:
                by_layer.setdefault(path, []).append(index)
        parts: list[tuple[str | None, list[int]]] = [
            (path, by_layer[path]) for path in self.paths if path in by_layer
        ]
        parts += [(None, group) for group in alive.groups(others, kept)]
        counted = set(kept)
        result = []
        for path, members in parts:
            charged = alive.touched(members) - counted
            counted |= charged
            result.append((path, members, charged))
        return result
