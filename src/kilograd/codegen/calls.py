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


def format_call(call: Call) -> list[str]:
    """The lines of a call; a check returns its status where the function answers false.

    Structures and arrays that an argument points to are variables of a block around the call, so
    that they share the stack with those of other calls, which compound literals do not; what is
    known at compile time is `static const`, in flash.
    """
    declared: dict[str, str] = {}
    arguments = [_declare(format_argument(item), declared) for item in call.arguments]
    text = f"{call.function}({', '.join(arguments)})"
    text = f"if (!{text}) return {call.status_if_false};" if call.status_if_false else f"{text};"
    if not declared:
        return [text]
    return ["{", *(f"  {line}" for line in (*declared.values(), text)), "}"]


_LITERAL = re.compile(r"(&?)\(const (\w+)(\[\d*\])?\)(\{.*\})")
"""A compound literal: whether its address is taken, its type, whether it is an array, its body."""


def _declare(argument: str, declared: dict[str, str]) -> str:
    """The argument, with a compound literal replaced by a variable that is added to `declared`."""
    match = _LITERAL.fullmatch(argument)
    if match is None:
        return argument
    address, type_, array, body = match.groups()
    stem = type_.removeprefix("kg_").removesuffix("_s8").removesuffix("_t") + "s" * bool(array)
    name, number = stem, 2
    while name in declared:
        name, number = f"{stem}_{number}", number + 1
    # Tables have addresses known at compile time; the arena and the state have not.
    storage = "const" if "(" in body or "->" in body else "static const"
    declared[name] = f"{storage} {type_} {name}{array or ''} = {body};"
    return f"{address}{name}"


def comment(text: str) -> str:
    """A text on one line that a C comment may hold, whatever the user's names are."""
    text = " ".join(text.split())
    for mark in ("*/", "/*", "??"):
        text = text.replace(mark, f"{mark[0]} {mark[1]}")
    return f"/* {text} */"
