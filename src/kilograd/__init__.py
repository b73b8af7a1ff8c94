"""kilograd: train your neural network on your microcontroller."""

from importlib import metadata

from kilograd import update
from kilograd.compiler import compile
from kilograd.devices import Device
from kilograd.errors import (
    CompilerBug,
    InfeasibleError,
    InputError,
    NonFiniteError,
    UnsupportedError,
    UserError,
)
from kilograd.options import SGD, Budget, Loss
from kilograd.program import Program
from kilograd.searching import search

__version__ = metadata.version("kilograd")

__all__ = [
    "SGD",
    "Budget",
    "CompilerBug",
    "Device",
    "InfeasibleError",
    "InputError",
    "Loss",
    "NonFiniteError",
    "Program",
    "UnsupportedError",
    "UserError",
    "compile",
    "search",
    "update",
]
