"""Schemes that differ little from another, where corrected contributions err least, and the best
that is reached by such steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from kilograd.search.correction import Gains
from kilograd.search.integer import SLACK, TOLERANCE
from kilograd.search.layers import Layers
from kilograd.search.limits import Limits, fits
from kilograd.search.resources import ResourceModel
from kilograd.search.rows import FloatArray, IntArray, Option
from kilograd.search.scheme import Scheme

CHANGES = 2
"""Such as one layer for another."""
_AT_ONCE = 512
"""Schemes that are told apart exactly at a time."""
_TOO_LARGE = 16
"""Programs that a climb plans in vain at most."""
_Chosen = tuple[int, tuple[int, ...]]
"""How many biases, and the numbers of the options."""


def neighbours(
    scheme: Scheme,
    gains: Gains,
    model: ResourceModel,
    limits: Limits,
    *,
    reserve_bytes: int,
    known: Collection[Scheme] = (),
    seconds: float = math.inf,
) -> Iterator[Scheme]:
    """The schemes at most two changes from `scheme` that are not known and whose planned programs
    are within the limits with `reserve_bytes` of stack and other data: the largest gain first of
    each few hundred, and those first whose changes gain most one at a time.

    A change gives one layer another ratio of its weight, or none, or trains the biases of another
    number of layers. Biases follow the weights that need them. It ends after `seconds`.
    """
    deadline = time.perf_counter() + seconds
    for each, _ in _ranked(scheme, gains, model, limits, reserve_bytes, CHANGES):
        if time.perf_counter() > deadline:
            return
        if each not in known and fits(each, model, limits, reserve_bytes):
            yield each


def climb(
    scheme: Scheme,
    gains: Gains,
    model: ResourceModel,
    limits: Limits,
    *,
    reserve_bytes: int,
    seconds: float = math.inf,
) -> Scheme:
    """The scheme that is reached from `scheme`, which is within the limits, by single changes while
    one gains more, by two where none does, until nothing that is so near gains more; `scheme`
    itself where that takes more than `seconds`, or too many programs.

    What is too large is told by bounds on the way, and planned at the end. Where it does not fit,
    the best that is near and may fit is where the climb goes on.
    """
    deadline, too_large = time.perf_counter() + seconds, set[Scheme]()
    reached = scheme
    while len(too_large) < _TOO_LARGE:
        changes = CHANGES if too_large else 1
        gain = -math.inf if too_large else gains.of_schemes([scheme])[0]
        while changes <= CHANGES:
            if time.perf_counter() > deadline:
                return scheme
            near = _ranked(reached, gains, model, limits, reserve_bytes, changes, assume=True)
            best, more = next((each for each in near if each[0] not in too_large), (reached, gain))
            if more > gain + TOLERANCE:
                reached, gain, changes = best, more, 1
            else:
                changes += 1
        if reached in too_large:  # nothing near may fit
            break
        if fits(reached, model, limits, reserve_bytes):
            return reached
        too_large.add(reached)
        model.learn(reached)
    return scheme


def _ranked(
    scheme: Scheme,
    gains: Gains,
    model: ResourceModel,
    limits: Limits,
    reserve_bytes: int,
    changes: int,
    *,
    assume: bool = False,
) -> Iterator[tuple[Scheme, float]]:
    """The schemes at most so many changes from `scheme` that could be within the limits, also by
    what the model learned where one may `assume` it, and what they gain, in the order of
    `neighbours`.
    """
    options = gains.options
    near, single = _near(scheme, options, model.layers, changes)
    schemes = [*near]
    depths, chosen = _rows(schemes, len(options))
    rows = model.rows
    if assume:
        rows = replace(rows, arena=(*rows.arena, *model.learned))
    least = rows.least_bytes_of_all(depths, chosen, options)
    possible = least <= limits.sram_bytes - reserve_bytes
    for limit in limits.step:
        taken = model.costs(limit.quantity).least.values(depths, chosen, options)
        possible &= taken <= limit.most * (1 + SLACK)
    alone = gains.of(*_rows(single, len(options))) - gains.of_schemes([scheme])
    promised = np.array([sum(alone[number] for number in numbers) for numbers in near.values()])
    order = np.argsort(-promised, kind="stable")
    order = order[possible[order]]
    for start in range(0, len(order), _AT_ONCE):
        block = order[start : start + _AT_ONCE]
        exact = gains.of(depths[block], chosen[block])
        for place in np.argsort(-exact, kind="stable"):
            k, numbers = schemes[block[place]]
            yield Scheme.of(k, dict(options[number] for number in numbers)), float(exact[place])


def _rows(schemes: Sequence[_Chosen], options: int) -> tuple[IntArray, FloatArray]:
    """Depths [S] and chosen options [S, O] as `Gains.of` takes them."""
    chosen = np.zeros((len(schemes), options))
    for row, (_, numbers) in zip(chosen, schemes, strict=True):
        row[list(numbers)] = 1.0
    return np.array([biases for biases, _ in schemes], int), chosen


def _near(
    scheme: Scheme, options: Sequence[Option], layers: Layers, changes: int
) -> tuple[dict[_Chosen, tuple[int, ...]], list[_Chosen]]:
    """The other schemes, each with the numbers of the changes that make it; and what each change
    makes alone, which may be the same scheme: fewer biases than its weights need.
    """
    places = {path: i for i, path in enumerate(layers.paths)}
    needed = [layers.biases_from(path) for path in layers.paths]
    of_layer = [places[path] for path, _ in options]
    none, depth = -1, len(places)
    own = [none] * len(places) + [scheme.biases]
    for option in scheme.weights:
        own[places[option[0]]] = options.index(option)
    single = [
        *((layer, number) for number, layer in enumerate(of_layer) if own[layer] != number),
        *((layer, none) for layer in places.values() if own[layer] != none),
        *((depth, k) for k in range(len(places) + 1) if k != scheme.biases),
    ]

    def made(some: Iterable[tuple[int, int]]) -> _Chosen:
        changed = own.copy()
        for place, value in some:
            changed[place] = value
        numbers = tuple(number for number in changed[:depth] if number != none)
        deep = max((needed[of_layer[number]] for number in numbers), default=0)
        return max(deep, changed[depth]), numbers

    near: dict[_Chosen, tuple[int, ...]] = {}
    results = [made([change]) for change in single]
    for number, result in enumerate(results):
        near.setdefault(result, (number,))
    for first, second in combinations(range(len(single)), 2) if changes > 1 else ():
        if single[first][0] != single[second][0]:
            near.setdefault(made([single[first], single[second]]), (first, second))
    near.pop(made([]), None)
    return near, results
