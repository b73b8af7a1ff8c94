"""C text of calls and literals."""

from __future__ import annotations

import math

import numpy as np

from kilograd.ir.operator import Argument, Call, Operand


def format_argument(argument: Argument) -> str:
    """An argument as C: floats read back to the same float32 bits, booleans are `true` and
    `false`.
    """
    if isinstance(argument, bool):
        return "true" if argument else "false"
    if isinstance(argument, float | np.floating):
        return format_float(float(argument))
    if isinstance(argument, Operand):
        return argument.text
    return str(argument)


def format_float(number: float) -> str:
    """A float32 literal; numbers beyond float32 are infinite."""
    if math.isnan(number):
        return '__builtin_nanf("")'
    with np.errstate(over="ignore"):
        rounded = np.float32(number)
    if np.isinf(rounded):
        return "KG_INFINITY" if number > 0 else "-KG_INFINITY"
    text = str(rounded)
    return f"{text}f" if any(mark in text for mark in ".en") else f"{text}.0f"


def format_call(call: Call) -> str:
    """The statement of a call; a check returns its status where the function answers false."""
    text = f"{call.function}({', '.join(map(format_argument, call.arguments))})"
    if call.status_if_false:
        return f"if (!{text}) return {call.status_if_false};"
    return f"{text};"


def comment(text: str) -> str:
    """A text on one line that a C comment may hold, whatever the user's names are."""
    text = " ".join(text.split())
    for mark in ("*/", "/*", "??"):
        text = text.replace(mark, f"{mark[0]} {mark[1]}")
    return f"/* {text} */"
