"""What training a scheme gains, foretold from the gradients of single samples.

With g_n the gradient of the loss l_n of sample n by all that a scheme trains, K = [g_n . g_m] says
how a step on one sample moves the loss of another: the tangent kernel (Jacot et al., NeurIPS 2018)
seen by the loss. It is the sum of the kernels of the trained parts. The gain is not a sum:

    gain = log det(I + s K) / N,    s = sum over the steps of min(rate, l / |g|^2) / (N l),

l the mean loss and |g|^2 the mean squared norm of the N gradients. The logarithm of the determinant
is twice what N observations tell about a Gaussian process of this covariance: directions that few
layers reach count, and the same direction once more counts little. l / |g|^2 is about the step of
Polyak (1987; for SGD Loizou et al., AISTATS 2021), at which a sample's loss would be gone were it
linear: longer steps overshoot. So a part whose gradients are large and point one way takes from all
others. It is a score, not a forecast: it may exceed 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np

from kilograd.ir import Graph, Value
from kilograd.ir.interpret import evaluate
from kilograd.options import Loss
from kilograd.search.layers import Layer, Layers, Orders
from kilograd.search.rows import FloatArray, IntArray, Option
from kilograd.search.scores import with_parameters
from kilograd.search.task import Split
from kilograd.transforms.differentiate import sensitivities
from kilograd.transforms.ports import Ports

SKETCH = 4096
"""Longer gradients are hashed to so many numbers: each is added, with a random sign, to one of them
at random (Charikar et al., 2002). Inner products are right on average, their errors some
hundredths of the norms.
"""


@dataclass(frozen=True, eq=False)
class TangentKernel:
    """Kernels [N, N] of the head, of the bias of each layer by path, and of the trained channels of
    its weight by path and ratio; with the losses [N].
    """

    layers: Layers
    losses: np.ndarray
    head: np.ndarray
    biases: Mapping[str, np.ndarray]
    weights: Mapping[tuple[str, Fraction], np.ndarray]

    def of(self, depths: IntArray, chosen: FloatArray, options: Sequence[Option]) -> FloatArray:
        """The kernels of all that schemes train [S, N, N]: the head, the biases of the last
        `depths` [S] layers, and the `options` that are `chosen` [S, O], as 0 or 1.
        """
        weights = self._weights[[self._places[option] for option in options]]
        return self._biases[depths] + np.tensordot(chosen, weights, axes=1)

    @property
    def finite(self) -> bool:
        """False where the head diverged."""
        parts = (self.losses, self.head, *self.biases.values(), *self.weights.values())
        return all(bool(np.isfinite(part).all()) for part in parts)

    @cached_property
    def _biases(self) -> FloatArray:
        """Of the head and the biases of the last k layers [K + 1, N, N]."""
        paths = reversed(self.layers.paths)
        return np.cumsum([self.head, *(self.biases[path] for path in paths)], axis=0)

    @cached_property
    def _weights(self) -> FloatArray:
        return np.array([*self.weights.values()]).reshape(-1, *self.head.shape)

    @cached_property
    def _places(self) -> dict[Option, int]:
        return {option: place for place, option in enumerate(self.weights)}

    def gains(self, kernels: np.ndarray, rates: np.ndarray) -> np.ndarray:
        """What steps at `rates` gain of each of the kernels [K, N, N]; 0 where there is no loss or
        no gradient, NaN where these are not finite.
        """
        count, loss = len(self.losses), float(self.losses.mean())
        squared = np.trace(kernels, axis1=1, axis2=2) / count
        finite = np.isfinite(squared) & np.isfinite(loss)
        found = np.where(finite, 0.0, np.nan)
        some = finite & (squared > 0) & (loss > 0)
        steps = np.minimum(rates, loss / squared[some, None]).sum(axis=1)
        scaled = (steps / (count * loss))[:, None, None] * kernels[some]
        found[some] = np.linalg.slogdet(np.eye(count) + scaled)[1] / count
        return found


def tangent_kernel(
    graph: Graph,
    ports: Ports,
    loss: Loss,
    layers: Layers,
    split: Split,
    *,
    ratios: Sequence[Fraction],
    parameters: Mapping[str, np.ndarray] | None = None,
    orders: Orders | None = None,
) -> TangentKernel:
    """The kernel of every layer on the samples of `split`, one pass for each.

    `graph` is the float forward graph, `layers` are its layers; `parameters` as in `scores.score`,
    `orders` as in `Layers.spec`.
    """
    known = [p.value for each in (*layers.body, layers.head) for p in (each.weight, each.bias) if p]
    derivatives = sensitivities(with_parameters(graph, parameters or {}), loss, known, ports)
    parts = {layer.path: _slices(layer, ratios, orders or {}) for layer in layers.body}
    x, y = ports.inputs[0].to_program(split[0]), split[1]
    source, target = (value.name for value in derivatives.inputs)
    dtype = graph.inputs[0].type.dtype.numpy
    losses: list[float] = []
    rows: dict[Value, list[list[np.ndarray]]] = {value: [] for value in known}
    for index in range(len(x)):
        feed = {
            source: x[index : index + 1].astype(dtype),
            target: y[index : index + 1].astype(np.int32),
        }
        with np.errstate(over="ignore", invalid="ignore"):  # of a head that diverged
            results = evaluate(derivatives, feed).outputs
        losses.append(float(np.asarray(results[0]).sum()))
        gradients = dict(zip(known, results[1:], strict=True))
        for layer in layers.body:
            value, axis = layer.weight.value, layer.weight.channel_axis
            assert axis is not None
            gradient = np.moveaxis(np.asarray(gradients.pop(value)), axis, 0)
            rows[value].append([sketch(gradient[part]) for part in parts[layer.path]])
        for value, gradient in gradients.items():
            rows[value].append([sketch(np.asarray(gradient))])

    def kernels(value: Value) -> np.ndarray:
        """Of the first part, the first two, and so on."""
        each = [np.stack(part).astype(np.float64) for part in zip(*rows.pop(value), strict=True)]
        return np.cumsum([part @ part.T for part in each], axis=0)

    nothing = np.zeros((len(x), len(x)))
    head = [kernels(p.value)[0] for p in (layers.head.weight, layers.head.bias) if p]
    return TangentKernel(
        layers,
        np.array(losses),
        sum(head, nothing),
        {each.path: kernels(each.bias.value)[0] if each.bias else nothing for each in layers.body},
        {
            (layer.path, ratio): kernel
            for layer in layers.body
            for ratio, kernel in zip(sorted(ratios), kernels(layer.weight.value), strict=True)
        },
    )


def _slices(layer: Layer, ratios: Sequence[Fraction], orders: Orders) -> list[list[int]]:
    """The input channels that each ratio trains beyond those of the smaller ones."""
    order = list(orders.get(layer.path, range(layer.channels)))
    ends = [0, *(layer.count(ratio) for ratio in sorted(ratios))]
    return [order[start:stop] for start, stop in pairwise(ends)]


def sketch(gradient: np.ndarray) -> np.ndarray:
    """The numbers of a gradient, or as many as `SKETCH` that stand for them."""
    flat = gradient.ravel()
    if flat.size <= SKETCH:
        return flat
    places, signs = _hash(flat.size)
    return np.bincount(places, flat * signs, SKETCH).astype(np.float32)


@lru_cache(maxsize=64)
def _hash(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    return rng.integers(0, SKETCH, count, np.int16), rng.integers(0, 2, count, np.int8) * 2 - 1
