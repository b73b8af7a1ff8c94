"""The best scheme under SRAM budgets: the integer program against evolutionary search.

    python benchmarks/selection.py [--table FILE] [--budgets 256 224 192 160 130]
        [--evaluations 20000] [--no-link] [--monotone PAIRS] [--json FILE]

MCUNet-5FPS in int8, 3 x 128 x 128, ten classes, batch 1, for a Cortex-M7; 42 convolutions at the
ratios 0, 1/8, 1/4, 1/2, 1, and the biases of the last k. Budgets are KiB of all of the SRAM: arena,
state, data and stack of the linked program. --table is a table of contributions as `kilograd
search` leaves it; without one, a synthetic table is used, and the output says so.

`gain` is the sum of contributions in points of accuracy; `bound` an upper bound of it over all
schemes that fit; `sure` the bound that assumes nothing. `compiles` counts the programs that were
planned, `refuted` those whose need was above their lower bound and the budget. `setup` is the time
for the lower bounds and the head's link, once for all budgets.

Evolutionary search is the baseline, as in the Tiny Training Engine paper (Lin et al., NeurIPS
2022), with the settings of Once-for-All's (Cai et al., ICLR 2020): population 100, a quarter are
parents, half of the offspring by mutation with probability 0.1 a gene, half by uniform crossover.
It judges by the lower bounds and learned rows, and compiles only what would be its new best, so
that its number of evaluations is not a matter of time; what does not fit is dropped.
--monotone compiles pairs of schemes of which
one trains all that the other trains, and counts those where it needs less.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.quantization import crops, data_directory
from tests.agreement.networks import BIG_M7

from kilograd import zoo
from kilograd.compiler import prepare
from kilograd.search.limits import Limits
from kilograd.search.resources import ResourceModel
from kilograd.search.scheme import Scheme
from kilograd.search.select import Selection, select
from kilograd.search.table import Contributions, Gain

NETWORK = "mcunet-5fps"
POPULATION, PARENTS, MUTATION = 100, 0.25, 0.1
HEADER = (
    "budget KiB", "k", "weights", "gain", "bound", "sure", "SRAM B", "seconds", "compiles",
    "refuted", "evolution", "evolution SRAM B",
)  # fmt: skip


def resource_model(resolution: int) -> ResourceModel:
    torch.manual_seed(0)
    path = data_directory() / "models" / f"{NETWORK}.safetensors"
    scheme = zoo.find_scheme(NETWORK, "49kb")
    network = scheme.build(
        num_classes=10, weights=path if path.is_file() else None, resolution=resolution
    )
    samples = crops(False, resolution, 24)[0][:64]
    prepared = prepare(network, samples[:1], device=BIG_M7, precision="int8", calibration=samples)
    return ResourceModel(prepared)


def synthetic(paths: tuple[str, ...], ratios: tuple[Fraction, ...], seed: int) -> Contributions:
    """Gains of the shape that the paper's figures have: biases saturate with depth; weights in the
    last third help most, first pointwise convolutions above all, and less than in proportion to the
    ratio; with noise of a sixth of a point, as of few runs.
    """
    rng = np.random.default_rng(seed)
    count = len(paths)
    biases = {
        k: Gain(0.12 * (1 - math.exp(-k / 9)) + rng.normal(0, 0.0017)) for k in range(1, count + 1)
    }
    weights = {}
    for place, path in enumerate(paths):
        kind = {"pointwise1": 1.0, "pointwise2": 0.55}.get(path.rpartition(".")[2], 0.3)
        depth = (count - place) / count
        top = 0.05 * kind * math.exp(-(((depth - 0.3) / 0.28) ** 2)) * rng.lognormal(0, 0.35)
        for ratio in ratios:
            weights[path, ratio] = Gain(top * float(ratio) ** 0.45 + rng.normal(0, 0.0017))
    return Contributions(NETWORK, paths, Gain(0.7), biases, weights, "synthetic")


class Evolution:
    """Schemes as genes: the depth of the biases, and for each layer the place of its ratio."""

    def __init__(self, contributions: Contributions, model: ResourceModel, most_bytes: int) -> None:
        self.contributions, self.model, self.most = contributions, model, most_bytes
        self.paths, self.ratios = model.layers.paths, (Fraction(0), *model.ratios)
        self.read_rows()
        self.state = np.array(model.rows.state.base)
        self.state_options = self._table([model.rows.state.options])[0]
        self.bias = np.array([contributions.bias_gain(k) for k in range(len(self.paths) + 1)])
        gains = {option: gain.mean for option, gain in contributions.weights.items()}
        self.gains = self._table([gains])[0]

    def read_rows(self) -> None:
        """The bounds, and what programs that did not fit have taught."""
        rows = [*self.model.rows.arena, *self.model.learned]
        self.base = np.array([[-np.inf if b is None else b for b in r.base] for r in rows])
        self.options = self._table([row.options for row in rows])

    def _table(self, rows) -> np.ndarray:
        return np.array(
            [[[row.get((p, r), 0.0) for r in self.ratios] for p in self.paths] for row in rows]
        )

    def scheme(self, genes: np.ndarray) -> Scheme:
        chosen = {p: self.ratios[g] for p, g in zip(self.paths, genes[1:], strict=True) if g}
        return Scheme.of(int(genes[0]), chosen)

    def judge(self, population: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gains, and whether the lower bound fits."""
        depth, genes = population[:, 0], population[:, 1:]
        layers = np.arange(len(self.paths))
        gain = self.bias[depth] + self.gains[layers, genes].sum(1)
        arena = self.base[:, depth] + self.options[:, layers, genes].sum(2)
        state = self.state[depth] + self.state_options[layers, genes].sum(1)
        return gain, arena.max(0) + state <= self.most

    def legal(self, genes: np.ndarray) -> np.ndarray:
        """No weight below the biases."""
        genes[1 : len(genes) - int(genes[0])] = 0
        return genes

    def run(self, evaluations: int, seed: int) -> tuple[float, Scheme]:
        rng = np.random.default_rng(seed)
        count, refused = len(self.paths), set[bytes]()
        best, best_gain = Scheme(0), self.bias[0]
        parents: list[tuple[float, np.ndarray]] = [(0.0, np.zeros(count + 1, int))]
        done = 0
        while done < evaluations:
            children = []
            for number in range(min(POPULATION, evaluations - done)):
                child = parents[rng.integers(len(parents))][1].copy()
                if done == 0:
                    child = rng.integers(0, len(self.ratios), count + 1)
                    child[1:] *= rng.random(count) < rng.random() * 0.3
                    child[0] = rng.integers(count + 1)
                elif number % 2:
                    other = parents[rng.integers(len(parents))][1]
                    child = np.where(rng.random(count + 1) < 0.5, child, other)
                else:
                    fresh = rng.integers(0, len(self.ratios), count + 1)
                    fresh[0] = rng.integers(count + 1)
                    child = np.where(rng.random(count + 1) < MUTATION, fresh, child)
                children.append(self.legal(child))
            population = np.array(children)
            done += len(children)
            gains, fits = self.judge(population)
            for place in np.argsort(-gains):
                key = population[place].tobytes()
                if not fits[place] or gains[place] <= best_gain or key in refused:
                    continue
                scheme = self.scheme(population[place])
                if self.model.static_bytes(scheme) <= self.most:
                    best, best_gain = scheme, gains[place]
                    break
                refused.add(key)
                self.model.learn(scheme)
                self.read_rows()
            known = {genes.tobytes(): (gain, genes) for gain, genes in parents}
            for gain, fit, genes in zip(gains, fits, population, strict=True):
                if fit and genes.tobytes() not in refused:
                    known[genes.tobytes()] = (gain, genes)
            ranked = sorted(known.values(), key=lambda pair: (-pair[0], pair[1].tobytes()))
            parents = ranked[: max(1, int(POPULATION * PARENTS))]
        return float(best_gain), best


