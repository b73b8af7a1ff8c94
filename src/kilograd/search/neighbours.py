"""Schemes that differ little from one that was trained: where corrected contributions err least."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from fractions import Fraction
from itertools import combinations

from kilograd.search.layers import Layers
from kilograd.search.resources import ResourceModel
from kilograd.search.scheme import Scheme
from kilograd.search.select import Limits, fits
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
) -> Iterator[Scheme]:
    """The schemes at most two changes from `scheme` that are not known and whose planned programs
    are within the limits with `reserve_bytes` of stack and other data, the largest sum first.

    A change gives one layer another ratio of its weight, or none, or trains the biases of another
    number of layers. Biases follow the weights that need them.
    """
    near = sorted(
        set(_changed(scheme, table, model.layers)).difference(known, {scheme}),
        key=lambda each: (-each.gain(table), each.biases, each.weights),
    )
    most = limits.sram_bytes - reserve_bytes
    for each in near:
        if model.rows.least_bytes(each) <= most and fits(each, model, limits, reserve_bytes):
            yield each


def _changed(scheme: Scheme, table: Contributions, layers: Layers) -> Iterator[Scheme]:
    depth = ""  # no layer's name
    own: dict[str, Fraction | int | None] = dict.fromkeys(layers.paths)
    own |= dict(scheme.weights) | {depth: scheme.biases}
    values: dict[str, tuple[Fraction | int | None, ...]] = {
        path: (None, *table.ratios(path)) for path in layers.paths
    }
    values[depth] = tuple(range(len(layers.paths) + 1))
    changes = [
        (key, value) for key, known in values.items() for value in known if value != own[key]
    ]
    for count in range(1, CHANGES + 1):
        for some in combinations(changes, count):
            changed = own | dict(some)
            if len({key for key, _ in some}) == count:
                weights = {p: Fraction(r) for p in layers.paths if (r := changed[p]) is not None}
                needed = max((layers.biases_from(path) for path in weights), default=0)
                yield Scheme.of(max(needed, int(changed[depth] or 0)), weights)
