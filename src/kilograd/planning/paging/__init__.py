"""Programs that need more RAM than there is: planned, so that they fit.

tasks    a graph as what is run, loaded or written as one piece
problem  tasks as a problem of `planning.remat`
apply    a plan as a graph
fit      what lies in storage, and plans whose arenas fit
"""

from kilograd.planning.paging.fit import Planned, Request, fit, schedule

__all__ = ["Planned", "Request", "fit", "schedule"]
