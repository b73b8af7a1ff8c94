"""`kilograd report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kilograd.cli.app import Json, app, busy, print_json
from kilograd.cli.run import Run, on_network
from kilograd.report import blank_sample


@app.command()
@on_network
def report(
    run: Run,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    count: Annotated[bool, typer.Option(help="Count instructions on the emulated device.")] = False,
    as_json: Json = False,
) -> None:
    """Write one HTML page of what a program needs: memory map, layers, what is trained and why.

    Example: kilograd report model.onnx --device stm32f746 --update last:2 --count
    """
    program = run.compile()
    with busy("writing the report"):
        program.report(output, sample=blank_sample(program) if count else None)
    if as_json:
        print_json({"output": str(output)})
    else:
        print(f"wrote {output}")
