"""What schemes need of a device: bounds from a model, and the truth from the compiler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Protocol

from kilograd.ir import Graph
from kilograd.options import SGD
from kilograd.planning.necessary import Alive
from kilograd.planning.schedule import Schedule
from kilograd.search.layers import Layers, layers_of
from kilograd.search.rows import Row, Rows, derive
from kilograd.search.scheme import Scheme
from kilograd.update import Spec

RATIOS = (Fraction(1, 8), Fraction(1, 4), Fraction(1, 2), Fraction(1))
"""The ratios of the Tiny Training Engine paper, 0 aside."""


class Measured(Protocol):
    """The figures of a linked program: `kilograd.program.Memory`."""

    @property
    def sram_bytes(self) -> int:
        """All of the SRAM."""

    @property
    def data_bytes(self) -> int:
        """Static data beside arena and state."""

    @property
    def stack_bytes(self) -> int:
        """The worst case of the stack."""

    @property
    def flash_bytes(self) -> int:
        """All of the flash."""


class Planned(Protocol):
    """A planned program: `kilograd.program.Program`."""

    @property
    def arena_bytes(self) -> int:
        """The arena of both functions."""

    @property
    def train(self) -> Schedule:
        """The training step."""

    @property
    def memory(self) -> Measured:
        """Links the program."""


class Compiler(Protocol):
    """A network that waits for what to train: `kilograd.compiler.Prepared`."""

    @property
    def forward(self) -> Graph:
        """The forward graph."""

    @property
    def optimizer(self) -> SGD:
        """The optimiser."""

    def training_graph(self, update: Spec) -> Graph:
        """The training step, before it is ordered."""

    def program(self, update: Spec) -> Planned:
        """The planned program."""


@dataclass(frozen=True)
class MemoryModel:
    """The memory of a network's schemes at `ratios` of their weights. What was compiled is kept."""

    compiler: Compiler
    ratios: Sequence[Fraction] = RATIOS

    @cached_property
    def layers(self) -> Layers:
        """What there is to choose from."""
        return layers_of(self.compiler.forward)

    @cached_property
    def rows(self) -> Rows:
        """Lower bounds of arena and state."""
        rows = derive(
            self.layers,
            self.ratios,
            lambda scheme: self.compiler.training_graph(scheme.spec(self.layers)),
            atomic=self.compiler.optimizer.atomic,
        )
        # Whatever else is trained, the network runs forward, and the head is trained.
        head = self.static_bytes(Scheme(0)) - rows.state_bytes(Scheme(0))
        least = Row("the head alone", (head,) * len(rows.state.base), {})
        return replace(rows, arena=(*rows.arena, least))

    @cached_property
    def _static(self) -> dict[Scheme, int]:
        return {}

    @cached_property
    def _peaks(self) -> dict[Scheme, str]:
        return {}

    @cached_property
    def _learned(self) -> list[Row]:
        return []

    @property
    def learned(self) -> tuple[Row, ...]:
        """Rows that hold for every program that has been planned, and are not proven to hold."""
        return tuple(self._learned)

    def learn(self, scheme: Scheme) -> None:
        """Learn from a program that needs more than any row says, and has its peak at the gradient
        of a layer's weight: that the same excess over the row of that layer comes with its ratio,
        and with larger ones, whatever else is trained.

        A learned row that a program refutes is forgotten.
        """
        arena = self.static_bytes(scheme) - self.rows.state_bytes(scheme)
        layer, weights = self._peaks[scheme], dict(scheme.weights)
        held = [
            (value, i)
            for i, row in enumerate(self.rows.arena)
            if row.layer == layer and (value := row.value(scheme)) is not None
        ]
        if layer not in weights or not held or max(held)[0] >= arena:
            return
        row = self.rows.arena[max(held)[1]]
        more = {
            (layer, ratio): row.options[layer, ratio] + arena - max(held)[0]
            for ratio in self.ratios
            if ratio >= weights[layer]
        }
        name = f"{row.name}, learned from {weights[layer]}"
        self._learned.append(replace(row, name=name, options={**row.options, **more}))
        self._forget()

    def _forget(self) -> None:
        self._learned[:] = [
            row
            for row in self._learned
            if all(
                (row.value(scheme) or 0) <= static - self.rows.state_bytes(scheme)
                for scheme, static in self._static.items()
            )
        ]

    @cached_property
    def _linked(self) -> dict[Scheme, Measured]:
        return {}

    @property
    def planned(self) -> tuple[Scheme, ...]:
        """The schemes whose programs have been planned."""
        return tuple(self._static)

    @property
    def compiles(self) -> int:
        """How many programs have been planned."""
        return len(self._static)

    def static_bytes(self, scheme: Scheme) -> int:
        """Arena and state of the scheme's program, planned but not linked."""
        if scheme not in self._static:
            program = self.compiler.program(scheme.spec(self.layers))
            state = Alive.aligned(program.train.graph.state)
            self._static[scheme] = program.arena_bytes + state
            self._peaks[scheme] = _peak_layer(program.train)
            if self._learned:
                self._forget()
        return self._static[scheme]

    def linked(self, scheme: Scheme) -> Measured:
        """The figures of the scheme's linked program, which takes seconds."""
        if scheme not in self._linked:
            self._linked[scheme] = self.compiler.program(scheme.spec(self.layers)).memory
        return self._linked[scheme]


def _peak_layer(schedule: Schedule) -> str:
    """The layer of the node while which runs most is alive."""
    profile = schedule.lifetimes.profile()
    time, _ = max(profile, key=lambda point: point[1], default=(0, 0))
    nodes = schedule.graph.nodes
    return nodes[min(time, len(nodes) - 1)].location.layer
