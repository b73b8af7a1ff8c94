"""Trainings that decide: which rate, and which of the schemes that selection found.

Contributions are summed as if they were independent, so the largest sum need not be the best. What
schemes gain when they are trained corrects the contributions, and tells which to train next.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kilograd.search.choice import Chooser, refined
from kilograd.search.correction import correct
from kilograd.search.foretold import Foretold
from kilograd.search.found import Found, Point
from kilograd.search.layers import Layers
from kilograd.search.measure import Bench, gain
from kilograd.search.scheme import Scheme
from kilograd.update import Spec

JUDGED = ((8, 2), (4, 4), (2, 8))
"""How many of the best are trained again, and with how many times the seeds in all."""


def best_rate(bench: Bench, layers: Layers, rates: Sequence[float], seeds: int) -> Bench:
    """The bench with the rate at which the head alone and the head with all biases do best, on
    average; ties go to the smaller rate.
    """
    specs = [layers.spec(0, {}), layers.spec(len(layers.body), {})]
    tried = [bench.at(rate) for rate in sorted(set(rates))]
    means = []
    for place in tried:
        scores = place.scores(specs, range(seeds), f"trying lr {place.training.lr:g}")
        means.append(sum(score.accuracy for row in scores for score in row))
    return tried[means.index(max(means))]


def trained(
    bench: Bench,
    found: Found,
    choosers: Sequence[Chooser],
    seeds: int,
    rates: Sequence[float],
    rounds: int,
    foretold: Foretold | None = None,
) -> Found:
    """The same with all its schemes trained, what `choosers` would have trained next in `rounds`
    rounds by contributions that all trainings so far have corrected, with what is `foretold` of
    whole schemes at each rate, and as the answer at each limit the scheme that gains most; of equal
    ones the smallest.

    Of many schemes the one that gains most has been lucky, too: the best are trained with as many
    seeds again, and so on with the better half of them until two are left; all seeds decide
    (successive halving, Jamieson and Talwalkar, AISTATS 2016).

    Contributions are summed as if they were independent, and those of "fast" are predictions, so
    the largest sum need not be the best scheme. Many layers that learn at once overshoot at a rate
    that each bears alone, so each scheme, and the head alone, has the best of `rates` and a third
    of the smallest, tried from the largest on until one is worse. Rounds end where nothing is left
    to train.
    """
    start = time.perf_counter()
    trial = _Trial(bench, found, seeds, sorted({*rates, min(rates) / 3}))
    points = trial.run([*found.front, *found.foretold, *found.by_hand])
    rng, table = np.random.default_rng(0), found.contributions.distinct(found.layers)
    wholes = [replace(foretold, rates=bench.at(r).rates) for r in trial.rates] if foretold else []
    for _ in range(rounds if table.layers else 0):
        realised = {p.scheme: p.realised for p in points if p.realised}
        fresh = refined(choosers, correct(table, realised, wholes), points, rng)
        if not fresh:
            break
        points += trial.run([replace(p, gain=p.scheme.gain(table)) for p in fresh])
    asked = [each for each in choosers if each.sram_bytes in found.answers]
    again, answers = _judged(trial, asked, points)
    points = [again.get(point.scheme, point) for point in points]

    def of(*kinds: str) -> tuple[Point, ...]:
        return tuple(point for point in points if point.kind in kinds)

    return replace(
        found,
        best=answers[choosers[0].sram_bytes],
        answers=answers,
        front=of("found"),
        foretold=of("foretold"),
        refined=of("refined"),
        by_hand=of("biases", "last layers"),
        seconds=(*found.seconds[:2], time.perf_counter() - start),
    )


def _judged(
    trial: _Trial, choosers: Sequence[Chooser], points: Sequence[Point]
) -> tuple[dict[Scheme, Point], dict[int, Point]]:
    """The points that were trained again, and the answer of each chooser by its limit: of all that
    are left at any limit, the best inside.
    """
    again: dict[Scheme, Point] = {}
    left = {each: each.inside(points) for each in choosers}
    last: list[Point] = []
    for count, times in JUDGED:
        chosen = {p.scheme: p for those in left.values() for p in those[:count]}
        last = trial.again([*chosen.values()], times)
        again |= {point.scheme: point for point in last}
        left = {each: each.inside(again[p.scheme] for p in left[each][:count]) for each in left}
    by_size = sorted(choosers, key=lambda each: each.sram_bytes)
    return again, {each.sram_bytes: each.inside(last)[0] for each in by_size}


class _Trial:
    """Trains schemes, each at all rates."""

    def __init__(self, bench: Bench, found: Found, seeds: int, rates: Sequence[float]) -> None:
        self._bench, self._found, self.rates = bench, found, rates
        self._seeds = range(seeds)
        self._spec = found.layers.spec(0, {})
        (self._head,), (self._rate,) = self._best([self._spec], "training the head")

    def run(self, points: Sequence[Point]) -> list[Point]:
        """The points with what they gain over the head alone, each at the rate best for it."""
        what = "training the schemes"
        scores, rates = self._best(list(map(self._found.spec_of, points)), what)
        return [
            replace(point, realised=gain(row - self._head), lr=rate)
            for point, row, rate in zip(points, scores, rates, strict=True)
        ]

    def again(self, points: Sequence[Point], times: int) -> list[Point]:
        """The points with what they gain with so many times the seeds, each at its rate."""
        what, seeds = "training the best again", range(times * len(self._seeds))
        (head,) = self._accuracies([self._spec], self._rate, seeds, what)
        judged = []
        for rate in self.rates:
            those = [point for point in points if point.lr == rate]
            rows = self._accuracies(list(map(self._found.spec_of, those)), rate, seeds, what)
            pairs = zip(those, rows, strict=True)
            judged += [replace(point, realised=gain(row - head)) for point, row in pairs]
        return judged

    def _best(self, specs: Sequence[Spec], what: str) -> tuple[np.ndarray, list[float]]:
        """The accuracies of each spec with each seed at its best rate, and the rates: from the
        largest on, smaller ones are tried until one is worse.
        """
        best = np.full((len(specs), len(self._seeds)), -np.inf)
        rates, climbing = np.zeros(len(specs)), list(range(len(specs)))
        for rate in sorted(self.rates, reverse=True):
            rows = self._accuracies([specs[i] for i in climbing], rate, self._seeds, what)
            better = rows.mean(axis=1) >= best[climbing].mean(axis=1)
            climbing = [index for index, each in zip(climbing, better, strict=True) if each]
            best[climbing], rates[climbing] = rows[better], rate
        return best, rates.tolist()

    def _accuracies(
        self, specs: Sequence[Spec], rate: float, seeds: Sequence[int], what: str
    ) -> np.ndarray:
        """Accuracies [specs, seeds] at a rate."""
        scores = self._bench.at(rate).scores(specs, seeds, f"{what}, lr {rate:g}")
        table = [[score.accuracy for score in row] for row in scores]
        return np.array(table).reshape(len(specs), len(seeds))
