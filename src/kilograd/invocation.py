"""The command that compiles a program again, as summary, manifest and report tell it."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from kilograd import devices
from kilograd.options import SGD, Budget, Planning
from kilograd.update import unparse

if TYPE_CHECKING:
    from kilograd.devices import Device
    from kilograd.program import Program


def command(program: Program) -> str:
    """What compiles the program again: a shell command where model and device are a file and a
    name, else the call in Python. Calibration data only the user has; `calibration` is its place.
    """
    update, optimizer, name = unparse(program.update), program.optimizer, program.name
    path, device = Path(program.model), program.device
    known = device.name in devices.names() and devices.load(device.name) == device
    if path.suffix in (".onnx", ".pt2") and known:
        words = ["kilograd", "compile", program.model, "--device", device.name]
        for text in update:
            words += ["--update", text]
        words += ["--loss", program.loss.value, *_sgd_flags(optimizer), *_option_flags(program)]
        words += _planning_flags(program)
        return shlex.join([*words, "--name", name, "--output", name])
    shape = list(program.ports.inputs[0].shape)
    model = repr(program.model) if path.suffix in (".onnx", ".pt2") else "model"
    lines = [
        "kilograd.compile(",
        f"    {model},  # {program.model}" if model == "model" else f"    {model},",
        f"    numpy.zeros({shape}, numpy.float32),",
        f"    device={device.name!r}," if known else f"    device={_device_call(device)},",
        f"    update=kilograd.update.parse({update!r}),",
        f"    loss={program.loss.value!r},",
        f"    optimizer=kilograd.{optimizer!r},",
        f"    budget=kilograd.{program.budget!r},",
        *([] if program.classes is None else [f"    classes={program.classes!r},"]),
        *_precision_lines(program),
        *_planning_lines(program),
        f"    name={name!r},",
        ")",
    ]
    return "\n".join(lines)


def _device_call(device: Device) -> str:
    """The expression that makes a device that has no file of kilograd's."""
    return f"kilograd.Device.model_validate({device.model_dump(exclude_defaults=True)!r})"


def _sgd_flags(optimizer: SGD) -> list[str]:
    """The flags of what differs from `SGD()`; lr always."""
    words, default = ["--lr", repr(optimizer.lr)], SGD()
    for field in dataclasses.fields(SGD):
        value, flag = getattr(optimizer, field.name), field.name.replace("_", "-")
        if field.name == "lr" or value == getattr(default, field.name):
            continue
        flag = "rounding-seed" if flag == "seed" else flag
        words += ["--no-" + flag] if value is False else ["--" + flag, str(value)]
    return words


def _option_flags(program: Program) -> list[str]:
    """Budget, classes and precision as flags."""
    words = []
    for field in dataclasses.fields(Budget):
        limit = getattr(program.budget, field.name)
        words += [] if limit is None else ["--" + field.name.replace("_", "-"), str(limit)]
    if program.classes is not None:
        rows = [program.classes] if isinstance(program.classes, int) else program.classes
        words += ["--classes", ",".join("new" if row is None else str(row) for row in rows)]
    if program.quantized is not None:
        words += ["--precision", "int8", "--calibration", "calibration.npz"]
        for setting, value in program.quantized.settings.items():
            words += ["--" + setting, str(value)]
    return words


def _precision_lines(program: Program) -> list[str]:
    """The arguments of an int8 program; its calibration data only the user has."""
    if program.quantized is None:
        return []
    settings = [f"    {name}={value!r}," for name, value in program.quantized.settings.items()]
    return ["    precision='int8',", "    calibration=calibration,", *settings]


def _planning_flags(program: Program) -> list[str]:
    """The flags of what differs from `Planning()`, and the storage."""
    settings, default = program.planning, Planning()
    words = [] if program.storage_device is None else ["--storage", program.storage_device.name]
    words += ["--no-recompute"] * (not settings.recompute) + ["--no-page"] * (not settings.page)
    for field in ("objective", "gap", "time_limit"):
        value = getattr(settings, field)
        if value != getattr(default, field):
            words += ["--plan-" + field.replace("_", "-"), str(value)]
    return words


def _planning_lines(program: Program) -> list[str]:
    """The arguments of a planned program."""
    lines = [] if program.planning == Planning() else [f"    planning=kilograd.{program.planning},"]
    if program.storage_device is not None:
        lines.append(f"    storage={program.storage_device.name!r},")
    return lines
