"""Schemes that differ little from one that was trained: where corrected contributions err least."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from itertools import combinations

import numpy as np

from kilograd.search.integer import SLACK
from kilograd.search.layers import Layers
from kilograd.search.limits import Limits, fits
from kilograd.search.resources import ResourceModel
from kilograd.search.rows import Option
from kilograd.search.scheme import Scheme
from kilograd.search.table import Contributions

CHANGES = 2
"""Such as one layer for another."""


def neighbours(
    scheme: Scheme,
    table: Contributions,
    model: ResourceModel,
    limits: Limits,
    *,
    known: Collection[Scheme],
    reserve_bytes: int,
    seconds: float = math.inf,
) -> Iterator[Scheme]:
    """The schemes at most two changes from `scheme` that are not known and whose planned programs
    are within the limits with `reserve_bytes` of stack and other data, the largest sum first.

    A change gives one layer another ratio of its weight, or none, or trains the biases of another
    number of layers. Biases follow the weights that need them. It ends after `seconds`.
    """
    options = list(table.weights)
    near = sorted(set(_changed(scheme, options, model.layers)))
    chosen = np.zeros((len(near), len(options)))
    for row, (_, numbers) in zip(chosen, near, strict=True):
        row[list(numbers)] = 1.0
    depths = np.array([biases for biases, _ in near])
    weights = np.array([table.weights[option].mean for option in options])
    biases = np.array([table.bias_gain(k) for k in range(len(model.layers.paths) + 1)])
    gains = biases[depths] + chosen @ weights
    least = model.rows.least_bytes_of_all(depths, chosen, options)
    possible = least <= limits.sram_bytes - reserve_bytes
    for limit in limits.step:
        taken = model.costs(limit.quantity).least.values(depths, chosen, options)
        possible &= taken <= limit.most * (1 + SLACK)
    deadline = time.perf_counter() + seconds
    for index in np.argsort(-gains, kind="stable"):
        if time.perf_counter() > deadline:
            return
        if possible[index]:
            k, numbers = near[index]
            each = Scheme.of(k, dict(options[number] for number in numbers))
            if each not in known and each != scheme and fits(each, model, limits, reserve_bytes):
                yield each


def _changed(
    scheme: Scheme, options: Sequence[Option], layers: Layers
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Numbers of biases, and of the options that are chosen."""
    places = {path: i for i, path in enumerate(layers.paths)}
    needed = [layers.biases_from(path) for path in layers.paths]
    of_layer = [places[path] for path, _ in options]
    none, depth = -1, len(places)
    own = [none] * len(places) + [scheme.biases]
    for option in scheme.weights:
        own[places[option[0]]] = options.index(option)
    changes = [
        *((layer, number) for number, layer in enumerate(of_layer) if own[layer] != number),
        *((layer, none) for layer in places.values() if own[layer] != none),
        *((depth, k) for k in range(len(places) + 1) if k != scheme.biases),
    ]
    for count in range(1, CHANGES + 1):
        for some in combinations(changes, count):
            if len({place for place, _ in some}) == count:
                changed = own.copy()
                for place, value in some:
                    changed[place] = value
                numbers = tuple(number for number in changed[:depth] if number != none)
                deep = max((needed[of_layer[number]] for number in numbers), default=0)
                yield max(deep, changed[depth]), numbers
