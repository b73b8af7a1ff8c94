"""Contributions that trainings of schemes corrected, and the schemes beside a trained one."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from kilograd.planning.step_limits import StepLimit
from kilograd.search.correction import (
    KAPPAS,
    SAME_LAYER,
    SHARE,
    SIGMAS,
    TAUS,
    Gains,
    correct,
)
from kilograd.search.limits import Limits, fits
from kilograd.search.neighbours import CHANGES, climb, neighbours
from kilograd.search.scheme import Scheme
from kilograd.search.table import Contributions, Gain
from tests.search.test_select import every_scheme, model_of, models, table  # noqa: F401
from tests.search.test_step_limits import model_of as on_board

HALF, WHOLE = Fraction(1, 2), Fraction(1)
LAYERS = tuple("abcdefgh")


def made_up(seed: int, spread: float = 0.02) -> tuple[Contributions, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return (
        Contributions(
            "made up",
            LAYERS,
            Gain(0.5),
            {k: Gain(0.005 * k, spread, 4) for k in range(1, len(LAYERS) + 1)},
            {
                (p, r): Gain(rng.normal(0.05, 0.05), spread, 4)
                for p in LAYERS
                for r in (HALF, WHOLE)
            },
            "measured",
        ),
        rng,
    )


def some(rng: np.random.Generator, count: int) -> list[Scheme]:
    """Deep schemes with a third of the layers in them."""
    schemes = set()
    while len(schemes) < count:
        k = int(rng.integers(6, len(LAYERS) + 1))
        inside = [path for path in LAYERS[len(LAYERS) - k :] if rng.random() < 0.35]
        schemes.add(Scheme.of(k, {path: (HALF, WHOLE)[rng.integers(2)] for path in inside}))
    return sorted(schemes, key=str)


@pytest.mark.parametrize("seed", range(5))
def test_schemes_that_were_not_trained_are_foretold_better(seed):
    """Where gains are a share of what was measured, and some layers help none, or harm."""
    contributions, rng = made_up(seed)
    true = {key: Gain(0.4 * gain.mean) for key, gain in contributions.weights.items()}
    for path in ("b", "e"):
        true |= {(path, HALF): Gain(-0.05), (path, WHOLE): Gain(-0.08)}
    truth = Contributions("true", LAYERS, Gain(0.5), contributions.biases, true, "measured")
    schemes = some(rng, 100)
    rng.shuffle(schemes)
    known, left = schemes[:50], schemes[50:]
    realised = {s: Gain(s.gain(truth) + rng.normal(0, 0.005), 0.01, 3) for s in known}
    found = correct(contributions, realised).mean.table

    def error(other: Contributions, scale: float = 1.0) -> float:
        return float(np.mean([(scale * s.gain(other) - s.gain(truth)) ** 2 for s in left])) ** 0.5

    assert error(found) < 0.6 * min(error(contributions, scale) for scale in KAPPAS)
    worst = sorted(found.weights, key=lambda key: found.weights[key].mean)[:4]
    assert {path for path, _ in worst} == {"b", "e"}


def test_the_mean_is_that_of_the_joint_distribution():
    """Against conditioning written out for one layer, with the inverse of the covariance."""
    table_ = Contributions(
        "one", ("a",), Gain(0.5), {1: Gain(0.1, 0.02, 4)},
        {("a", HALF): Gain(0.2, 0.04, 4), ("a", WHOLE): Gain(0.3, 0.06, 4)}, "measured",
    )  # fmt: skip
    realised = {
        Scheme(1): Gain(0.06, 0.02, 4),
        Scheme.of(1, {"a": HALF}): Gain(0.1, 0.03, 4),
    }
    # Half of each variance is the mean of its kind: 0.0026 of the weights, 0.00065 of the schemes.
    m = np.array([0.1, 0.2, 0.3])
    d = np.diag([0.02**2, 0.5 * (0.04**2 + 0.0026), 0.5 * (0.06**2 + 0.0026)]) / 4
    x, y = np.array([[1.0, 0, 0], [1, 1, 0]]), np.array([0.06, 0.1])
    noise = np.diag([0.5 * (0.02**2 + 0.00065), 0.5 * (0.03**2 + 0.00065)]) / 4
    shape = np.array([[1, 0, 0], [0, 1, SAME_LAYER], [0, SAME_LAYER, 1]])
    best = None
    for kappa, tau, sigma in product(KAPPAS, TAUS, SIGMAS):
        prior = tau**2 * shape + kappa**2 * d
        seen = x @ prior @ x.T + noise + sigma**2 * np.eye(2)
        off = y - kappa * x @ m
        score = -0.5 * (off @ np.linalg.inv(seen) @ off + np.log(np.linalg.det(seen)))
        if best is None or score > best[0]:
            share = prior @ x.T @ np.linalg.inv(seen)
            best = score, kappa * m + share @ off, prior - share @ x @ prior
    correction = correct(table_, realised)
    found = correction.mean.table
    means = [found.biases[1].mean, *(found.weights["a", r].mean for r in (HALF, WHOLE))]
    np.testing.assert_allclose(means, best[1], rtol=1e-9)
    rng = np.random.default_rng(0)
    draws = [correction.draw(rng).table for _ in range(4000)]
    rows = np.array(
        [[d.biases[1].mean, *(d.weights["a", r].mean for r in (HALF, WHOLE))] for d in draws]
    )
    np.testing.assert_allclose(rows.mean(axis=0), best[1], atol=0.002)
    np.testing.assert_allclose(np.cov(rows.T), best[2], atol=1e-4)


class Saturating:
    """Gains of whole schemes that are no sums: of many layers each gains less, of single-layer
    values by `seed`.
    """

    def __init__(self, seed: int, layers=LAYERS) -> None:
        rng = np.random.default_rng(seed)
        self.values = {path: rng.uniform(0.0, 0.2) for path in layers}

    def gains(self, depths, chosen, options):
        sums = chosen @ [self.values[path] * float(ratio) ** 0.5 for path, ratio in options]
        return 0.3 * np.tanh(sums / 0.2) + 0.001 * depths


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_what_is_foretold_of_whole_schemes_is_used_as_far_as_it_is_true(share):
    contributions, rng = made_up(0)
    truth, other = Saturating(1), Saturating(2)
    schemes = some(rng, 60)
    rng.shuffle(schemes)

    def gains(which):
        return Gains(contributions, 1.0, which).of_schemes(schemes) - Gains(
            contributions
        ).of_schemes(schemes)

    true = share * gains(truth) + rng.normal(0, 0.003, len(schemes))
    known, left = slice(0, 40), slice(40, 60)
    realised = dict(zip(schemes[known], (Gain(g, 0.005, 3) for g in true[known]), strict=True))
    plain = correct(contributions, realised)
    found = correct(contributions, realised, [other, truth])
    assert found.foretold is truth, "the likelier one of both"
    assert found.mean.share == pytest.approx(share, abs=0.1)

    def error(correction):
        return np.std(correction.mean.of_schemes(schemes[left]) - true[left])

    assert error(found) < 0.5 * error(plain)
    misled = correct(contributions, realised, [other])
    assert error(misled) < 1.1 * error(plain)


def test_the_share_of_what_is_foretold_is_one_more_unknown():
    """Against conditioning written out for one layer."""
    table_ = Contributions(
        "one", ("a",), Gain(0.5), {1: Gain(0.1, 0.02, 4)},
        {("a", WHOLE): Gain(0.3, 0.06, 4)}, "measured",
    )  # fmt: skip
    foretold = Saturating(3, ("a",))
    f = foretold.gains(np.array([1, 1]), np.array([[0.0], [1.0]]), [("a", WHOLE)])
    y = 0.6 * f
    realised = {
        Scheme(1): Gain(y[0], 0.02, 4),
        Scheme.of(1, {"a": WHOLE}): Gain(y[1], 0.02, 4),
    }
    m, d = np.array([0.1, 0.3]), np.diag([0.02**2, 0.06**2]) / 4
    x = np.array([[1.0, 0, f[0]], [1, 1, f[1]]])
    best = None
    for kappa, tau, sigma in product(KAPPAS, TAUS, SIGMAS):
        prior = np.diag([0.0, 0.0, SHARE[1] ** 2])
        prior[:2, :2] = tau**2 * np.eye(2) + kappa**2 * d
        before = np.array([*(kappa * m), SHARE[0]])
        seen = x @ prior @ x.T + np.diag([0.02**2 / 4] * 2) + sigma**2 * np.eye(2)
        off = y - x @ before
        score = -0.5 * (off @ np.linalg.inv(seen) @ off + np.log(np.linalg.det(seen)))
        if best is None or score > best[0]:
            part = prior @ x.T @ np.linalg.inv(seen)
            best = score, before + part @ off, prior - part @ x @ prior
    found = correct(table_, realised, [foretold])
    np.testing.assert_allclose(found.means, best[1], rtol=1e-9)
    np.testing.assert_allclose(found.covariance, best[2], rtol=1e-6, atol=1e-12)
    schemes = [*realised]
    np.testing.assert_allclose(found.mean.of_schemes(schemes), x @ best[1], rtol=1e-9)


def test_what_was_measured_badly_gives_way():
    """Of two layers that gain less together the one with the larger spread is blamed."""
    weights = {("a", WHOLE): Gain(0.1, 0.1, 2), ("b", WHOLE): Gain(0.1, 0.01, 2)}
    contributions = Contributions(
        "two", ("a", "b"), Gain(0.5), {1: Gain(0.0), 2: Gain(0.0)}, weights, "measured"
    )
    both = Scheme.of(2, {"a": WHOLE, "b": WHOLE})
    realised = {
        Scheme(2): Gain(0.0, 0.01, 2),
        Scheme.of(2, {"a": WHOLE}): Gain(0.1, 0.1, 2),
        Scheme.of(2, {"b": WHOLE}): Gain(0.1, 0.01, 2),
        both: Gain(0.1, 0.01, 2),
    }
    found = correct(contributions, realised).mean.table.weights
    assert found["a", WHOLE].mean < found["b", WHOLE].mean - 0.01
    assert found["a", WHOLE].mean + found["b", WHOLE].mean == pytest.approx(0.1, abs=0.03)


def distance(one: Scheme, other: Scheme) -> int:
    first, second = dict(one.weights), dict(other.weights)
    return sum(first.get(path) != second.get(path) for path in first.keys() | second)


@pytest.mark.parametrize("case", [("chain", "int8"), ("residual", "float32")], ids="-".join)
def test_neighbours_are_all_schemes_nearby_that_fit(models, case):  # noqa: F811
    """By brute force over every scheme; biases may follow the weights that need them."""
    model = model_of(models, *case)
    contributions, layers = table(model, 1), model.layers
    centre = max(every_scheme(model), key=lambda s: (len(s.weights) == 2, s.biases, str(s)))
    needs = sorted(model.static_bytes(scheme) for scheme in every_scheme(model))
    limits = Limits(needs[len(needs) // 2] + 100)
    known = {centre, max(every_scheme(model), key=lambda s: s.gain(contributions))}
    found = list(
        neighbours(centre, Gains(contributions), model, limits, known=known, reserve_bytes=100)
    )
    needed = {
        s: max((layers.biases_from(path) for path, _ in s.weights), default=0)
        for s in every_scheme(model)
    }
    near = {
        scheme
        for scheme in every_scheme(model)
        if scheme not in known
        and model.static_bytes(scheme) <= limits.sram_bytes - 100
        and (
            distance(scheme, centre) <= CHANGES - 1
            or (
                distance(scheme, centre) == CHANGES
                and scheme.biases == max(centre.biases, needed[scheme])
            )
        )
    }
    assert set(found) == near and len(found) == len(near) > 10
    gains = [scheme.gain(contributions) for scheme in found]
    assert gains == sorted(gains, reverse=True)


def test_neighbours_keep_the_limits_of_a_step():
    model = on_board("chain", "int8")
    contributions = table(model, 2)
    taken = sorted(model.step(scheme).seconds for scheme in every_scheme(model))
    limits = Limits(10**6, step=(StepLimit("seconds", taken[len(taken) // 3]),))
    found = list(neighbours(Scheme(1), Gains(contributions), model, limits, reserve_bytes=0))
    assert found and all(model.step(s).seconds <= taken[len(taken) // 3] for s in found)


@pytest.mark.parametrize("case", [("chain", "int8"), ("residual", "float32")], ids="-".join)
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_climb_ends_where_no_neighbour_gains_more(models, case, share):  # noqa: F811
    """It is within the limits, and near the best of all."""
    model = model_of(models, *case)
    foretold = Saturating(4, model.layers.paths)
    needs = {scheme: model.static_bytes(scheme) for scheme in every_scheme(model)}
    reached = []
    for seed, part in product(range(3), (0.1, 0.4, 0.8)):
        gains = Gains(table(model, seed), share, foretold)
        limits = Limits(int(np.quantile([*needs.values()], part)) + 100)

        def accept(scheme, most=limits.sram_bytes - 100):
            return needs[scheme] <= most

        top = climb(Scheme(0), gains, model, limits, reserve_bytes=100, accept=accept)
        inside = [scheme for scheme in needs if needs[scheme] <= limits.sram_bytes - 100]
        near = neighbours(top, gains, model, limits, reserve_bytes=100)
        own, best = gains.of_schemes([top])[0], gains.of_schemes(inside).max()
        assert top in inside
        assert all(gains.of_schemes([each])[0] <= own + 1e-6 for each in near)
        reached.append(own / best)
    assert np.median(reached) > 0.999 and np.mean(reached) > 0.9


def test_a_climb_keeps_the_limits_of_a_step():
    model = on_board("chain", "int8")
    gains = Gains(table(model, 2))
    taken = sorted(model.step(scheme).seconds for scheme in every_scheme(model))
    most = taken[len(taken) // 3]
    limits = Limits(10**6, step=(StepLimit("seconds", most),))

    def reached(limits):
        def accept(scheme):
            return fits(scheme, model, limits, 0)

        return climb(Scheme(0), gains, model, limits, reserve_bytes=0, accept=accept)

    top, free = reached(limits), reached(Limits(10**6))
    assert model.step(top).seconds <= most < model.step(free).seconds and top != Scheme(0)


def test_bounds_of_many_schemes_are_those_of_each(models):  # noqa: F811
    model = model_of(models, "residual", "float32")
    options = [(path, ratio) for path in model.layers.paths for ratio in model.ratios]
    schemes = every_scheme(model)
    chosen = np.array([[option in scheme.weights for option in options] for scheme in schemes])
    depths = np.array([scheme.biases for scheme in schemes])
    found = model.rows.least_bytes_of_all(depths, chosen.astype(float), options)
    each = np.array([model.rows.least_bytes(scheme) for scheme in schemes])
    np.testing.assert_array_equal(found, each)


def test_ratios_of_the_same_channels_are_one(models):  # noqa: F811
    """The largest is kept: hand-made schemes train layers whole."""
    model = model_of(models, "chain", "int8")
    layers = model.layers
    ratios = [Fraction(1, 100), Fraction(1, 50), HALF, WHOLE]
    weights = {(path, ratio): Gain(float(ratio)) for path in layers.paths for ratio in ratios}
    full = Contributions("net", layers.paths, Gain(0.5), {}, weights, "measured")
    kept = full.distinct(layers).weights
    for layer in layers.body:
        own = [ratio for path, ratio in kept if path == layer.path]
        counts = [layer.count(ratio) for ratio in own]
        assert len(set(counts)) == len(counts) and WHOLE in own
        assert set(counts) == {layer.count(ratio) for ratio in ratios}
    assert len(kept) < len(full.weights)
    assert all(kept[option] == full.weights[option] for option in kept)
