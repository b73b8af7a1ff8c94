"""Contributions by short trainings of the compiled program.

Lin et al., "On-Device Training Under 256KB Memory", NeurIPS 2022: the gain of the biases of the
last k layers over training the head alone, and the gain of a share of one layer's weight over the
biases from that layer to the end. Differences are taken seed by seed, so what a seed has in common
(the split, the order of samples) is not in their spread.

Runs are independent: joblib executes them, by default in processes of this computer, or wherever
the user's `joblib.parallel_config` says. All seeds of a scheme are one job, for they share a build,
which costs about as much as the runs. Every finished run is in the store at once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kilograd.errors import InputError
from kilograd.search.layers import Layers, Orders
from kilograd.search.store import Score, Store, key_of, program_text
from kilograd.search.table import Contributions, Gain
from kilograd.search.task import Task
from kilograd.search.training import Trainer, Training, trial
from kilograd.update import Spec, unparse

T = TypeVar("T")

RATIOS = (Fraction(1, 8), Fraction(1, 4), Fraction(1, 2), Fraction(1))


@dataclass(frozen=True)
class Plan:
    """What is measured: for which k the biases, which ratios of which layers, and the seeds."""

    biases: tuple[int, ...]
    weights: tuple[tuple[str, Fraction], ...]
    seeds: tuple[int, ...]

    @staticmethod
    def full(layers: Layers, seeds: int) -> Plan:
        """Every k, every layer, every ratio."""
        weights = tuple((path, ratio) for path in layers.paths for ratio in RATIOS)
        return Plan(tuple(range(len(layers.body) + 1)), weights, tuple(range(seeds)))

    @staticmethod
    def quick(layers: Layers, seeds: int, points: int = 9) -> Plan:
        """`points` values of k, evenly spaced, and every layer at a quarter and whole."""
        count = len(layers.body)
        spaced = {round(count * i / (points - 1)) for i in range(points)}
        ratios = (Fraction(1, 4), Fraction(1))
        weights = tuple((path, ratio) for path in layers.paths for ratio in ratios)
        return Plan(tuple(sorted(spaced)), weights, tuple(range(seeds)))


@dataclass(frozen=True, eq=False)
class Bench:
    """Where runs take place: a network by `trainer` and the hash `network` of all that decides on
    its programs, the task, and how it is trained.
    """

    trainer: Trainer
    network: Mapping[str, Any]
    task: Task
    training: Training
    store: Store | None
    jobs: int | None = None
    progress: bool = True
    judge: str = "c"
    """What judges: the "c" program, or as `evaluate.outputs` says."""

    @property
    def rates(self) -> np.ndarray:
        """The learning rates of all steps of a run."""
        (x, _), _ = self.task.draw(0)
        epochs = range(self.training.epochs)
        return np.repeat([self.training.rate(epoch) for epoch in epochs], len(x))

    def at(self, lr: float) -> Bench:
        """The same with another learning rate."""
        return replace(self, training=replace(self.training, lr=lr))

    def scores(
        self, specs: Sequence[Spec], seeds: Sequence[int], what: str = "measuring"
    ) -> list[list[Score]]:
        """The scores of every spec with every seed; those in the store are not run again.

        Equal specs are run once. Raises what a run raises.
        """
        texts = [tuple(unparse(spec)) for spec in specs]
        common = self._common()
        known: dict[tuple[tuple[str, ...], int], Score] = {}
        jobs: list[_Job] = []
        if self.store is not None:
            self.store.clean()
        for spec, text in zip(specs, texts, strict=True):
            if any(job.text == text for job in jobs):
                continue
            missing = []
            for seed in dict.fromkeys(seeds):
                inputs = {**common, "update": list(text), "seed": seed}
                score = self.store.get(key_of(inputs)) if self.store is not None else None
                if score is None:
                    missing.append(seed)
                else:
                    known[text, seed] = score
            if missing:
                jobs.append(_Job(spec, text, tuple(missing)))
        total = len(set(texts)) * len(set(seeds))
        with _bar(self.progress, what, total, len(known)) as advance:
            for text, seed, score in self._run(jobs, common):
                known[text, seed] = score
                advance()
        return [[known[text, seed] for seed in seeds] for text in texts]

    def _common(self) -> dict[str, Any]:
        judge = {} if self.judge == "c" else {"judge": self.judge}
        return {
            **judge,
            "network": dict(self.network),
            "data": self.task.digest(),
            "training": self.training.inputs,
            "program_text": program_text(),
        }

    def _run(
        self, jobs: list[_Job], common: dict[str, Any]
    ) -> Iterator[tuple[tuple[str, ...], int, Score]]:
        if not jobs:
            return
        # Takes half a second, which `import kilograd` need not.
        import joblib
        from joblib.parallel import get_active_backend

        backend, configured = get_active_backend()
        # One job at a time is joblib's default; here it is every core, or what the user configured.
        workers = self.jobs or (configured if configured not in (None, 1) else -1)
        if self.jobs is None and type(backend).__name__ == "SequentialBackend":
            workers = 1
        returned = "generator_unordered" if backend.supports_return_generator else "list"
        parallel = joblib.Parallel(n_jobs=workers, return_as=returned, batch_size=1)
        work = (
            joblib.delayed(_work)(
                self.trainer, self.task, self.training, self.store, self.judge, common, job
            )
            for job in jobs
        )
        for job, scores in _survived(parallel(work)):
            for seed, score in zip(job.seeds, scores, strict=True):
                inputs = {**common, "update": list(job.text), "seed": seed}
                # A worker on a computer that does not share the directory has written elsewhere.
                if self.store is not None and self.store.get(key_of(inputs)) is None:
                    self.store.put(inputs, score)
                yield job.text, seed, score


def _survived(results: Iterable[T]) -> Iterator[T]:
    """The results of workers; one that was killed is the user's to know."""
    from joblib.externals.loky import BrokenProcessPool

    try:
        yield from results
    except BrokenProcessPool as error:
        raise InputError(
            "a process that measured was killed, perhaps because memory ran out. What was measured "
            "is kept; the same call goes on from there, with fewer processes (jobs=1, --jobs 1) in "
            "less memory"
        ) from error


