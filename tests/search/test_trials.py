"""What decides among trained schemes: the rate of each, and more seeds for the best."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

from kilograd.search.choice import Chooser
from kilograd.search.found import Point
from kilograd.search.limits import Limits
from kilograd.search.store import Score
from kilograd.search.table import Gain
from kilograd.search.trials import _judged, _Trial


def point(size: int, gained: float) -> Point:
    return Point(size, {}, 0.0, size, 0, realised=Gain(gained, 0.0, 3), lr=0.01)


@dataclass
class Again:
    """What points gain with twice, four and eight times the seeds, by size."""

    gains: dict[int, tuple[float, ...]]

    def again(self, points: list[Point], times: int) -> list[Point]:
        def realised(size: int) -> Gain:
            return Gain(self.gains[size][{2: 0, 4: 1, 8: 2}[times]], 0.0, 3 * times)

        return [replace(p, realised=realised(p.sram_bytes)) for p in points]


def choosers(*limits: int) -> list[Chooser]:
    return [Chooser(None, Limits(limit)) for limit in limits]


def test_the_luckiest_are_found_out_and_the_better_half_goes_on():
    """Of nine the last is never trained again, of eight four are left, of four two."""
    points = [point(size, size / 10) for size in range(9, 0, -1)]
    few, lost = (0.2, 1.0, 1.0), (0.6, 0.1, 1.0)
    gains = {9: few, 8: lost, 7: (0.8, 0.5, 0.3), 6: (0.7, 0.6, 0.4), 5: (0.5, 0.4, 1.0)}
    gains |= dict.fromkeys((4, 3, 2), few)
    again, answers = _judged(Again(gains), choosers(9), points)
    runs = {p.biases: p.realised.runs for p in again.values()}
    assert runs == {9: 6, 8: 12, 7: 24, 6: 24, 5: 12, 4: 6, 3: 6, 2: 6}
    assert answers[9].biases == 6 and answers[9].realised == Gain(0.4, 0.0, 24)


def test_more_sram_is_never_answered_by_less():
    """The best within 10 was the last of all by its first seeds."""
    sizes = (*range(30, 20, -1), 10)
    points = [point(size, 0.9 - i / 100) for i, size in enumerate(sizes)]
    gains = {size: (0.3 - i / 100,) * 3 for i, size in enumerate(sizes)} | {10: (0.5, 0.5, 0.5)}
    _, answers = _judged(Again(gains), choosers(30, 10), points)
    assert [limit for limit in answers] == [10, 30]
    assert answers[10].biases == answers[30].biases == 10


@dataclass
class Bench:
    """The accuracy of a scheme, a number of biases, at each rate."""

    accuracies: dict[int, dict[float, float]]
    lr: float = 0.0
    runs: list[tuple[int, float]] | None = None

    def at(self, lr: float) -> Bench:
        return replace(self, lr=lr)

    def scores(self, specs, seeds, what) -> list[list[Score]]:
        self.runs.extend((spec, self.lr) for spec in specs)
        return [[Score(self.accuracies[s][self.lr], 0.0, False) for _ in seeds] for s in specs]


def test_rates_are_tried_from_the_largest_on_until_one_is_worse():
    """Equal ones go to the smaller rate, and what is better below a worse one is not seen."""
    table = {
        0: {0.01: 0.5, 0.03: 0.6, 0.1: 0.4},
        1: {0.01: 0.9, 0.03: 0.1, 0.1: 0.2},
        2: {0.01: 0.3, 0.03: 0.3, 0.1: 0.3},
        3: {0.01: 0.3, 0.03: 0.4, 0.1: 0.2},
    }
    bench = Bench(table, runs=[])
    layers = SimpleNamespace(spec=lambda biases, weights: biases)
    found = SimpleNamespace(layers=layers, spec_of=lambda p: p.biases)
    trial = _Trial(bench, found, 2, [0.01, 0.03, 0.1])
    results = trial.run([replace(point(k, 0.0), realised=None) for k in (1, 2, 3)])
    assert [p.lr for p in results] == [0.1, 0.01, 0.03]
    gains = [p.realised.mean for p in results]
    assert gains == pytest.approx([0.2 - 0.6, 0.3 - 0.6, 0.4 - 0.6])
    assert (1, 0.01) not in bench.runs and (0, 0.01) in bench.runs
    assert all(isinstance(p.realised, Gain) and np.isfinite(p.realised.mean) for p in results)
