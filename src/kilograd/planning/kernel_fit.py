"""Fits kernel tables on counted instructions: non-negative least squares.

Squared errors count in inverse proportion to the instructions of a node: between absolute errors,
which only the largest nodes would make, and relative ones, by which sums over nodes come out small.

A coefficient below zero would promise that more work takes fewer instructions, so none is. With
nine features the best non-negative fit is found by trying every set of features: a fit whose
coefficients are all positive on the set that it uses is the optimum for that set (Lawson and
Hanson, Solving Least Squares Problems, 1974, chapter 23).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kilograd.devices import Cpu
from kilograd.devices.kernels import FEATURES, Feature, Kernel, KernelTable
from kilograd.ir import Graph
from kilograd.planning.costs import works

_SMALL = 200
"""Instructions below which nodes count as if they had that many: they do not matter to a step."""

_START = FEATURES.index("start")
"""Not a fit by itself where there is real work: one shape says nothing of a larger one."""

_PARSIMONY = 1.05
"""How much larger the error may be for a fit with fewer features, which extrapolates better."""


@dataclass(frozen=True)
class Sample:
    """A run of a kernel whose instructions were counted."""

    kernel: str
    features: Mapping[Feature, float]
    instructions: int


def samples(graph: Graph, counts: Sequence[int]) -> list[Sample]:
    """The samples of a graph whose nodes took these numbers of instructions; nodes that run several
    kernels, or none, give no sample.
    """
    pairs = zip(graph.nodes, counts, strict=True)
    return [
        Sample(work.kernel, work.features, count)
        for node, count in pairs
        if len(works(node)) == 1
        for work in works(node)
    ]


def fit(cpu: Cpu, networks: Sequence[str], counted: Sequence[Sample]) -> KernelTable:
    """The table that explains the samples best; at least one is needed."""
    by_kernel: dict[str, list[Sample]] = {}
    for sample in counted:
        by_kernel.setdefault(sample.kernel, []).append(sample)
    return KernelTable(
        cpu=cpu,
        networks=tuple(networks),
        kernels={name: _fit(group) for name, group in sorted(by_kernel.items())},
        generic=_fit(counted),
    )


def _fit(group: Sequence[Sample]) -> Kernel:
    amounts = np.array([[sample.features[name] for name in FEATURES] for sample in group])
    counts = np.array([sample.instructions for sample in group], np.float64)
    sizes = np.maximum(counts, _SMALL)
    weights = 1 / np.sqrt(sizes)
    rows, wanted = amounts * weights[:, None], counts * weights
    distinct = len(np.unique(amounts, axis=0))
    constant = counts.max() < _SMALL
    best: tuple[float, tuple[int, ...], npt.NDArray[np.floating]] | None = None
    for size in range(1, min(len(FEATURES), -(-distinct // 2)) + 1):
        for chosen in itertools.combinations(range(len(FEATURES)), size):
            solution, *_ = np.linalg.lstsq(rows[:, chosen], wanted, rcond=None)
            if (solution < 0).any() or (chosen == (_START,) and not constant):
                continue
            error = float(np.sqrt(np.mean((rows[:, chosen] @ solution - wanted) ** 2)))
            allowed = np.inf if best is None else best[0]
            if best is not None and len(best[1]) < size:
                allowed = best[0] / _PARSIMONY - 1e-9
            if error < allowed:
                best = error, chosen, solution
    assert best is not None, "a single feature has a non-negative fit"
    _, chosen, solution = best
    error = float(np.mean(np.abs(amounts[:, chosen] @ solution - counts) / sizes))
    return Kernel(
        instructions={
            FEATURES[index]: float(f"{value:.5g}")
            for index, value in zip(chosen, solution, strict=True)
            if value > 0
        },
        nodes=len(group),
        error=float(f"{error:.3g}"),
    )
