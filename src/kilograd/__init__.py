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
from kilograd.frontier import Frontier, FrontierPoint, plan_frontier
from kilograd.options import SGD, Budget, Loss, Planning
from kilograd.program import Program
from kilograd.searching import search

__version__ = metadata.version("kilograd")

__all__ = [
    "SGD",
    "Budget",
    "CompilerBug",
    "Device",
    "Frontier",
    "FrontierPoint",
    "InfeasibleError",
    "InputError",
    "Loss",
    "NonFiniteError",
    "Planning",
    "Program",
    "UnsupportedError",
    "UserError",
    "compile",
    "plan_frontier",
    "search",
    "update",
]
