"""When tensors live and where: lifetimes, offsets, schedules."""
