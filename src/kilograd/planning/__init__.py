"""When tensors live and where: lifetimes, offsets, rematerialisation and paging, schedules."""

from kilograd.planning.remat import frontier, load, solve, validate

__all__ = ["frontier", "load", "solve", "validate"]
