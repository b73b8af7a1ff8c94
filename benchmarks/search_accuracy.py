"""Found schemes against hand-made ones at equal SRAM: accuracy, and whether gains add up.

    python benchmarks/search_accuracy.py --tables DIRECTORY [--data digits faces spoken speech]
        [--seeds 3] [--tests 12] [--rounds N] [--channels first|best] [--jobs 2] [--json FILE]
        [--plots DIRECTORY] [--quick]

Tasks: `digits`, `faces` and `spoken`, transfer of the pretrained MCUNet-5FPS (transfer.py), and
`speech`, a DS-CNN that gets to know a new speaker (benchmarks/speech.py, the one whom it knows
least). The contributions of each are read from DIRECTORY/<task>.json, as contributions.py leaves
them in build/search.

References are the head alone, the biases of the last k layers, the last layers whole, and for
MCUNet the five published schemes, with their first channels and with those of the largest weights,
which their release trains.
`kilograd search` gets the SRAM of each of them as a limit (arena and state: it runs for the host,
so that there is no stack), and --curve evenly spaced ones between. As always it tries the biases
and the last layers that fit a limit, too, so what it knows nothing of are the published schemes.
Then the answers and the references are trained with the same samples in the same order, from the
same head, each at the rate that is best on samples to judge by, and tested by the task's test
samples, which nothing was chosen by: mean and sample standard deviation over --tests seeds. `more`
is found less reference, with the standard error of the difference seed by seed.

A second table has what the largest sums of measured and of foretold contributions gained.
`predicted` is the sum of contributions, `realised` what a scheme gained over the head alone when it
was trained, on samples to judge by; of all that the search trained.

--quick is a smoke test of minutes at most: tiny budgets, one seed, and gains drawn at random where
the directory has no table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from contributions import CASES, STORE, Case
from real_data import percent, table

from kilograd import zoo
from kilograd.errors import InputError
from kilograd.options import Budget
from kilograd.planning.front import FrontPoint
from kilograd.report.choices import front
from kilograd.report.contributions import additivity
from kilograd.report.drawing import svg
from kilograd.search.correction import correct
from kilograd.search.foretold import Foretold, foretell
from kilograd.search.found import Found, Point
from kilograd.search.measure import Bench
from kilograd.search.points import biases_only, head_only, last_layers
from kilograd.search.predict import Trained, channel_orders, score_layers, train_head
from kilograd.search.resources import ResourceModel
from kilograd.search.scheme import Scheme
from kilograd.search.search import CHANNELS, find, with_ratios
from kilograd.search.table import Contributions, Gain
from kilograd.search.trials import best_rate
from kilograd.update import Spec

RATES = (0.01, 0.03)
"""For the search, which tries a third of the smallest besides, as is done for the references."""
SECONDS = 20.0
"""Of a selection."""
HEADER = (
    *("reference", "its SRAM", "accuracy, %", "largest sum", "found", "SRAM of it", "from"),
    *("rates", "more, points"),
)


@dataclass(frozen=True)
class Tested:
    """A scheme with its test accuracy by seed."""

    name: str
    kind: str
    sram_bytes: int
    accuracies: np.ndarray
    lr: float

    @property
    def mean(self) -> float:
        return float(self.accuracies.mean())

    @property
    def spread(self) -> float:
        return float(self.accuracies.std(ddof=1)) if len(self.accuracies) > 1 else 0.0

    def told(self) -> str:
        return percent(self.accuracies)

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "accuracies": self.accuracies.tolist()}


def references(name: str, model: ResourceModel) -> dict[str, tuple[str, Scheme]]:
    """Kind and scheme by name."""
    layers = model.layers.paths
    count = len(layers)
    found = {"head": ("head", head_only())}
    for k in sorted({*(k for k in (5, 10, 20, 30) if k < count), count}):
        found[f"biases {k}"] = ("biases", biases_only(model, k))
    for k in (1, 2, 4):
        if k < count:
            found[f"last {k}"] = ("last layers", last_layers(model, k))
    for label, scheme in published(layers).items() if name != "speech" else ():
        found[f"published {label}"] = ("published", scheme)
    return found


def published(layers: Sequence[str]) -> dict[str, Scheme]:
    """The published schemes of MCUNet-5FPS by label; `layers` are its paths."""
    found = {}
    for scheme in zoo.schemes():
        if scheme.network == "mcunet-5fps":
            weights = {layers[place]: ratio for place, ratio in scheme.weights.items() if ratio}
            deep = max(scheme.biases, *(len(layers) - layers.index(path) for path in weights))
            found[scheme.label] = Scheme.of(deep, weights)
    return found


def specs_of(case: Case, head: Trained, named: Mapping[str, tuple[str, Scheme]]) -> dict[str, Spec]:
    """What references train, by name; the published ones also with the largest channels."""
    specs = {key: scheme.spec(case.layers) for key, (_, scheme) in named.items()}
    scores = score_layers(case.network, head, case.layers)
    orders = channel_orders(case.network.forward, case.layers, scores, "magnitude")
    for key, (kind, scheme) in named.items():
        if kind == "published":
            weights = dict(scheme.weights)
            specs[f"{key}, largest channels"] = case.layers.spec(scheme.biases, weights, orders)
    return specs


def contributions(
    directory: Path | None, name: str, model: ResourceModel, quick: bool
) -> Contributions:
    path = directory / f"{name}.json" if directory else None
    if path is not None and path.is_file():
        return with_ratios(Contributions.load(path), model.layers)
    if not quick:
        raise InputError(
            f"no table of contributions at {path}; give --tables, the directory where "
            f"benchmarks/contributions.py --task {name} left its {name}.json"
        )
    rng, paths = np.random.default_rng(0), model.layers.paths
    biases = {k: Gain(0.1 * k / len(paths)) for k in range(1, len(paths) + 1)}
    weights = {(p, r): Gain(rng.uniform(0, 0.05) * float(r)) for p in paths for r in model.ratios}
    return Contributions("random", paths, Gain(0.5), biases, weights, "random")


def searched(
    case: Case, table: Contributions, limits: Iterable[int], arguments: argparse.Namespace
) -> Found:
    """What `kilograd search` answers at each limit."""
    task = case.bench.task
    limits = sorted({*limits})
    return find(
        case.network.within(Budget(sram=limits[-1])),
        (task.x, task.y),
        contributions=table,
        method="measured",
        seeds=arguments.seeds,
        epochs=case.bench.training.epochs,
        samples=task.samples,
        test_samples=task.test_samples,
        rounds=arguments.rounds,
        lr=RATES,
        channels=arguments.channels,
        front=limits,
        time_limit=SECONDS,
        jobs=arguments.jobs,
        store=STORE,
    )


def at_best_rates(
    bench: Bench, specs: Sequence[Spec], seeds: int
) -> tuple[list[float], np.ndarray]:
    """For each the rate at which it is judged best, and its accuracies there [specs, seeds]."""
    rates = (min(RATES) / 3, *RATES)
    scores = [bench.at(rate).scores(specs, range(seeds)) for rate in rates]
    judged = np.array([[[score.accuracy for score in row] for row in rows] for rows in scores])
    best = judged.mean(axis=2).argmax(axis=0)
    return [rates[index] for index in best], judged[best, np.arange(len(specs))]


def tested(bench: Bench, specs: Sequence[Spec], rates: Sequence[float], seeds: int) -> np.ndarray:
    """Accuracies [specs, seeds] on the samples of `bench` to judge by."""
    found = np.zeros((len(specs), seeds))
    for rate in set(rates):
        rows = [row for row, each in enumerate(rates) if each == rate]
        scores = bench.at(rate).scores([specs[row] for row in rows], range(seeds), "testing")
        found[rows] = [[score.accuracy for score in row] for row in scores]
    return found


def standard_error(values: np.ndarray) -> float:
    """Of the mean; 0 of a single one."""
    return float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Compared:
    """A reference, and what is found and the largest sum at its SRAM."""

    reference: Tested
    found: Tested
    largest: Tested

    @property
    def more(self) -> np.ndarray:
        """Of what is found over the reference, seed by seed."""
        return self.found.accuracies - self.reference.accuracies

    def cells(self) -> tuple[str, ...]:
        own, best, more = self.reference, self.found, self.more
        return (
            own.name, f"{own.sram_bytes:,} B", own.told(), self.largest.told(), best.told(),
            f"{best.sram_bytes:,} B", best.kind, f"{own.lr:.2g}, {best.lr:.2g}",
            f"{100 * more.mean():+.1f} ± {100 * standard_error(more):.1f}",
        )  # fmt: skip


def measure(
    name: str, case: Case, arguments: argparse.Namespace
) -> tuple[list[Compared], list[Tested], Found, list[Foretold]]:
    """A comparison for each reference, all that was tested, the result of the search, and what
    gradients foretell at each rate.
    """
    model = ResourceModel(case.network)
    gains = contributions(arguments.tables, name, model, arguments.quick)
    named = references(name, model)
    if arguments.quick:
        named = {key: named[key] for key in ("head", "biases 5", "last 1")}
    limits = {key: model.linked(scheme).sram_bytes for key, (_, scheme) in named.items()}
    low, high = min(limits.values()), max(limits.values())
    between = [] if arguments.quick else np.linspace(low, high, arguments.curve + 2)[1:-1]
    budgets = sorted({*limits.values(), *map(int, between)})
    found = searched(case, gains, budgets, arguments)
    sums = {
        budget: max((p for p in found.front if p.sram_bytes <= budget), key=lambda p: p.gain)
        for budget in budgets
    }
    bench = best_rate(case.bench, case.layers, RATES, arguments.seeds)
    head = train_head(case.network, bench, case.layers)
    foretold = foretell(case.network, head, case.layers, bench.rates, found.orders)
    specs = specs_of(case, head, named)
    tries = [(key, named[key.split(",")[0]][0], limits[key.split(",")[0]]) for key in specs]
    rates, _ = at_best_rates(case.bench, [*specs.values()], arguments.seeds)
    points = [*{p.scheme: p for p in (*sums.values(), *found.answers.values())}.values()]
    rates += [point.lr for point in points]
    judged = replace(case.bench.task, test=case.test, test_samples=None)
    accuracies = tested(
        replace(case.bench, task=judged),
        [*specs.values(), *map(found.spec_of, points)],
        rates,
        arguments.tests,
    )
    by_hand = [
        Tested(key, kind, sram, *result)
        for (key, kind, sram), *result in zip(
            tries, accuracies[: len(tries)], rates[: len(tries)], strict=True
        )
    ]
    own = zip(points, accuracies[len(tries) :], rates[len(tries) :], strict=True)
    by_scheme = {p.scheme: Tested("", p.kind, p.sram_bytes, row, rate) for p, row, rate in own}
    best = {budget: by_scheme[found.answers[budget].scheme] for budget in budgets}
    largest = {budget: by_scheme[sums[budget].scheme] for budget in budgets}
    compared = [Compared(o, best[o.sram_bytes], largest[o.sram_bytes]) for o in by_hand]
    curve = [
        replace(each[budget], name=f"{kind} at {budget:,} B", kind=kind)
        for budget in budgets
        for kind, each in (("largest sum", largest), ("found", best))
    ]
    wholes = [replace(foretold, rates=bench.at(rate).rates) for rate in (min(RATES) / 3, *RATES)]
    return compared, [*by_hand, *curve], found, wholes


def tell(what: str, more: Sequence[float]) -> None:
    points = 100 * np.array(more)
    same = np.abs(points) < 1e-6
    print(
        f"{what}: better {int((points > 0)[~same].sum())}, equal {int(same.sum())}, worse "
        f"{int((points < 0)[~same].sum())} of {len(points)}; {points.mean():+.1f} points on "
        f"average, {points.min():+.1f} to {points.max():+.1f}"
    )


def foretold(found: Found) -> str:
    """A table of what the largest sums of measured and of foretold contributions gained when they
    were trained, on samples to judge by; nothing where a limit has no scheme of its own, or both
    are the same.
    """

    def cells(points: Iterable[Point], less: int, limit: int) -> tuple[str, str]:
        fitting = [p for p in points if less < p.sram_bytes <= limit and p.realised]
        if not fitting:
            return "", ""
        point = max(fitting, key=lambda p: p.sram_bytes)
        assert point.realised
        mean, spread = 100 * point.realised.mean, 100 * point.realised.spread
        return f"{mean:+.1f} ± {spread:.1f}", f"{point.lr:.2g}"

    rows = [
        (f"{limit:,} B", *cells(found.front, less, limit), *cells(found.foretold, less, limit))
        for less, limit in pairwise([0, *found.answers])
    ]
    return table(("SRAM limit", "measured sum", "its rate", "foretold sum", "its rate"), rows)


def told_before(found: Found, wholes: Sequence[Foretold]) -> str:
    """What corrected contributions of the schemes of the trial tell of those that refinement
    trained, with and without what gradients foretell of whole schemes.
    """
    refined = {point.scheme for point in found.refined}
    gained = {p.scheme: p.realised for p in found.points if p.realised and p.scheme != Scheme(0)}
    before = {scheme: gain for scheme, gain in gained.items() if scheme not in refined}
    left = [scheme for scheme in gained if scheme in refined]
    if len(left) < 3:
        return "too few schemes were refined to tell how well they were told"
    gains = np.array([gained[scheme].mean for scheme in left])
    table, lines = found.contributions.distinct(found.layers), []
    for label, whole in (("sums alone", ()), ("with what is foretold of the whole", wholes)):
        told = correct(table, before, whole).mean.of_schemes(left)
        error = np.sqrt(np.mean((told - gains) ** 2))
        correlation = np.corrcoef(told, gains)[0, 1]
        lines.append(f"{label} {100 * error:.1f} points off, correlation {correlation:.2f}")
    return f"{len(left)} refined schemes told by {len(before)} others: {'; '.join(lines)}"


def report(
    name: str,
    compared: list[Compared],
    every: list[Tested],
    found: Found,
    wholes: Sequence[Foretold],
    plots: Path | None,
) -> None:
    print(f"\n{name}\n\n{table(HEADER, [each.cells() for each in compared])}\n")
    published = [each for each in compared if each.reference.kind == "published"]
    tell("found", [each.more.mean() for each in compared])
    if published:
        tell("found, against the published", [each.more.mean() for each in published])
    print(f"\ngain over the head, points, on samples to judge by\n\n{foretold(found)}\n")
    tell("largest sum", [each.largest.mean - each.reference.mean for each in compared])
    known = [
        {
            "name": point.told(),
            "kind": point.kind,
            "predicted": point.gain,
            "realised": point.realised_mean,
        }
        for point in found.points
    ]
    pairs = np.array([(each["predicted"], each["realised"]) for each in known])
    if len(pairs) > 3 and pairs.std(0).min() > 0:
        upper = pairs[pairs[:, 1] > np.median(pairs[:, 1])]
        print(
            f"predicted less realised: mean {100 * (pairs[:, 0] - pairs[:, 1]).mean():.1f} points; "
            f"correlation {np.corrcoef(pairs.T)[0, 1]:.2f} of {len(pairs)} schemes, "
            f"{np.corrcoef(upper.T)[0, 1]:.2f} of the half that gained most"
        )
        print(told_before(found, wholes))
    if plots is None:
        return
    plots.mkdir(parents=True, exist_ok=True)
    points = [
        FrontPoint(
            own.name, own.sram_bytes, gain=100 * own.mean, spread=100 * own.spread, kind=own.kind
        )
        for own in every
    ]
    chart = front(points, gain="accuracy, %", by_kind=True)
    (plots / f"{name}-front.svg").write_text(svg(chart), encoding="utf-8")
    (plots / f"{name}-additivity.svg").write_text(svg(additivity(known), 420), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path)
    parser.add_argument("--data", nargs="+", default=[*CASES], choices=[*CASES])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tests", type=int, default=12, help="seeds of what is tested")
    parser.add_argument("--curve", type=int, default=2, help="budgets between the references")
    parser.add_argument("--rounds", type=int, help="by default those of the search, 6")
    parser.add_argument("--channels", choices=CHANNELS, default="first")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plots", type=Path)
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.quick:
        arguments.seeds = arguments.tests = arguments.rounds = 1
    results = []
    for name in arguments.data:
        case = CASES[name]("int8")
        bench, task, test = case.bench, case.bench.task, case.test
        if arguments.quick:
            task = replace(task, samples=20, test_samples=20)
            bench = replace(bench, training=replace(bench.training, epochs=1))
            test = (test[0][:20], test[1][:20])
        case = replace(case, bench=replace(bench, task=task, jobs=arguments.jobs), test=test)
        compared, every, found, wholes = measure(name, case, arguments)
        results.append(
            {"task": name, "tested": [own.to_json() for own in every], "found": found.to_json()}
        )
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        report(name, compared, every, found, wholes, arguments.plots)


if __name__ == "__main__":
    main()
