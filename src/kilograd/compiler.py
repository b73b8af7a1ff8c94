"""The whole pipeline on one page, in the order the data flows."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kilograd import devices, frontend
from kilograd.codegen.names import network_name
from kilograd.devices import Device, Storage
from kilograd.errors import InfeasibleError, InputError
from kilograd.execution.build_cache import cache_directory
from kilograd.fitting import Fitter, NoFitError
from kilograd.infeasible import infeasible
from kilograd.ir import DType, Graph
from kilograd.options import SGD, Budget, Loss, Planning
from kilograd.planning.allocate import allocate
from kilograd.planning.order import order
from kilograd.planning.stream import narrow, plan_streams
from kilograd.program import Program
from kilograd.search.evaluate import ByReference
from kilograd.search.store import graph_digest
from kilograd.search.training import Trainable
from kilograd.stages import stage
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

BRIEF = "-O1"
"""The C compiler's flag for programs that run for seconds."""


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
    planning: Planning | None = None,
    storage: str | None = None,
    name: str | None = None,
    data: Any = None,
    search: Mapping[str, Any] | None = None,
) -> Program:
    """Compile a network into a program that predicts and learns.

    Args:
        model: a `torch.nn.Module`, a `torch.export.ExportedProgram`, or the path of a `.pt2` or
            `.onnx` file.
        example_input: one sample with its leading batch dimension of 1, which fixes the shapes; may
            be left out for files whose shapes are static.
        device: a name from `kilograd.devices.names()`, the path of a device file, or a `Device`.
        update: what to train, see `kilograd.update`; everything by default. "auto" searches for
            what gains most on `data` within device and budget, see `kilograd.search`.
        loss: "cross_entropy", "mse", "autoencoder" or "bce_with_logits".
        optimizer: `kilograd.SGD(...)`.
        budget: limits below those of the device, and on the time and energy of a step.
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
        planning: `kilograd.Planning(...)`: how a program that needs more SRAM or flash than there
            is may be made to fit. Programs that fit are not planned.
        storage: the name of the device's secondary storage for pages; by default its first.
        name: prefix of the C functions; by default the model's.
        data: for update="auto", a pair (x, y) of samples of the task and their classes.
        search: for update="auto", further arguments of `kilograd.search` by name, such as
            {"method": "fast"}.

    Raises:
        UnsupportedError: the model has operators that kilograd does not know; all are listed.
        InfeasibleError: the program does not fit the device or the budget.
        InputError: an argument or a file is not what it has to be.
    """
    return draft(
        model,
        example_input,
        device=device,
        update=update,
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
        planning=planning,
        storage=storage,
        name=name,
        data=data,
        search=search,
    ).fitted()


def draft(
    model: Any,
    example_input: Any = None,
    *,
    update: SpecLike | None = None,
    data: Any = None,
    search: Mapping[str, Any] | None = None,
    **options: Any,
) -> Draft:
    """Everything of `compile` up to the question whether the program fits; arguments as there."""
    network = prepare(model, example_input, **options)
    found = _searched(network, update, data, search)
    return network.draft(found or normalise(All() if update is None else update))


def _searched(
    prepared: Prepared, update: Any, data: Any, options: Mapping[str, Any] | None
) -> Spec | None:
    """What to train by a search, where update="auto" asks for one."""
    if not (isinstance(update, str) and update == "auto"):
        if data is not None or options is not None:
            raise InputError("data and search are for update='auto'; other updates take none")
        return None
    # Brings solvers and joblib, which other updates need not.
    from kilograd.search.search import find

    unknown = sorted(set(options or {}) - set(inspect.signature(find).parameters))
    if unknown:
        raise InputError(f"search: {', '.join(unknown)} is no argument of kilograd.search")
    return find(prepared, data, **{"store": default_store(), **(options or {})}).spec


