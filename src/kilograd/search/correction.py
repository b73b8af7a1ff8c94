"""What trainings of whole schemes teach about the contributions of their parts.

Contributions are measured one at a time and summed. Trained together, layers that learn the same
thing gain less than their sum, and layers that move too far together lose. Here the gains of
schemes that were trained are explained by contributions again, near those that were measured: a
Bayesian linear regression, with one more regressor that is no sum: what the tangent kernel
foretells of the whole scheme (`foretold`).

With x(s) the 0/1 vector of what scheme s trains (a step of k, or a ratio of a layer, each) and f(s)
what is foretold of it, the gain of s is y(s) = x(s) w + f(s) u + e, with

    w ~ N(kappa m, tau^2 C + kappa^2 D),   u ~ N(1/2, 1/4),   e ~ N(0, v(s) + sigma^2),

m the measured contributions and D the variances of these means, C a covariance in which ratios of
one layer go together (0.7), v(s) the variance of the mean of the seeds of s. kappa, how much of a
measured contribution is left among others, tau, by how much contributions differ from that, sigma,
what is not explained, and the rate of f are those of a grid under which the gains that were seen
are likeliest (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, 2.7 and
5.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from typing import Protocol

import numpy as np

from kilograd.search.rows import FloatArray, IntArray, Option
from kilograd.search.scheme import Scheme
from kilograd.search.table import Contributions, Gain

KAPPAS = (0.0, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
TAUS = (0.003, 0.006, 0.01, 0.015, 0.02, 0.03, 0.05)
SIGMAS = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05)
SAME_LAYER = 0.7
"""The correlation of two ratios of one layer."""
SHARE = 0.5, 0.5
"""Mean and standard deviation of what is left of a foretold gain."""


class Foretelling(Protocol):
    """What foretells gains of whole schemes, as `Foretold` does."""

    def gains(self, depths: IntArray, chosen: FloatArray, options: Sequence[Option]) -> FloatArray:
        """Of the biases of the last `depths` layers and the `options` that are `chosen`."""


@dataclass(frozen=True, eq=False)
class Gains:
    """What schemes gain: the sum of what `table` has of them, and a `share` of what is `foretold`
    of the whole.
    """

    table: Contributions
    share: float = 0.0
    foretold: Foretelling | None = None

    @cached_property
    def options(self) -> list[Option]:
        """The weights that there are."""
        return [*self.table.weights]

    def of(self, depths: IntArray, chosen: FloatArray) -> FloatArray:
        """Of the biases of the last `depths` [S] layers and the options that are `chosen` [S, O],
        as 0 or 1.
        """
        biases, weights = self._values
        gains = biases[depths] + chosen @ weights
        if self.foretold is None:
            return gains
        return gains + self.share * self.foretold.gains(depths, chosen, self.options)

    def of_schemes(self, schemes: Sequence[Scheme]) -> FloatArray:
        """Of each."""
        return self.of(*rows_of(schemes, self.options))

    @cached_property
    def _values(self) -> tuple[FloatArray, FloatArray]:
        """Of k biases, and of each weight."""
        biases = [self.table.bias_gain(k) for k in range(len(self.table.layers) + 1)]
        return np.array(biases), np.array([gain.mean for gain in self.table.weights.values()])


def rows_of(schemes: Iterable[Scheme], options: Sequence[Option]) -> tuple[IntArray, FloatArray]:
    """Depths of biases [S], and which options are chosen [S, O], as 0 or 1."""
    numbers = {option: number for number, option in enumerate(options)}
    chosen = [(each.biases, [numbers[option] for option in each.weights]) for each in schemes]
    return chosen_rows(chosen, len(options))


def chosen_rows(
    schemes: Sequence[tuple[int, Sequence[int]]], options: int
) -> tuple[IntArray, FloatArray]:
    """The same of schemes as depths and numbers of options."""
    chosen = np.zeros((len(schemes), options))
    for row, (_, numbers) in zip(chosen, schemes, strict=True):
        row[list(numbers)] = 1.0
    return np.array([depth for depth, _ in schemes], int), chosen


@dataclass(frozen=True, eq=False)
class Correction:
    """What contributions are among others: the distribution of all candidates of `table`, of the
    steps to each k first, then of the weights in their order, then of the share that is left of
    what is `foretold`, where anything is, with its `means` [N] and `covariance` [N, N].
    """

    table: Contributions
    means: FloatArray
    covariance: FloatArray
    foretold: Foretelling | None = None

    @property
    def mean(self) -> Gains:
        """Gains by the mean."""
        return self._gains(self.means)

    def draw(self, rng: np.random.Generator) -> Gains:
        """Gains drawn at random: what is uncertain varies, so that the best by several draws tries
        what the mean alone would never choose (Thompson sampling).
        """
        # An eigendecomposition would not give the same table on every computer.
        drawn = rng.multivariate_normal(self.means, self.covariance, method="cholesky")
        return self._gains(drawn)

    def _gains(self, values: FloatArray) -> Gains:
        count = len(self.table.layers)
        share = 0.0
        if self.foretold is not None:
            share, values = float(values[-1]), values[:-1]
        biases = {k + 1: Gain(float(sum_)) for k, sum_ in enumerate(np.cumsum(values[:count]))}
        weights = zip(self.table.weights, values[count:], strict=True)
        table = replace(
            self.table, biases=biases, weights={key: Gain(float(value)) for key, value in weights}
        )
        return Gains(table, share, self.foretold)


def correct(
    table: Contributions, realised: Mapping[Scheme, Gain], foretold: Sequence[Foretelling] = ()
) -> Correction:
    """The distribution under which the gains over the head alone of schemes that were trained are
    likeliest; that of the head alone is 0 and tells nothing. Of those that foretell gains of whole
    schemes the one is used under which they are likeliest, or none.
    """
    realised = {scheme: gain for scheme, gain in realised.items() if scheme != Scheme(0)}
    seen = np.array([gain.mean for gain in realised.values()])
    spread = np.array(_variances([*realised.values()]))
    options, ks = list(table.weights), np.arange(len(table.layers))
    depths, chosen = rows_of(realised, options)
    plain = np.hstack([ks < depths[:, None], chosen])
    cumulated = np.array([0.0, *(table.bias_gain(int(k) + 1) for k in ks)])
    measured = np.array([*np.diff(cumulated), *(gain.mean for gain in table.weights.values())])
    noise = np.array([*_bias_noise(table), *_variances([*table.weights.values()])])
    layers = np.array([*ks, *(len(ks) + table.layers.index(path) for path, _ in options)])
    together = np.where(layers[:, None] == layers[None, :], SAME_LAYER, 0.0)
    np.fill_diagonal(together, 1.0)

    alike, apart = plain @ together @ plain.T, plain * noise @ plain.T
    likeliest, best = -np.inf, None
    for each in (None, *foretold):
        whole = np.zeros((0, len(plain)))
        if each is not None:
            whole = each.gains(depths, chosen, options)[None]
        left = seen - SHARE[0] * whole.sum(axis=0)
        unsure = SHARE[1] ** 2 * whole.T @ whole + np.diag(spread)
        for kappa, tau, sigma in product(KAPPAS, TAUS, SIGMAS):
            covariance = tau**2 * alike + kappa**2 * apart + unsure
            factor = np.linalg.cholesky(covariance + sigma**2 * np.eye(len(seen)))
            whitened = np.linalg.solve(factor, left - kappa * plain @ measured)
            likelihood = -0.5 * whitened @ whitened - np.log(np.diag(factor)).sum()
            if likelihood > likeliest:
                likeliest, best = likelihood, (each, whole, kappa, tau, factor, whitened)
    assert best is not None
    each, whole, kappa, tau, factor, whitened = best
    count = len(measured)
    means = np.concatenate([kappa * measured, np.full(len(whole), SHARE[0])])
    prior = SHARE[1] ** 2 * np.eye(len(means))
    prior[:count, :count] = tau**2 * together + kappa**2 * np.diag(noise)
    gain = np.linalg.solve(factor, np.hstack([plain, whole.T]) @ prior)
    return Correction(table, means + gain.T @ whitened, prior - gain.T @ gain, each)


def _variances(gains: Sequence[Gain]) -> list[float]:
    """The variances of the means: few seeds tell little of their own spread, so half is that of all
    gains together.
    """
    several = [gain.spread**2 for gain in gains if gain.runs > 1]
    of_all = float(np.mean(several)) if several else 0.0
    return [
        (0.5 * gain.spread**2 + 0.5 * of_all if gain.runs > 1 else of_all) / max(gain.runs, 1)
        for gain in gains
    ]


def _bias_noise(table: Contributions) -> list[float]:
    """The variance of the step to each k: that of the gains at both ends, shared among the steps
    between measured ones.
    """
    ks = sorted({*table.biases} - {0})
    noise = [0.0] * len(table.layers)
    known = dict(zip(ks, _variances([table.biases[k] for k in ks]), strict=True)) | {0: 0.0}
    for low, high in pairwise(sorted(known)):
        noise[low:high] = [(known[low] + known[high]) / (high - low)] * (high - low)
    return noise
