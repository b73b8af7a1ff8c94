"""A frontier as one HTML page: the curves, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from kilograd.planning.front import FrontPoint, Measure, measures_of
from kilograd.report.choices import front
from kilograd.report.drawing import Spec
from kilograd.report.html import html, write_html
from kilograd.report.palette import FRONT
from kilograd.report.runtime import require_charts


class Frontier(Protocol):
    """What the page tells of: `kilograd.Frontier`."""

    @property
    def network(self) -> str:
        """The name of the network."""

    @property
    def device(self) -> str:
        """The name of the device."""

    def choices(self) -> Sequence[FrontPoint]:
        """Its points as choices."""


_TITLES = {Measure.JOULES: "Energy of a training step", Measure.SECONDS: "Time of a training step"}


def write_frontier(frontier: Frontier, path: str | Path) -> Path:
    """Write the page, whole or not at all.

    Raises InputError where the libraries of `kilograd[report]` are missing, or it cannot be
    written.
    """
    require_charts()
    specs = frontier_charts(frontier)
    titles = {m.value: title for m, title in _TITLES.items() if m.value in specs}
    context = {"frontier": frontier, "titles": titles, "colors": FRONT}
    target = Path(path)
    write_html(target, html("frontier.html.j2", specs, context), "the frontier")
    return target


def frontier_charts(frontier: Frontier) -> dict[str, Spec]:
    """Vega-Lite charts by what they show, of what the device has estimates of."""
    points = frontier.choices()
    return {m.value: front(points, measure=m) for m in measures_of(points) if m in _TITLES}
