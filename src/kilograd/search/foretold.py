"""What schemes gain, foretold from one pass over the data behind a trained head (`kernel`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from kilograd.errors import InputError
from kilograd.search.kernel import TangentKernel, tangent_kernel
from kilograd.search.layers import Layers, Orders
from kilograd.search.measure import RATIOS, gain
from kilograd.search.predict import Differentiable, Trained, in_graph
from kilograd.search.rows import FloatArray, IntArray, Option
from kilograd.search.table import Contributions, Gain

_AT_ONCE = 256
"""Schemes whose kernels are in memory together."""


@dataclass(frozen=True, eq=False)
class Foretold:
    """What training gains over the head alone, with plain steps of SGD at `rates`. The unit is what
    there is to gain: from `reached`, the accuracy of the head, to 1.
    """

    kernel: TangentKernel
    rates: FloatArray
    reached: float

    def gains(self, depths: IntArray, chosen: FloatArray, options: Sequence[Option]) -> FloatArray:
        """Of whole schemes [S]: the biases of the last `depths` [S] layers, and the `options` that
        are `chosen` [S, O], as 0 or 1.
        """
        found = np.zeros(len(depths))
        for start in range(0, len(depths), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            kernels = self.kernel.of(depths[part], chosen[part], options)
            found[part] = self.kernel.gains(kernels, self.rates)
        return (1 - self.reached) * (found - self._head)

    def contributions(self, name: str) -> Contributions:
        """A table of what is trained one at a time; `runs` is 0, for nothing was measured.

        Raises InputError where the head diverged.
        """
        if not self.kernel.finite:
            raise InputError(
                f"gains cannot be foretold: the head alone diverged at lr={self.rates.max():g}, "
                "its loss or a gradient behind it is not finite.\nWhat helps: a smaller lr."
            )
        layers, options = self.kernel.layers, [*product(self.kernel.layers.paths, RATIOS)]
        by_k = self.gains(np.arange(len(layers.body) + 1), np.zeros((len(layers.body) + 1, 0)), [])
        depths = np.array([layers.biases_from(path) for path, _ in options], int)
        more = self.gains(depths, np.eye(len(options)), options) - by_k[depths]
        return Contributions(
            network=name,
            layers=layers.paths,
            head=gain(np.array([self.reached])),
            biases={k: Gain(float(each), 0.0, 0) for k, each in enumerate(by_k)},
            weights={
                option: Gain(float(each), 0.0, 0)
                for option, each in zip(options, more, strict=True)
            },
            method="fast",
        )

    @cached_property
    def _head(self) -> float:
        return float(self.kernel.gains(self.kernel.head[None], self.rates)[0])


def foretell(
    network: Differentiable, head: Trained, layers: Layers, rates: FloatArray, orders: Orders
) -> Foretold:
    """By the kernel behind the trained `head`."""
    graph = network.folded
    kernel = tangent_kernel(
        graph,
        network.ports,
        network.loss,
        in_graph(layers, graph),
        head.split,
        ratios=RATIOS,
        parameters=head.parameters,
        orders=orders,
    )
    return Foretold(kernel, rates, head.reached.accuracy)
