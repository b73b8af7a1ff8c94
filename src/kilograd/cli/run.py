"""What every command on a network has in common: options, run file, defaults, compilation.

    @app.command()
    @on_network
    def compile(run: Run, output: Annotated[...] = None) -> None: ...

gives the command all options that describe a run, and calls it with what they amount to.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import typer

import kilograd
from kilograd import Loss, Program, devices
from kilograd.cli import runfile
from kilograd.cli.app import busy
from kilograd.cli.models import Model, resolve
from kilograd.cli.runfile import RunFile
from kilograd.compiler import Prepared, prepare
from kilograd.data import Reading, Samples, Wanted
from kilograd.data import load as load_samples
from kilograd.errors import InputError
from kilograd.frontend import load as load_model
from kilograd.options import OBJECTIVES, ROUNDINGS
from kilograd.stages import watched
from kilograd.transforms.quantize import RANGES

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A run: the keys of the run file with the flags laid over them.

    `folder` is what the paths of the file are relative to. Paths on the command line are relative
    to the current directory, and absolute in `settings`.
    """

    settings: RunFile
    folder: Path

    @cached_property
    def model(self) -> Model:
        """The model that the run names."""
        settings = self.settings
        if settings.model is None:
            raise InputError(
                f"name a model, or write a run file with kilograd init MODEL ({runfile.DEFAULT} "
                "in the current directory is read by itself)"
            )
        shape = None if settings.input_shape is None else tuple(settings.input_shape)
        return resolve(settings.model, self.folder, shape)

    def compile(self) -> Program:
        """The compiled program. Raises every UserError that `kilograd.compile` raises."""
        return self.compile_by(kilograd.compile)

    def compile_by(self, compiler: Callable[..., T]) -> T:
        """What a function makes of the arguments of `kilograd.compile`."""
        keywords = {**self._keywords(), "update": self._update()}
        with busy("compiling") as say, watched(say):
            return compiler(self.model.source, self.model.example_input, **keywords)

    def prepare(self) -> Prepared:
        """The network before it is decided what to train. Raises as `compile` does."""
        keywords = self._keywords()
        with busy("preparing the network") as say, watched(say):
            return prepare(self.model.source, self.model.example_input, **keywords)

    def _update(self) -> kilograd.update.Spec:
        """What the run trains; a scheme file is relative to the run file that names it."""
        given = self.settings.update
        texts = [given] if isinstance(given, str) else given
        suffix = kilograd.update.SCHEME_SUFFIX
        return kilograd.update.parse(
            [str(self.folder / t) if t.endswith(suffix) and "=" not in t else t for t in texts]
        )

    def _keywords(self) -> dict[str, Any]:
        """The other arguments of `kilograd.compile`."""
        settings = self.settings
        with busy("reading the model"):
            model = self.model
        device: str | Path = settings.device
        if settings.device.endswith(".toml"):
            device = self.folder / settings.device
        keywords: dict[str, Any] = {
            "device": device,
            "loss": settings.loss,
            "optimizer": runfile.build(kilograd.SGD, "optimizer", settings.optimizer),
            "budget": runfile.build(kilograd.Budget, "budget", settings.budget),
            "name": settings.name or model.name,
            "planning": runfile.build(kilograd.Planning, "planning", settings.planning),
            "storage": settings.storage,
        }
        for key in ("precision", "head", "ranges", "headroom", "gradients"):
            if getattr(settings, key) is not None:
                keywords[key] = getattr(settings, key)
        if settings.classes is not None:
            keywords["classes"] = runfile.classes(settings.classes)
        if settings.calibration is not None:
            with busy(f"reading {settings.calibration}") as say:
                keywords["calibration"] = self._calibration(settings.calibration, say)
        return keywords

    def samples(self, path: Path | None, program: Program | Prepared, which: str) -> Samples:
        """The samples of a file or folder, for the network. Raises InputError where they are not.

        `which` is "train" or "test", the key of `[data]` that counts where `path` is None.
        """
        if path is None:
            own = getattr(self.settings.data, which)
            if own is None:
                raise InputError(
                    f"name the samples: --data FILE, or {which} in [data] of the run file"
                )
            path = self.folder / own
        wanted = Wanted(
            input_shape=program.ports.inputs[0].shape[1:],
            output_shape=program.ports.outputs[0].shape[1:],
            loss=program.loss,
        )
        with busy(f"reading {path}") as say:
            return load_samples(path, wanted, self._reading, watch=say)

    def _calibration(self, path: str, say: Callable[[str], None]) -> np.ndarray:
        example = self.model.example_input
        if example is None:
            shape = load_model(self.model.source).graph.inputs[0].type.shape
        else:
            shape = tuple(example.shape)
        wanted = Wanted(input_shape=tuple(shape[1:]), output_shape=(), loss=None)
        return load_samples(self.folder / path, wanted, self._reading, watch=say).x

    @property
    def _reading(self) -> Reading:
        data = self.settings.data
        return Reading(data.mean, data.std, data.resize, data.target)


