"""Finds what to train: contributions, then the best scheme within device and budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol

from kilograd.devices import Device
from kilograd.errors import InfeasibleError, InputError
from kilograd.ir import Graph
from kilograd.options import Budget, Loss, parse_bytes
from kilograd.planning.step_limits import step_limits
from kilograd.search.choice import FRONT_POINTS, Chooser, ladder
from kilograd.search.found import Found, Point, undominated
from kilograd.search.layers import Layers, Orders, layers_of
from kilograd.search.measure import RATIOS, Bench, Plan, measure
from kilograd.search.predict import (
    PREDICTOR,
    channel_orders,
    predicted,
    reach_limit,
    score_layers,
)
from kilograd.search.resources import Compiler, ResourceModel
from kilograd.search.scheme import Scheme
from kilograd.search.scores import PREDICTORS
from kilograd.search.select import CostLimit, Limits, head_takes
from kilograd.search.store import Store
from kilograd.search.table import Contributions, Gain
from kilograd.search.task import Task, make_task
from kilograd.search.training import Trainer, Training
from kilograd.search.trials import best_rate, trained
from kilograd.transforms.ports import Ports

MOST_POINTS = 100
METHODS = ("measured", "quick", "fast")
CHANNELS = ("best", "first")


class Network(Compiler, Trainer, Protocol):
    """A network for which it is open what to train: `kilograd.compiler.Prepared`."""

    @property
    def name(self) -> str:
        """Of its C functions."""

    @property
    def folded(self) -> Graph:
        """The float forward graph."""

    @property
    def ports(self) -> Ports:
        """How the user's arrays are laid out."""

    @property
    def loss(self) -> Loss:
        """What is minimised."""

    @property
    def device(self) -> Device:
        """Where it has to fit."""

    @property
    def budget(self) -> Budget:
        """Limits below the device's."""

    @property
    def inputs(self) -> dict[str, Any]:
        """All that decides on its programs besides what is trained."""


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
    channels: str = "best",
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
    steps = _steps(front)
    selection = partial(_selected, network, layers, front=steps, time_limit=time_limit)
    if contributions is not None and data is None:
        return selection(contributions, {}, 0.0)[0]
    task = _task(network, data, test, effort)
    _asked(network, layers, _limits(network, layers), steps)  # refuses before measuring
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
    costs: tuple[CostLimit, ...] = ()
    if contributions is None:
        contributions, orders, costs = contribute(
            network, bench, layers, method, effort.seeds, channels, predictor
        )
    else:
        orders = {}
        if channels == "best":
            scores, _ = score_layers(network, bench, layers)
            orders = channel_orders(network.forward, layers, scores, predictor)
    taken = time.perf_counter() - start
    found, choosers = selection(contributions, orders, taken, costs)
    return trained(bench, found, choosers, effort.seeds, rates, effort.rounds)


def _selected(
    network: Network,
    layers: Layers,
    contributions: Contributions,
    orders: Orders,
    seconds: float,
    costs: tuple[CostLimit, ...] = (),
    *,
    front: int | Sequence[int],
    time_limit: float,
) -> tuple[Found, tuple[Chooser, ...]]:
    """What is best by the contributions, which took `seconds`, and what chooses by other ones
    within the same limits and smaller ones.
    """
    start = time.perf_counter()
    limits = replace(_limits(network, layers), costs=costs)
    asked = _asked(network, layers, limits, front)
    chooser = Chooser(ResourceModel(network), limits, time_limit)
    table = contributions.distinct(layers)
    best = chooser.best(table)
    smaller = ladder(chooser, best.sram_bytes, front - 1) if isinstance(front, int) else asked
    choosers = (chooser, *map(chooser.within, smaller))
    chosen = (best, *(each.best(table) for each in choosers[1:]))
    points = undominated(chosen, lambda point: point.gain)
    known = {point.scheme for point in points}
    answers: dict[int, Point] = {}
    by_hand: dict[Scheme, Point] = {}
    for each, largest in zip(choosers[: 1 + len(asked)], chosen, strict=False):
        fitting = [point for point in points if point.sram_bytes <= each.sram_bytes]
        answer = max(fitting, key=lambda point: point.gain)
        if answer is not largest:  # the choice at a smaller limit: time ran out at this one
            answer = replace(answer, gap=max(0.0, largest.gain + largest.gap - answer.gain))
        answers[each.sram_bytes] = answer
        by_hand |= {p.scheme: p for p in each.by_hand(table) if p.scheme not in known}
    found = Found(
        network=network.name,
        device=network.device.name,
        layers=layers,
        contributions=contributions,
        best=answers[chooser.sram_bytes],
        answers=dict(sorted(answers.items())),
        front=points,
        by_hand=tuple(by_hand.values()),
        orders=orders,
        seconds=(seconds, time.perf_counter() - start, 0.0),
    )
    return found, choosers


