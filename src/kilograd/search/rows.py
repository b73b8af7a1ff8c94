"""SRAM of a scheme from below, as linear functions of what is trained.

What must be alive while a node of the backward pass runs (`kilograd.planning.necessary`) is a sum:
what is there anyway, masks and bias gradients by the depth of the biases, and for each layer the
activation it saves, or the next weight that waits, by its ratio. The sums are read off a few
training graphs: one with the biases alone, and one for each ratio with every layer at that ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from kilograd.ir import Graph, Value
from kilograd.search.forms import Form
from kilograd.search.layers import Layers
from kilograd.search.scheme import Scheme

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

Option = tuple[str, Fraction]
"""A layer and the ratio of its weight that is trained."""


@dataclass(frozen=True)
class Row:
    """A lower bound of a scheme's arena or state, in bytes (or another additive figure).

    `base[k]` with the biases of the last k layers, None where the row does not hold; `options`:
    what each option adds; `shared`: what any of several options adds, once; `unless`: what is added
    from so many biases on where none of several options is chosen.
    """

    name: str
    base: tuple[float | None, ...]
    options: Mapping[Option, float]
    shared: Mapping[frozenset[Option], float] = field(default_factory=dict)
    unless: Mapping[tuple[int, frozenset[Option]], float] = field(default_factory=dict)
    layer: str = ""
    """The layer whose node it is of; empty where it is of no node."""

    def times(self, factor: float) -> Row:
        """The same in other units."""
        return replace(
            self,
            base=tuple(None if size is None else size * factor for size in self.base),
            options={option: size * factor for option, size in self.options.items()},
            shared={any_of: size * factor for any_of, size in self.shared.items()},
            unless={key: size * factor for key, size in self.unless.items()},
        )

    def value(self, scheme: Scheme) -> float | None:
        """The bound for a scheme, None where the row does not hold."""
        base = self.base[scheme.biases]
        if base is None:
            return None
        total = base + sum(self.options.get(option, 0) for option in scheme.weights)
        chosen = set(scheme.weights)
        total += sum(size for any_of, size in self.shared.items() if any_of & chosen)
        return total + sum(
            size
            for (first, any_of), size in self.unless.items()
            if scheme.biases >= first and not any_of & chosen
        )

    def values(self, biases: IntArray, chosen: FloatArray, options: Sequence[Option]) -> FloatArray:
        """`value` of many schemes at once, -inf where the row does not hold: their biases [N], and
        which of the options [N, O] they train, 1 or 0.
        """
        numbers = {option: number for number, option in enumerate(options)}

        def any_of(some: frozenset[Option]) -> npt.NDArray[np.bool_]:
            known = [numbers[option] for option in some if option in numbers]
            return np.asarray(chosen[:, known].any(axis=1))

        base = np.array([-np.inf if size is None else size for size in self.base])
        total = base[biases] + chosen @ [self.options.get(option, 0.0) for option in options]
        for some, size in self.shared.items():
            total += size * any_of(some)
        for (first, some), size in self.unless.items():
            total += size * ((biases >= first) & ~any_of(some))
        return total


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

    def least_bytes_of_all(
        self, biases: IntArray, chosen: FloatArray, options: Sequence[Option]
    ) -> FloatArray:
        """`least_bytes` of many schemes at once, as of `Row.values`."""
        arena = np.zeros(len(biases))
        for row in self.arena:
            np.maximum(arena, row.values(biases, chosen, options), out=arena)
        return self.state.values(biases, chosen, options) + arena


def derive(
    layers: Layers,
    ratios: Sequence[Fraction],
    training_graph: Callable[[Scheme], Graph],
    *,
    atomic: bool,
) -> Rows:
    """The rows of a network; `training_graph` is the step of a scheme before it is ordered."""
    count = len(layers.body)
    bare = Form(training_graph(Scheme(count)), layers, atomic)
    forms = {
        ratio: Form(
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


@dataclass
class _Sums:
    """What must be alive at a node: by k, and the part of it that belongs to a layer's options."""

    by_k: list[int]
    of_layer: dict[str, int]
    names: dict[str, int]
    """Values that are kept, by name: the smallest k with which they are."""


def _sums(form: Form, node: int, savers: Mapping[str, Sequence[str]]) -> _Sums:
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
    bare: Form,
    node: int,
    forms: Mapping[Fraction, Form],
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
    reads = bare.weight_read(node)
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
    return Row(name, sure, options, shared, layer=bare.graph.nodes[node].location.layer)


def _kept_whole(form: Form, sums: _Sums, plain: _Sums, first: int) -> dict[str, int]:
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
    bare: Form,
    form: Form,
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


def _waiting_row(bare: Form, forms: Mapping[Fraction, Form]) -> Row:
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


def _waiting(form: Form, weights: bool = False) -> dict[Value, str | None]:
    """What waits for the updates, and for which layer's; of the weights alone, or all."""
    result: dict[Value, str | None] = {}
    for value in form.alive.waiting():
        maker = form.alive.producer[value]
        if not weights or form.serves_weight_alone(maker):
            names = form.serves[maker]
            result[value] = form.owner(next(iter(names))) if len(names) == 1 else None
    return result


def _state_row(bare: Form, forms: Mapping[Fraction, Form]) -> Row:
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
