"""The layers of a network as a scheme sees them, and the update spec of a scheme.

A scheme trains the head (the last layer), the biases of the last k layers, and some input channels
of some weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from kilograd.errors import InputError
from kilograd.ir import Graph
from kilograd.transforms.select import Parameter, parameters
from kilograd.update import Choice, Chosen, Spec, channels, full, normalise

WEIGHT = ".weight"

Orders = Mapping[str, tuple[int, ...]]
"""For layers by path the input channels, best first; layers that are not in it take the first."""


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer: `path`, its parameters by the user's names, and its input
    channels, 1 where it can only be trained whole.
    """

    path: str
    weight: Parameter
    bias: Parameter | None

    @property
    def channels(self) -> int:
        """How many input channels the weight has."""
        axis = self.weight.channel_axis
        return 1 if axis is None else self.weight.value.type.shape[axis]

    def count(self, ratio: Fraction) -> int:
        """How many of its channels a ratio trains: `kilograd.update.channels` rounds alike."""
        return self.channels if ratio == 1 else max(1, round(float(ratio) * self.channels))


@dataclass(frozen=True)
class Layers:
    """The layers from input to output without the head, and the head."""

    body: tuple[Layer, ...]
    head: Layer

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the layers without the head."""
        return tuple(layer.path for layer in self.body)

    def biases_from(self, path: str) -> int:
        """How many layers there are from this one to the end: it is the last but so many less 1."""
        return len(self.body) - self.paths.index(path)

    def spec(
        self, biases: int, weights: Mapping[str, Fraction], orders: Orders | None = None
    ) -> Spec:
        """The update spec that trains the head, the biases of the last `biases` layers, and of the
        weights the share of input channels that is given: the first, or the best by `orders`.
        """
        chosen: dict[str, Choice] = {}
        for layer in self.body[len(self.body) - biases :]:
            if layer.bias is not None:
                chosen[_pattern(layer.bias.name)] = full()
        for layer in self.body:
            ratio = weights.get(layer.path, Fraction(0))
            if ratio:
                chosen[_pattern(layer.weight.name)] = self._choice(layer, ratio, orders or {})
        for parameter in (self.head.weight, self.head.bias):
            if parameter is not None:
                chosen[_pattern(parameter.name)] = full()
        return normalise(chosen)

    @staticmethod
    def _choice(layer: Layer, ratio: Fraction, orders: Orders) -> Choice:
        count = layer.count(ratio)
        if count == layer.channels:
            return full()
        if layer.path in orders:
            return Chosen(tuple(sorted(orders[layer.path][:count])))
        return channels(float(ratio))


def layers_of(graph: Graph) -> Layers:
    """The layers of a forward graph, float or int8. Raises InputError where there is no head."""
    known = parameters(graph)
    weights = [p for p in known if not p.is_bias and p.channel_axis is not None]
    found = []
    for weight in weights:
        bias = next((p for p in known if p.is_bias and p.layer == weight.layer), None)
        found.append(Layer(weight.name.removesuffix(WEIGHT), weight, bias))
    if not found:
        raise InputError(
            "there is nothing to choose from: the network has no convolution or linear layer"
        )
    return Layers(tuple(found[:-1]), found[-1])


def _pattern(name: str) -> str:
    """A pattern that matches this name and no other."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
