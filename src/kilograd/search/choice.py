"""The schemes to try: by contributions at several limits, beside trained ones, and two by hand."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kilograd.search.correction import Correction, Gains
from kilograd.search.found import Point
from kilograd.search.limits import Limits, fits, too_much
from kilograd.search.neighbours import climb, neighbours
from kilograd.search.points import biases_only, last_layers
from kilograd.search.resources import ResourceModel
from kilograd.search.scheme import Scheme
from kilograd.search.select import select
from kilograd.search.table import Contributions

FRONT_POINTS = 6


@dataclass(frozen=True, eq=False)
class Chooser:
    """Chooses schemes of a model within `limits`, by contributions, and by gains that correct them;
    a choice takes `seconds` at most, and what linking takes.
    """

    model: ResourceModel
    limits: Limits
    seconds: float = 60.0

    @property
    def sram_bytes(self) -> int:
        """The SRAM that there is."""
        return self.limits.sram_bytes

    def within(self, sram_bytes: int) -> Chooser:
        """The same with another limit on SRAM."""
        return replace(self, limits=replace(self.limits, sram_bytes=sram_bytes))

    def inside(self, points: Iterable[Point]) -> list[Point]:
        """Those that need no more SRAM than there is, what gained most when trained first; of equal
        ones the smaller.
        """
        fitting = [point for point in points if point.sram_bytes <= self.sram_bytes]
        return sorted(fitting, key=lambda point: (-point.realised_mean, point.sram_bytes))

    def best(self, table: Contributions) -> Point:
        """The scheme of the largest sum."""
        chosen = select(table, self.model, self.limits, seconds=self.seconds)
        return self._point(chosen.scheme, table, 0.0 if chosen.proven else chosen.gap, "found")

    def foretold(self, foretold: Contributions, table: Contributions) -> Point:
        """The scheme of the largest sum of foretold contributions, of what `table` has."""
        known = {key: gain for key, gain in foretold.weights.items() if key in table.weights}
        best = self.best(replace(foretold, weights=known))
        return replace(best, gain=best.scheme.gain(table), gap=0.0, kind="foretold")

    def beside(
        self, trained: Iterable[Point], known: Collection[Scheme], gains: Gains
    ) -> Point | None:
        """The first of the `neighbours` of the trained scheme within the limits that gained most,
        without the known; None where there is none, or none was found in time.
        """
        inside = self.inside(trained)
        if not inside:
            return None
        near = neighbours(
            inside[0].scheme, gains, self.model, self.limits,
            known=known, reserve_bytes=self._reserve_bytes, seconds=self.seconds,
        )  # fmt: skip
        points = (self._linked(each, gains.table, "refined") for each in near)
        return next((point for point in points if point), None)

    def reached(self, trained: Iterable[Point], gains: Gains) -> Point | None:
        """What small changes reach from the best of the trained schemes within the limits, by
        `gains`; None where there is none.
        """
        inside = [point.scheme for point in self.inside(trained)]
        if not inside:
            return None

        def accept(scheme: Scheme) -> bool:
            within = fits(scheme, self.model, self.limits, self._reserve_bytes)
            return within and self._linked(scheme, gains.table, "refined") is not None

        start = inside[int(np.argmax(gains.of_schemes(inside)))]
        best = climb(
            start, gains, self.model, self.limits,
            reserve_bytes=self._reserve_bytes, accept=accept, seconds=self.seconds,
        )  # fmt: skip
        return self._linked(best, gains.table, "refined")

    def by_hand(self, table: Contributions) -> tuple[Point, ...]:
        """The biases of as many of the last layers as fit, and as many of the last layers whole."""
        points = []
        for kind, make in (("biases", biases_only), ("last layers", last_layers)):
            low, high = 0, len(self.model.layers.paths)
            while low < high:
                middle = (low + high + 1) // 2
                scheme = make(self.model, middle)
                if fits(scheme, self.model, self.limits, self._reserve_bytes):
                    low = middle
                else:
                    high = middle - 1
            scheme = make(self.model, low)
            measured = all(option in table.weights for option in scheme.weights)
            if low and measured and (point := self._linked(scheme, table, kind)):
                points.append(point)
        return tuple(points)

    @property
    def _reserve_bytes(self) -> int:
        head = Scheme(0)
        return self.model.linked(head).sram_bytes - self.model.static_bytes(head)

    def _linked(self, scheme: Scheme, table: Contributions, kind: str) -> Point | None:
        """The point of a scheme, None where its linked program is too large."""
        point = self._point(scheme, table, 0.0, kind)
        large = too_much(point.sram_bytes, self.sram_bytes)
        return None if large or too_much(point.flash_bytes, self.limits.flash_bytes) else point

    def _point(self, scheme: Scheme, table: Contributions, gap: float, kind: str) -> Point:
        measured, step = self.model.linked(scheme), self.model.step(scheme)
        return Point(
            biases=scheme.biases,
            weights=dict(scheme.weights),
            gain=scheme.gain(table),
            sram_bytes=measured.sram_bytes,
            flash_bytes=measured.flash_bytes,
            step_seconds=step.seconds,
            step_joules=step.joules,
            gap=gap,
            kind=kind,
        )


def ladder(chooser: Chooser, most_bytes: int, steps: int) -> tuple[int, ...]:
    """SRAM limits below the chooser's and `most_bytes`, `steps` evenly spaced ones from what the
    head alone needs.
    """
    least = chooser.model.linked(Scheme(0)).sram_bytes
    limits = dict.fromkeys(least + (most_bytes - least) * step // steps for step in range(steps))
    return tuple(sram for sram in limits if sram < chooser.sram_bytes)


def refined(
    choosers: Sequence[Chooser],
    correction: Correction,
    trained: Sequence[Point],
    rng: np.random.Generator,
) -> tuple[Point, ...]:
    """What each would have trained next: the best that is reached by gains drawn at random, and by
    their means one beside the trained scheme that gained most; without those that were trained.
    """
    known = {point.scheme for point in trained}
    fresh: list[Point] = []
    for chooser in choosers:
        drawn = chooser.reached(trained, correction.draw(rng))
        if drawn is not None and drawn.scheme not in known:
            known.add(drawn.scheme)
            fresh.append(drawn)
        near = chooser.beside(trained, known, correction.mean)
        if near is not None:
            known.add(near.scheme)
            fresh.append(near)
    return tuple(fresh)