_PANELS = {
    flag: panel
    for panel, flags in {
        "Int8": ("--precision", "--calibration", "--head", "--ranges", "--headroom", "--gradients",
                 "--rounding", "--rounding-seed", "--qas"),
        "Training": ("--update", "--loss", "--lr", "--momentum", "--weight-decay", "--accumulate",
                     "--atomic"),
        "Planning": ("--step-time", "--step-energy", "--storage", "--recompute", "--page",
                     "--plan-objective", "--plan-gap", "--plan-time-limit"),
        "Samples": ("--mean", "--std", "--resize", "--target"),
    }.items()
    for flag in flags
}  # fmt: skip
"""Under which heading the help has a flag; the others are of the network and its device."""

_FORMATS = ("float32", "int8")
_CHOICES: dict[str, Callable[[], Iterable[str]]] = {
    "--device": devices.names,
    "--precision": lambda: _FORMATS,
    "--head": lambda: _FORMATS,
    "--gradients": lambda: _FORMATS,
    "--ranges": lambda: RANGES,
    "--rounding": lambda: ROUNDINGS,
    "--plan-objective": lambda: OBJECTIVES,
    "--loss": lambda: (loss.value for loss in Loss),
}
"""What the Tab key offers for the value of a flag."""


def _options() -> dict[str, Any]:
    """Parameter name to annotation, in the order of the help; every default is None."""
    return {
        "model": Annotated[
            str | None,
            typer.Argument(
                help="An .onnx or .pt2 file, module:function, or a network of the zoo; left out, "
                "the run file's.",
                show_default=False,
            ),
        ],
        "config": _flag(Path, "A run file; without a MODEL, ./kilograd.toml.", "--config", "-c"),
        "device": _flag(str, "A device name, or a device file. Default: host.", "--device"),
        "precision": _flag(str, "float32 or int8. Default: float32.", "--precision"),
        "calibration": _flag(str, "Samples that int8 takes its ranges from.", "--calibration"),
        "head": _flag(str, "The last layer: float32 or int8. Default: float32.", "--head"),
        "ranges": _flag(
            str, "How ranges are chosen: min_max, percentile or mse. Default: min_max.", "--ranges"
        ),
        "headroom": _flag(
            float, "How much longer than needed ranges are. Default: 1.", "--headroom"
        ),
        "gradients": _flag(
            str, "Gradients of int8 layers: float32 or int8. Default: float32.", "--gradients"
        ),
        "classes": _flag(
            str,
            "Another number of classes for a fresh last layer, as in 12; or what each class starts "
            "as, as in 0,3,new.",
            "--classes",
        ),
        "update": _flag(
            list[str],
            "What to train; several are applied in order: all, last:2, biases:20, 'fc.*=full', "
            "'b.*=channels:0.25', scheme.toml. Default: all.",
            "--update",
        ),
        "loss": _flag(
            str,
            "cross_entropy, mse, autoencoder or bce_with_logits. Default: cross_entropy.",
            "--loss",
        ),
        "lr": _flag(float, "Learning rate. Default: 0.01.", "--lr"),
        "momentum": _flag(float, "Momentum of SGD. Default: 0.", "--momentum"),
        "weight_decay": _flag(float, "Weight decay of SGD. Default: 0.", "--weight-decay"),
        "accumulate": _flag(int, "Samples per update. Default: 1.", "--accumulate"),
        "atomic": _flag(
            bool, "A failed step changes nothing. Default: atomic.", "--atomic/--no-atomic"
        ),
        "rounding": _flag(
            str,
            "Of steps of weights: stochastic, residual or nearest. Default: stochastic.",
            "--rounding",
        ),
        "rounding_seed": _flag(int, "Starts stochastic rounding. Default: 0.", "--rounding-seed"),
        "qas": _flag(
            bool, "Scale steps of weights to their ranges. Default: qas.", "--qas/--no-qas"
        ),
        "sram": _flag(str, "Limit below the device's, such as 256KB.", "--sram"),
        "flash": _flag(str, "Limit below the device's, such as 1MB.", "--flash"),
        "step_time": _flag(str, "Limit on a training step, such as 500ms.", "--step-time"),
        "step_energy": _flag(str, "Limit on a training step, such as 5mJ.", "--step-energy"),
        "storage": _flag(str, "The device's storage for pages. Default: its first.", "--storage"),
        "recompute": _flag(
            bool,
            "Operators may run again where SRAM is short. Default: recompute.",
            "--recompute/--no-recompute",
        ),
        "page": _flag(
            bool,
            "Tensors may wait in storage where SRAM is short. Default: page.",
            "--page/--no-page",
        ),
        "plan_objective": _flag(
            str, "What plans save first: energy or time. Default: energy.", "--plan-objective"
        ),
        "plan_gap": _flag(
            float,
            "The share of it that a better plan may save when the search ends. Default: 0.01.",
            "--plan-gap",
        ),
        "plan_time_limit": _flag(
            float, "Seconds to search for each plan. Default: 60.", "--plan-time-limit"
        ),
        "name": _flag(str, "Prefix of the C functions. Default: the model's.", "--name"),
        "input_shape": _flag(
            str, "As in 1,3,32,32, where the model does not say it.", "--input-shape"
        ),
        "mean": _flag(str, "Taken off samples; one for each channel as in 0.5,0.4,0.4.", "--mean"),
        "std": _flag(str, "What samples are divided by, after that; as --mean.", "--std"),
        "resize": _flag(bool, "Scale pictures of another size.", "--resize/--no-resize"),
        "target": _flag(str, "Column of a CSV that holds the target.", "--target"),
    }


