"""The stages of the compiler: timed, verified, told to who watches, and dumped on request."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from kilograd import frontend
from kilograd.errors import InputError
from kilograd.ir import Graph, verify
from kilograd.planning.schedule import Schedule
from kilograd.transforms.differentiate import TrainingGraphs

T = TypeVar("T")
Watch = Callable[[str], None]
_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Within it, `watch` gets the name of every stage that starts in this thread."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def stage(name: str, run: Callable[[], T]) -> T:
    """Run a stage, verify the graphs it makes, and log or dump them as the environment asks.

    KILOGRAD_DEBUG=1 prints name, seconds and node counts to stderr; KILOGRAD_DUMP=dir writes each
    artefact as text into that directory. Neither changes the result.
    """
    watch = _watch.get()
    if watch is not None:
        watch(name)
    start = time.perf_counter()
    artefact = run()
    graphs = list(_graphs(artefact))
    for graph in graphs:
        verify(graph)
    if os.environ.get("KILOGRAD_DEBUG", "0") not in ("", "0"):
        counts = ", ".join(f"{len(graph.nodes)} nodes" for graph in graphs)
        print(
            f"kilograd {name:<14} {time.perf_counter() - start:7.3f} s  {counts}", file=sys.stderr
        )
    directory = os.environ.get("KILOGRAD_DUMP")
    if directory and graphs:
        text = "\n\n".join(str(graph) for graph in graphs)
        try:
            Path(directory).mkdir(parents=True, exist_ok=True)
            (Path(directory) / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write to KILOGRAD_DUMP={directory}: {error}") from error
    return artefact


def _graphs(artefact: object) -> Iterator[Graph]:
    """The graphs in what a stage returns."""
    if isinstance(artefact, Graph):
        yield artefact
    elif isinstance(artefact, TrainingGraphs):
        yield from (artefact.predict, artefact.train)
    elif isinstance(artefact, Schedule | frontend.Imported):
        yield artefact.graph
    elif isinstance(artefact, tuple):
        for member in artefact:
            yield from _graphs(member)
