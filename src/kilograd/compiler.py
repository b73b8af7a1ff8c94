"""The whole pipeline on one page, in the order the data flows."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from kilograd import devices, frontend
from kilograd.codegen.names import network_name
from kilograd.devices import Device
from kilograd.errors import InputError
from kilograd.ir import Graph, verify
from kilograd.options import SGD, Budget, Loss
from kilograd.planning.allocate import allocate
from kilograd.planning.order import order
from kilograd.planning.schedule import Schedule
from kilograd.program import Program
from kilograd.transforms.differentiate import TrainingGraphs, differentiate
from kilograd.transforms.fold import fold
from kilograd.transforms.fuse import fuse
from kilograd.transforms.layout import arrange
from kilograd.transforms.scatter import scatter
from kilograd.transforms.select import parameters, select
from kilograd.update import All, SpecLike, normalise

T = TypeVar("T")


def compile(
    model: Any,
    example_input: Any = None,
    *,
    device: str | Path | Device = "host",
    update: SpecLike | None = None,
    loss: str | Loss = Loss.CROSS_ENTROPY,
    optimizer: SGD | None = None,
    budget: Budget | None = None,
    precision: str = "float32",
    name: str | None = None,
) -> Program:
    """Compile a network into a program that predicts and learns.

    Args:
        model: a `torch.nn.Module`, a `torch.export.ExportedProgram`, or the path of a `.pt2` or
        `.onnx` file. example_input: one sample with its leading batch dimension of 1, which fixes
        the shapes; may be left out for
            files whose shapes are static.
        device: a name from `kilograd.devices.names()`, the path of a device file, or a `Device`.
        update: what to train, see `kilograd.update`; everything by default.
        loss: "cross_entropy", "mse", "autoencoder" or "bce_with_logits".
        optimizer: `kilograd.SGD(...)`.
        budget: limits below those of the device.
        precision: "float32".
        name: prefix of the C functions; by default the model's.

    Raises:
        UnsupportedError: the model has operators that kilograd does not know; all are listed.
        InfeasibleError: the program does not fit the device or the budget.
        InputError: an argument or a file is not what it has to be.
    """
    if precision != "float32":
        raise InputError(f"precision={precision!r} is unknown; there is float32")
    for value, kinds in ((optimizer, SGD), (budget, Budget), (name, str)):
        if value is not None and not isinstance(value, kinds):
            raise InputError(f"{value!r} is not a {kinds.__name__}; see the arguments of compile")
    target = devices.load(device)
    optimizer = optimizer or SGD()
    imported = stage("import", lambda: frontend.load(model, example_input))
    arranged, ports = stage("layout", lambda: arrange(imported.graph))
    folded = stage("fold", lambda: fold(arranged))
    choice = select(folded, normalise(All() if update is None else update))
    if not choice:
        raise InputError(_nothing_to_train(folded))
    kind = Loss.of(loss)
    graphs = stage("differentiate", lambda: differentiate(folded, kind, choice, optimizer, ports))
    predict, train = stage("fuse", lambda: (fuse(graphs.predict), fuse(scatter(graphs.train))))
    train = stage("order", lambda: order(train, atomic=optimizer.atomic))
    schedules = stage("allocate", lambda: allocate((predict, train)))
    program = Program(
        name=network_name(name or imported.name),
        device=target,
        loss=kind,
        optimizer=optimizer,
        ports=ports,
        forward=folded,
        gradients=graphs.gradients,
        predict=schedules[0],
        train=schedules[1],
        budget=budget or Budget(),
        notes=imported.notes,
    )
    stage("fit", program.check_fit)
    return program


def _nothing_to_train(graph: Graph) -> str:
    known = [parameter.name for parameter in parameters(graph)]
    if not known:
        return "there is nothing to train: the model has no parameters that its output depends on"
    return (
        f"update selects nothing to train; the model has {', '.join(known[:6])}"
        f"{', ...' if len(known) > 6 else ''}; see kilograd.update"
    )


def stage(name: str, run: Callable[[], T]) -> T:
    """Run a stage, verify the graphs it makes, and log or dump them as the environment asks.

    KILOGRAD_DEBUG=1 prints name, seconds and node counts to stderr; KILOGRAD_DUMP=dir writes each
    artefact as text into that directory. Neither changes the result.
    """
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
