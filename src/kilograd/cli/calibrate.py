"""`kilograd calibrate`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from kilograd.cli.app import Json, app, notes, output, print_json
from kilograd.devices.kernels import table_json
from kilograd.errors import InputError

if TYPE_CHECKING:
    from kilograd.calibrate import Check


@app.command()
def calibrate(
    device: Annotated[str, typer.Argument(help="A device name, or a device file.")],
    file: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the table goes: `kernels` of a device file."),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="Measure this network alone; may be given several times."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what operators take in instructions on a device's processor, and fit its table.

    Takes ten minutes or more: steps of eighteen networks are counted on the emulator, in float32
    and int8, and three others tell how good the fit is.

    Example: kilograd calibrate nrf52840 -o kernels.json
    """
    # PyTorch makes the networks that are measured: only this command needs it.
    from kilograd.calibrate import calibrate as measure

    if file is not None and not file.absolute().parent.is_dir():
        raise InputError(f"there is no directory {file.absolute().parent} to write {file.name} to")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as bar:
        task = bar.add_task("", total=None)
        made = measure(
            device,
            only=network or (),
            progress=lambda name: bar.update(task, description=f"counting {name}"),
        )
    text = table_json(made.table)
    if file is not None:
        _write(file, text)
    if as_json:
        checks = [
            {
                "network": check.network,
                "precision": check.precision,
                "gradients": check.gradients,
                "counted": sum(check.counted),
                "predicted": sum(check.predicted),
                "step_error": check.step_error,
                "node_error": check.node_error,
            }
            for check in made.checks
        ]
        print_json({"table": json.loads(text), "held_out": checks})
        return
    kernels = Table("kernel", "nodes", "error", "instructions", title=made.table.cpu)
    for name, kernel in sorted(made.table.kernels.items()):
        terms = ", ".join(f"{amount:g} {what}" for what, amount in kernel.instructions.items())
        kernels.add_row(name, str(kernel.nodes), f"{kernel.error:.1%}", terms)
    output.print(kernels)
    if made.checks:
        output.print(_checks(made.checks))
    if file is not None:
        output.print(f"wrote {file}", highlight=False)


def _checks(checks: Sequence[Check]) -> Table:
    """What the table predicts of networks that it was not fitted on."""
    table = Table(
        *("network", "precision", "gradients", "counted", "predicted", "step", "nodes"),
        title="held out of the fit",
    )
    for check in checks:
        table.add_row(
            check.network,
            check.precision,
            check.gradients,
            f"{sum(check.counted):,}",
            f"{sum(check.predicted):,}",
            f"{check.step_error:+.1%}",
            f"{check.node_error:.1%}",
        )
    return table


def _write(file: Path, text: str) -> None:
    try:
        with tempfile.TemporaryDirectory(dir=file.absolute().parent, prefix=".kilograd-") as new:
            part = Path(new) / file.name
            part.write_text(text, encoding="utf-8")
            part.replace(file)
    except OSError as error:
        raise InputError(f"cannot write the kernel table to {file}: {error}") from error
