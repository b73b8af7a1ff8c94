"""What something takes: time and energy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Estimated time and energy of one execution or transfer."""

    seconds: float
    joules: float
