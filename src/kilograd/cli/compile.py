"""`kilograd compile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kilograd.cli.app import Json, app, busy
from kilograd.cli.run import Run, completion, on_network
from kilograd.codegen import layouts
from kilograd.errors import InputError


@app.command()
@on_network
def compile(
    run: Run,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Directory or .zip of the C project.", show_default=False
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="plain, arduino, platformio, esp-idf, zephyr or cmsis-pack. Default: plain.",
            show_default=False,
            autocompletion=completion(lambda: layouts.LAYOUTS),
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an earlier project.")] = False,
    as_json: Json = False,
) -> None:
    """Compile a network into a C project that predicts and learns.

    Example: kilograd compile model.onnx --device stm32f746 --update last:2 -o firmware
    """
    if output is None:
        if run.settings.output is None:
            raise InputError("name where the C project goes: --output DIR, or output in the file")
        output = run.folder / run.settings.output
    program = run.compile()
    with busy("writing the C project"):
        program.save(output, layout=layout or run.settings.layout, force=force)
    if as_json:
        print(program.manifest(), end="")
    else:
        print(program.summary())
        print(f"\nwrote {output}")
