"""Time and energy of a scheme's training step, as linear functions of what is trained.

A step takes the sum of what its nodes take, whatever their order, and a node is there if a
parameter that it serves is trained. Which node serves what is read off a few training graphs: one
with the head alone, one with all biases, and one for each ratio with every layer at that ratio. A
node that these graphs hold in several forms, such as a pool that keeps an index for its gradient,
counts with the cheapest form that it may have under a scheme. What a graph does not say is whether
masks are kept as bits: the compiler takes the form that needs less memory. So there is a row
without what the bits cost, which holds for every program, and one with it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from kilograd.ir import Graph, Value
from kilograd.ops.q_convert import QMask
from kilograd.ops.q_mask import MaskBits, PackMask
from kilograd.ops.q_stream import Stage
from kilograd.ops.shape import Slice
from kilograd.search.forms import Form
from kilograd.search.layers import Layers
from kilograd.search.rows import Option, Row
from kilograd.search.scheme import Scheme

Amounts = Callable[[Graph], Sequence[float]]
"""What each node of a graph takes, in order."""

Name = tuple[str, str, bool, int]
"""What a node is, by which nodes of several graphs are told to be the same: layer, operator,
whether it is for weights, and which of these it is.
"""

Shared = tuple[frozenset[str], str, str, float]
"""Nodes that several layers' weights share: the layers, where they are and what, and the amount."""


@dataclass(frozen=True)
class CostRows:
    """What a training step takes: `least` in every form that the compiler may choose, and
    `expected` in the usual one, whose masks are bits.
    """

    least: Row
    expected: Row


@dataclass(frozen=True)
class CostForms:
    """The training graphs that rows of costs are read off, with masks as bits and without."""

    head: Form
    plain: Form
    packed: Form
    plain_at: Mapping[Fraction, Form]
    packed_at: Mapping[Fraction, Form]

    @staticmethod
    def of(
        layers: Layers,
        ratios: Sequence[Fraction],
        training_graph: Callable[[Scheme, bool], Graph],
        *,
        atomic: bool,
    ) -> CostForms:
        """The graphs of a network; `training_graph` is the step of a scheme before it is ordered,
        its masks bits or not.
        """
        count = len(layers.body)
        bare = Scheme(count)
        whole = {r: Scheme.of(count, dict.fromkeys(layers.paths, r)) for r in ratios}

        def form(scheme: Scheme, packed: bool) -> Form:
            return Form(training_graph(scheme, packed), layers, atomic)

        return CostForms(
            form(Scheme(0), False),
            form(bare, False),
            form(bare, True),
            {ratio: form(scheme, False) for ratio, scheme in whole.items()},
            {ratio: form(scheme, True) for ratio, scheme in whole.items()},
        )

    def rows(self, name: str, amounts: Amounts, rounding: float) -> CostRows:
        """The rows of one quantity; `rounding` is what the amount of a node is rounded to."""
        least = self._least(name, amounts, rounding)
        saved = {ratio: _saved_whole(form) for ratio, form in self.packed_at.items()}
        unless: dict[tuple[int, frozenset[Option]], float] = {}
        base = list(least.base)
        for mask, first, more in self._bits(amounts):
            any_of = frozenset(
                (path, ratio)
                for ratio, form in self.packed_at.items()
                if mask not in form.masks
                for path in saved[ratio].get(mask, ())
            )
            if more > 0:
                unless[first, any_of] = unless.get((first, any_of), 0.0) + more
            else:
                base = [None if b is None else b + more * (k >= first) for k, b in enumerate(base)]
        least = replace(least, base=tuple(base))
        return CostRows(least, replace(least, name=f"{name}, masks as bits", unless=unless))

    def _least(self, name: str, amounts: Amounts, rounding: float) -> Row:
        bare = self.plain
        taken = amounts(bare.graph)
        base = self._base(taken, amounts(self.head.graph))
        options: dict[Option, float] = {}
        shared: dict[Shared, Counter[Fraction]] = defaultdict(Counter)
        less: dict[Name, float] = {}
        for ratio, form in self.plain_at.items():
            here = amounts(form.graph)
            changed, lower = _changed(bare, taken, form, here)
            for path, more in changed.items():
                options[path, ratio] = options.get((path, ratio), 0.0) + more
            for node_name, amount in lower.items():
                less[node_name] = max(less.get(node_name, 0.0), amount)
            for index, amount in enumerate(here):
                if not form.is_for_weights(index):
                    continue
                names = form.reasons[index]
                owners = frozenset(owner for name in names if (owner := form.owner(name)))
                if len(owners) == 1:
                    (owner,) = owners
                    options[owner, ratio] = options.get((owner, ratio), 0.0) + amount
                elif amount:
                    node = form.graph.nodes[index]
                    shared[owners, node.location.layer, node.op.name, amount][ratio] += 1
        # A streamed chain is rounded once, not once an operator.
        stages = sum(isinstance(node.op, Stage) for node in bare.graph.nodes)
        below = -sum(less.values()) - rounding * stages
        return Row(name, tuple(b + below for b in base), options, _once(shared))

    def _base(self, taken: Sequence[float], for_head: Sequence[float]) -> list[float]:
        """What the nodes take with the biases of the last k layers, for each k; `taken` with those
        of all layers, `for_head` with none.

        A node may take less where some of its results are not read, such as a pool without its
        index. So until all its readers are there it counts with the less of what it takes with all
        biases and with none.
        """
        bare, first = self.plain, self._first()
        alone = dict(zip(_names(self.head), for_head, strict=True))
        base = [0.0] * (len(bare.paths) + 1)
        for index, name in enumerate(_names(bare)):
            readers = {
                reader
                for value in bare.graph.nodes[index].outputs
                for reader in bare.alive.readers.get(value, ())
            }
            whole_from = max((first[reader] for reader in readers), default=0)
            amount = taken[index]
            least = min(amount, alone.get(name, amount))
            for k in range(first[index], len(base)):
                base[k] += amount if k >= whole_from else least
        return base

    def _first(self) -> list[int]:
        """From how many biases on each node is there. What has no reason among the parameters and
        is not there for the head, such as the next random seed, comes with the first bias.
        """
        bare, head = self.plain, set(_names(self.head))
        first_bias = min(map(bare.k_of, bare.biased), default=0)
        return [
            min((bare.k_of(bare.owner(reason)) for reason in reasons), default=0)
            if reasons or name in head
            else first_bias
            for reasons, name in zip(bare.reasons, _names(bare), strict=True)
        ]

    def _bits(self, amounts: Amounts) -> list[tuple[str, int, float]]:
        """For each mask that is kept as bits with the biases alone: what it masks, from how many
        biases on, and by how much bits take more than to read the masked result.
        """
        graph = self.packed.graph
        plain = zip(self.plain.graph.nodes, amounts(self.plain.graph), strict=True)
        direct = {node.outputs: amount for node, amount in plain if isinstance(node.op, QMask)}
        taken = amounts(graph)
        found = []
        for index, node in enumerate(graph.nodes):
            if not isinstance(node.op, PackMask):
                continue
            more = taken[index]
            for other, amount in zip(graph.nodes, taken, strict=True):
                if isinstance(other.op, MaskBits) and other.inputs[1] == node.outputs[0]:
                    more += amount - direct[other.outputs]
            found.append((node.inputs[0].name, self.packed.least_k[index], more))
        return found


