"""What a search is asked for: the limits of device and budget, and SRAM limits of its front."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from kilograd.errors import InfeasibleError, InputError
from kilograd.options import parse_bytes
from kilograd.planning.step_limits import step_limits
from kilograd.search.layers import Layers
from kilograd.search.limits import Limits, head_takes
from kilograd.search.network import Network

MOST_POINTS = 100


def front_of(front: int | str | Sequence[int | str]) -> int | list[int]:
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


def check_front(asked: Sequence[int], limits: Limits, least: int) -> None:
    """Raise InputError for an SRAM limit above what there is, and InfeasibleError for one below the
    `least` bytes that training the head alone needs.
    """
    for size in asked:
        if size > limits.sram_bytes:
            raise InputError(
                f"front: {size:,} bytes are more than the {limits.sram_bytes:,} of SRAM that there "
                "are; name a larger budget or device, or leave it out"
            )
        if size < least:
            raise InfeasibleError(
                f"front: training the head alone needs {least:,} bytes of SRAM, "
                f"{least - size:,} more than {size:,}; leave this limit out"
            )


def limits_of(network: Network, layers: Layers) -> tuple[Limits, int]:
    """SRAM and flash that there are, and limits on a step; and the bytes of SRAM that training the
    head alone needs.

    Raises InfeasibleError where that program needs more than there is, and InputError where nothing
    limits the SRAM, or the device has no estimate of what the budget limits.
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
    return limits, least.sram_bytes
