"""Trainings that decide: which rate, and which of the schemes that selection found.

Contributions are summed as if they were independent, so the largest sum need not be the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kilograd.search.found import Found
from kilograd.search.layers import Layers
from kilograd.search.measure import Bench, gain


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


def trained(bench: Bench, found: Found, seeds: int, rates: Sequence[float]) -> Found:
    """The same with all schemes of the front and by hand trained, and the one that gains most as
    the best; of equal ones the smallest.

    Contributions are summed as if they were independent, and those of "fast" are predictions, so
    the largest sum need not be the best scheme. Many layers that learn at once overshoot at a rate
    that each bears alone, so each scheme, and the head alone, has the best of `rates` and a third
    of the smallest; of equal ones the smallest.
    """
    known = sorted((*found.front, *found.by_hand), key=lambda point: point.sram_bytes)
    specs = [found.layers.spec(0, {}), *map(found.spec_of, known)]
    tried = sorted({*rates, min(rates) / 3})
    accuracies = np.array(
        [
            [
                [score.accuracy for score in row]
                for row in bench.at(rate).scores(
                    specs, range(seeds), f"training the schemes, lr {rate:g}"
                )
            ]
            for rate in tried
        ]
    )
    best_of = accuracies.mean(axis=2).argmax(axis=0)
    head, *schemes = (accuracies[rate, i] for i, rate in enumerate(best_of))
    points = [
        replace(point, realised=gain(scores - head), lr=tried[rate])
        for point, scores, rate in zip(known, schemes, best_of[1:], strict=True)
    ]
    best = max(points, key=lambda p: p.realised.mean if p.realised else 0.0)
    return replace(
        found,
        best=best,
        front=tuple(point for point in points if point.kind == "found"),
        by_hand=tuple(point for point in points if point.kind != "found"),
    )
