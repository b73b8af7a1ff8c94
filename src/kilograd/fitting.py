"""Makes a program fit that needs more SRAM or flash than there is, by a plan of its step.

what the linked program has besides arena and state is measured, with room for everything
constants that flash has no room for go to storage, the largest first
arena and states get what SRAM is left, and the step is planned (planning.paging)
the planned program is linked and measured; while it is too large, the same with less SRAM
where no plan is found, the leanest one is the last resort, and what messages name
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

from kilograd.devices import Device, Storage
from kilograd.devices.costs import Cost
from kilograd.errors import InfeasibleError
from kilograd.ir import Value
from kilograd.options import Planning
from kilograd.planning import paging
from kilograd.planning.lifetimes import aligned
from kilograd.planning.paging import (
    Leanest,
    Mover,
    Planned,
    Request,
    Seeds,
    TooCostlyError,
    node_prices,
)
from kilograd.planning.remat import NoPlanError
from kilograd.planning.storage import place
from kilograd.program import Memory, Program

_ROUNDS = 6
"""How often the program is planned again because the linked one turned out larger."""

_SPARE_FLASH_BYTES = 4096
"""Flash for the code that pages, before it is known."""

_LARGE_TABLES_BYTES = 4 * 1024**2
_TYPICAL_STACK_BYTES = 1024
_TYPICAL_CODE_BYTES = 48 * 1024

_CHECKSUM_BYTES = 8
"""SRAM for each state in storage."""

_SHARE_OF_LEANEST = 1 / 6
"""Of the time limit, for the leanest plan of each function and choice of what is stored."""


class NoFitError(Exception):
    """No plan fits: `leanest` is the leanest program that was found, None where time or energy
    forbids all.

    It has `sram_bytes` in all, and no plan less than `bound_bytes`. `cost`: where each choice of
    what lies in storage that was tried takes too much, whatever the SRAM, the least time and the
    least energy that any of them takes; they need not be of the same one.
    """

    def __init__(
        self,
        leanest: Program | None,
        sram_bytes: int,
        bound_bytes: int,
        cost: Cost | None = None,
    ) -> None:
        """What is known of the least that would do."""
        super().__init__("no plan fits")
        self.leanest, self.sram_bytes, self.bound_bytes = leanest, sram_bytes, bound_bytes
        self.cost = cost

    @staticmethod
    def closest(failures: Sequence[tuple[Fitter, NoFitError]]) -> tuple[Fitter, NoFitError]:
        """Of the forms of a program the one that comes closest, with what holds for all."""
        fitter, closest = min(failures, key=lambda f: (f[1].leanest is None, f[1].sram_bytes))
        costs = [failure.cost for _, failure in failures if failure.cost is not None]
        cost = reduce(Cost.least, costs) if len(costs) == len(failures) else None
        bound = min(failure.bound_bytes for _, failure in failures)
        return fitter, NoFitError(closest.leanest, closest.sram_bytes, bound, cost)


@dataclass(frozen=True)
class Fixed:
    """Bytes that the program has besides arena and states, and the flash that all of it takes."""

    sram_bytes: int
    flash_bytes: int


@dataclass(frozen=True, eq=False)
class Lean:
    """The leanest plans that were found, with pages in `storage` (None: nothing may page)."""

    storage: Storage | None
    found: Leanest

    @property
    def sram_bytes(self) -> int:
        """SRAM in all, with the bytes besides the arena as they are before planning."""
        return self.found.excess_bytes

    @property
    def bound_bytes(self) -> int:
        """SRAM in all that no plan is below, of the same kind."""
        return self.found.bound_bytes


class Fitter:
    """Plans a program for its device and budget."""

    def __init__(
        self,
        program: Program,
        storage: Storage | None,
        settings: Planning,
        fixed: Fixed | None = None,
    ) -> None:
        """`storage` is where pages go; None where there is none. `fixed` is measured by default."""
        self.program, self.settings, self._known = program, settings, fixed
        self.storage = storage if settings.page else None
        self.costs = [
            node_prices(schedule.graph, program.device, None)
            for schedule in (program.predict, program.train)
        ]
        self.sram, self.flash = program.limits()
        self.seeds: dict[Storage | None, Seeds] = {}

    @cached_property
    def fixed(self) -> Fixed:
        """What the program has besides arena and states before it is planned."""
        return self._known or _fixed(self.program)

    def within(self, sram_bytes: int, seeds: Mapping[Storage | None, Seeds]) -> Fitter:
        """The same for another limit of SRAM, with plans to start from."""
        other = copy.copy(self)
        other.sram, other.seeds = sram_bytes, dict(seeds)
        return other

    def fitted(self) -> Program:
        """The program, planned so that it fits.

        Raises NoFitError where no plan is found, InfeasibleError where it is the flash that has no
        room.
        """
        fixed = self.fixed
        constants = self.constants(fixed)
        for _ in range(_ROUNDS):
            try:
                last = self.planned(fixed, constants)
            except NoPlanError:
                break
            excess_sram = 0 if self.sram is None else sram_bytes(last) - self.sram
            excess_flash = 0 if self.flash is None else _flash(last) - self.flash
            if excess_sram <= 0 and excess_flash <= 0:
                return last
            if excess_flash > 0 and self.storage is None:
                last.check_fit()
            fixed = replace(
                fixed,
                sram_bytes=fixed.sram_bytes + max(excess_sram, 0),
                flash_bytes=fixed.flash_bytes + max(excess_flash, 0),
            )
            constants = self.constants(fixed)
        return self.last_resort(constants)

    def last_resort(self, constants: frozenset[Value]) -> Program:
        """The leanest program, if that fits."""
        try:
            lean = self.lean(constants)
        except NoPlanError as error:
            cost = error.cost if isinstance(error, TooCostlyError) else None
            raise NoFitError(None, 0, 0, cost) from error
        program = self.as_found(lean)
        needed = sram_bytes(program)
        if self.sram is None or needed <= self.sram:
            cheaper = self.built(lean)
            fits = self.sram is None or sram_bytes(cheaper) <= self.sram
            program = cheaper if fits else program
            program.check_fit()
            return program
        bound = needed - (lean.sram_bytes - lean.bound_bytes)
        raise NoFitError(program, needed, bound)

    def constants(self, fixed: Fixed) -> frozenset[Value]:
        """The constants that have to lie in storage, because flash has no room for them: the
        largest of those that fill no more than a third of the SRAM, others if need be.
        """
        if self.flash is None or fixed.flash_bytes <= self.flash or self.storage is None:
            return frozenset()
        missing = fixed.flash_bytes + _SPARE_FLASH_BYTES - self.flash
        graphs = (self.program.predict.graph, self.program.train.graph)
        known = {v: v.type.bytes for g in graphs for v in g.constants}
        chosen: set[Value] = set()
        large = math.inf if self.sram is None else self.sram / 3
        for value in sorted(known, key=lambda v: (known[v] > large, -known[v], v.name)):
            if missing <= 0:
                break
            chosen.add(value)
            missing -= known[value]
        return frozenset(chosen)

    def planned(self, fixed: Fixed, constants: frozenset[Value]) -> Program:
        """The program with the cheaper of the plans with storage and without, where both exist."""
        plans: list[tuple[float, Storage | None, tuple[Planned, ...]]] = []
        failure: NoPlanError | None = None
        for storage in self.storages(constants):
            try:
                found = paging.fit(
                    self.requests(),
                    self.room(fixed),
                    self.mover(storage),
                    self.settings,
                    constants,
                    self.seeds.get(storage),
                )
            except NoPlanError as error:
                failure = error
                continue
            plans.append((sum(p.solution.value for p in found), storage, found))
        if not plans:
            assert failure is not None
            raise failure
        _, storage, found = min(plans, key=lambda p: p[0])
        return self.program_of(storage, found)

    def lean(
        self, constants: frozenset[Value] | None = None, settings: Planning | None = None
    ) -> Lean:
        """The smallest need for SRAM in all, with the bytes besides the arena as they are before
        planning. Raises NoPlanError where the time or energy of a step forbids every plan.
        """
        constants = self.constants(self.fixed) if constants is None else constants
        settings = settings or replace(
            self.settings, time_limit=self.settings.time_limit * _SHARE_OF_LEANEST
        )
        best: Lean | None = None
        failure: NoPlanError | None = None
        for storage in reversed(self.storages(constants)):
            known = best.found if best else None
            try:
                found = paging.leanest(
                    self.requests(),
                    lambda stored: -self.beside(self.fixed, stored),
                    self.mover(storage),
                    settings,
                    constants,
                    known,
                )
            except NoPlanError as error:
                failure = paging.cheapest(failure, error)
                continue
            same = best is not None and found.seeds == best.found.seeds
            best = Lean(best.storage if best and same else storage, found)
        if best is None:
            assert failure is not None
            raise failure
        return best

    def as_found(self, lean: Lean) -> Program:
        """The program of the leanest plans, whatever they cost."""
        mover = self.mover(lean.storage)
        plans = paging.leanest_plans(self.requests(), lean.found, mover, self.settings)
        return self.program_of(lean.storage, plans)

    def built(self, lean: Lean) -> Program:
        """The program of the leanest plans, of least energy among those for the same arena."""
        found = lean.found
        plans = tuple(
            paging.plan(
                request,
                found.stored,
                found.arena_bytes,
                self.mover(lean.storage),
                self.settings,
                seed,
            )
            for request, seed in zip(self.requests(), found.seeds, strict=True)
        )
        return self.program_of(lean.storage, plans)

    def program_of(self, storage: Storage | None, found: tuple[Planned, ...]) -> Program:
        """The program that does what the plans say."""
        predict, train = (planned.schedule for planned in found)
        return replace(
            self.program.scheduled(predict, train),
            storage=place((predict.graph, train.graph), storage) if storage else None,
            storage_device=storage,
            plans=found,
        )

    def storages(self, constants: frozenset[Value]) -> tuple[Storage | None, ...]:
        """Where pages may go: nowhere, or into the storage."""
        both = tuple(dict.fromkeys((None, self.storage)))
        return (self.storage,) if constants and self.storage else both

    def mover(self, storage: Storage | None) -> Mover | None:
        """What moves pages to a storage."""
        return Mover(storage, self.program.device) if storage else None

    def requests(self) -> Sequence[Request]:
        """The two functions as they are to be planned."""
        program = self.program
        return (
            Request(program.predict.graph, self.costs[0]),
            Request(
                program.train.graph,
                self.costs[1],
                program.optimizer.atomic,
                program.budget.step_seconds,
                program.budget.step_joules,
            ),
        )

    def room(self, fixed: Fixed) -> paging.Room:
        """What is left for the arena."""
        sram = self.sram

        def room(stored: frozenset[Value]) -> int:
            if sram is None:
                return max(self.program.arena_bytes, 1)
            return sram - self.beside(fixed, stored)

        return room

    def beside(self, fixed: Fixed, stored: frozenset[Value]) -> int:
        """The SRAM besides the arena, with these tensors in storage."""
        graph = self.program.train.graph
        here = sum(aligned(v.type.bytes) for v in graph.state if v not in stored)
        sums = _CHECKSUM_BYTES * sum(v in stored for v in graph.state)
        return fixed.sram_bytes + here + sums


def _fixed(program: Program) -> Fixed:
    """Measured on the linked image; estimated where its tables are so large that a C compiler takes
    minutes over them.
    """
    if program.device.is_host:
        return Fixed(0, 0)
    graphs = (program.predict.graph, program.train.graph)
    tensors = {v: v.type.bytes for g in graphs for v in (*g.constants, *g.state)}
    if sum(tensors.values()) > _LARGE_TABLES_BYTES:
        return Fixed(_TYPICAL_STACK_BYTES, sum(tensors.values()) + _TYPICAL_CODE_BYTES)
    memory = _memory(program)
    return Fixed(memory.data_bytes + memory.stack_bytes, memory.flash_bytes)


def _roomy(device: Device) -> Device:
    """The device with so much memory that anything can be linked for it."""
    memory = device.memory_map()
    above = sorted((memory.sram_base, memory.flash_base, 2**32))
    sizes = {base: (end - base) // 8 * 8 for base, end in itertools.pairwise(above)}
    return device.model_copy(
        update={
            "sram_bytes": sizes[memory.sram_base],
            "flash_bytes": sizes[memory.flash_base],
        }
    )


def plain_sram_bytes(program: Program) -> int:
    """The SRAM in all of a program that is not planned, which need not fit its device."""
    return _fixed(program).sram_bytes + program.arena_bytes + program.state_bytes


def sram_bytes(program: Program) -> int:
    """The SRAM of a program in all, on a device that has room for it."""
    if program.device.is_host:
        return program.arena_bytes + program.state_bytes
    return _memory(program).sram_bytes


def _flash(program: Program) -> int:
    if program.device.is_host:
        return 0
    return _memory(program).flash_bytes


def _memory(program: Program) -> Memory:
    """Measured on the device itself where that has room, else on one that has."""
    try:
        return program.memory
    except InfeasibleError:
        return replace(program, device=_roomy(program.device)).memory
