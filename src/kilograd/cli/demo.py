"""`kilograd demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from kilograd.cli.app import Json, app, notes, print_json
from kilograd.demo import run


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where the C project goes.")] = Path("build/demo"),
    device: Annotated[str, typer.Option(help="The emulated device.")] = "cortex-m7-256k",
    precision: Annotated[str, typer.Option(help="int8 or float32.")] = "int8",
    as_json: Json = False,
) -> None:
    """Teach a face detector on an emulated microcontroller to see upside down in the dark.

    Example: kilograd demo --device stm32f746
    """
    program = run(output, device, notes if as_json else None, precision=precision)
    if as_json:
        print_json({"output": str(output), **json.loads(program.manifest())})
