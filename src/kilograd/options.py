"""What the user asks of a training program besides the network: optimiser, loss, budget."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from kilograd.errors import InputError

_LARGEST = 3.4028234e38

ROUNDINGS = ("nearest", "stochastic", "residual")
OBJECTIVES = ("energy", "time")
"""How a step of an integer weight may be rounded."""


def finite_float32(name: str, number: float) -> float:
    """The number, or InputError where it is negative or no finite float32."""
    if not isinstance(number, numbers.Real) or not 0 <= number <= _LARGEST:
        raise InputError(f"{name}={number!r} must be a finite number, not negative")
    return float(number)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent on single samples.

    `lr` is the default learning rate of sessions; the C function takes it as an argument.
    `momentum` and `weight_decay` as in PyTorch. `accumulate` n: the weights move every n-th sample,
    by the mean gradient of the n. `atomic`: a step in which NaN or infinity arises changes nothing
    at all; this holds every gradient until all are known to be finite. With atomic=False each
    tensor is updated as soon as its gradient exists, which frees the gradient early; a step that
    fails may then have updated the layers behind the one that failed.

    The rest is for int8 weights. `rounding` of their steps: "stochastic" (random, so that the mean
    is exact; `seed` starts the sequence), "residual" (an int8 remainder beside each weight keeps
    what rounding left) or "nearest". `qas=False` leaves out quantisation-aware scaling, which shows
    what it is good for: weights then move by the gradient with respect to the integers.
    """

    lr: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    accumulate: int = 1
    atomic: bool = True
    rounding: str = "stochastic"
    seed: int = 0
    qas: bool = True

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        for name in ("lr", "momentum", "weight_decay"):
            finite_float32(f"SGD: {name}", getattr(self, name))
        if not self.momentum < 1:
            raise InputError(f"SGD: momentum={self.momentum} must be in [0, 1)")
        count = self.accumulate
        whole = isinstance(count, numbers.Integral) and not isinstance(count, bool)
        if not whole or not 1 <= count < 2**31:
            raise InputError(f"SGD: accumulate={self.accumulate!r} must be a whole number from 1")
        if self.rounding not in ROUNDINGS:
            raise InputError(
                f"SGD: rounding={self.rounding!r} is unknown; there are {', '.join(ROUNDINGS)}"
            )
        if not isinstance(self.seed, numbers.Integral) or not 0 <= self.seed < 2**32:
            raise InputError(
                f"SGD: seed={self.seed!r} must be a whole number below 2^32, not negative"
            )


class Loss(Enum):
    """The losses that `compile` takes by name; each is a mean, as in PyTorch.

    cross_entropy: logits [1, K, ...] against class indices [1, ...], K at least 2, through a
    softmax that ends the network; mse: against an array of the output's shape; autoencoder: mse
    against the network's own input; bce_with_logits: logits against probabilities.
    """

    CROSS_ENTROPY = "cross_entropy"
    MSE = "mse"
    AUTOENCODER = "autoencoder"
    BCE_WITH_LOGITS = "bce_with_logits"

    @staticmethod
    def of(name: str | Loss) -> Loss:
        """The loss of that name, or InputError with the list of names."""
        try:
            return Loss(name)
        except ValueError:
            names = ", ".join(loss.value for loss in Loss)
            raise InputError(f"loss={name!r} is unknown; there are {names}") from None


_SIZES = {"": 1, "b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3}


def parse_bytes(size: int | str) -> int:
    """Bytes from an integer or a text such as "256KB" (1 KB = 1024 bytes)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?i?b?)\s*", str(size).lower())
    unit = match.group(2).replace("i", "") if match else ""
    unit = unit if unit in _SIZES else unit + "b"
    if match is None or unit not in _SIZES:
        raise InputError(f"{size!r} is no size; write bytes as a number, or as 256KB or 1MB")
    return int(float(match.group(1)) * _SIZES[unit])


@dataclass(frozen=True)
class Budget:
    """Limits on the program: `sram` and `flash` in bytes or as "256KB", by default the device's;
    `step_time` and `step_energy`, of one training step by estimate, in seconds or as "500ms" and in
    joules or as "5mJ", by default none.
    """

    sram: int | str | None = None
    flash: int | str | None = None
    step_time: float | str | None = None
    step_energy: float | str | None = None

    @property
    def sram_bytes(self) -> int | None:
        """The SRAM limit in bytes, None for the device's."""
        return None if self.sram is None else parse_bytes(self.sram)

    @property
    def flash_bytes(self) -> int | None:
        """The flash limit in bytes, None for the device's."""
        return None if self.flash is None else parse_bytes(self.flash)

    @property
    def step_seconds(self) -> float | None:
        """The time limit of a training step in seconds, None for none."""
        return None if self.step_time is None else parse_seconds(self.step_time)

    @property
    def step_joules(self) -> float | None:
        """The energy limit of a training step in joules, None for none."""
        return None if self.step_energy is None else parse_joules(self.step_energy)


@dataclass(frozen=True)
class Planning:
    """How a program that needs more SRAM than there is may be made to fit, at the cost of energy
    and time.

    `recompute`: operators may run again instead of keeping what they computed. `page`: tensors may
    wait in the device's secondary storage, weights may live there. Among the plans that fit, the
    one of least `objective` is searched, "energy" or "time", until it is proven to be within `gap`
    of the optimum, or `time_limit` seconds are over.
    """

    recompute: bool = True
    page: bool = True
    objective: Literal["energy", "time"] = "energy"
    gap: float = 0.01
    time_limit: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what no planner could do."""
        if self.objective not in OBJECTIVES:
            raise InputError(
                f"Planning: objective={self.objective!r} is unknown; there are "
                f"{' and '.join(OBJECTIVES)}"
            )
        for name in ("gap", "time_limit"):
            finite_float32(f"Planning: {name}", getattr(self, name))
        if not self.time_limit:
            raise InputError("Planning: time_limit=0 leaves no time to plan; give seconds")


_MICRO = str.maketrans({"\N{MICRO SIGN}": "u", "\N{GREEK SMALL LETTER MU}": "u"})

_DURATIONS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


def parse_seconds(duration: float | str) -> float:
    """Seconds from a number or a text such as "500ms", "2s" or "1.5min"."""
    told = "duration; write seconds as a number, or as 500ms, 2s or 1.5min"
    return _parse(duration, _DURATIONS, "s", told)


_ENERGIES = {"nj": 1e-9, "uj": 1e-6, "mj": 1e-3, "j": 1.0}


def parse_joules(energy: float | str) -> float:
    """Joules from a number or a text such as "300uJ", "5mJ" or "2J"."""
    return _parse(
        energy, _ENERGIES, "j", "energy; write joules as a number, or as 300uJ, 5mJ or 2J"
    )


def _parse(amount: float | str, units: Mapping[str, float], usual: str, told: str) -> float:
    """A positive finite amount in one of the units, in any case except that M is no milli. Raises
    InputError, that it is no `told`.
    """
    text = str(amount).translate(_MICRO)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([a-zA-Z]*)\s*", text)
    number = 0.0
    if match and not (match[2][:1] == "M" and match[2].lower() in ("mj", "ms")):
        number = float(match[1]) * units.get(match[2].lower() or usual, 0.0)
    if not 0 < number < math.inf:
        raise InputError(f"{amount!r} is no {told}")
    return number
