"""The command line: `kilograd demo | compile | report | devices | operators`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import kilograd
from kilograd import devices as device_files
from kilograd.demo import run as run_demo
from kilograd.errors import UserError
from kilograd.ops import all_operators
from kilograd.report import blank_sample

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compile your neural network into C that predicts and learns on a microcontroller.",
)
_console = Console()

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where the C project goes.")] = Path("build/demo"),
    device: Annotated[str, typer.Option(help="The emulated device.")] = "cortex-m7-256k",
) -> None:
    """Teach a face detector on an emulated microcontroller to see upside down in the dark.

    Example: kilograd demo --device stm32f746
    """
    run_demo(output, device)


@app.command()
def compile(
    model: Annotated[Path, typer.Argument(help="An .onnx or .pt2 file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the C project.")],
    device: Annotated[str, typer.Option(help="A device name, or a device file.")] = "host",
    update: Annotated[
        list[str] | None,
        typer.Option(
            help="What to train: all, last:2, biases:20, 'fc.*=full', 'b.*=channels:0.25'."
        ),
    ] = None,
    loss: Annotated[
        str, typer.Option(help="cross_entropy, mse, autoencoder or bce_with_logits.")
    ] = "cross_entropy",
    momentum: Annotated[float, typer.Option(help="Momentum of SGD.")] = 0.0,
    weight_decay: Annotated[float, typer.Option(help="Weight decay of SGD.")] = 0.0,
    accumulate: Annotated[int, typer.Option(help="Samples per update.")] = 1,
    atomic: Annotated[bool, typer.Option(help="A failed step changes nothing.")] = True,
    name: Annotated[str | None, typer.Option(help="Prefix of the C functions.")] = None,
    force: Annotated[bool, typer.Option(help="Replace a directory that is not empty.")] = False,
    as_json: Json = False,
) -> None:
    """Compile a network into a C project that predicts and learns.

    Example: kilograd compile model.onnx --device stm32f746 --update last:2 -o firmware
    """
    program = kilograd.compile(
        model,
        device=device,
        update=kilograd.update.parse(update or ["all"]),
        loss=loss,
        optimizer=kilograd.SGD(
            momentum=momentum, weight_decay=weight_decay, accumulate=accumulate, atomic=atomic
        ),
        name=name,
    )
    program.save(output, force=force)
    if as_json:
        print(program.manifest(), end="")
    else:
        print(program.summary())
        print(f"\nwrote {output}")


@app.command()
def report(
    model: Annotated[Path, typer.Argument(help="An .onnx or .pt2 file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    device: Annotated[str, typer.Option(help="A device name, or a device file.")] = "host",
    update: Annotated[list[str] | None, typer.Option(help="As for compile.")] = None,
    loss: Annotated[str, typer.Option(help="As for compile.")] = "cross_entropy",
    count: Annotated[bool, typer.Option(help="Count instructions on the emulated device.")] = False,
) -> None:
    """Write one HTML page of what a program needs: memory map, layers, what is trained and why.

    Example: kilograd report model.onnx --device stm32f746 --update last:2 --count
    """
    program = kilograd.compile(
        model, device=device, update=kilograd.update.parse(update or ["all"]), loss=loss
    )
    program.report(output, sample=blank_sample(program) if count else None)
    print(f"wrote {output}")


@app.command()
def devices(as_json: Json = False) -> None:
    """List the devices that programs can be compiled for.

    Example: kilograd devices --json
    """
    known = [device_files.load(name) for name in device_files.names()]
    if as_json:
        print(json.dumps([device.model_dump() for device in known], indent=2))
        return
    table = Table("name", "SRAM", "flash", "clock", "what")
    for device in known:
        table.add_row(
            device.name,
            "-" if device.sram_bytes is None else f"{device.sram_bytes // 1024} KB",
            "-" if device.flash_bytes is None else f"{device.flash_bytes // 1024} KB",
            "-" if device.clock_hz is None else f"{device.clock_hz / 1e6:g} MHz",
            device.title,
        )
    _console.print(table)


@app.command()
def operators(as_json: Json = False) -> None:
    """List the operators that programs are made of.

    Example: kilograd operators
    """
    known = all_operators()
    if as_json:
        print(json.dumps([operator.name for operator in known], indent=2))
        return
    table = Table("operator", "what")
    for operator in known:
        table.add_row(operator.name, (operator.__doc__ or "").splitlines()[0])
    _console.print(table)


def main() -> None:
    """Run the command line; a user's error is one message and exit code 1, without a traceback."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
