"""Programs that need more RAM than there is: planned, so that they fit.

tasks    a graph as what is run, loaded or written as one piece
problem  tasks as a problem of `planning.remat`
apply    a plan as a graph
price    what operators and pages cost
fit      what lies in storage, and plans whose arenas fit
"""

from kilograd.planning.paging.fit import Planned, Request, Room, fit, schedule
from kilograd.planning.paging.price import Mover, node_prices, total

__all__ = ["Mover", "Planned", "Request", "Room", "fit", "node_prices", "schedule", "total"]
