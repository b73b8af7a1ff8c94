"""C text of calls and literals."""

from __future__ import annotations

import math
import re

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
    """The statement of a call; a check returns its status where the function answers false.

    Arguments that are compound literals become constants of a block around the call, which end with
    it: compound literals live as long as the function, and all of them would be on its stack.
    """
    declarations: list[str] = []
    arguments = [_named(format_argument(a), declarations) for a in call.arguments]
    text = f"{call.function}({', '.join(arguments)})"
    text = f"if (!{text}) return {call.status_if_false};" if call.status_if_false else f"{text};"
    if not declarations:
        return text
    return "\n".join(["{", *(f"  {line}" for line in (*declarations, text)), "}"])


_COMPOUND = re.compile(r"(&?)\(const (\w+)(\[\d*\])?\)(\{.*\})")


def _named(argument: str, declarations: list[str]) -> str:
    """The argument, or the name of a constant declared for it; in flash where it is known."""
    match = _COMPOUND.fullmatch(argument)
    if match is None:
        return argument
    address, type_, array, body = match.groups()
    name = type_.removeprefix("kg_").split("_")[0] + ("s" if array else "")
    name = name if type_.startswith("kg_") else "numbers"
    count = sum(f" {name}" in line for line in declarations)
    name = f"{name}_{count + 1}" if count else name
    storage = "" if "->" in body or "(" in body else "static "
    declarations.append(f"{storage}const {type_} {name}{array or ''} = {body};")
    return f"{address}{name}"


def comment(text: str) -> str:
    """A text on one line that a C comment may hold, whatever the user's names are."""
    text = " ".join(text.split())
    for mark in ("*/", "/*", "??"):
        text = text.replace(mark, f"{mark[0]} {mark[1]}")
    return f"/* {text} */"