def default_store() -> Path:
    """Where measurements of searches are kept: `KILOGRAD_CACHE`/search, or
    `~/.cache/kilograd/search`.
    """
    return cache_directory() / "search"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network read, folded and quantised, before it is decided what to train.

    `folded` is its float forward graph, `forward` the one that is compiled: the same, or int8. The
    other fields are what `compile` was given, or stands for it.
    """

    name: str
    folded: Graph
    forward: Graph
    ports: Ports
    device: Device
    loss: Loss
    optimizer: SGD
    budget: Budget
    planning: Planning
    storage: Storage | None
    classes: Classes | None
    gradients: str
    calibration: Any
    report: Report | None
    notes: tuple[str, ...]
    model: str

    def draft(self, update: Spec) -> Draft:
        """The program that trains what `update` says, not yet made to fit."""
        forward, graphs, notes = self._training(update, self.optimizer)
        ordered = _ordered(graphs, self.optimizer)
        streamed = stage("stream", lambda: plan_streams(ordered))
        predict, train = stage("allocate", lambda: allocate(streamed))
        program = Program(
            name=self.name,
            device=self.device,
            loss=self.loss,
            optimizer=self.optimizer,
            ports=self.ports,
            forward=forward,
            gradients=TrainingGraphs.present(graphs.gradients, train.graph),
            predict=predict,
            train=train,
            budget=self.budget,
            notes=notes,
            classes=self.classes,
            quantized=self.report,
            update=update,
            model=self.model,
            planning=self.planning,
        )
        return Draft(program, self, ordered)

    def program(self, update: Spec) -> Program:
        """That program as it stands, which need not fit device and budget."""
        return self.draft(update).program

    def graphs(self, update: Spec, optimizer: SGD) -> TrainingGraphs:
        """Its functions in their leanest form, also for another optimiser."""
        _, graphs, _ = self._training(update, optimizer)
        predict, train = _narrowed(*_ordered(graphs, optimizer))
        return replace(graphs, predict=predict, train=train)

    @property
    def inputs(self) -> dict[str, Any]:
        """All that decides on the programs besides what is trained, as JSON values."""
        optimizer = asdict(self.optimizer)
        del optimizer["lr"]  # an argument of every step
        calibration = ""
        if self.gradients == "int8":
            samples, _ = labelled(self.calibration)
            calibration = hashlib.sha256(np.ascontiguousarray(samples).tobytes()).hexdigest()
        return {
            "graph": graph_digest(self.forward),
            "ports": str(self.ports),
            "loss": self.loss.value,
            "optimizer": optimizer,
            "gradients": [self.gradients, calibration],
        }

    def within(self, budget: Budget) -> Prepared:
        """The same under another budget."""
        return replace(self, budget=budget)

    def session(self, update: Spec, judge: str = "c") -> Trainable:
        """The program that trains what `update` says on this computer, built to be run briefly.

        `judge` is what its `evaluate` uses: the "c" program, or see `search.evaluate.outputs`.
        """
        program = self.program(update)
        session = program.on_host(optimize=BRIEF)
        if judge == "c":
            return session
        return ByReference(session, program.predict.graph, self.ports, judge)

    def training_graph(self, update: Spec, *, packed: bool = True) -> Graph:
        """The training step of that program before it is ordered, masks as bits or, where not
        `packed`, read off the results that they mask.
        """
        _, graphs, _ = self._training(update, self.optimizer)
        train = _fused(graphs.predict, graphs.train)[1]
        return pack_masks(train) if packed else train

    def _training(
        self, update: Spec, optimizer: SGD
    ) -> tuple[Graph, TrainingGraphs, tuple[str, ...]]:
        """The forward graph, prediction and training step before they are fused, what to tell."""
        named = named_channels(self.forward, update)
        forward = self.forward
        if named:
            forward = stage("reorder", lambda: to_front(self.forward, named))
        choice = select(forward, update)
        if not choice:
            raise InputError(_nothing_to_train(forward))
        graphs = stage(
            "differentiate",
            lambda: differentiate(forward, self.loss, choice, optimizer, self.ports),
        )
        if self.gradients != "int8":
            return forward, graphs, self.notes
        train = stage(
            "integers", lambda: _integers(graphs.train, self.ports, self.calibration, optimizer)
        )
        return forward, replace(graphs, train=train), (*self.notes, *float_gradients(train))


@dataclass(frozen=True, eq=False)
class Draft:
    """A program before it is made to fit; `ordered` are its two functions before chains are
    streamed.
    """

    program: Program
    network: Prepared
    ordered: tuple[Graph, Graph]

    @cached_property
    def forms(self) -> tuple[Program, ...]:
        """The program as it may be planned, the leanest form first. Streaming needs the weights of
        a whole chain at once, and less of everything else.
        """
        forms = []
        for graphs in dict.fromkeys((_narrowed(*self.ordered), self.ordered)):
            predict, train = allocate(graphs)
            forms.append(self.program.scheduled(predict, train))
        return tuple(forms)

    def fitter(self, form: Program) -> Fitter:
        """What plans one of its forms."""
        return Fitter(form, self.network.storage, self.network.planning)

    def fitted(self) -> Program:
        """The program as it is where it fits, else planned so that it does."""
        program = stage("fit", self._fitted)
        program.check_step()
        return program

    def _fitted(self) -> Program:
        try:
            self.program.check_fit()
        except InfeasibleError:
            if not (self.network.planning.recompute or self.network.planning.page):
                raise
            self.program.check_step()
            return self._planned()
        return self.program

    def _planned(self) -> Program:
        """The first form of the program of which a plan fits."""
        failures: list[tuple[Fitter, NoFitError]] = []
        for form in self.forms:
            fitter = self.fitter(form)
            try:
                return fitter.fitted()
            except NoFitError as error:
                failures.append((fitter, error))
        fitter, closest = NoFitError.closest(failures)
        raise infeasible(fitter, closest, self.network.graphs, self.program) from closest


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
    planning: Planning | None = None,
    storage: str | None = None,
    name: str | None = None,
) -> Prepared:
    """The stages of `compile`, whose arguments these are, that do not depend on what is trained."""
    _check_precision(precision, calibration, gradients)
    _check_int8_only(precision, head=head, ranges=ranges, headroom=headroom)
    for value, kinds in (
        (optimizer, SGD),
        (budget, Budget),
        (name, str),
        (planning, Planning),
        (storage, str),
    ):
        if value is not None and not isinstance(value, kinds):
            raise InputError(f"{value!r} is not a {kinds.__name__}; see the arguments of compile")
    kind = Loss.of(loss)
    target = devices.load(device)
    pages = target.storage_named(storage)
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
        planning=planning or Planning(),
        storage=pages,
        classes=classes,
        gradients=gradients,
        calibration=calibration,
        report=report,
        notes=(*imported.notes, *(report.notes if report else ())),
        model=_title(model),
    )


def _narrowed(predict: Graph, train: Graph) -> tuple[Graph, Graph]:
    """Both functions with their chains streamed as narrow as they go."""
    return narrow(predict), narrow(train)


def _ordered(graphs: TrainingGraphs, optimizer: SGD) -> tuple[Graph, Graph]:
    """Both functions, fused and in the order in which they run."""
    predict, train = stage("fuse", lambda: _fused(graphs.predict, graphs.train))
    atomic = optimizer.atomic
    return predict, stage("order", lambda: order(train, pack_masks(train), atomic=atomic))


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


def _check_int8_only(precision: str, **given: object) -> None:
    """Refuse what has no meaning in float32, rather than ignore it."""
    defaults: dict[str, object] = {"head": "float32", "ranges": "min_max", "headroom": 1.0}
    for name, value in given.items():
        if precision == "float32" and value != defaults[name]:
            raise InputError(f"{name}={value!r} is for precision='int8'; float32 takes none")


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
