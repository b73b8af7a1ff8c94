"""Programs that need more RAM than there is: planned, so that they fit.

tasks     a graph as what is run, loaded or written as one piece
problem   tasks as a problem of `planning.remat`
apply     a plan as a graph
price     what operators and pages cost
function  one function, planned so that its arena fits
fit       what lies in storage, and plans of both functions
moves     what a plan does with each tensor, and at what price
"""

from kilograd.planning.paging.fit import (
    Leanest,
    Room,
    Seeds,
    cheapest,
    fit,
    leanest,
    leanest_plans,
    least_bytes,
)
from kilograd.planning.paging.function import Planned, Request, TooCostlyError, plan
from kilograd.planning.paging.moves import Absence, Moves, Way, moves
from kilograd.planning.paging.price import Mover, node_prices, step_estimates

__all__ = [
    "Absence",
    "Leanest",
    "Mover",
    "Moves",
    "Planned",
    "Request",
    "Room",
    "Seeds",
    "TooCostlyError",
    "Way",
    "cheapest",
    "fit",
    "leanest",
    "leanest_plans",
    "least_bytes",
    "moves",
    "node_prices",
    "plan",
    "step_estimates",
]
