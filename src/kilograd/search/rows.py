"""SRAM of a scheme from below, as linear functions of what is trained.

What must be alive while a node of the backward pass runs (`kilograd.planning.necessary`) is a sum:
what is there anyway, masks and bias gradients by the depth of the biases, and for each layer the
activation it saves, or the next weight that waits, by its ratio. The sums are read off a few
training graphs: one with the biases alone, and one for each ratio with every layer at that ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from kilograd.ir import Graph, Node, Value
from kilograd.ops.q_convert import QMask
from kilograd.ops.q_mask import MaskBits, PackMask
from kilograd.planning.necessary import Alive
from kilograd.search.layers import Layers
from kilograd.search.scheme import Scheme

Option = tuple[str, Fraction]
"""A layer and the ratio of its weight that is trained."""


@dataclass(frozen=True)
class Row:
    """A lower bound of a scheme's arena or state, in bytes (or another additive figure).

    `base[k]` with the biases of the last k layers, None where the row does not hold; `options`:
    what each option adds; `shared`: what any of several options adds, once.
    """

    name: str
    base: tuple[float | None, ...]
    options: Mapping[Option, float]
    shared: Mapping[frozenset[Option], float] = field(default_factory=dict)
    layer: str = ""
    """The layer whose node it is of; empty where it is of no node."""

    def value(self, scheme: Scheme) -> float | None:
        """The bound for a scheme, None where the row does not hold."""
        base = self.base[scheme.biases]
        if base is None:
            return None
        total = base + sum(self.options.get(option, 0) for option in scheme.weights)
        chosen = set(scheme.weights)
        return total + sum(size for any_of, size in self.shared.items() if any_of & chosen)


@dataclass(frozen=True)
class Rows:
    """The bytes of the state, which are exact, and lower bounds of the arena."""

    state: Row
    arena: tuple[Row, ...]

    def state_bytes(self, scheme: Scheme) -> int:
        """The bytes of the scheme's state."""
        return int(self.state.value(scheme) or 0)

    def least_bytes(self, scheme: Scheme) -> int:
        """Arena and state that the scheme needs at least."""
        arena = (row.value(scheme) for row in self.arena)
        known = (value for value in arena if value is not None)
        return self.state_bytes(scheme) + int(max(known, default=0))


def derive(
    layers: Layers,
    ratios: Sequence[Fraction],
    training_graph: Callable[[Scheme], Graph],
    *,
    atomic: bool,
) -> Rows:
    """The rows of a network; `training_graph` is the step of a scheme before it is ordered."""
    count = len(layers.body)
    bare = _Form(training_graph(Scheme(count)), layers, atomic)
    forms = {
        ratio: _Form(
            training_graph(Scheme.of(count, {path: ratio for path in layers.paths})), layers, atomic
        )
        for ratio in ratios
    }
    arena = [_waiting_row(bare, forms)]
    places = {ratio: form.places() for ratio, form in forms.items()}
    for key, node in bare.places().items():
        if all(key in known for known in places.values()):
            at = {ratio: known[key] for ratio, known in places.items()}
            arena.append(_row(f"{key[1]} of {key[0]}", bare, node, forms, at))
    return Rows(_state_row(bare, forms), tuple(arena))