def _steps(front: int | str | Sequence[int | str]) -> int | list[int]:
    """How many SRAM limits, or which, in bytes."""
    if isinstance(front, str):
        front = [front]
    if isinstance(front, Sequence):
        if not front:
            raise InputError("front is an empty list; name SRAM limits, or how many (front=6)")
        return [parse_bytes(size) for size in front]
    count = front if isinstance(front, Integral) and not isinstance(front, bool) else 0
    if not 1 <= count <= MOST_POINTS:
        raise InputError(
            f"front={front!r}: write how many SRAM limits, 1 to {MOST_POINTS}, or which, in a list "
            'of bytes or sizes such as ["64KB", "98304B"] (--front 64KB,98304B)'
        )
    return int(count)


def _asked(
    network: Network, layers: Layers, limits: Limits, front: int | Sequence[int]
) -> tuple[int, ...]:
    """The SRAM limits that a front lists below the one there is, ascending; none of a number.

    Raises InputError for one above, and InfeasibleError for one below what the head alone needs.
    """
    if isinstance(front, int):
        return ()
    least = network.program(layers.spec(0, {})).memory.sram_bytes
    for size in front:
        if size > limits.sram_bytes:
            raise InputError(
                f"front: {size:,} bytes are more than the {limits.sram_bytes:,} of SRAM that there "
                "are; name a larger budget or device, or leave it out"
            )
        if size < least:
            raise InfeasibleError(
                f"front: training the head ({layers.head.path}) alone needs {least:,} bytes of "
                f"SRAM, {least - size:,} more than {size:,}; leave this limit out"
            )
    return tuple(sorted({*front} - {limits.sram_bytes}))


def contribute(
    network: Network,
    bench: Bench,
    layers: Layers,
    method: str,
    seeds: int,
    channels: str = "best",
    predictor: str = PREDICTOR,
) -> tuple[Contributions, Orders, tuple[CostLimit, ...]]:
    """The table of contributions by a method, the order of input channels that it is for, and what
    it asks of schemes besides.
    """
    orders: Orders = {}
    if channels == "best" or method == "fast":
        scores, reached = score_layers(network, bench, layers)
        if channels == "best":
            orders = channel_orders(network.forward, layers, scores, predictor)
    if method == "fast":
        table = predicted(
            layers, scores, reached, rates=bench.rates, name=network.name, orders=orders
        )
        limit = reach_limit(layers, scores, reached, bench.rates, orders)
        return table, orders, (limit,)
    make = Plan.quick if method == "quick" else Plan.full
    plan = make(layers, seeds)
    found = measure(bench, layers, plan, name=network.name, orders=orders, method=method)
    return (with_ratios(found, layers) if method == "quick" else found), orders, ()


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


def _limits(network: Network, layers: Layers) -> Limits:
    """SRAM and flash that there are, and limits on a step. Raises InfeasibleError where the program
    that trains the head alone needs more, and InputError where nothing limits the SRAM, or the
    device has no estimate of what the budget limits.
    """
    budget, device = network.budget, network.device
    sram = [] if budget.sram_bytes is None else [budget.sram_bytes]
    flash = [] if budget.flash_bytes is None else [budget.flash_bytes]
    if not device.is_host:
        memory = device.memory_map()
        sram.append(memory.sram_bytes)
        flash.append(memory.flash_bytes)
    if not sram:
        raise InputError(
            "a search needs a limit: name a device (device='stm32f746', --device stm32f746) or a "
            "budget (budget=kg.Budget(sram='256KB'), --sram 256KB); without one, train everything"
        )
    limits = Limits(min(sram), min(flash, default=None), step=step_limits(budget))
    head = network.program(layers.spec(0, {}))
    for limit in limits.step:
        amount = limit.known(head.step_estimate, device)
        if amount > limit.most:
            raise InfeasibleError(head_takes(limit, amount))
    try:
        least = head.memory
    except InfeasibleError as error:  # the linker found too little room
        raise InfeasibleError(
            f"training the head ({layers.head.path}) alone is too much: {error}"
        ) from error
    for name, needed, most in (
        ("SRAM", least.sram_bytes, limits.sram_bytes),
        ("flash", least.flash_bytes, limits.flash_bytes),
    ):
        if most is not None and needed > most:
            raise InfeasibleError(
                f"training the head ({layers.head.path}) alone needs {needed:,} bytes of {name}, "
                f"{needed - most:,} more than the {most:,} there are, so there is no scheme to "
                "search for. What helps: a larger budget or device, int8 (precision='int8'), a "
                "smaller input or a narrower network."
            )
    return limits
