"""What a choice among programs costs and gives, as points that a report draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from kilograd.errors import InputError


class Measure(Enum):
    """What a front sets against the SRAM; the value is the field of the points."""

    GAIN = "gain"
    JOULES = "joules"
    SECONDS = "seconds"

    @property
    def more_is_better(self) -> bool:
        """Whether a larger number is the better one."""
        return self is Measure.GAIN


@dataclass(frozen=True)
class FrontPoint:
    """One choice: `sram_bytes` of the program, `seconds` and `joules` of a training step, and the
    `gain` that is expected of it, in whatever unit its search has; None where nobody knows.
    `spread` is the standard deviation of the gain where it was measured. `chosen` is the one that
    was taken, `kind` where it is from, `note` what else there is to say of it.
    """

    label: str
    sram_bytes: int
    seconds: float | None = None
    joules: float | None = None
    gain: float | None = None
    spread: float | None = None
    chosen: bool = False
    kind: str = ""
    note: str = ""


def measures_of(points: Sequence[FrontPoint]) -> list[Measure]:
    """The measures that all points have, in the order of Measure."""
    return [
        measure
        for measure in Measure
        if all(getattr(point, measure.value) is not None for point in points)
    ]


def measure_of(points: Sequence[FrontPoint]) -> Measure:
    """The first measure of Measure that all points have.

    Raises InputError where there are no points, or none of the measures is known of all.
    """
    if not points:
        raise InputError("a front needs points")
    for measure in measures_of(points):
        return measure
    names = ", ".join(measure.value for measure in Measure)
    raise InputError(f"the points of a front need one of {names}, the same for all")


def efficient(points: Sequence[FrontPoint], measure: Measure) -> list[bool]:
    """For each point, whether no other is at least as good in both SRAM and measure and better in
    one: the Pareto front.
    """
    sign = -1 if measure.more_is_better else 1
    costs = [(point.sram_bytes, sign * float(getattr(point, measure.value))) for point in points]
    return [
        not any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in costs)
        for own in costs
    ]