def _changed(
    bare: Form, taken: Sequence[float], form: Form, amounts: Sequence[float]
) -> tuple[dict[str, float], dict[Name, float]]:
    """How much more than with biases alone the nodes take that read a layer's weight, by the layer;
    and how much less each of the others does, where it does.
    """
    before = dict(zip(_names(bare), taken, strict=True))
    by_layer: dict[str, float] = {}
    less: dict[Name, float] = {}
    for index, (name, amount) in enumerate(zip(_names(form), amounts, strict=True)):
        if form.is_for_weights(index):
            continue
        more = amount - before.pop(name, 0.0)
        path = form.weight_read(index) if more else None
        if path is not None:
            by_layer[path] = by_layer.get(path, 0.0) + more
        elif more < 0:
            less[name] = -more
    return by_layer, less | before


def _names(form: Form) -> list[Name]:
    counts = Counter[tuple[str, str, bool]]()
    names: list[Name] = []
    for index, node in enumerate(form.graph.nodes):
        name = (node.location.layer, node.op.name, form.is_for_weights(index))
        names.append((*name, counts[name]))
        counts[name] += 1
    return names


def _once(shared: Mapping[Shared, Counter[Fraction]]) -> dict[frozenset[Option], float]:
    """What any of several options adds. What is alike at several ratios counts as one node."""
    result: dict[frozenset[Option], float] = {}
    for (owners, _, _, amount), times in shared.items():
        for number in range(max(times.values())):
            ratios = [ratio for ratio, count in times.items() if count > number]
            any_of = frozenset((path, ratio) for path in owners for ratio in ratios)
            result[any_of] = result.get(any_of, 0.0) + amount
    return result


def _saved_whole(form: Form) -> dict[str, set[str]]:
    """The layers whose weight's gradient reads a value whole, or a view of it, by its name."""
    views = {n.outputs[0]: n.inputs[0] for n in form.graph.nodes if n.op.alias}

    def source(value: Value) -> Value:
        return source(views[value]) if value in views else value

    result: dict[str, set[str]] = {}
    for index, node in enumerate(form.graph.nodes):
        if form.is_for_weights(index) and not isinstance(node.op, Slice):
            for value in node.inputs:
                paths = {path for name in form.reasons[index] if (path := form.owner(name))}
                result.setdefault(source(value).name, set()).update(paths)
    return result
