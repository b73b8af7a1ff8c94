"""Schemes as points of gain against SRAM: what a search found beside what people write by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from kilograd.planning.front import FrontPoint
from kilograd.search.resources import ResourceModel
from kilograd.search.scheme import Scheme
from kilograd.search.select import Selection
from kilograd.search.table import Contributions


@dataclass(frozen=True)
class Point:
    """A scheme, what it gains by its contributions, and what it needs of the SRAM in bytes.

    `kind` says where it is from: "found", "published", "last layers", "biases", "head".
    """

    name: str
    kind: str
    scheme: Scheme
    gain: float
    sram_bytes: int

    def choice(self) -> FrontPoint:
        """The point as charts take it; the gain in points."""
        return FrontPoint(self.name, self.sram_bytes, gain=100 * self.gain, kind=self.kind)


def head_only() -> Scheme:
    """The scheme that trains the head alone."""
    return Scheme(0)


def last_layers(model: ResourceModel, count: int) -> Scheme:
    """The head and the last `count` layers before it, weights and biases whole."""
    paths = model.layers.paths
    chosen = paths[max(0, len(paths) - count) :]
    return Scheme.of(len(chosen), dict.fromkeys(chosen, Fraction(1)))


def biases_only(model: ResourceModel, count: int | None = None) -> Scheme:
    """The head and the biases of the last `count` layers, or of all."""
    every = len(model.layers.paths)
    return Scheme(every if count is None else min(count, every))


def place(
    contributions: Contributions,
    model: ResourceModel,
    schemes: Mapping[str, tuple[str, Scheme]],
    reserve_bytes: int,
) -> tuple[Point, ...]:
    """The points of schemes, given as kind and scheme by name; `reserve_bytes` is added for stack
    and other data. Raises InputError for a ratio that has no contribution.
    """
    return tuple(
        Point(
            name,
            kind,
            scheme,
            scheme.gain(contributions),
            model.static_bytes(scheme) + reserve_bytes,
        )
        for name, (kind, scheme) in schemes.items()
    )


def found(selections: Iterable[Selection]) -> tuple[Point, ...]:
    """The points of selections."""
    return tuple(
        Point(
            f"{s.budget_bytes / 1024:g} KB",
            "found",
            s.scheme,
            s.gain,
            s.static_bytes + s.reserve_bytes if s.sram_bytes is None else s.sram_bytes,
        )
        for s in selections
    )
