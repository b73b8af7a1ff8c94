"""Byte offsets in an arena: buffers with lifetimes and sizes, placed as low as can be found.

problem    what is asked and answered; MiniMalloc's file format
validate   which rules an answer breaks
bounds     heights that no answer is below
solve      heuristics, search, constraint programming behind one call
"""

from kilograd.planning.allocation.bounds import bound_profile, lower_bound_bytes
from kilograd.planning.allocation.native import NativeSearchError
from kilograd.planning.allocation.problem import (
    Allocation,
    AllocationProblem,
    Buffer,
    load_csv,
)
from kilograd.planning.allocation.solve import MOST_PLACEMENTS, Method, solve
from kilograd.planning.allocation.validate import validate

__all__ = [
    "MOST_PLACEMENTS",
    "Allocation",
    "AllocationProblem",
    "Buffer",
    "Method",
    "NativeSearchError",
    "bound_profile",
    "load_csv",
    "lower_bound_bytes",
    "solve",
    "validate",
]
