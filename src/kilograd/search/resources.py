"""What schemes need of a device: bounds from a model, and the truth from the compiler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Protocol

from kilograd.devices import Device
from kilograd.ir import Graph
from kilograd.options import SGD
from kilograd.planning.costs import Estimate, node_estimates
from kilograd.planning.necessary import Alive
from kilograd.planning.schedule import Schedule
from kilograd.planning.step_limits import Quantity, StepLimit
from kilograd.search.costs import CostForms, CostRows
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

    @property
    def step_estimate(self) -> Estimate:
        """What a training step takes."""


class Compiler(Protocol):
    """A network that waits for what to train: `kilograd.compiler.Prepared`."""

    @property
    def forward(self) -> Graph:
        """The forward graph."""

    @property
    def optimizer(self) -> SGD:
        """The optimiser."""

    @property
    def device(self) -> Device:
        """Where it runs."""

    def training_graph(self, update: Spec, *, packed: bool = True) -> Graph:
        """The training step, before it is ordered, its masks as bits or not."""

    def program(self, update: Spec) -> Planned:
        """The planned program."""


@dataclass(frozen=True)
class Needs:
    """What a planned program needs before it is linked: arena and state, and what a training step
    takes. `peak_layer` is the layer of the node while which runs most is alive.
    """

    static_bytes: int
    step: Estimate
    peak_layer: str


@dataclass(frozen=True)
class ResourceModel:
    """The memory of a network's schemes at `ratios` of their weights, and time and energy of their
    training steps. What was compiled is kept.
    """

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
    def _costs(self) -> dict[Quantity, CostRows]:
        return {}

    def costs(self, quantity: Quantity) -> CostRows:
        """Lower bounds of what a training step takes. Raises InputError where the device has no
        estimate of it.
        """
        if quantity not in self._costs:
            limit, device = StepLimit(quantity, 0.0), self.compiler.device
            # Instructions are whole numbers; rates of work are not rounded.
            one = Estimate(1, device.seconds(1), device.joules(1))

            def amounts(graph: Graph) -> list[float]:
                return [limit.known(each, device) for each in node_estimates(graph, device)]

            rounding = 0.0 if device.is_host else limit.known(one, device)
            self._costs[quantity] = self._cost_forms.rows(f"step {quantity}", amounts, rounding)
        return self._costs[quantity]

    @cached_property
    def _cost_forms(self) -> CostForms:
        return CostForms.of(
            self.layers,
            self.ratios,
            lambda scheme, packed: self.compiler.training_graph(
                scheme.spec(self.layers), packed=packed
            ),
            atomic=self.compiler.optimizer.atomic,
        )

    def expected(self, quantity: Quantity, most_bytes: int) -> Row:
        """What a training step takes in the usual form, less by as much as any planned program with
        at most `most_bytes` of arena and state has taken less: not proven to hold for others.
        """
        row = self.costs(quantity).expected
        less = 0.0
        for scheme, needs in self._needs.items():
            taken = StepLimit(quantity, 0.0).of(needs.step)
            if taken is not None and needs.static_bytes <= most_bytes:
                less = max(less, (row.value(scheme) or 0.0) - taken)
        base = tuple(None if size is None else size - less for size in row.base)
        return replace(row, name=f"{row.name}, or {less:.2g} less", base=base) if less else row

    @cached_property
    def _needs(self) -> dict[Scheme, Needs]:
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
        layer, weights = self.needs(scheme).peak_layer, dict(scheme.weights)
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
                (row.value(scheme) or 0) <= needs.static_bytes - self.rows.state_bytes(scheme)
                for scheme, needs in self._needs.items()
            )
        ]

    @cached_property
    def _linked(self) -> dict[Scheme, Measured]:
        return {}

    @property
    def planned(self) -> tuple[Scheme, ...]:
        """The schemes whose programs have been planned."""
        return tuple(self._needs)

    @property
    def compiles(self) -> int:
        """How many programs have been planned."""
        return len(self._needs)

    def static_bytes(self, scheme: Scheme) -> int:
        """Arena and state of the scheme's program, planned but not linked."""
        return self.needs(scheme).static_bytes

    def step(self, scheme: Scheme) -> Estimate:
        """What a training step of the scheme's program takes."""
        return self.needs(scheme).step

    def needs(self, scheme: Scheme) -> Needs:
        """What the scheme's planned program needs."""
        if scheme not in self._needs:
            program = self.compiler.program(scheme.spec(self.layers))
            state = Alive.aligned(program.train.graph.state)
            self._needs[scheme] = Needs(
                program.arena_bytes + state, program.step_estimate, _peak_layer(program.train)
            )
            if self._learned:
                self._forget()
        return self._needs[scheme]

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