@dataclass(frozen=True)
class _Job:
    spec: Spec
    text: tuple[str, ...]
    seeds: tuple[int, ...]


def _work(
    trainer: Trainer,
    task: Task,
    training: Training,
    store: Store | None,
    judge: str,
    common: Mapping[str, Any],
    job: _Job,
) -> tuple[_Job, list[Score]]:
    """One build and its runs, in whatever process."""
    session = trainer.session(job.spec, judge)
    scores = []
    for seed in job.seeds:
        score = trial(session, task, training, seed)
        if store is not None:
            store.put({**common, "update": list(job.text), "seed": seed}, score)
        scores.append(score)
    return job, scores


def measure(
    bench: Bench,
    layers: Layers,
    plan: Plan,
    *,
    name: str,
    orders: Orders | None = None,
    method: str = "measured",
) -> Contributions:
    """The table of contributions that `plan` asks for, by runs on `bench`.

    `orders` says which input channels are trained first; layers without one train their first. The
    weights of a layer whose k is not in the plan are taken over the accuracy that is interpolated
    there, seed by seed.
    """
    ks = sorted({0, *plan.biases})
    specs = [layers.spec(k, {}) for k in ks]
    same: dict[tuple[str, int], Fraction] = {}
    for path, ratio in plan.weights:
        # Ratios that come to the same channels share their runs.
        count = layers.body[layers.paths.index(path)].count(ratio)
        shared = same.setdefault((path, count), ratio)
        specs.append(layers.spec(layers.biases_from(path), {path: shared}, orders))
    scores = bench.scores(specs, plan.seeds)
    accuracy = np.array([[score.accuracy for score in row] for row in scores])
    by_k = dict(zip(ks, accuracy[: len(ks)], strict=True))
    biases = {k: gain(row - by_k[0]) for k, row in by_k.items()}
    weights = {
        (path, ratio): gain(row - _at(by_k, layers.biases_from(path)))
        for (path, ratio), row in zip(plan.weights, accuracy[len(ks) :], strict=True)
    }
    return Contributions(name, layers.paths, gain(by_k[0]), biases, weights, method)


def gain(values: np.ndarray) -> Gain:
    """Mean and sample standard deviation of one value a seed."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Gain(float(values.mean()), spread, len(values))


def _at(by_k: Mapping[int, np.ndarray], k: int) -> np.ndarray:
    """Accuracy with the biases of the last k layers, by seed; linear between measured k."""
    if k in by_k:
        return by_k[k]
    below = max(other for other in by_k if other < k)
    above = min((other for other in by_k if other > k), default=below)
    if above == below:
        return by_k[below]
    share = (k - below) / (above - below)
    return (1 - share) * by_k[below] + share * by_k[above]


@contextlib.contextmanager
def _bar(show: bool, what: str, total: int, done: int) -> Iterator[Callable[[], None]]:
    """A progress bar with the time left, on a terminal; nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    hidden = not (show and console.is_terminal and os.environ.get("TERM") != "dumb")
    with Progress(*columns, console=console, disable=hidden, transient=True) as bar:
        # What the store had is no sign of how fast runs are.
        task = bar.add_task(what, total=total - done)
        yield lambda: bar.advance(task)
