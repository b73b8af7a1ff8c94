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
    """At most so many seconds or joules for a training step, by estimate; `given` is how the user
    wrote it.
    """

    quantity: Quantity
    most: float
    given: float | str | None = None

    @property
    def option(self) -> str:
        """The field of the budget."""
        return "step_time" if self.quantity == "seconds" else "step_energy"

    @property
    def named(self) -> str:
        """As the user gave it: `step_time='500ms'`."""
        return f"{self.option}={self.most if self.given is None else self.given!r}"

    def of(self, estimate: Estimate) -> float | None:
        """What is limited of an estimate, None where it is not known."""
        return estimate.seconds if self.quantity == "seconds" else estimate.joules

    def told(self, amount: float) -> str:
        """`12.34 ms`, `0.5 µJ`."""
        return with_prefix(amount, self.unit, 4)

    def told_apart(self, amount: float) -> tuple[str, str]:
        """An amount and the limit, in so many figures that they differ."""
        for figures in range(4, 18):
            pair = tuple(with_prefix(each, self.unit, figures) for each in (amount, self.most))
            if pair[0] != pair[1]:
                return pair[0], pair[1]
        return f"{amount!r} {self.unit}", f"{self.most!r} {self.unit}"

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
        if device.is_host:
            rate = "flop_per_second" if self.quantity == "seconds" else "flop_per_joule"
            way = f"describe its {rate} in a device file, or take a device that has one"
        else:
            factor = "clock_hz" if self.quantity == "seconds" else "joules_per_cycle"
            way = f"describe {factor} and cycles_per_instruction in a device file"
        raise InputError(
            f"budget: {self.named} needs an estimate of {name}, and {device.name} has none; leave "
            f"it out, or {way}"
        )


def step_limits(budget: Budget) -> tuple[StepLimit, ...]:
    """What a budget says of a step."""
    limits: tuple[tuple[Quantity, float | None, float | str | None], ...] = (
        ("seconds", budget.step_seconds, budget.step_time),
        ("joules", budget.step_joules, budget.step_energy),
    )
    return tuple(
        StepLimit(quantity, most, given) for quantity, most, given in limits if most is not None
    )
