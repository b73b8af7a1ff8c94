"""The report of a program: one HTML file that opens offline."""

from kilograd.report.frontier import frontier_charts, write_frontier
from kilograd.report.page import blank_sample, render, write

__all__ = ["blank_sample", "frontier_charts", "render", "write", "write_frontier"]
