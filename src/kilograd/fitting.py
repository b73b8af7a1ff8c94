"""Makes a program fit that needs more SRAM or flash than there is, by a plan of its step.

    what the linked program has besides arena and state is measured, with room for everything
    constants that flash has no room for go to storage, the largest first
    arena and states get what SRAM is left, and the step is planned (planning.paging)
    the planned program is linked and measured; while it is too large, the same with less SRAM
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kilograd.devices import Device, Storage
from kilograd.errors import CompilerBug, InfeasibleError
from kilograd.ir import Value
from kilograd.options import Planning
from kilograd.planning import paging
from kilograd.planning.paging import Mover, Planned, Request, node_prices
from kilograd.planning.remat import NoPlanError
from kilograd.planning.storage import place
from kilograd.program import Program

_ROUNDS = 6
"""How often the program is planned again because the linked one turned out larger."""

_SPARE_FLASH_BYTES = 4096
"""Flash for the code that pages, before it is known."""

_LARGE_TABLES_BYTES = 4 * 1024**2
_TYPICAL_STACK_BYTES = 1024
_TYPICAL_CODE_BYTES = 48 * 1024

_CHECKSUM_BYTES = 8
"""SRAM for each state in storage."""


def fitted(
    program: Program, storage: Storage | None, settings: Planning, problem: str
) -> Program:
    """The program, planned so that it fits its device and budget.

    `problem` says why it does not fit as it is. Raises InfeasibleError where no plan is found: it
    says the least SRAM that would do, and what makes it.
    """
    return _Fitter(program, storage, settings, problem).fitted()


@dataclass(frozen=True)
class _Fixed:
    """Bytes that the program has besides arena and states, and the flash that all of it takes."""

    sram_bytes: int
    flash_bytes: int


class _Fitter:
    def __init__(
        self, program: Program, storage: Storage | None, settings: Planning, problem: str
    ) -> None:
        self.program, self.settings, self.why = program, settings, problem
        self.storage = storage if settings.page else None
        self.costs = [
            node_prices(schedule.graph, program.device, None)
            for schedule in (program.predict, program.train)
        ]
        self.sram, self.flash = program.limits()

    def fitted(self) -> Program:
        fixed = _fixed(self.program)
        constants = self.constants(fixed)
        last: Program | None = None
        for _ in range(_ROUNDS):
            last = self.planned(fixed, constants)
            excess_sram = 0 if self.sram is None else _sram(last) - self.sram
            excess_flash = 0 if self.flash is None else _flash(last) - self.flash
            if excess_sram <= 0 and excess_flash <= 0:
                return last
            if excess_flash > 0 and self.storage is None:
                break
            fixed = replace(
                fixed,
                sram_bytes=fixed.sram_bytes + max(excess_sram, 0),
                flash_bytes=fixed.flash_bytes + max(excess_flash, 0),
            )
            constants = self.constants(fixed)
        assert last is not None
        last.check_fit()
        raise CompilerBug("a program that fits was planned again and again")

    def constants(self, fixed: _Fixed) -> frozenset[Value]:
        """The constants that have to lie in storage, because flash has no room for them."""
        if self.flash is None or fixed.flash_bytes <= self.flash:
            return frozenset()
        missing = fixed.flash_bytes + _SPARE_FLASH_BYTES - self.flash
        graphs = (self.program.predict.graph, self.program.train.graph)
        known = {v: v.type.bytes for g in graphs for v in g.constants}
        chosen: set[Value] = set()
        if self.storage is None:
            return frozenset()
        for value in sorted(known, key=lambda v: (-known[v], v.name)):
            if missing <= 0:
                break
            chosen.add(value)
            missing -= known[value]
        return frozenset(chosen)

    def planned(self, fixed: _Fixed, constants: frozenset[Value]) -> Program:
        """The program with the cheaper of the plans with storage and without, where both exist."""
        plans: list[tuple[float, Storage | None, tuple[Planned, ...]]] = []
        failure: NoPlanError | None = None
        for storage in dict.fromkeys((None, self.storage)):
            if constants and storage is None:
                continue
            mover = Mover(storage, self.program.device) if storage else None
            try:
                found = paging.fit(
                    self.requests(), self.room(fixed), mover, self.settings, constants
                )
            except NoPlanError as error:
                failure = error
                continue
            plans.append((sum(p.solution.value for p in found), storage, found))
        if not plans:
            assert failure is not None
            raise self.infeasible(fixed, failure)
        _, storage, found = min(plans, key=lambda p: p[0])
        predict, train = paging.schedule(found)
        return replace(
            self.program,
            predict=predict,
            train=train,
            storage=place((predict.graph, train.graph), storage) if storage else None,
            storage_device=storage,
            plans=found,
        )

    def requests(self) -> Sequence[Request]:
        program = self.program
        return (
            Request(program.predict.graph, self.costs[0]),
            Request(
                program.train.graph,
                self.costs[1],
                program.optimizer.atomic,
                program.budget.step_seconds,
            ),
        )

    def room(self, fixed: _Fixed) -> paging.Room:
        graph, sram = self.program.train.graph, self.sram

        def room(stored: frozenset[Value]) -> int:
            if sram is None:
                return max(self.program.arena_bytes, 1)
            here = sum(_aligned(v.type.bytes) for v in graph.state if v not in stored)
            sums = _CHECKSUM_BYTES * sum(v in stored for v in graph.state)
            return sram - fixed.sram_bytes - here - sums

        return room

    def infeasible(self, fixed: _Fixed, error: NoPlanError) -> InfeasibleError:
        return InfeasibleError(f"{self.why}\nPlanned: {error}")


def _fixed(program: Program) -> _Fixed:
    """Measured on the linked image; estimated where its tables are so large that a C compiler takes
    minutes over them.
    """
    if program.device.is_host:
        return _Fixed(0, 0)
    graphs = (program.predict.graph, program.train.graph)
    tensors = {v: v.type.bytes for g in graphs for v in (*g.constants, *g.state)}
    if sum(tensors.values()) > _LARGE_TABLES_BYTES:
        return _Fixed(_TYPICAL_STACK_BYTES, sum(tensors.values()) + _TYPICAL_CODE_BYTES)
    memory = replace(program, device=_roomy(program.device)).memory
    return _Fixed(memory.data_bytes + memory.stack_bytes, memory.flash_bytes)


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // 4) * 4


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


def _sram(program: Program) -> int:
    if program.device.is_host:
        return program.arena_bytes + program.sources.state_bytes
    return replace(program, device=_roomy(program.device)).memory.sram_bytes


def _flash(program: Program) -> int:
    if program.device.is_host:
        return 0
    return replace(program, device=_roomy(program.device)).memory.flash_bytes
