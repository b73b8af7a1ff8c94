"""A mixed-integer linear program as arrays: minimise c x, l <= A x <= u, x binary or >= 0."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass
class LinearModel:
    """Columns and rows as they are added; rows in compressed sparse form."""

    cost: list[float] = field(default_factory=list)
    integer: list[bool] = field(default_factory=list)
    upper_bound: list[float] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])
    columns: list[int] = field(default_factory=list)
    coefficients: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)

    def binary(self, cost: float = 0.0) -> int:
        """A new column of values 0 and 1; returns its index."""
        return self._column(cost, True, 1.0)

    def continuous(self, cost: float = 0.0) -> int:
        """A new column of values from 0 on."""
        return self._column(cost, False, math.inf)

    def _column(self, cost: float, integer: bool, upper_bound: float) -> int:
        self.cost.append(cost)
        self.integer.append(integer)
        self.upper_bound.append(upper_bound)
        return len(self.cost) - 1

    def row(
        self, coefficients: Mapping[int, float], lower: float = -math.inf, upper: float = math.inf
    ) -> None:
        """Add lower <= sum <= upper."""
        self.columns.extend(coefficients.keys())
        self.coefficients.extend(coefficients.values())
        self.starts.append(len(self.columns))
        self.lower.append(lower)
        self.upper.append(upper)

    def pack(self) -> dict[str, npt.NDArray[np.generic]]:
        """The model as arrays."""
        return {
            "cost": np.array(self.cost, np.float64),
            "integer": np.array(self.integer, np.bool_),
            "upper_bound": np.array(self.upper_bound, np.float64),
            "starts": np.array(self.starts, np.int64),
            "columns": np.array(self.columns, np.int64),
            "coefficients": np.array(self.coefficients, np.float64),
            "lower": np.array(self.lower, np.float64),
            "upper": np.array(self.upper, np.float64),
        }


def to_bytes(arrays: Mapping[str, Any]) -> bytes:
    """Arrays by name as the bytes of an .npz file."""
    buffer = io.BytesIO()
    values: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    np.savez(buffer, **values)
    return buffer.getvalue()


def from_bytes(data: bytes) -> dict[str, npt.NDArray[np.generic]]:
    """The inverse of `to_bytes`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
