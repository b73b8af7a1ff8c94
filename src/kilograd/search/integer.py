"""The choice of a scheme as an integer program: rows of bytes and of costs, within limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kilograd.planning.remat.highs import minimise
from kilograd.planning.remat.linear import FloatArray, LinearModel
from kilograd.search.resources import ResourceModel
from kilograd.search.rows import Option, Row
from kilograd.search.scheme import Scheme
from kilograd.search.table import Contributions

TOLERANCE = 1e-7
"""Gains closer than this are the same."""

SLACK = 1e-9
"""By what share of it a limit on costs may be exceeded, for the sake of rounding."""

_UNITS = 1e5
"""What limits on costs are scaled to."""


@dataclass(frozen=True)
class Answer:
    """The best scheme, None where there is none or the time was too short, and a bound."""

    scheme: Scheme | None
    bound: float


class SchemeProgram:
    """The integer program: a binary for each depth of the biases, and for each option."""

    def __init__(self, contributions: Contributions, model: ResourceModel) -> None:
        """Without limits but what a scheme is."""
        self._linear = LinearModel()
        self._paths = model.layers.paths
        self._state = model.rows.state
        self._depths = [
            self._linear.binary(-contributions.bias_gain(k)) for k in range(len(self._paths) + 1)
        ]
        self._options: dict[Option, int] = {
            (path, ratio): self._linear.binary(-contributions.weights[path, ratio].mean)
            for path in self._paths
            for ratio in contributions.ratios(path)
        }
        self._shared: dict[frozenset[Option], int] = {}
        self._unless: dict[tuple[int, frozenset[Option]], int] = {}
        self._linear.row(dict.fromkeys(self._depths, 1.0), 1.0, 1.0)
        for path in self._paths:
            columns = dict.fromkeys(self._of(path), 1.0)
            deep = {self._depths[k]: -1.0 for k in range(self._k_of(path), len(self._depths))}
            if columns:
                self._linear.row(columns | deep, upper=0.0)

    def _of(self, path: str) -> list[int]:
        return [column for (layer, _), column in self._options.items() if layer == path]

    def _k_of(self, path: str) -> int:
        return len(self._paths) - self._paths.index(path)

    def at_most(self, row: Row | None, most: float) -> None:
        """A row of the arena, or None for nothing, and the state are at most so much."""
        rows = [self._state] if row is None else [self._state, row]
        sizes: dict[Option, float] = {
            option: sum(r.options.get(option, 0) for r in rows) for option in self._options
        }
        self._add(rows, sizes, row, most)

    def at_most_cost(self, row: Row, most: float) -> None:
        """A row of costs is at most so much, or more by a share of `SLACK`."""
        scaled = row.times(_UNITS / most)  # solvers have absolute tolerances
        sizes = {option: scaled.options.get(option, 0) for option in self._options}
        self._add([scaled], sizes, scaled, _UNITS * (1 + SLACK))

    def _add(
        self, rows: Sequence[Row], sizes: Mapping[Option, float], more: Row | None, most: float
    ) -> None:
        """The rows and the sizes of options, with what `more` adds for several of them."""
        shared, unless = (more.shared, more.unless) if more else ({}, {})
        coefficients = {
            self._options[option]: float(size) for option, size in sizes.items() if size
        }
        for any_of, size in shared.items():
            known = frozenset(any_of & self._options.keys())
            if known:
                column = self._any(known)
                coefficients[column] = coefficients.get(column, 0.0) + size
        for (first, any_of), size in unless.items():
            column = self._none(first, frozenset(any_of & self._options.keys()))
            coefficients[column] = coefficients.get(column, 0.0) + size
        binding = False
        for k, (column, room) in enumerate(
            zip(self._depths, self._largest(sizes, shared, unless), strict=True)
        ):
            bases = [row.base[k] for row in rows]
            if any(base is None for base in bases):
                coefficients[column] = most - room  # with this depth the row does not hold
                continue
            base = float(sum(base or 0 for base in bases))
            binding = binding or base + room > most
            coefficients[column] = base
        if binding:
            self._linear.row(coefficients, upper=most)

    def _largest(
        self,
        sizes: Mapping[Option, float],
        shared: Mapping[frozenset[Option], float],
        unless: Mapping[tuple[int, frozenset[Option]], float],
    ) -> list[float]:
        """The most that the options of the last k layers can add, for each k."""
        best = dict.fromkeys(self._paths, 0.0)
        for (layer, _), size in sizes.items():
            best[layer] = max(best[layer], size)
        result = [float(sum(shared.values()))]
        for path in reversed(self._paths):
            result.append(result[-1] + best[path])
        return [
            size + sum(more for (first, _), more in unless.items() if first <= k)
            for k, size in enumerate(result)
        ]

    def _any(self, options: frozenset[Option]) -> int:
        """A column that is 1 where any of the options is chosen."""
        if options not in self._shared:
            column = self._shared[options] = self._linear.continuous()
            for option in options:
                self._linear.row({self._options[option]: 1.0, column: -1.0}, upper=0.0)
        return self._shared[options]

    def _none(self, first: int, options: frozenset[Option]) -> int:
        """A column that is 1 from so many biases on where none of the options is chosen."""
        key = (first, options)
        if key not in self._unless:
            column = self._unless[key] = self._linear.continuous()
            coefficients = dict.fromkeys(self._depths[first:], 1.0)
            coefficients |= {self._options[option]: -1.0 for option in options}
            self._linear.row(coefficients | {column: -1.0}, upper=0.0)
        return self._unless[key]

    def cut_off(self, scheme: Scheme, *, with_larger: bool) -> None:
        """Exclude a scheme, and with it those that train as much of each layer, or more."""
        weights = dict(scheme.weights)
        coefficients: dict[int, float] = {}
        needed = 1
        last = len(self._depths) if with_larger else scheme.biases + 1
        coefficients |= dict.fromkeys(self._depths[scheme.biases : last], 1.0)
        for (layer, ratio), column in self._options.items():
            if ratio == weights.get(layer) or (with_larger and ratio > weights.get(layer, 1)):
                coefficients[column] = 1.0
            elif layer not in weights and not with_larger:
                coefficients[column] = -1.0
        needed += len(weights)
        self._linear.row(coefficients, upper=needed - 1.0)

    def solve(self, seconds: float, best: Scheme) -> Answer:
        """The scheme of the largest gain, and a bound; no scheme where the time was too short."""
        answer = minimise(
            self._linear,
            seconds=max(seconds, 0.0),
            absolute_gap=TOLERANCE / 2,
            hint=self._point(best),
        )
        bound = -answer.bound if math.isfinite(answer.bound) else math.inf
        if answer.status == "infeasible":
            return Answer(None, -math.inf)
        if answer.values is None:
            return Answer(None, bound)
        (biases,) = (k for k, column in enumerate(self._depths) if answer.values[column] > 0.5)
        chosen = {
            layer: ratio
            for (layer, ratio), column in self._options.items()
            if answer.values[column] > 0.5
        }
        return Answer(Scheme.of(biases, chosen), bound)

    def _point(self, scheme: Scheme) -> FloatArray:
        point = np.zeros(len(self._linear.cost))
        point[self._depths[scheme.biases]] = 1.0
        for option in scheme.weights:
            point[self._options[option]] = 1.0
        for options, column in self._shared.items():
            point[column] = float(any(option in scheme.weights for option in options))
        for (first, options), column in self._unless.items():
            chosen = any(option in scheme.weights for option in options)
            point[column] = float(scheme.biases >= first and not chosen)
        return point
