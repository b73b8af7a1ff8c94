"""Schemes that differ little from another, where corrected contributions err least, and the best
that is reached by such steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations, islice

import numpy as np

from kilograd.search.correction import Gains, chosen_rows
from kilograd.search.integer import SLACK, TOLERANCE
from kilograd.search.layers import Layers
from kilograd.search.limits import Limits, fits
from kilograd.search.resources import ResourceModel
from kilograd.search.rows import Option
from kilograd.search.scheme import Scheme

CHANGES = 2
"""Such as one layer for another."""
_AT_ONCE = 512
"""Schemes that are told apart exactly at a time."""
_REFUSED = 16
"""After how many that are not accepted a climb ends."""
_KNOWN = 3
"""How many of those that were planned before it tries then."""
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
    accept: Callable[[Scheme], bool],
    seconds: float = math.inf,
) -> Scheme:
    """The scheme that is reached from `scheme`, which is within the limits, by single changes while
    one gains more, by two where none does, until none that is near is known to gain more.

    Bounds, and what the model learned, tell on the way what is too large; what is reached is for
    `accept` to tell. Where it refuses, the climb goes on at the best that is near and may fit.
    After many refusals, or `seconds`, it is the first accepted of the few best that were planned.
    """
    deadline, refused = time.perf_counter() + seconds, set[Scheme]()
    (least,) = gains.of_schemes([scheme])
    reached = _top(scheme, least, gains, model, limits, reserve_bytes, refused, deadline)
    while reached is not None and reached != scheme:
        if accept(reached):
            if gains.of_schemes([reached])[0] > least:
                return reached
            break
        refused.add(reached)
        if len(refused) == _REFUSED:
            break
        model.learn(reached)
        reached = _top(reached, -math.inf, gains, model, limits, reserve_bytes, refused, deadline)
    if reached == scheme:
        return scheme
    chosen = {*gains.options}
    known = [
        each
        for each in model.planned
        if each not in refused
        and chosen.issuperset(each.weights)
        and fits(each, model, limits, reserve_bytes)
    ]
    values = gains.of_schemes(known)
    best = (known[int(place)] for place in np.argsort(-values) if values[place] > least)
    return next((each for each in islice(best, _KNOWN) if accept(each)), scheme)


def _top(
    scheme: Scheme,
    gain: float,
    gains: Gains,
    model: ResourceModel,
    limits: Limits,
    reserve_bytes: int,
    refused: Collection[Scheme],
    deadline: float,
) -> Scheme | None:
    """Where a climb from a scheme of that gain ends, by bounds; a gain of -inf leaves it in any
    case. None where there is no way from it, or no time.
    """
    reached, changes = scheme, 1 if gain > -math.inf else CHANGES
    while changes <= CHANGES:
        if time.perf_counter() > deadline:
            return None
        near = _ranked(reached, gains, model, limits, reserve_bytes, changes, assume=True)
        best, more = next((each for each in near if each[0] not in refused), (reached, gain))
        if more > gain + TOLERANCE:
            reached, gain, changes = best, more, 1
        else:
            changes += 1
    return None if gain == -math.inf else reached


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
    depths, chosen = chosen_rows(schemes, len(options))
    rows = model.rows
    if assume:
        rows = replace(rows, arena=(*rows.arena, *model.learned))
    least = rows.least_bytes_of_all(depths, chosen, options)
    possible = least <= limits.sram_bytes - reserve_bytes
    for limit in limits.step:
        taken = model.costs(limit.quantity).least.values(depths, chosen, options)
        possible &= taken <= limit.most * (1 + SLACK)
    alone = gains.of(*chosen_rows(single, len(options))) - gains.of_schemes([scheme])
    promised = np.array([sum(alone[number] for number in numbers) for numbers in near.values()])
    order = np.argsort(-promised, kind="stable")
    order = order[possible[order]]
    for start in range(0, len(order), _AT_ONCE):
        block = order[start : start + _AT_ONCE]
        exact = gains.of(depths[block], chosen[block])
        for place in np.argsort(-exact, kind="stable"):
            k, numbers = schemes[block[place]]
            yield Scheme.of(k, dict(options[number] for number in numbers)), float(exact[place])


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
