"""The whole pipeline on one page, in the order the data flows."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kilograd import devices, frontend
from kilograd.codegen.names import network_name
from kilograd.devices import Device
from kilograd.errors import InputError
from kilograd.ir import DType, Graph, verify
from kilograd.options import SGD, Budget, Loss
from kilograd.planning.allocate import allocate
from kilograd.planning.order import order
from kilograd.planning.schedule import Schedule
from kilograd.planning.stream import plan_streams
from kilograd.program import Program
from kilograd.transforms.differentiate import TrainingGraphs, differentiate
from kilograd.transforms.fold import fold
from kilograd.transforms.fuse import fuse
from kilograd.transforms.fuse_steps import fuse_steps
from kilograd.transforms.head import Classes, with_classes
from kilograd.transforms.integer_gradients import float_gradients, integer_gradients
from kilograd.transforms.layout import arrange
from kilograd.transforms.masks import pack_masks
from kilograd.transforms.ports import Ports
from kilograd.transforms.quantize import Report, compare, integer_input, labelled, quantize
from kilograd.transforms.reorder import to_front
from kilograd.transforms.scatter import scatter
from kilograd.transforms.select import named_channels, parameters, select
from kilograd.transforms.shifts import calibrate_shifts
from kilograd.update import All, Spec, SpecLike, normalise

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
    calibration: Any = None,
    head: str = "float32",
    ranges: str = "min_max",
    headroom: float = 1.0,
    classes: Classes | None = None,
    gradients: str = "float32",
    name: str | None = None,
) -> Program:
    """Compile a network into a program that predicts and learns.

    Args:
        model: a `torch.nn.Module`, a `torch.export.ExportedProgram`, or the path of a `.pt2` or
            `.onnx` file.
        example_input: one sample with its leading batch dimension of 1, which fixes the shapes; may
            be left out for files whose shapes are static.
        device: a name from `kilograd.devices.names()`, the path of a device file, or a `Device`.
        update: what to train, see `kilograd.update`; everything by default.
        loss: "cross_entropy", "mse", "autoencoder" or "bce_with_logits".
        optimizer: `kilograd.SGD(...)`.
        budget: limits below those of the device.
        precision: "float32", or "int8": post-training quantisation, and training of the very int8
            network that predicts.
        calibration: for int8, a batch [N, ...] of inputs in the model's layout, as the network will
            see them (a hundred of every kind are plenty), or a pair (inputs, targets), with which
            the report compares int8 and float32.
        head: for int8, whether the last layer stays "float32" or is "int8" like the others.
        ranges: for int8, how ranges are chosen: "min_max", "percentile" or "mse".
        headroom: for int8, how much longer than needed today ranges are. An int8 weight cannot grow
            beyond its range; 2 lets it double, at the price of one bit. Worth it for networks that
            learn from scratch, not for those that adapt.
        classes: another number of classes than the network has, for a fresh last layer; or a list
            that says for each class which old one it starts as, None for a fresh one.
        gradients: for int8, "float32", or "int8": gradients of int8 layers are integers, too, which
            a processor without FPU computes many times faster.
        name: prefix of the C functions; by default the model's.

    Raises:
        UnsupportedError: the model has operators that kilograd does not know; all are listed.
        InfeasibleError: the program does not fit the device or the budget.
        InputError: an argument or a file is not what it has to be.
    """
    prepared = prepare(
        model,
        example_input,
        device=device,
        loss=loss,
        optimizer=optimizer,
        budget=budget,
        precision=precision,
        calibration=calibration,
        head=head,
        ranges=ranges,
        headroom=headroom,
        classes=classes,
        gradients=gradients,
        name=name,
    )
    program = prepared.program(All() if update is None else normalise(update))
    stage("fit", program.check_fit)
    return program


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network read, folded and quantised, before it is decided what to train.

    `folded` is its float forward graph, `forward` the one that is compiled: the same, or int8. The
    other fields are what `compile` was given.
    """

    name: str
    folded: Graph
    forward: Graph
    ports: Ports
    device: Device
    loss: Loss
    optimizer: SGD
    budget: Budget
    classes: Classes | None
    gradients: str
    calibration: Any
    report: Report | None
    notes: tuple[str, ...]
    model: str

    def program(self, update: Spec) -> Program:
        """The program that trains what `update` says, not yet held against device and budget."""
        forward, graphs, train, notes = self._training(update)
        predict, train = stage("fuse", lambda: _fused(graphs.predict, train))
        atomic = self.optimizer.atomic
        train = stage("order", lambda: order(train, pack_masks(train), atomic=atomic))
        predict, train = stage("stream", lambda: plan_streams((predict, train)))
        schedules = stage("allocate", lambda: allocate((predict, train)))
        return Program(
            name=self.name,
            device=self.device,
            loss=self.loss,
            optimizer=self.optimizer,
            ports=self.ports,
            forward=forward,
            gradients=graphs.gradients,
            predict=schedules[0],
            train=schedules[1],
            budget=self.budget,
            notes=notes,
            classes=self.classes,
            quantized=self.report,
            update=update,
            model=self.model,
        )

    def training_graph(self, update: Spec) -> Graph:
        """The training step of that program before it is ordered, masks as bits."""
        _, graphs, train, _ = self._training(update)
        return pack_masks(_fused(graphs.predict, train)[1])

    def _training(self, update: Spec) -> tuple[Graph, TrainingGraphs, Graph, tuple[str, ...]]:
        """The forward graph, what autodiff made of it, the training step, and what to tell."""
        named = named_channels(self.forward, update)
        forward = self.forward
        if named:
            forward = stage("reorder", lambda: to_front(self.forward, named))
        choice = select(forward, update)
        if not choice:
            raise InputError(_nothing_to_train(forward))
        graphs = stage(
            "differentiate",
            lambda: differentiate(forward, self.loss, choice, self.optimizer, self.ports),
        )
        train, notes = graphs.train, self.notes
        if self.gradients == "int8":
            train = stage(
                "integers",
                lambda: _integers(graphs.train, self.ports, self.calibration, self.optimizer),
            )
            notes = (*notes, *float_gradients(train))
        return forward, graphs, train, notes


