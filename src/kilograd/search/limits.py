"""What a scheme may need, and whether it needs no more."""

from __future__ import annotations

from dataclasses import dataclass

from kilograd.planning.step_limits import StepLimit
from kilograd.search.resources import ResourceModel
from kilograd.search.scheme import Scheme


@dataclass(frozen=True)
class Limits:
    """What a scheme may need: all of the SRAM, the flash, and time and energy of a training step of
    the planned program.
    """

    sram_bytes: int
    flash_bytes: int | None = None
    step: tuple[StepLimit, ...] = ()


def fits(scheme: Scheme, model: ResourceModel, limits: Limits, reserve_bytes: int) -> bool:
    """Whether the scheme's planned program is within the limits, with `reserve_bytes` of stack and
    other static data; its flash is known after linking only.
    """
    static_bytes = model.static_bytes(scheme)
    return static_bytes <= limits.sram_bytes - reserve_bytes and step_fits(scheme, model, limits)


def step_fits(scheme: Scheme, model: ResourceModel, limits: Limits) -> bool:
    """Whether a training step of the scheme's planned program is within the limits.

    Raises InputError where the device has no estimate of what is limited.
    """
    device = model.compiler.device
    return all(limit.known(model.step(scheme), device) <= limit.most for limit in limits.step)


def too_much(needed: int, most: int | None) -> bool:
    """Whether more is needed than there is; None is no limit."""
    return most is not None and needed > most


def head_takes(limit: StepLimit, amount: float) -> str:
    """That the head alone takes more of a step than the limit."""
    taken, most = limit.told_apart(amount)
    return (
        f"training the head alone takes {taken} a step by estimate, more than the "
        f"{most} of the budget ({limit.option}), so there is no scheme to search "
        f"for.\nWhat helps: a smaller input, a narrower network, or {limit.remedy}."
    )
