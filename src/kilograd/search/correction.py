"""What trainings of whole schemes teach about the contributions of their parts.

Contributions are measured one at a time and summed. Trained together, layers that learn the same
thing gain less than their sum, and layers that move too far together lose. Here the gains of
schemes that were trained are explained by contributions again, near those that were measured: a
Bayesian linear regression. Its mean, and each draw from it, is a table like any other, so the exact
selection finds the scheme of the largest sum under it.

With x(s) the 0/1 vector of what scheme s trains (a step of k, or a ratio of a layer, each), the
gain of s is y(s) = x(s) w + e, with

    w ~ N(kappa m, tau^2 C + kappa^2 D),   e ~ N(0, v(s) + sigma^2),

m the measured contributions and D the variances of these means, C a covariance in which ratios of
one layer go together (0.7), v(s) the variance of the mean of the seeds of s. kappa, how much of a
measured contribution is left among others, tau, by how much contributions differ from that, and
sigma, what no sum explains, are those of a grid under which the gains that were seen are likeliest
(Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, 2.7 and 5.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt

from kilograd.search.scheme import Scheme
from kilograd.search.table import Contributions, Gain

FloatArray = npt.NDArray[np.float64]

KAPPAS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
TAUS = (0.003, 0.006, 0.01, 0.015, 0.02, 0.03, 0.05)
SIGMAS = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05)
SAME_LAYER = 0.7
"""The correlation of two ratios of one layer."""


@dataclass(frozen=True, eq=False)
class Correction:
    """What contributions are among others: the distribution of all candidates of `table`, of the
    steps to each k first, then of the weights in their order, with its `means` [N] and
    `covariance` [N, N].
    """

    table: Contributions
    means: FloatArray
    covariance: FloatArray

    @property
    def mean(self) -> Contributions:
        """The table of the mean."""
        return self._table(self.means)

    def draw(self, rng: np.random.Generator) -> Contributions:
        """A table drawn at random: what is uncertain varies, so that selections by several draws
        try what the mean alone would never choose (Thompson sampling).
        """
        # An eigendecomposition would not give the same table on every computer.
        drawn = rng.multivariate_normal(self.means, self.covariance, method="cholesky")
        return self._table(drawn)

    def _table(self, values: FloatArray) -> Contributions:
        count = len(self.table.layers)
        biases = {k + 1: Gain(float(sum_)) for k, sum_ in enumerate(np.cumsum(values[:count]))}
        weights = zip(self.table.weights, values[count:], strict=True)
        return replace(
            self.table, biases=biases, weights={key: Gain(float(value)) for key, value in weights}
        )


def correct(table: Contributions, realised: Mapping[Scheme, Gain]) -> Correction:
    """The distribution under which the gains over the head alone of schemes that were trained are
    likeliest; that of the head alone is 0 and tells nothing.
    """
    realised = {scheme: gain for scheme, gain in realised.items() if scheme != Scheme(0)}
    ks = range(1, len(table.layers) + 1)
    keys = list(table.weights)
    columns = {key: len(ks) + i for i, key in enumerate(keys)}
    cumulated = np.array([0.0, *(table.bias_gain(k) for k in ks)])
    gains = [table.weights[key] for key in keys]
    measured = np.array([*np.diff(cumulated), *(gain.mean for gain in gains)])
    noise = np.array([*_bias_noise(table), *_variances(gains)])
    layers = np.array([*range(len(ks)), *(len(ks) + table.layers.index(key[0]) for key in keys)])
    together = np.where(layers[:, None] == layers[None, :], SAME_LAYER, 0.0)
    np.fill_diagonal(together, 1.0)

    rows = np.zeros((len(realised), len(measured)))
    for row, scheme in zip(rows, realised, strict=True):
        row[: scheme.biases] = 1
        row[[columns[weight] for weight in scheme.weights]] = 1
    seen = np.array([gain.mean for gain in realised.values()])
    spread = np.array(_variances([*realised.values()]))

    likeliest = -np.inf
    for kappa, tau, sigma in product(KAPPAS, TAUS, SIGMAS):
        prior = tau**2 * together + kappa**2 * np.diag(noise)
        shared = prior @ rows.T
        factor = np.linalg.cholesky(rows @ shared + np.diag(spread + sigma**2))
        whitened = np.linalg.solve(factor, seen - kappa * rows @ measured)
        likelihood = -0.5 * whitened @ whitened - np.log(np.diag(factor)).sum()
        if likelihood > likeliest:
            likeliest = likelihood
            gain = np.linalg.solve(factor, shared.T)
            means, covariance = kappa * measured + gain.T @ whitened, prior - gain.T @ gain
    return Correction(table, means, covariance)


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