def _flag(kind: Any, text: str, *names: str) -> Any:
    first = names[0].partition("/")[0]
    option = typer.Option(
        *names,
        help=text,
        show_default=False,
        rich_help_panel=_PANELS.get(first, "Network"),
        autocompletion=completion(_CHOICES[first]) if first in _CHOICES else None,
    )
    return Annotated[kind | None, option]


def completion(choices: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What the Tab key offers for a value: those of the choices that begin like it."""

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices() if choice.startswith(incomplete)]

    return complete


def on_network(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a run; it takes the `Run` as its first argument, `run`."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=None)
        for name, annotation in _options().items()
    ]
    names = [parameter.name for parameter in shared]

    @wraps(command)
    def wrapper(**arguments: Any) -> None:
        run = make_run(**{name: arguments.pop(name) for name in names})
        command(run, **arguments)

    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    wrapper.__signature__ = inspect.Signature([*shared, *own])  # type: ignore[attr-defined]
    # What typer asks besides the signature; `wraps` copied the texts of the command's own.
    wrapper.__annotations__ = {p.name: p.annotation for p in (*shared, *own)}
    del wrapper.__wrapped__
    return wrapper


def make_run(*, model: str | None, config: Path | None, **flags: Any) -> Run:
    """The run that flags and run file amount to. Raises InputError for a wrong file or flag."""
    if config is None and model is None and runfile.DEFAULT.is_file():
        config = runfile.DEFAULT
    content: dict[str, Any] = {} if config is None else runfile.read(config)
    folder = Path() if config is None else config.parent
    if model is not None:
        content["model"] = _absolute(model) if Path(model).suffix else model
    _put(content, "optimizer", "seed", flags.pop("rounding_seed"))
    for key in ("lr", "momentum", "weight_decay", "accumulate", "atomic", "rounding", "qas"):
        _put(content, "optimizer", key, flags.pop(key))
    for key in ("recompute", "page"):
        _put(content, "planning", key, flags.pop(key))
    for key in ("objective", "gap", "time_limit"):
        _put(content, "planning", key, flags.pop(f"plan_{key}"))
    for key in ("sram", "flash", "step_time", "step_energy"):
        _put(content, "budget", key, flags.pop(key))
    for key in ("resize", "target"):
        _put(content, "data", key, flags.pop(key))
    for key in ("mean", "std"):
        text = flags.pop(key)
        _put(content, "data", key, None if text is None else _numbers(f"--{key}", text))
    shape = flags.pop("input_shape")
    if shape is not None:
        content["input_shape"] = parse_shape(shape)
    if flags["classes"] is not None:
        flags["classes"] = parse_classes(flags["classes"])
    if flags["calibration"] is not None:
        flags["calibration"] = _absolute(flags["calibration"])
    suffix = kilograd.update.SCHEME_SUFFIX
    if flags["update"]:
        flags["update"] = [
            _absolute(t) if t.endswith(suffix) and "=" not in t else t for t in flags["update"]
        ]
    if flags["device"] is not None and flags["device"].endswith(".toml"):
        flags["device"] = _absolute(flags["device"])
    content |= {key: value for key, value in flags.items() if value is not None and value != []}
    return Run(runfile.check(content, "the command line"), folder)


def _put(content: dict[str, Any], section: str, key: str, value: Any) -> None:
    if value is not None:
        content[section] = {**content.get(section, {}), key: value}


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def parse_classes(text: str) -> int | list[int | str]:
    """`12`, or `0,3,new` as the list of a run file; raises InputError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() or part == runfile.FRESH for part in parts):
        raise InputError(
            f"--classes {text!r}: write how many, as in 12, or what each class starts as, as in "
            f"0,3,{runfile.FRESH}"
        )
    rows = [int(part) if part.isdecimal() else part for part in parts]
    return int(text) if len(rows) == 1 and text.strip().isdecimal() else rows


def _numbers(flag: str, text: str) -> float | list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"{flag} {text!r}: write a number, or one for each channel, as in 0.5,0.4,0.4"
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers


def parse_shape(text: str) -> list[int]:
    """`1,3,32,32` as whole numbers; raises InputError for anything else."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--input-shape {text!r}: write whole numbers, as in 1,3,32,32") from None
