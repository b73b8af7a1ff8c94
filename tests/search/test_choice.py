"""What a search has trained next: within limits, beside the best trained scheme, and by draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kilograd.search.choice import Chooser, ladder, refined
from kilograd.search.correction import Correction, Gains, correct
from kilograd.search.found import Point, undominated
from kilograd.search.limits import Limits
from kilograd.search.resources import ResourceModel
from kilograd.search.scheme import Scheme
from kilograd.search.select import select
from kilograd.search.table import Gain
from tests.search.test_select import every_scheme, table
from tests.search.test_step_limits import PLENTY, model_of


@pytest.fixture(scope="module")
def model() -> ResourceModel:
    return model_of("chain", "int8")


def trained(model: ResourceModel, scheme: Scheme, gained: float) -> Point:
    """A point of a scheme as a trial leaves it."""
    measured = model.linked(scheme)
    return Point(
        scheme.biases, dict(scheme.weights), 0.0, measured.sram_bytes, measured.flash_bytes,
        realised=Gain(gained, 0.01, 3), lr=0.01,
    )  # fmt: skip


def schemes_of(points) -> list[Scheme]:
    return [point.scheme for point in points]


def test_beside_the_trained_scheme_that_gained_most_of_those_that_fit(model):
    """The largest is best and too large, the next is the centre, whatever is larger or smaller."""
    contributions = Gains(table(model, 1))
    by_size = sorted(every_scheme(model), key=model.static_bytes)
    small, middle, large = (
        trained(model, by_size[index], gained)
        for index, gained in ((2, 0.0), (len(by_size) // 2, 0.2), (-1, 0.5))
    )
    chooser = Chooser(model, Limits(middle.sram_bytes))
    known = set(schemes_of((small, middle, large)))
    point = chooser.beside((small, middle, large), known, contributions)
    alone = chooser.beside((middle,), known, contributions)
    assert point == alone and point.scheme not in known and point.kind == "refined"
    assert point.sram_bytes <= middle.sram_bytes
    other = chooser.beside(
        (replace(small, realised=Gain(0.3, 0.01, 3)), middle), known, contributions
    )
    assert other.scheme != point.scheme
    assert chooser.beside((large,), known, contributions) is None, "nothing trained fits"


def test_flash_is_a_limit_of_what_is_beside_and_by_hand(model):
    contributions, centre = table(model, 1), trained(model, Scheme(1), 0.1)
    free = Chooser(model, Limits(PLENTY))
    whole = free.beside((centre,), {centre.scheme}, Gains(contributions))
    assert len(free.by_hand(contributions)) == 2
    tight = Chooser(model, Limits(PLENTY, flash_bytes=whole.flash_bytes - 1))
    point = tight.beside((centre,), {centre.scheme}, Gains(contributions))
    assert point.scheme != whole.scheme and point.flash_bytes < whole.flash_bytes
    least = model.linked(Scheme(0)).flash_bytes
    assert Chooser(model, Limits(PLENTY, flash_bytes=least - 1)).by_hand(contributions) == ()


def test_a_chooser_without_time_finds_nothing_beside(model):
    centre = trained(model, Scheme(1), 0.1)
    chooser = Chooser(model, Limits(PLENTY), seconds=0.0)
    assert chooser.beside((centre,), {centre.scheme}, Gains(table(model, 1))) is None


def test_what_is_reached_starts_at_the_best_that_was_trained_inside(model):
    """Which is where it stays where nothing near is better."""
    contributions = table(model, 1)
    chooser = Chooser(model, Limits(PLENTY))
    best = select(contributions, model, chooser.limits).scheme
    points = [trained(model, Scheme(0), 0.5), trained(model, best, 0.1)]
    point = chooser.reached(points, Gains(contributions))
    assert point.scheme == best and point.kind == "refined"
    assert point.gain == pytest.approx(best.gain(contributions))
    small = chooser.within(points[0].sram_bytes)
    assert small.reached(points[1:], Gains(contributions)) is None, "nothing trained fits"


def test_what_is_reached_fits_when_it_is_linked(model):
    """Its stack may be larger than that of the head, and its flash is known then only."""
    contributions = Gains(table(model, 1))
    start = trained(model, Scheme(0), 0.0)
    largest = model.linked(every_scheme(model)[-1])
    least = model.linked(Scheme(0))
    sram = (least.sram_bytes + largest.sram_bytes) // 2
    flash = largest.flash_bytes - 1
    for limits in (Limits(sram), Limits(PLENTY, flash_bytes=flash)):
        point = Chooser(model, limits).reached([start], contributions)
        best = select(contributions.table, model, limits).scheme
        measured = model.linked(point.scheme)
        assert measured.sram_bytes <= limits.sram_bytes
        assert measured.flash_bytes <= (limits.flash_bytes or PLENTY)
        assert point.gain > 0.8 * best.gain(contributions.table)


def test_a_climb_goes_on_where_linking_refuses(model):
    """The program of the top has more stack than its plan tells, and more than there is."""
    contributions = Gains(table(model, 1))
    start = trained(model, Scheme(0), 0.0)
    top = Chooser(model, Limits(PLENTY)).reached([start], contributions)
    tight = ResourceModel(model.compiler, model.ratios)
    linked = model.linked(top.scheme)
    tight._linked[top.scheme] = replace(linked, stack_bytes=linked.stack_bytes + PLENTY)
    point = Chooser(tight, Limits(PLENTY)).reached([start], contributions)
    assert point.scheme not in (top.scheme, Scheme(0)) and 0 < point.gain <= top.gain


def test_what_the_table_lacks_is_not_reached(model):
    """Layers as a whole are planned for schemes by hand."""
    whole = table(model, 1)
    weights = {key: gain for key, gain in whole.weights.items() if key[1] != 1}
    part = replace(whole, weights=weights)
    fresh = ResourceModel(model.compiler, model.ratios)
    chooser = Chooser(fresh, Limits(PLENTY))
    assert {point.kind for point in chooser.by_hand(part)} == {"biases"}
    start = trained(fresh, Scheme(0), 0.0)
    point = replace(chooser, seconds=0.0).reached([start], Gains(part))
    assert set(point.weights.values()) <= {ratio for _, ratio in weights}


def test_without_time_the_best_that_was_planned_is_reached(model):
    contributions = Gains(table(model, 1))
    fresh = ResourceModel(model.compiler, model.ratios)
    planned = sorted(every_scheme(model), key=lambda s: contributions.of_schemes([s])[0])[-9]
    start = trained(fresh, Scheme(0), 0.0)
    chooser = Chooser(fresh, Limits(PLENTY), seconds=0.0)
    assert chooser.reached([start], contributions).scheme == Scheme(0)
    fresh.static_bytes(planned)
    assert chooser.reached([start], contributions).scheme == planned


def test_one_is_drawn_and_one_is_beside_at_each_limit(model):
    contributions = table(model, 1)
    points = [trained(model, Scheme(k), 0.02 * k) for k in (0, 1, 2)]
    correction = correct(contributions, {p.scheme: p.realised for p in points})
    correction = replace(correction, covariance=0.05**2 * np.eye(len(correction.means)))
    chooser = Chooser(model, Limits(PLENTY))
    largest = model.linked(every_scheme(model)[-1]).sram_bytes
    choosers = (chooser, *map(chooser.within, ladder(chooser, largest, 2)))

    def chosen(seed: int) -> list[Scheme]:
        return schemes_of(refined(choosers, correction, points, np.random.default_rng(seed)))

    rng, expected, known = np.random.default_rng(3), [], set(schemes_of(points))
    for each in choosers:
        drawn = each.reached(points, correction.draw(rng)).scheme
        expected += [drawn] if drawn not in known else []
        known.add(drawn)
        near = each.beside(points, known, correction.mean)
        expected += [near.scheme] if near else []
        known |= set(expected)
    assert chosen(3) == chosen(3) == expected and len(set(expected)) == len(expected) >= 3
    assert not set(expected) & set(schemes_of(points))
    assert len({tuple(chosen(seed)) for seed in range(4)}) > 1, "draws differ"


def test_a_draw_is_the_same_on_every_computer():
    """It does not hang on the last bits of a covariance with equal eigenvalues."""
    rng = np.random.default_rng(0)
    contributions = table(model_of("chain", "int8"), 1)
    count = len(contributions.layers) + len(contributions.weights)
    covariance = 0.01**2 * (np.eye(count) + 0.1)
    nudged = covariance * (1 + 1e-15 * rng.standard_normal(covariance.shape))
    draws = [
        Correction(contributions, np.zeros(count), (each + each.T) / 2).draw(
            np.random.default_rng(1)
        )
        for each in (covariance, nudged)
    ]
    values = [[gain.mean for gain in draw.table.weights.values()] for draw in draws]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-9)
    assert np.std(values[0]) > 1e-3


def test_the_ladder_is_below_its_top(model):
    chooser = Chooser(model, Limits(PLENTY))
    least = model.linked(Scheme(0)).sram_bytes
    assert ladder(chooser, least + 3000, 3) == (least, least + 1000, least + 2000)
    assert ladder(chooser, least + 3000, 0) == ()
    assert ladder(chooser, least, 3) == (least,), "each once"


def test_only_what_is_ahead_of_all_smaller_ones_is_undominated():
    points = [
        Point(k, {}, gain, sram, 0) for k, (sram, gain) in enumerate(((3, 1.0), (1, 0.5), (2, 0.5)))
    ]
    assert [p.sram_bytes for p in undominated(points, lambda p: p.gain)] == [1, 3]
