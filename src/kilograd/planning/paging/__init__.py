"""Programs that need more RAM than there is: planned, so that they fit.

tasks    a graph as what is run, loaded or written as one piece
problem  tasks as a problem of `planning.remat`
apply    a plan as a graph
price    what operators and pages cost
fit      what lies in storage, and plans whose arenas fit
moves    what a plan does with each tensor, and at what price
"""

from kilograd.planning.paging.fit import (
    Leanest,
    Planned,
    Request,
    Room,
    Seeds,
    TooCostlyError,
    fit,
    leanest,
    leanest_plans,
    least_bytes,
    plan,
)
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
    "fit",
    "leanest",
    "leanest_plans",
    "least_bytes",
    "moves",
    "node_prices",
    "plan",
    "step_estimates",
]