class _Form:
    """A training graph with, for its nodes and values, the layers that they are there for."""

    def __init__(self, graph: Graph, layers: Layers, atomic: bool) -> None:
        self.graph, self.alive = graph, Alive(graph, atomic=atomic)
        self.paths = layers.paths
        self._owners = {
            parameter.name: layer.path
            for layer in layers.body
            for parameter in (layer.weight, layer.bias)
            if parameter is not None
        }
        self._weights = {layer.weight.name for layer in layers.body}
        self._serves = self._served()
        self._first_backward = next(
            (i for i, node in enumerate(graph.nodes) if node.location.backward), len(graph.nodes)
        )
        self.least_k = [self._least(serves) for serves in self._serves]
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

    def _least(self, serves: frozenset[str]) -> int:
        """The smallest k with which a node that serves these parameters is there."""
        return min((self.k_of(self.owner(name)) for name in serves), default=0)

    def there_with(self, k: int) -> Callable[[int], bool]:
        """Whether a node is there with the biases of the last k layers."""
        return lambda node: self.least_k[node] <= k

    def task_of(self, node: int) -> str | None:
        """The layer whose weight or bias alone a node of the backward pass serves."""
        owners = {self.owner(name) for name in self._serves[node]}
        return owners.pop() if len(owners) == 1 and node >= self._first_backward else None

    def serves_weight_alone(self, node: int) -> bool:
        """True for nodes that are there only if that weight is trained."""
        serves = self._serves[node]
        return bool(serves) and all(map(self.is_weight, serves))

    def _layer_inputs(self) -> dict[str, frozenset[str]]:
        """The layers whose weight's gradient reads a value of the forward pass, by its name."""
        result: dict[str, set[str]] = {}
        for index, node in enumerate(self.graph.nodes):
            if self.serves_weight_alone(index) and node.location.backward:
                for value in node.inputs:
                    maker = self.alive.producer.get(value)
                    if maker is not None and (maker < 0 or self._is_forward(maker)):
                        result.setdefault(value.name, set()).update(
                            path for name in self._serves[index] if (path := self.owner(name))
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


@dataclass
class _Sums:
    """What must be alive at a node: by k, and the part of it that belongs to a layer's options."""

    by_k: list[int]
    of_layer: dict[str, int]
    names: dict[str, int]
    """Values that are kept, by name: the smallest k with which they are."""


def _sums(form: _Form, node: int, savers: Mapping[str, Sequence[str]]) -> _Sums:
    """`savers`: the layers that save a value for their weight's gradient, by its name."""
    alive, count = form.alive, len(form.paths)
    by_k, of_layer = [0] * (count + 1), dict[str, int]()
    names: dict[str, int] = {}
    for value in alive.kept(node):
        first = form.reader_k(node, value)
        names[value.name] = first
        size = alive.aligned((value,))
        for k in range(first, count + 1):
            by_k[k] += size
        for path in savers.get(form.masked(value) or "", ())[:1]:
            of_layer[path] = of_layer.get(path, 0) + size
    for layer, members, charged in form.loose_parts(node, savers):
        levels = sorted({form.least_k[i] for i in members})
        least = {
            level: alive.least_bytes(node, members, charged, form.there_with(level))
            for level in levels
        }
        for k in range(count + 1):
            by_k[k] += max((least[level] for level in levels if level <= k), default=0)
        if layer is not None:
            of_layer[layer] = of_layer.get(layer, 0) + least[levels[-1]]
    return _Sums(by_k, of_layer, names)


def _row(
    name: str,
    bare: _Form,
    node: int,
    forms: Mapping[Fraction, _Form],
    at: Mapping[Fraction, int],
) -> Row:
    saved = {value for form in forms.values() for value in form.inputs}
    savers = {
        value: [p for p in bare.paths if any(p in f.inputs.get(value, ()) for f in forms.values())]
        for value in saved
    }
    plain = _sums(bare, node, savers)
    first, count = bare.least_k[node], len(bare.paths)
    base: list[float | None] = []
    for k in range(count + 1):
        own = bare.alive.own_bytes(node, bare.there_with(k))
        base.append(plain.by_k[k] + own if k >= first else None)
    options: dict[Option, float] = {}
    shared: dict[frozenset[Option], float] = {}
    uncertain = 0
    reads = _layer_read(bare, bare.graph.nodes[node])
    for ratio, form in forms.items():
        sums = _sums(form, at[ratio], savers)
        for path in bare.paths:
            options[path, ratio] = sums.of_layer.get(path, 0) - plain.of_layer.get(path, 0)
        more = form.alive.own_bytes(at[ratio]) - bare.alive.own_bytes(node)
        if reads is None:
            uncertain = min(uncertain, more)
        else:
            options[reads, ratio] += more
        for value, size in _kept_whole(form, sums, plain, first).items():
            any_of = frozenset((path, ratio) for path in form.inputs[value])
            if len(any_of) > 1:
                shared[any_of] = shared.get(any_of, 0) + size
            else:
                options[next(iter(any_of))] += size
        for value, mask in bare.masks.items():
            if value not in form.masks:
                for path in savers.get(value, ())[1:]:
                    options[path, ratio] -= bare.alive.aligned((mask,))
        uncertain = min(uncertain, -_gone(bare, form, sums, plain, savers))
    sure = tuple(None if size is None else size + uncertain for size in base)
    return Row(name, sure, options, shared, bare.graph.nodes[node].location.layer)


def _kept_whole(form: _Form, sums: _Sums, plain: _Sums, first: int) -> dict[str, int]:
    """The bytes of the activations that are kept because their layers' weights are trained, by
    name; without those that are there for some k only.
    """
    result = {}
    for value in form.alive.producer:
        savers = form.inputs.get(value.name, frozenset())
        fresh = value.name in sums.names and value.name not in plain.names
        if savers and fresh and sums.names[value.name] <= max(first, *map(form.k_of, savers)):
            result[value.name] = form.alive.aligned((value,))
    return result


def _gone(
    bare: _Form,
    form: _Form,
    sums: _Sums,
    plain: _Sums,
    savers: Mapping[str, Sequence[str]],
) -> int:
    """The bytes that are kept with the biases alone and not in another form, masks of what is then
    saved whole aside.
    """
    masks = {mask.name for value, mask in bare.masks.items() if savers.get(value)}
    return sum(
        bare.alive.aligned((value,))
        for value in bare.alive.producer
        if value.name in plain.names and value.name not in sums.names and value.name not in masks
    )


def _layer_read(form: _Form, node: Node) -> str | None:
    """The layer whose weight a node reads."""
    tensors = {**form.graph.constants, **form.graph.state}
    for value in node.inputs:
        origin = tensors[value].origin if value in tensors else None
        if origin is not None and form.is_weight(origin.name):
            return form.owner(origin.name)
    return None


def _waiting_row(bare: _Form, forms: Mapping[Fraction, _Form]) -> Row:
    count = len(bare.paths)
    base: list[float] = [0] * (count + 1)
    for value, path in _waiting(bare).items():
        for k in range(bare.k_of(path), count + 1):
            base[k] += bare.alive.aligned((value,))
    options: dict[Option, float] = {}
    for ratio, form in forms.items():
        for value, path in _waiting(form, weights=True).items():
            if path is not None:
                options[path, ratio] = options.get((path, ratio), 0) + form.alive.aligned((value,))
    return Row("before the updates", tuple(base), options)


def _waiting(form: _Form, weights: bool = False) -> dict[Value, str | None]:
    """What waits for the updates, and for which layer's; of the weights alone, or all."""
    result: dict[Value, str | None] = {}
    for value in form.alive.waiting():
        maker = form.alive.producer[value]
        if not weights or form.serves_weight_alone(maker):
            names = form._serves[maker]
            result[value] = form.owner(next(iter(names))) if len(names) == 1 else None
    return result


def _state_row(bare: _Form, forms: Mapping[Fraction, _Form]) -> Row:
    count = len(bare.paths)
    base: list[float] = [0] * (count + 1)
    for state in bare.graph.state:
        name = bare.parameter(state)
        first = bare.k_of(bare.owner(name)) if name else 1
        for k in range(first, count + 1):
            base[k] += bare.alive.aligned((state,))
    options: dict[Option, float] = {}
    for ratio, form in forms.items():
        for state in form.graph.state:
            name = form.parameter(state)
            path = form.owner(name)
            if path is not None and form.is_weight(name):
                options[path, ratio] = options.get((path, ratio), 0) + form.alive.aligned((state,))
    return Row("state", tuple(base), options)
