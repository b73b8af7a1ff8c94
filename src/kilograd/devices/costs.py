"""What something takes: time and energy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Estimated time and energy of one execution or transfer."""

    seconds: float
    joules: float

    def least(self, other: Cost) -> Cost:
        """The less of each quantity."""
        return Cost(min(self.seconds, other.seconds), min(self.joules, other.joules))


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of costs."""
    parts = tuple(costs)
    return Cost(sum(part.seconds for part in parts), sum(part.joules for part in parts))
