"""The command line: one module for each command.

A command that works on a network takes the options of `kilograd.cli.run`, so that flags, the run
file and defaults mean the same everywhere.
"""

from kilograd.cli import (  # noqa: F401  (they register themselves)
    calibrate,
    compile,
    demo,
    evaluate,
    explain,
    init,
    lists,
    plan,
    report,
    search,
    train,
)
from kilograd.cli.app import app, main

__all__ = ["app", "main"]
