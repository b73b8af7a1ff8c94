"""`kilograd demo`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from kilograd.cli.app import Json, app, busy, notes, print_json
from kilograd.demo import page_of, run
from kilograd.stages import watched


@contextmanager
def _busy(what: str) -> Iterator[None]:
    """`busy` that shows the stages of a compilation."""
    with busy(what) as say, watched(say):
        yield


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where the C project goes.")] = Path("build/demo"),
    device: Annotated[str, typer.Option(help="The emulated device.")] = "cortex-m7-256k",
    precision: Annotated[str, typer.Option(help="int8 or float32.")] = "int8",
    as_json: Json = False,
) -> None:
    """Teach a face detector on an emulated microcontroller to see upside down in the dark.

    Writes the C project and, with kilograd[report], a page of what it needs and how it learned
    beside it.

    Example: kilograd demo --device stm32f746
    """
    console = notes if as_json else None
    program = run(output, device, console, precision=precision, busy=_busy)
    if as_json:
        page = page_of(output)
        written = str(page) if page.is_file() else None
        print_json({"output": str(output), "report": written, **json.loads(program.manifest())})
