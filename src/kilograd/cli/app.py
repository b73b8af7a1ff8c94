"""The application: its exit codes, what happens to errors, and what goes to which stream.

Results go to stdout, everything else to stderr: with `--json`, stdout is one JSON document, on
failure too.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from kilograd.errors import CompilerBug, InfeasibleError, UnsupportedError, UserError


class ExitCode(IntEnum):
    """What the exit status says."""

    OK = 0
    BUG = 1
    """A fault of kilograd's."""
    INPUT = 2
    """Wrong usage, file, option or data."""
    INFEASIBLE = 3
    """The program does not fit the device or the budget."""
    UNSUPPORTED = 4
    """The model uses what kilograd cannot compile."""
    INTERRUPTED = 130
    """Ctrl-C: nothing is half-written."""


app = typer.Typer(
    name="kilograd",
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "Compile your neural network into C that predicts and learns on a microcontroller.\n\n"
        "Exit status: 0 ok, 1 a fault of kilograd's, 2 wrong usage or input, 3 does not fit, "
        "4 not supported, 130 interrupted."
    ),
)
output = Console()
notes = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def main() -> None:
    """Run the command line; a user's error is one message and an exit code, without a traceback."""
    try:
        app(prog_name="kilograd")
    except UserError as error:
        _fail(_code(error), error)
    except CompilerBug as error:
        if os.environ.get("KILOGRAD_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        _fail(ExitCode.BUG, error, "this is a fault of kilograd's; please report it\n")


@contextmanager
def busy(what: str) -> Iterator[Callable[[str], None]]:
    """Say on a terminal what is going on and for how long; nothing elsewhere. Yields a function
    that takes what the work has come to.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(
        *columns, console=notes, transient=True, disable=not notes.is_terminal
    ) as progress:
        task = progress.add_task(what, total=None)
        yield lambda detail: progress.update(task, description=f"{what}: {detail}")


def print_json(content: object) -> None:
    """One JSON document on stdout."""
    print(json.dumps(content, indent=2))


def _code(error: UserError) -> ExitCode:
    if isinstance(error, InfeasibleError):
        return ExitCode.INFEASIBLE
    return ExitCode.UNSUPPORTED if isinstance(error, UnsupportedError) else ExitCode.INPUT


def _fail(code: ExitCode, error: Exception, prefix: str = "") -> None:
    print(f"error: {prefix}{error}", file=sys.stderr)
    if "--json" in sys.argv:
        print_json({"error": type(error).__name__, "message": str(error), "exit_code": int(code)})
    raise SystemExit(int(code)) from None
