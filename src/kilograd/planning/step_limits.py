"""Limits on the time and the energy of a training step, and what to say of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kilograd.devices import Device
from kilograd.errors import InputError
from kilograd.options import Budget
from kilograd.planning.costs import Estimate, with_prefix

Quantity = Literal["seconds", "joules"]


@dataclass(frozen=True)
class StepLimit:
    """At most so many seconds or joules for a training step, by estimate."""

    quantity: Quantity
    most: float

    @property
    def option(self) -> str:
        """The field of the budget."""
        return "step_time" if self.quantity == "seconds" else "step_energy"

    def of(self, estimate: Estimate) -> float | None:
        """What is limited of an estimate, None where it is not known."""
        return estimate.seconds if self.quantity == "seconds" else estimate.joules

    def told(self, amount: float) -> str:
        """`12.34 ms`, `0.5 µJ`."""
        return with_prefix(amount, self.unit, 4)

    @property
    def unit(self) -> str:
        """Of the quantity."""
        return "s" if self.quantity == "seconds" else "J"

    def told_up(self, amount: float) -> str:
        """In three digits, rounded up so that the text suffices as a limit."""
        text = f"{amount:.3g}"
        text = text if float(text) >= amount else f"{amount * 1.005:.3g}"
        return f"{text} {self.unit}"

    @property
    def remedy(self) -> str:
        """Which device would help."""
        return "a faster device" if self.quantity == "seconds" else "a device that takes less"

    def known(self, estimate: Estimate, device: Device) -> float:
        """What is limited of an estimate. Raises InputError where the device has none of it."""
        amount = self.of(estimate)
        if amount is not None:
            return amount
        name = "time" if self.quantity == "seconds" else "energy"
        fields = ["clock_hz"] if self.quantity == "seconds" else ["joules_per_cycle"]
        if device.is_host:
            fields = ["a cpu whose instructions are counted", *fields]
        raise InputError(
            f"budget: {self.option}={self.most:.4g} needs an estimate of {name}, and "
            f"{device.name} has none; leave it out, or describe "
            f"{', '.join([*fields[:-1], f'{fields[-1]} and cycles_per_instruction'])} in a device "
            "file"
        )


def step_limits(budget: Budget) -> tuple[StepLimit, ...]:
    """What a budget says of a step."""
    limits: tuple[tuple[Quantity, float | None], ...] = (
        ("seconds", budget.step_seconds),
        ("joules", budget.step_joules),
    )
    return tuple(StepLimit(quantity, most) for quantity, most in limits if most is not None)
