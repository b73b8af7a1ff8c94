"""Rematerialisation and paging: a training step in less RAM, for the least energy.

problem    what is asked: nodes, costs, what they may do; POET's instances
solution   what is answered: events
validate   replays a plan and says which rules it breaks
least      RAM that no plan is below
solve      heuristic and gap formulation behind one call
frontier   plans from the least RAM to the plain peak
"""

from kilograd.planning.remat.explain import NoPlanError
from kilograd.planning.remat.frontier import frontier
from kilograd.planning.remat.problem import Node, Problem, load, save
from kilograd.planning.remat.solution import (
    Event,
    Limits,
    Objective,
    Solution,
    load_solution,
    save_solution,
)
from kilograd.planning.remat.solve import DEFAULT_TIME_LIMIT_SECONDS, Method, solve
from kilograd.planning.remat.validate import Broken, Replay, replay, validate

__all__ = [
    "DEFAULT_TIME_LIMIT_SECONDS",
    "Broken",
    "Event",
    "Limits",
    "Method",
    "NoPlanError",
    "Node",
    "Objective",
    "Problem",
    "Replay",
    "Solution",
    "frontier",
    "load",
    "load_solution",
    "replay",
    "save",
    "save_solution",
    "solve",
    "validate",
]
