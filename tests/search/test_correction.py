"""Contributions that trainings of schemes corrected, and the schemes beside a trained one."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from kilograd.planning.step_limits import StepLimit
from kilograd.search.correction import KAPPAS, SAME_LAYER, SIGMAS, TAUS, correct
from kilograd.search.limits import Limits
from kilograd.search.neighbours import CHANGES, neighbours
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
    found = correct(contributions, realised).mean

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
    found = correction.mean
    means = [found.biases[1].mean, *(found.weights["a", r].mean for r in (HALF, WHOLE))]
    np.testing.assert_allclose(means, best[1], rtol=1e-9)
    rng = np.random.default_rng(0)
    draws = [correction.draw(rng) for _ in range(4000)]
    rows = np.array(
        [[d.biases[1].mean, *(d.weights["a", r].mean for r in (HALF, WHOLE))] for d in draws]
    )
    np.testing.assert_allclose(rows.mean(axis=0), best[1], atol=0.002)
    np.testing.assert_allclose(np.cov(rows.T), best[2], atol=1e-4)


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
    found = correct(contributions, realised).mean.weights
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
    found = list(neighbours(centre, contributions, model, limits, known=known, reserve_bytes=100))
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
    found = list(neighbours(Scheme(1), contributions, model, limits, known=(), reserve_bytes=0))
    assert found and all(model.step(s).seconds <= taken[len(taken) // 3] for s in found)


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
