"""`kilograd report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from kilograd.cli.app import Json, app, busy, print_json
from kilograd.cli.run import Run, on_network
from kilograd.errors import InputError
from kilograd.execution.session import History
from kilograd.report import blank_sample


@app.command()
@on_network
def report(
    run: Run,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    count: Annotated[bool, typer.Option(help="Count instructions on the emulated device.")] = False,
    curve: Annotated[
        list[Path] | None,
        typer.Option(
            help="A curve that kilograd train wrote; may be repeated.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page of what a program needs: memory map, layers, what is trained and why.

    Example: kilograd report model.onnx --device stm32f746 --update last:2 --count
    """
    runs = _histories(curve or [])
    program = run.compile()
    with busy("writing the report"):
        program.report(output, runs=runs, sample=blank_sample(program) if count else None)
    if as_json:
        print_json({"output": str(output)})
    else:
        print(f"wrote {output}")


_CURVES = ("losses", "validation_losses", "validation_accuracies")


def _histories(paths: list[Path]) -> dict[str, History]:
    """The curves of files that `kilograd train` wrote, by the names of the files."""
    runs = {}
    for path in paths:
        name = path.stem if path.stem not in runs else str(path)
        runs[name] = _history(path)
    return runs


def _history(path: Path) -> History:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the curve {path}: {error}") from error
    curves: list[Any] = [content.get(key) for key in _CURVES] if isinstance(content, dict) else []
    if not curves or not all(_is_curve(curve) for curve in curves):
        raise InputError(
            f"{path} is no curve that kilograd train wrote: it needs the lists {', '.join(_CURVES)}"
        )
    confusion = content.get("confusion", [])
    rows: list[Any] = confusion if isinstance(confusion, list) else [None]
    if not all(_is_curve(row) and len(row) == len(rows) for row in rows):
        raise InputError(f"{path}: confusion has to be a square of counts")
    losses, validation_losses, accuracies = curves
    return History(losses, validation_losses, accuracies, rows)


def _is_curve(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(number, float | int) for number in value)
