"""Where pages lie in secondary storage.

A page of a running step has one place. A constant has one place, which holds it before the first
step. A state has three: its initial value, which is never overwritten, and two banks that take
turns, so that the value before a step outlives the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kilograd.ir import Value


@dataclass(frozen=True)
class StoragePlan:
    """Offsets in bytes of what lies in storage, by value.

    `states` are (initial value, bank 0, bank 1). `size_bytes` is what the storage has to have;
    the first `image_bytes` hold constants and initial values and have to be written before the
    program runs.
    """

    pages: Mapping[Value, int]
    constants: Mapping[Value, int]
    states: Mapping[Value, tuple[int, int, int]]
    size_bytes: int
    image_bytes: int
