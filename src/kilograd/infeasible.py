"""What to say of a budget that no plan keeps: the least SRAM that would do, what makes it, and what
would lower it, each with its price.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from kilograd import update
from kilograd.devices import Storage
from kilograd.errors import InfeasibleError
from kilograd.fitting import Fitter, Lean, NoFitError, plain_sram_bytes, sram_bytes
from kilograd.options import SGD, Budget, Planning
from kilograd.planning.allocate import allocate
from kilograd.planning.explain import describe_peak, describe_state
from kilograd.planning.remat import NoPlanError
from kilograd.planning.step_limits import StepLimit, step_limits
from kilograd.program import Program
from kilograd.transforms.differentiate import TrainingGraphs
from kilograd.transforms.select import decisions
from kilograd.update import Spec

Derive = Callable[[Spec, SGD], TrainingGraphs]
"""The two functions for another selection or optimiser."""

_SECONDS_FOR_A_WAY = 5.0
"""Time limit of each plan that prices a way out."""

_USUAL_STORAGE = Storage(
    name="storage",
    title="an SD card",
    kind="sd",
    size_bytes=2**30,
    read_seconds=0.000_109,
    read_bytes_per_second=4_617_000,
    write_seconds=0.000_113,
    write_bytes_per_second=4_440_000,
    watts=0.330,
    block_bytes=512,
)
"""What a device without storage could be given (the SD card of Patil et al., POET, ICML 2022)."""


def infeasible(
    fitter: Fitter, failure: NoFitError, derive: Derive, plain: Program
) -> InfeasibleError:
    """The error for a program that no plan makes fit; `plain` is the program as it stands."""
    ways = [f"  * {way}" for way in _Ways(fitter, derive, failure).all()]
    rest = ["What would lower it:", *ways] if ways else []
    if failure.leanest is None:
        return InfeasibleError("\n".join([_too_costly(fitter, failure, plain), *rest]))
    return InfeasibleError("\n".join([*_least(fitter, failure, failure.leanest, plain), *rest]))


def _too_costly(fitter: Fitter, failure: NoFitError, plain: Program) -> str:
    program, limit = fitter.program, fitter.sram or 0
    whose = "the budget" if program.budget.sram_bytes == limit else program.device.name
    limits = step_limits(program.budget)
    plainly = plain.step_estimate
    known = [each.told(amount) for each in limits if (amount := each.of(plainly)) is not None]
    taken = f" and takes {' and '.join(known)}" if known else ""
    return (
        f"{program.name} does not fit the {limit:,} bytes of SRAM of {whose} within "
        f"{' and '.join(_given(program.budget))}: as it is it needs {plain_sram_bytes(plain):,}"
        f"{taken}, and no plan with less was found that keeps to that.{_exceeded(limits, failure)}"
    )


def _exceeded(limits: Sequence[StepLimit], failure: NoFitError) -> str:
    """The limits that every choice of what lies in storage exceeds, with the least of it."""
    if failure.cost is None:
        return ""
    least = [
        f"{each.told_apart(amount)[0]} ({each.option})"
        for each in limits
        if (amount := getattr(failure.cost, each.quantity)) > each.most
    ]
    if not least:
        return " Each choice of what lies in storage that was tried exceeds one of them."
    return (
        " Whichever choice of what lies in storage was tried, a step takes at least "
        f"{' and '.join(least)}."
    )


def _given(budget: Budget) -> list[str]:
    """The limits of a step as they were given."""
    return [each.named for each in step_limits(budget)]


def _least(fitter: Fitter, failure: NoFitError, leanest: Program, plain: Program) -> Iterator[str]:
    """The least, and what makes it."""
    program, limit = fitter.program, fitter.sram or 0
    needed, bound = failure.sram_bytes, failure.bound_bytes
    as_it_is = plain_sram_bytes(plain)
    whose = "the budget" if program.budget.sram_bytes == limit else program.device.name
    allowed = _allowed(fitter)
    yield (
        f"{program.name} does not fit the {limit:,} bytes of SRAM of {whose}: as it is it needs "
        f"{as_it_is:,}, planned{allowed} {needed:,}."
    )
    if bound >= needed:
        yield (
            f"{needed:,} bytes are the least: no plan has a smaller arena beside its state "
            "(proven), and the rest is measured."
        )
    else:
        yield (
            f"{needed:,} bytes are the least that was found; with less than {bound:,} there is no "
            "plan (proven), and between the two none was found."
        )
    yield f"The {needed:,} bytes are:"
    schedule = max((leanest.predict, leanest.train), key=lambda s: s.arena_bytes)
    state, arena = leanest.state_bytes, leanest.arena_bytes
    yield f"{arena:>12,} B  arena, at its peak:"
    yield from ("  " + line for line in describe_peak(schedule, limit=8).splitlines())
    if state:
        yield f"{state:>12,} B  learned state, from step to step:"
        here = replace(
            leanest.train.graph,
            state={v: t for v, t in leanest.train.graph.state.items()
                   if v not in leanest.train.graph.stored},
        )  # fmt: skip
        yield from ("  " + line for line in describe_state(here).splitlines())
    if needed > arena + state:
        yield f"{needed - arena - state:>12,} B  stack and other data"


def _allowed(fitter: Fitter) -> str:
    """With what the least was found, where not with everything."""
    forbidden = [name for name in ("recompute", "page") if not getattr(fitter.settings, name)]
    parts = [f"{name}=False" for name in forbidden]
    parts += _given(fitter.program.budget)
    if fitter.storage is not None:
        parts.insert(0, f"pages on {fitter.storage.name}")
    return f" ({', '.join(parts)})" if parts else ""


class _Ways:
    """The ways out that a program has, each with the SRAM that would do then."""

    def __init__(self, fitter: Fitter, derive: Derive, failure: NoFitError) -> None:
        self.fitter, self.derive, self.failure = fitter, derive, failure
        self.program = fitter.program
        self.least = None if failure.leanest is None else failure.sram_bytes

    def all(self) -> Iterator[str]:
        yield from self.paging()
        yield from self.recomputing()
        yield from self.more_of_a_step()
        yield from self.not_atomic()
        yield from self.fewer_layers()

    def paging(self) -> Iterator[str]:
        program, settings = self.program, replace(self.fitter.settings, page=True)
        if self.fitter.storage is not None:
            return
        if program.device.storage:
            for storage in program.device.storage:
                text = f"pages on {storage.title} (storage={storage.name!r}, Planning(page=True))"
                yield from self.priced(text, self.other(program, storage, settings))
            return
        text = f"{program.device.name} has no [[storage]]; with {_USUAL_STORAGE.title} and pages"
        yield from self.priced(text, self.other(program, _USUAL_STORAGE, settings))

    def recomputing(self) -> Iterator[str]:
        if not self.fitter.settings.recompute:
            settings = replace(self.fitter.settings, recompute=True)
            fitter = self.other(self.program, self.fitter.storage, settings)
            yield from self.priced("running operators again (Planning(recompute=True))", fitter)

    def more_of_a_step(self) -> Iterator[str]:
        """Without one of the limits on a step, and where that is no way, without any."""
        limits = step_limits(self.program.budget)
        found = [text for each in limits for text in self.without((each,))]
        if not found and len(limits) > 1:
            found = list(self.without(limits))
        yield from found

    def without(self, limits: Sequence[StepLimit]) -> Iterator[str]:
        free = replace(self.program.budget, **dict.fromkeys(each.option for each in limits))
        fitter = self.like(replace(self.program, budget=free))
        lean = self.lean(fitter)
        if lean is None:
            return
        program = fitter.as_found(lean)
        taken = [(each, each.of(program.step_estimate)) for each in limits]
        asked = " and ".join(
            f"a {each.option}{'' if amount is None else f' of {each.told_up(amount)}'}"
            for each, amount in taken
        )
        needed = sram_bytes(program)
        if self.least is None or needed < self.least:
            yield f"{asked} or more: {needed:,} bytes would do"

    def not_atomic(self) -> Iterator[str]:
        optimizer = self.program.optimizer
        if optimizer.atomic:
            changed = replace(optimizer, atomic=False)
            text = "kg.SGD(atomic=False), a step that fails may have updated some layers"
            yield from self.priced(text, self.variant(self.program.update, changed))

    def fewer_layers(self) -> Iterator[str]:
        """The most last layers that can be trained, by bisection; else what the last one needs."""
        chosen = decisions(self.program.forward, self.program.update)
        layers = {d.parameter.layer for d in chosen if d.entry is not None}
        low, high, found = 1, len(layers) - 1, None
        while low <= high:
            count = (low + high) // 2
            lean = self.lean(self.variant(update.last(count), self.program.optimizer))
            if lean is not None and lean.sram_bytes <= (self.fitter.sram or 0):
                found, low = (count, lean), count + 1
            else:
                high = count - 1
        if found is not None:
            count, lean = found
            yield (
                f"training the last {f'{count} of ' if count > 1 else 'of '}{len(layers)} layers "
                f"(update=kg.update.last({count})): about {lean.sram_bytes:,} bytes would do"
            )
        elif len(layers) > 1:
            fitter = self.variant(update.last(1), self.program.optimizer)
            yield from self.priced(
                "training the last layer alone (update=kg.update.last(1))", fitter
            )

    def like(self, program: Program) -> Fitter:
        return self.other(program, self.fitter.storage, self.fitter.settings)

    def other(self, program: Program, storage: Storage | None, settings: Planning) -> Fitter:
        return Fitter(program, storage, settings, self.fitter.fixed)

    def variant(self, spec: Spec, optimizer: SGD) -> Fitter:
        """The program with another selection or optimiser, so far as plans need it."""
        graphs = self.derive(spec, optimizer)
        predict, train = allocate((graphs.predict, graphs.train))
        program = replace(
            self.program, predict=predict, train=train, update=spec, optimizer=optimizer
        )
        return self.like(program)

    def priced(self, text: str, fitter: Fitter) -> Iterator[str]:
        """The way with the SRAM that would do, if that is less than without it."""
        lean = self.lean(fitter)
        if lean is not None and (self.least is None or lean.sram_bytes < self.least):
            yield f"{text}: about {lean.sram_bytes:,} bytes would do"

    def lean(self, fitter: Fitter) -> Lean | None:
        try:
            return fitter.lean(settings=_quick(fitter.settings))
        except NoPlanError:
            return None


def _quick(settings: Planning) -> Planning:
    return replace(settings, time_limit=min(settings.time_limit, _SECONDS_FOR_A_WAY))
