"""Found schemes against hand-made ones at equal SRAM: accuracy, and whether gains add up.

    python benchmarks/search_accuracy.py --tables DIRECTORY [--data digits faces spoken speech]
        [--seeds 3] [--rounds 6] [--jobs 2] [--json FILE] [--plots DIRECTORY] [--quick]

Tasks: `digits`, `faces` and `spoken`, transfer of the pretrained MCUNet-5FPS (transfer.py), and
`speech`, a DS-CNN that gets to know a new speaker (benchmarks/speech.py, the one whom it knows
least). The contributions of each are read from DIRECTORY/<task>.json, as `kilograd search` and
benchmarks/contributions.py leave them; measure them at the same resolution. Ratios that were not
measured are interpolated.

References are the head alone, the biases of the last k layers, the last layers whole, and for
MCUNet the five published schemes. For the SRAM of each (arena and state of the planned programs;
the stack differs by a hundred bytes), and for evenly spaced budgets between, the scheme of the
largest summed contributions is selected. All are trained: SGD on single samples, the same samples
in the same order, the rate of a grid that is best on validation samples (at most 400 of those that
are neither learned from nor for testing), mean and standard deviation of the test accuracy over the
seeds. Then, as in a search with a front of these budgets, what was trained, the published schemes
aside, corrects the contributions, and what is selected by a draw of them is trained, and what they
rank first beside the best trained scheme, --rounds times. Every training is kept in
build/search/accuracy. Neither contributions nor anything else is chosen by test samples.

`sum` rows are the first selections, `refined` rows the later ones. `found` rows are what `kilograd
search` answers: of all that was trained but for the published ones and needs no more SRAM, the
three of the best validation accuracy are judged by as many seeds again, and the best of these is
it. `predicted` is the sum of contributions, `realised` the test accuracy less that of the head
alone.

--quick is a smoke test of minutes at most: tiny budgets, one rate, and gains drawn at random where
the directory has no table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import speech
import transfer
from contributions import SPEAKER, STORE
from real_data import Log, Split, data_file, learn, table

from kilograd import zoo
from kilograd.compiler import Prepared, prepare
from kilograd.errors import InputError
from kilograd.execution.session import Session
from kilograd.planning.front import FrontPoint
from kilograd.report.choices import front
from kilograd.report.contributions import additivity
from kilograd.report.drawing import svg
from kilograd.saving import write_file
from kilograd.search.correction import correct
from kilograd.search.layers import Layers
from kilograd.search.measure import gain
from kilograd.search.neighbours import neighbours
from kilograd.search.points import biases_only, head_only, last_layers
from kilograd.search.resources import ResourceModel
from kilograd.search.scheme import Scheme
from kilograd.search.search import with_ratios
from kilograd.search.select import Limits, select
from kilograd.search.store import key_of, program_text
from kilograd.search.table import Contributions, Gain
from kilograd.search.trials import CONTENDERS
from kilograd.update import unparse

RATES = (0.003, 0.01)
JUDGED = 400
SECONDS = 20.0
"""Of a selection."""
HEADER = ("scheme", "kind", "SRAM, B", "rate", "accuracy, %", "predicted", "realised")
COMPARISON = (
    *("reference", "its SRAM", "accuracy, %", "largest sum", "found"),
    *("predicted", "realised"),
)
"""`predicted` and `realised` are of the largest sum."""


@dataclass(frozen=True)
class Task:
    """A network before it is decided what to train, and samples for a seed."""

    prepared: Prepared
    draw: Callable[[int], tuple[Split, Split]]
    test: Split
    start: Callable[[Session, int], None]
    epochs: int
    published: Mapping[str, Scheme]


@dataclass(frozen=True)
class Trained:
    """The rate, and accuracies of the seeds on validation and on test samples."""

    rate: float
    judged: list[float]
    tested: list[float]


@dataclass(frozen=True)
class Row:
    """A scheme that was trained."""

    name: str
    kind: str
    scheme: Scheme
    static_bytes: int
    predicted: float | None
    trained: Trained
    again: tuple[float, ...] = ()
    """Accuracies on validation samples with as many seeds again."""

    @property
    def judged(self) -> float:
        return float(np.mean([*self.trained.judged, *self.again]))

    @property
    def mean(self) -> float:
        return float(np.mean(self.trained.tested))

    @property
    def spread(self) -> float:
        return float(np.std(self.trained.tested))


def mcunet(name: str, resolution: int) -> Task:
    source = (
        transfer.digits(resolution, 500) if name == "digits" else transfer.TASKS[name](resolution)
    )
    chosen = np.random.default_rng(0).permutation(len(source.pool[0]))[: transfer.CALIBRATION]
    model, example = zoo.create(
        "mcunet_5fps",
        num_classes=source.classes,
        weights=data_file(transfer.WEIGHTS),
        resolution=resolution,
    )
    transfer.scale_features(model, source.pool[0][chosen])
    prepared = prepare(model, example, precision="int8", calibration=source.pool[0][chosen])

    def start(session: Session, seed: int) -> None:
        session.load_state_dict(transfer.fresh_head(source, seed))

    layers = ResourceModel(prepared).layers.paths
    published = {
        scheme.label: Scheme.of(
            max(scheme.biases, *(len(layers) - place for place, r in scheme.weights.items() if r)),
            {layers[place]: ratio for place, ratio in scheme.weights.items() if ratio},
        )
        for scheme in zoo.schemes()
        if scheme.network == "mcunet-5fps"
    }
    draw = partial(source.draw, validation=JUDGED)
    return Task(prepared, draw, source.test, start, source.epochs, published)


def speaker(quick: bool, log: Log) -> Task:
    sounds = speech.recordings((1.0,) if quick else speech.SPEEDS)
    who = SPEAKER
    model = speech.pretrained(sounds, who, 1 if quick else speech.EPOCHS, log)
    others = np.flatnonzero(sounds.speaker != who)
    chosen = np.random.default_rng(0).permutation(others)[: speech.CALIBRATION]
    prepared = prepare(
        model, sounds.x[0, :1], precision="int8", calibration=sounds.x[0, chosen], name="speech"
    )
    return Task(
        prepared,
        lambda seed: sounds.draw(who, seed),
        sounds.test(who),
        lambda session, seed: None,
        speech.CHOSEN.epochs,
        {},
    )


def synthetic(model: ResourceModel) -> Contributions:
    rng, paths = np.random.default_rng(0), model.layers.paths
    biases = {k: Gain(0.1 * k / len(paths)) for k in range(1, len(paths) + 1)}
    weights = {(p, r): Gain(rng.uniform(0, 0.05) * float(r)) for p in paths for r in model.ratios}
    return Contributions("random", paths, Gain(0.5), biases, weights, "random")


def contributions(directory: Path | None, name: str, model: ResourceModel, quick: bool) -> Any:
    path = directory / f"{name}.json" if directory else None
    if path is not None and path.is_file():
        return with_ratios(Contributions.load(path), model.layers)
    if quick:
        return synthetic(model)
    raise InputError(
        f"no table of contributions at {path}; give --tables, the directory of what "
        f"`kilograd search` measured, one file {name}.json for each task"
    )


def references(task: Task, model: ResourceModel) -> dict[str, tuple[str, Scheme]]:
    count = len(model.layers.paths)
    found = {"head": ("head", head_only())}
    for k in sorted({*(k for k in (5, 10, 20, 30) if k < count), count}):
        found[f"biases {k}"] = ("biases", biases_only(model, k))
    for k in (1, 2, 4):
        if k < count:
            found[f"last {k}"] = ("last layers", last_layers(model, k))
    for label, scheme in task.published.items():
        found[f"published {label}"] = ("published", scheme)
    return found


def train(
    task: Task, layers: Layers, scheme: Scheme, rates: tuple[float, ...], seeds: int, first: int = 0
) -> Trained:
    """With so many seeds from the `first` on, at the rate of the best validation accuracy; what was
    trained before is read.
    """
    spec = scheme.spec(layers)
    inputs = {
        "network": task.prepared.inputs,
        "program_text": program_text(),
        "data": [digest(each) for split in (*task.draw(first), task.test) for each in split],
        "update": unparse(spec),
        "how": [task.epochs, rates, seeds, first],
    }
    path = STORE / "accuracy" / f"{key_of(inputs)}.json"
    if path.is_file():
        return Trained(**json.loads(path.read_text()))
    session = task.prepared.program(spec).on_host(optimize="-O1")
    results = []
    for rate in rates:
        judged, tested = [], []
        for seed in range(first, first + seeds):
            samples, validation = task.draw(seed)
            session.reset()
            task.start(session, seed)
            finite = learn(session, samples, task.epochs, rate, seed)
            judged.append(session.accuracy(*validation) if finite else 0.0)
            tested.append(session.accuracy(*task.test) if finite else 0.0)
        results.append(Trained(rate, judged, tested))
    best = max(results, key=lambda each: float(np.mean(each.judged)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(asdict(best)).encode(), "a training")
    return best


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@dataclass(frozen=True)
class Trainings:
    """Trains schemes, each once, in `jobs` processes."""

    task: Task
    model: ResourceModel
    gains: Contributions
    arguments: argparse.Namespace

    def rows(self, named: Mapping[str, tuple[str, Scheme]]) -> list[Row]:
        """The rows of schemes, given as kind and scheme by name."""
        rates = RATES[1:2] if self.arguments.quick else RATES
        schemes = list(dict.fromkeys(scheme for _, scheme in named.values()))
        results = self._run([(scheme, rates, self.arguments.seeds) for scheme in schemes])
        trained = dict(zip(schemes, results, strict=True))
        size = self.model.static_bytes
        return [
            Row(key, kind, scheme, size(scheme), self._predicted(scheme), trained[scheme])
            for key, (kind, scheme) in named.items()
        ]

    def again(self, rows: list[Row]) -> list[Row]:
        """The rows judged by as many seeds again."""
        seeds = self.arguments.seeds
        results = self._run([(r.scheme, (r.trained.rate,), seeds, seeds) for r in rows])
        pairs = zip(rows, results, strict=True)
        return [replace(row, again=tuple(result.judged)) for row, result in pairs]

    def _run(self, jobs: list[tuple[Any, ...]]) -> list[Trained]:
        work = (joblib.delayed(train)(self.task, self.model.layers, *job) for job in jobs)
        return list(joblib.Parallel(n_jobs=self.arguments.jobs)(work))

    def _predicted(self, scheme: Scheme) -> float | None:
        try:
            return scheme.gain(self.gains)
        except InputError:  # a ratio that was not measured
            return None


def measure(name: str, task: Task, arguments: argparse.Namespace, log: Log) -> Iterator[list[Row]]:
    """All rows after each round."""
    model = ResourceModel(task.prepared)
    gains = contributions(arguments.tables, name, model, arguments.quick).distinct(model.layers)
    named = references(task, model)
    if arguments.quick:
        named = {key: named[key] for key in ("head", "biases 5", "last 1")}
    budgets = {key: model.static_bytes(scheme) for key, (_, scheme) in named.items()}
    low, high = min(budgets.values()), max(budgets.values())
    if not arguments.quick:
        for budget in np.linspace(low, high, arguments.curve + 2)[1:-1]:
            budgets[f"{budget / 1024:.0f} KB"] = int(budget)

    def best(budget: int, table: Contributions) -> Scheme:
        limits = Limits(budget)
        return select(table, model, limits, seconds=SECONDS, link=False, reserve_bytes=0).scheme

    def beside(budget: int, table: Contributions, rows: list[Row]) -> Scheme | None:
        centre, known = answer("", budget, rows).scheme, {row.scheme for row in rows}
        return next(
            neighbours(centre, table, model, Limits(budget), known=known, reserve_bytes=0), None
        )

    place = Trainings(task, model, gains, arguments)
    sums = {f"sum at {key}": ("sum", best(budget, gains)) for key, budget in budgets.items()}
    rows = place.rows(named | sums)
    rng = np.random.default_rng(0)
    for turn in range(arguments.rounds + 1):
        answers = [answer(key, budget, rows) for key, budget in budgets.items()]
        tell(f"{name}: round {turn}", answers, log)
        yield [*rows, *answers]
        if turn == arguments.rounds:
            break
        correction, chosen = correct(gains, realised(rows)), dict[Scheme, str]()
        for key, budget in budgets.items():
            chosen.setdefault(best(budget, correction.draw(rng)), f"round {turn + 1} at {key}")
            if (near := beside(budget, correction.mean, rows)) is not None:
                chosen.setdefault(near, f"round {turn + 1} beside {key}")
        known = {row.scheme for row in rows}
        fresh = {name: ("refined", each) for each, name in chosen.items() if each not in known}
        rows += place.rows(fresh)
    contenders = {key: inside(budget, rows)[:CONTENDERS] for key, budget in budgets.items()}
    every = {row.scheme: row for those in contenders.values() for row in those}
    judged = {row.scheme: row for row in place.again([*every.values()])}
    answers = [
        answer(key, budget, [judged[row.scheme] for row in contenders[key]])
        for key, budget in budgets.items()
    ]
    tell(f"{name}: twice the seeds", answers, log)
    yield [*rows, *answers]


def realised(rows: list[Row]) -> dict[Scheme, Gain]:
    """What the search has seen its schemes gain on validation samples."""
    head = np.array(next(row.trained.judged for row in rows if row.kind == "head"))
    return {
        row.scheme: gain(np.array(row.trained.judged) - head)
        for row in rows
        if row.kind != "published"
    }


def tell(what: str, answers: list[Row], log: Log) -> None:
    for best in answers:
        log(
            f"{what}: {best.name}, judged {100 * best.judged:.1f}, "
            f"{100 * best.mean:.1f} +- {100 * best.spread:.1f}"
        )


def inside(budget_bytes: int, rows: list[Row]) -> list[Row]:
    """What fits of what a search trains, the best judged first, each scheme once."""
    known = {r.scheme: r for r in rows if r.kind != "published" and r.static_bytes <= budget_bytes}
    return sorted(known.values(), key=lambda r: (-r.judged, r.static_bytes))


def answer(key: str, budget_bytes: int, rows: list[Row]) -> Row:
    """What the search answers at a budget: of the trained schemes that fit, the best judged one."""
    return replace(inside(budget_bytes, rows)[0], name=f"found at {key}", kind="found")


def content(name: str, rows: list[Row]) -> dict[str, Any]:
    """What there is to keep of a task, as JSON values."""
    base = next(row.mean for row in rows if row.kind == "head")
    schemes = [
        {
            "name": row.name,
            "kind": row.kind,
            "sram_bytes": row.static_bytes,
            "judged": [*row.trained.judged, *row.again],
            "accuracy": row.mean,
            "spread": row.spread,
            "accuracies": row.trained.tested,
            "rate": row.trained.rate,
            "predicted": row.predicted,
            "realised": row.mean - base,
            "biases": row.scheme.biases,
            "weights": {path: str(ratio) for path, ratio in row.scheme.weights},
        }
        for row in rows
    ]
    return {"task": name, "schemes": schemes}


def told(row: Row) -> str:
    return f"{100 * row.mean:.1f} ± {100 * row.spread:.1f}"


def report(name: str, rows: list[Row], plots: Path | None) -> None:
    base = next(row.mean for row in rows if row.kind == "head")
    print(f"\n{name}\n")
    print(
        table(
            HEADER,
            [
                (
                    row.name, row.kind, f"{row.static_bytes:,}", f"{row.trained.rate:g}",
                    told(row),
                    "" if row.predicted is None else f"{100 * row.predicted:.1f}",
                    f"{100 * (row.mean - base):.1f}",
                )
                for row in rows
            ],
        ),
        flush=True,
    )  # fmt: skip
    named = {row.name: row for row in rows}
    compared, worse = [], []
    for row in rows:
        if row.kind in ("found", "sum", "refined"):
            continue
        largest, best = named[f"sum at {row.name}"], named[f"found at {row.name}"]
        compared.append(
            (
                row.name, f"{row.static_bytes:,} B", told(row), told(largest),
                f"{told(best)}, {best.static_bytes:,} B", f"{100 * (largest.predicted or 0):+.1f}",
                f"{100 * (largest.mean - base):+.1f}",
            )
        )  # fmt: skip
        more = np.array(row.trained.tested) - best.trained.tested
        if more.mean() > 0:
            error = more.std(ddof=1) / len(more) ** 0.5 if len(more) > 1 else 0.0
            worse.append(f"{row.name} by {100 * more.mean():.1f} ± {100 * error:.1f}")
    print(f"\n{table(COMPARISON, compared)}\n")
    print(f"references above what was found at their SRAM: {', '.join(worse) or 'none'}")
    data = content(name, rows)["schemes"]
    known = [row for row in data if row["predicted"] is not None and row["kind"] != "found"]
    pairs = np.array([(row["predicted"], row["realised"]) for row in known])
    if len(pairs) > 1 and pairs.std(0).min() > 0:
        print(
            f"predicted less realised: mean {100 * (pairs[:, 0] - pairs[:, 1]).mean():.1f} points; "
            f"correlation {np.corrcoef(pairs.T)[0, 1]:.2f}"
        )
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        points = [
            FrontPoint(
                row.name,
                row.static_bytes,
                gain=100 * row.mean,
                spread=100 * row.spread,
                kind=row.kind,
            )
            for row in rows
        ]
        chart = front(points, gain="accuracy, %", by_kind=True)
        (plots / f"{name}-front.svg").write_text(svg(chart), encoding="utf-8")
        chart = additivity(known)
        (plots / f"{name}-additivity.svg").write_text(svg(chart, 420), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path)
    parser.add_argument(
        "--data", nargs="+", default=["digits", "faces", "spoken", "speech"],
        choices=("digits", "faces", "spoken", "speech"),
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--resolution", type=int, default=48)
    parser.add_argument("--curve", type=int, default=6, help="budgets between the references")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plots", type=Path)
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    log, results = Log(), dict[str, Any]()
    if arguments.quick:
        arguments.resolution, arguments.seeds, arguments.rounds = 32, 1, 1
    for name in arguments.data:
        if name == "speech":
            task = speaker(arguments.quick, log)
        else:
            task = mcunet(name, arguments.resolution)
        if arguments.quick:
            short = (task.test[0][:20], task.test[1][:20])
            task = replace(task, epochs=1, test=short, draw=_few(task.draw))
        for rows in measure(name, task, arguments, log):
            results[name] = content(name, rows)
            if arguments.json:
                arguments.json.write_text(json.dumps([*results.values()], indent=1) + "\n")
        report(name, rows, arguments.plots)


def _few(draw: Callable[[int], tuple[Split, Split]]) -> Callable[[int], tuple[Split, Split]]:
    def few(seed: int) -> tuple[Split, Split]:
        samples, validation = draw(seed)
        return (samples[0][:20], samples[1][:20]), (validation[0][:20], validation[1][:20])

    return few


if __name__ == "__main__":
    main()