def prepare(
    model: Any,
    example_input: Any = None,
    *,
    device: str | Path | Device = "host",
    loss: str | Loss = Loss.CROSS_ENTROPY,
    optimizer: SGD | None = None,
    budget: Budget | None = None,
    precision: str = "float32",
    calibration: Any = None,
    head: str = "float32",
    ranges: str = "min_max",
    headroom: float = 1.0,
    classes: Classes | None = None,
    gradients: str = "float32",
    name: str | None = None,
) -> Prepared:
    """The stages of `compile`, whose arguments these are, that do not depend on what is trained."""
    _check_precision(precision, calibration, gradients)
    for value, kinds in ((optimizer, SGD), (budget, Budget), (name, str)):
        if value is not None and not isinstance(value, kinds):
            raise InputError(f"{value!r} is not a {kinds.__name__}; see the arguments of compile")
    kind = Loss.of(loss)
    target = devices.load(device)
    imported = stage("import", lambda: frontend.load(model, example_input))
    arranged, ports = stage("layout", lambda: arrange(imported.graph))
    folded = stage("fold", lambda: fold(arranged))
    if classes is not None:
        folded, ports = stage("head", lambda: with_classes(folded, ports, classes))
    forward, report = folded, None
    if precision == "int8":
        forward, report = _quantized(
            folded, ports, calibration, kind, ranges=ranges, head=head, headroom=headroom
        )
        report.settings["gradients"] = gradients
    return Prepared(
        name=network_name(name or imported.name),
        folded=folded,
        forward=forward,
        ports=ports,
        device=target,
        loss=kind,
        optimizer=optimizer or SGD(),
        budget=budget or Budget(),
        classes=classes,
        gradients=gradients,
        calibration=calibration,
        report=report,
        notes=(*imported.notes, *(report.notes if report else ())),
        model=_title(model),
    )


def _fused(predict: Graph, train: Graph) -> tuple[Graph, Graph]:
    """Both functions with operators joined where that saves memory or passes over it."""
    return fuse(predict), fuse_steps(fuse(scatter(train)))


def _quantized(
    graph: Graph, ports: Ports, calibration: Any, loss: Loss, **how: Any
) -> tuple[Graph, Report]:
    """The int8 form of the forward graph, and what there is to say about it."""
    inputs, targets = labelled(calibration)
    whole, report = stage("quantize", lambda: quantize(graph, ports, inputs, **how))
    if targets is not None:
        score = compare(graph, whole, ports, loss, inputs, targets)
        report = replace(report, score=score)
    return integer_input(whole), report


def _integers(train: Graph, ports: Ports, calibration: Any, optimizer: SGD) -> Graph:
    """The training graph with integer gradients, their shifts found on the calibration data."""
    inputs, _ = labelled(calibration)
    ids = train.inputs[0].type.dtype is DType.I32
    samples = ports.inputs[0].to_program(inputs.astype(np.int32 if ids else np.float32))
    if samples.ndim < len(ports.inputs[0].shape):
        samples = samples[np.newaxis]
    return calibrate_shifts(integer_gradients(train, optimizer.seed), samples)


def _check_precision(precision: str, calibration: Any, gradients: str) -> None:
    if gradients not in ("float32", "int8"):
        raise InputError(f"gradients={gradients!r} is unknown; there are float32 and int8")
    if precision == "float32" and gradients == "int8":
        raise InputError("gradients='int8' is for precision='int8'; a float32 network has no int8")
    if precision not in ("float32", "int8"):
        raise InputError(f"precision={precision!r} is unknown; there are float32 and int8")
    if precision == "int8" and calibration is None:
        raise InputError(
            "precision='int8' needs calibration data: pass calibration=x, or --calibration FILE, "
            "inputs like those that the network will see, from which the ranges of its int8 "
            "tensors are taken"
        )
    if precision == "float32" and calibration is not None:
        raise InputError("calibration is for precision='int8'; float32 takes none")


def _title(model: Any) -> str:
    """What the user gave: the path of a file, or the name of a class."""
    return str(model) if isinstance(model, str | Path) else type(model).__qualname__


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