def monotone(model: ResourceModel, pairs: int) -> list[tuple[int, Scheme, Scheme]]:
    """Bytes by which a scheme needs less than one that it includes, where it does."""
    rng, paths = np.random.default_rng(0), model.layers.paths
    found = []
    for _ in range(pairs):
        k = int(rng.integers(10, 31))
        small = {path: model.ratios[rng.integers(4)] for path in paths[-k:] if rng.random() < 0.25}
        large = dict(small)
        for path in rng.choice(paths[-k:], 3, replace=False):
            higher = [r for r in model.ratios if r > small.get(str(path), 0)]
            if higher:
                large[str(path)] = higher[rng.integers(len(higher))]
        one, other = Scheme.of(k, small), Scheme.of(k, large)
        less = model.static_bytes(one) - model.static_bytes(other)
        if less > 0:
            found.append((less, one, other))
    return found


def row(selection: Selection, evolved: float, evolved_bytes: int) -> tuple[str, ...]:
    sram = selection.sram_bytes or selection.static_bytes + selection.reserve_bytes
    return (
        f"{selection.budget_bytes / 1024:g}", str(selection.scheme.biases),
        str(len(selection.scheme.weights)), f"{100 * selection.gain:.3f}",
        f"{100 * selection.bound:.3f}", f"{100 * selection.sure_bound:.3f}", f"{sram:,}",
        f"{selection.seconds:.1f}", str(selection.compiles), str(selection.refuted),
        f"{100 * evolved:.3f}", f"{evolved_bytes:,}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, help="measured contributions, JSON")
    parser.add_argument("--budgets", type=float, nargs="+", default=[256, 224, 192, 160, 130])
    parser.add_argument("--evaluations", type=int, default=20_000)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-link", action="store_true", help="keep 1,024 bytes for the stack")
    parser.add_argument("--monotone", type=int, default=0, metavar="PAIRS")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    model = resource_model(arguments.resolution)
    reserve = 1024
    if not arguments.no_link:
        head = model.linked(Scheme(0))
        reserve = head.data_bytes + head.stack_bytes
    rows = model.rows
    print(f"setup {time.perf_counter() - start:.1f} s, {len(rows.arena)} rows", file=sys.stderr)
    paths = model.layers.paths
    table = (
        Contributions.load(arguments.table)
        if arguments.table
        else synthetic(paths, tuple(model.ratios), arguments.seed)
    )
    print(f"contributions: {table.method}; {len(paths)} layers; {reserve:,} B kept for the stack\n")
    print("| " + " | ".join(HEADER) + " |\n|" + "---:|" * len(HEADER), flush=True)
    found = []
    for budget in arguments.budgets:
        selection = select(
            table, model, Limits(round(budget * 1024)),
            link=not arguments.no_link, reserve_bytes=reserve,
        )  # fmt: skip
        most = selection.budget_bytes - selection.reserve_bytes
        evolved, scheme = Evolution(table, model, most).run(arguments.evaluations, arguments.seed)
        needed = model.static_bytes(scheme) + selection.reserve_bytes
        print("| " + " | ".join(row(selection, evolved, needed)) + " |", flush=True)
        found.append(
            {
                "budget_bytes": selection.budget_bytes,
                "gain": selection.gain,
                "bound": selection.bound,
                "sure_bound": selection.sure_bound,
                "proven": selection.proven,
                "assumptions": list(selection.assumptions),
                "sram_bytes": selection.sram_bytes,
                "seconds": selection.seconds,
                "compiles": selection.compiles,
                "biases": selection.scheme.biases,
                "weights": {p: str(r) for p, r in selection.scheme.weights},
                "evolution": evolved,
            }
        )
    if arguments.monotone:
        exceptions = monotone(model, arguments.monotone)
        print(
            f"\n{len(exceptions)} of {arguments.monotone} pairs need less where more is trained"
            + (f", at most {max(e[0] for e in exceptions):,} B less" if exceptions else "")
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"method": table.method, "rows": found}, indent=1))


if __name__ == "__main__":
    main()
