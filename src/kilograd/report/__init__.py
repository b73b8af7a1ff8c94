"""The report of a program: one HTML file that opens offline."""

from kilograd.report.page import blank_sample, render, write

__all__ = ["blank_sample", "render", "write"]
