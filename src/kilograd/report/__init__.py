"""The report of a program: one HTML file that opens offline."""

from kilograd.report.page import render, write

__all__ = ["render", "write"]
