"""Finds what to train: contributions, then the best scheme within device and budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from kilograd.errors import InputError
from kilograd.options import Loss
from kilograd.search.asked import check_front, front_of, limits_of
from kilograd.search.choice import FRONT_POINTS, Chooser, ladder
from kilograd.search.foretold import foretell
from kilograd.search.found import Found, Point, undominated
from kilograd.search.layers import Layers, Orders, layers_of
from kilograd.search.limits import Limits
from kilograd.search.measure import RATIOS, Bench, Plan, measure
from kilograd.search.network import Network
from kilograd.search.predict import PREDICTOR, channel_orders, score_layers, train_head
from kilograd.search.resources import ResourceModel
from kilograd.search.scheme import Scheme
from kilograd.search.scores import PREDICTORS
from kilograd.search.store import Store
from kilograd.search.table import Contributions, Gain
from kilograd.search.task import Task, make_task
from kilograd.search.training import Training
from kilograd.search.trials import best_rate, trained

METHODS = ("measured", "quick", "fast")
CHANNELS = ("best", "first")


@dataclass(frozen=True)
class Effort:
    """How much a method runs, where the user does not say."""

    seeds: int
    epochs: int
    samples: int | None
    test_samples: int | None
    rounds: int


EFFORTS = {
    "measured": Effort(3, 5, None, None, 6),
    "quick": Effort(2, 5, 200, 200, 3),
    "fast": Effort(1, 5, 200, 200, 0),
}


def find(
    network: Network,
    data: Any,
    test: Any = None,
    *,
    method: str = "quick",
    contributions: Contributions | str | Path | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    samples: int | None = None,
    test_samples: int | None = None,
    rounds: int | None = None,
    lr: float | Sequence[float] | None = None,
    channels: str = "first",
    predictor: str = PREDICTOR,
    judge: str = "c",
    front: int | str | Sequence[int | str] = FRONT_POINTS,
    time_limit: float = 60.0,
    jobs: int | None = None,
    store: str | Path | None = None,
    progress: bool = True,
) -> Found:
    """What to train of a network: the arguments are those of `kilograd.search`."""
    effort = _effort(method, seeds, epochs, samples, test_samples, rounds)
    for name, value, known in (
        ("channels", channels, CHANNELS),
        ("predictor", predictor, PREDICTORS),
    ):
        if value not in known:
            raise InputError(f"{name}={value!r} is unknown; there are {', '.join(known)}")
    if isinstance(contributions, str | Path):
        contributions = Contributions.load(contributions)
    layers = layers_of(network.forward)
    asked = front_of(front)
    chosen_alone = contributions is not None and data is None
    task = None if chosen_alone else _task(network, data, test, effort)
    limits, least = limits_of(network, layers)
    if not isinstance(asked, int):
        check_front(asked, limits, least)
    select_by = partial(_selected, network, layers, limits, asked, time_limit)
    if contributions is not None and task is None:
        return select_by(contributions, None, {}, 0.0)[0]
    assert task is not None
    rates = _rates(network, lr)
    bench = Bench(
        trainer=network,
        network=network.inputs,
        task=task,
        training=Training(effort.epochs, rates[0]),
        store=Store(Path(store)) if store is not None else None,
        jobs=jobs,
        progress=progress,
        judge=judge,
    )
    start = time.perf_counter()
    if len(rates) > 1:
        bench = best_rate(bench, layers, rates, effort.seeds)
    head = train_head(network, bench, layers)
    orders: Orders = {}
    if channels == "best":
        scores = score_layers(network, head, layers)
        orders = channel_orders(network.forward, layers, scores, predictor)
    foretold = foretell(network, head, layers, bench.rates, orders)
    by_gradients: Contributions | None = None
    if contributions is None and method == "fast":
        contributions = foretold.contributions(network.name)
    else:
        with suppress(InputError):  # measuring survives a head that diverged
            by_gradients = foretold.contributions(network.name)
        if contributions is None:
            contributions = contribute(network, bench, layers, method, effort.seeds, orders)
    taken = time.perf_counter() - start
    found, choosers = select_by(contributions, by_gradients, orders, taken)
    rounds, whole = effort.rounds, foretold if foretold.kernel.finite else None
    return trained(bench, found, choosers, effort.seeds, rates, rounds, whole)


def _selected(
    network: Network,
    layers: Layers,
    limits: Limits,
    front: int | Sequence[int],
    time_limit: float,
    contributions: Contributions,
    foretold: Contributions | None,
    orders: Orders,
    seconds: float,
) -> tuple[Found, tuple[Chooser, ...]]:
    """What is best by the contributions, which took `seconds`, and by those foretold, and what
    chooses by other ones within the same limits and smaller ones.
    """
    start = time.perf_counter()
    chooser = Chooser(ResourceModel(network), limits, time_limit)
    table = contributions.distinct(layers)
    best = chooser.best(table)
    asked = [] if isinstance(front, int) else sorted({*front} - {limits.sram_bytes})
    smaller = ladder(chooser, best.sram_bytes, front - 1) if isinstance(front, int) else asked
    choosers = (chooser, *map(chooser.within, smaller))
    chosen = (best, *(each.best(table) for each in choosers[1:]))
    points = undominated(chosen, lambda point: point.gain)
    known = {point.scheme for point in points}
    answers: dict[int, Point] = {}
    others: dict[Scheme, Point] = {}
    for each, largest in zip(choosers[: 1 + len(asked)], chosen, strict=False):
        fitting = [point for point in points if point.sram_bytes <= each.sram_bytes]
        answer = max(fitting, key=lambda point: point.gain)
        if answer is not largest:  # the choice at a smaller limit: time ran out at this one
            answer = replace(answer, gap=max(0.0, largest.gain + largest.gap - answer.gain))
        answers[each.sram_bytes] = answer
        tries = [*each.by_hand(table)]
        if foretold is not None:
            tries.append(each.foretold(foretold, table))
        for point in tries:
            if point.scheme not in known:
                others.setdefault(point.scheme, point)
    found = Found(
        network=network.name,
        device=network.device.name,
        layers=layers,
        contributions=contributions,
        best=answers[chooser.sram_bytes],
        answers=dict(sorted(answers.items())),
        front=points,
        foretold=tuple(p for p in others.values() if p.kind == "foretold"),
        by_hand=tuple(p for p in others.values() if p.kind != "foretold"),
        orders=orders,
        seconds=(seconds, time.perf_counter() - start, 0.0),
    )
    return found, choosers


def contribute(
    network: Network, bench: Bench, layers: Layers, method: str, seeds: int, orders: Orders
) -> Contributions:
    """The table of contributions measured by a method, the input channels of layers in `orders`.

    The rate falls from the start of these runs. What moves too far then loses by itself, as it does
    among others where the rate rises, so that sums tell more of whole schemes (docs/decisions.md).
    """
    bench = replace(bench, training=replace(bench.training, rise=0.0))
    make = Plan.quick if method == "quick" else Plan.full
    plan = make(layers, seeds)
    found = measure(bench, layers, plan, name=network.name, orders=orders, method=method)
    return with_ratios(found, layers) if method == "quick" else found


def with_ratios(found: Contributions, layers: Layers) -> Contributions:
    """The table with the ratios that were not measured between those that were, linear in the
    number of channels from no gain at none; `runs` of these gains is 0.
    """
    weights = dict(found.weights)
    for path in layers.paths:
        measured = {Fraction(0): Gain(0.0, 0.0, 0)}
        measured |= {ratio: found.weights[path, ratio] for ratio in found.ratios(path)}
        for ratio in RATIOS:
            if ratio in measured or max(measured) < ratio:
                continue
            below = max(other for other in measured if other < ratio)
            above = min(other for other in measured if other > ratio)
            share = float((ratio - below) / (above - below))
            low, high = measured[below], measured[above]
            mean = (1 - share) * low.mean + share * high.mean
            weights[path, ratio] = Gain(mean, max(low.spread, high.spread), 0)
    return replace(found, weights=weights)


def _effort(
    method: str,
    seeds: int | None,
    epochs: int | None,
    samples: int | None,
    test_samples: int | None,
    rounds: int | None,
) -> Effort:
    if method not in METHODS:
        raise InputError(f"method={method!r} is unknown; there are {', '.join(METHODS)}")
    own = EFFORTS[method]
    if seeds is not None and seeds < 1:
        raise InputError(f"seeds={seeds}: a search runs with one seed or more")
    if rounds is not None and rounds < 0:
        raise InputError(f"rounds={rounds}: the rounds of refinement are 0 or more")
    return Effort(
        own.seeds if seeds is None else seeds,
        own.epochs if epochs is None else epochs,
        own.samples if samples is None else samples,
        own.test_samples if test_samples is None else test_samples,
        own.rounds if rounds is None else rounds,
    )


def _task(network: Network, data: Any, test: Any, effort: Effort) -> Task:
    output = network.ports.outputs[0].shape
    if network.loss is not Loss.CROSS_ENTROPY or len(output) != 2:
        raise InputError(
            f"a search measures accuracy, so it is for classifiers: loss='cross_entropy' and an "
            f"output [1, classes]; this network has loss={network.loss.value!r} and an output of "
            f"shape {list(output)}"
        )
    return make_task(
        data,
        test,
        shape=tuple(network.ports.inputs[0].shape[1:]),
        classes=output[1],
        samples=effort.samples,
        test_samples=effort.test_samples,
    )


def _rates(network: Network, lr: float | Sequence[float] | None) -> list[float]:
    if lr is None:
        return [network.optimizer.lr]
    rates = [float(rate) for rate in lr] if isinstance(lr, Sequence) else [float(lr)]
    if not rates:
        raise InputError("lr is an empty list; name a learning rate, or several to try")
    for rate in rates:
        Training(1, rate)
    return rates
