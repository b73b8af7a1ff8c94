"""`kilograd init`: a run file with comments."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import typer

from kilograd import devices
from kilograd.cli.app import Json, app, busy, print_json
from kilograd.cli.models import resolve
from kilograd.cli.run import parse_shape
from kilograd.cli.runfile import DEFAULT
from kilograd.errors import InputError
from kilograd.frontend import load as load_model
from kilograd.saving import write_file
from kilograd.transforms.fold import fold
from kilograd.transforms.layout import arrange
from kilograd.transforms.select import parameters

_FILE = """\
# A run of kilograd. `kilograd compile`, `train` and `evaluate` read this file; flags override it.
# Paths are relative to this file.

# An .onnx or .pt2 file, module:function, or a network of the zoo.
model = {model}
{input_shape}
# `kilograd devices` lists them; a path ending in .toml is a device of your own.
device = {device}

# "float32", or "int8" with samples to take the ranges from.
precision = "float32"
# calibration = "calibration.npz"
# head = "float32"      # or "int8": the last layer
# ranges = "min_max"    # or "percentile", "mse"
# headroom = 1.0        # 2.0 lets an int8 weight double, at the price of one bit
# gradients = "float32" # or "int8", for processors without FPU

# What to train: "all", or a list applied in order, of "last:2", "biases", "biases:20",
# "PATTERN=full", "PATTERN=bias", "PATTERN=none", "PATTERN=channels:0.25".
update = ["all"]
# The parameters, of {count:,} numbers in all:
{parameters}

# A fresh last layer for so many classes; or for each class the old one it starts as, or "new".
# classes = 12
# classes = [0, 3, "new"]

# "cross_entropy", "mse", "autoencoder" or "bce_with_logits"
loss = "cross_entropy"

# Where `kilograd compile` writes the C project, and for which tool:
# "plain", "arduino", "platformio", "esp-idf", "zephyr" or "cmsis-pack".
output = "firmware"
layout = "plain"

[optimizer]
lr = 0.01
momentum = 0.0
weight_decay = 0.0
accumulate = 1 # samples per update
atomic = true  # a failed step changes nothing
# rounding = "stochastic" # of int8 weights; or "residual", "nearest"

# Limits below the device's.
[budget]
# sram = "256KB"
# flash = "1MB"
# step_time = "500ms"
# step_energy = "5mJ"

# How a program that needs more SRAM is made to fit; docs/planning.md.
[planning]
# recompute = true     # operators may run again
# page = true          # tensors and weights may wait in the device's storage
# objective = "energy" # or "time"
# time_limit = 60.0    # seconds to search for each plan

# .npz with x and y, .csv, or a folder of pictures by class.
[data]
# train = "train.npz"
# test = "test.npz"
# mean = 0.5     # (value - mean) / std; pictures are brightness from 0 to 1
# std = 0.25
# resize = true  # pictures of another size
# target = "label" # column of a CSV

[training]
epochs = 1
seed = 0
on = "host" # or "emulator"
"""


@app.command()
def init(
    model: Annotated[
        str,
        typer.Argument(help="An .onnx or .pt2 file, module:function, or a network of the zoo."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The run file.")] = DEFAULT,
    device: Annotated[str, typer.Option(help="A device name, or a device file.")] = "host",
    input_shape: Annotated[
        str | None,
        typer.Option(help="As in 1,3,32,32, where the model has none.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace a file that exists.")] = False,
    as_json: Json = False,
) -> None:
    """Write a run file, with comments, for a model.

    Example: kilograd init model.onnx --device stm32f746
    """
    if output.exists() and not force:
        raise InputError(f"{output} exists; name another file, or force it (--force)")
    devices.load(device)
    shape = None if input_shape is None else tuple(parse_shape(input_shape))
    with busy("reading the model"):
        found = resolve(model, Path(), shape)
        imported = load_model(found.source, found.example_input)
        graph = fold(arrange(imported.graph)[0])
    names = {parameter.name: parameter.value.type.size for parameter in parameters(graph)}
    text = _FILE.format(
        model=_quoted(_relative(model, output)),
        input_shape="" if shape is None else f"input_shape = {list(shape)}\n",
        device=_quoted(_relative(device, output) if device.endswith(".toml") else device),
        count=sum(names.values()),
        parameters="\n".join(f"#   {name}" for name in names),
    )
    write_file(output, text.encode(), "the run file")
    if as_json:
        inputs = [list(value.type.shape) for value in imported.graph.inputs]
        print_json(
            {
                "output": str(output),
                "model": model,
                "device": device,
                "input_shape": inputs[0],
                "input_size": math.prod(inputs[0]),
                "parameters": list(names),
            }
        )
    else:
        print(f"wrote {output}: {len(names)} parameter tensors")


def _relative(text: str, output: Path) -> str:
    """A path as seen from the run file; anything else as it is."""
    if not Path(text).suffix or ":" in text or Path(text).is_absolute():
        return text
    return Path(os.path.relpath(Path(text).absolute(), output.absolute().parent)).as_posix()


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
