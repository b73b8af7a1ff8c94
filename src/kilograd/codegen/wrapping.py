"""Wraps generated C at the runtime's column limit, as clang-format lays out calls and comments."""

from __future__ import annotations

import re
import textwrap

COLUMNS = 120

_GUARD = re.compile(r"( *if \(.*\)) (return \w+;)")


def wrap(text: str) -> str:
    """The C text with no line over the limit, where a line can be broken."""
    lines: list[str] = []
    for line in text.splitlines():
        lines.extend(_wrap_line(line) if len(line) > COLUMNS else [line])
    return "\n".join(lines) + "\n"


def _wrap_line(line: str) -> list[str]:
    bare = line.lstrip(" ")
    indent = len(line) - len(bare)
    if bare.startswith("#"):
        return [line]
    if bare.startswith("/* ") and bare.endswith(" */"):
        return _wrap_comment(bare[3:-3], indent)
    guard = _GUARD.fullmatch(line)
    if guard:
        return [*_wrap_code(guard[1], indent), " " * (indent + 2) + guard[2]]
    return _wrap_code(line, indent)


def _wrap_comment(words: str, indent: int) -> list[str]:
    rows = textwrap.wrap(
        words, COLUMNS - indent - 6, break_long_words=False, break_on_hyphens=False
    )
    rows = [" " * indent + (" * " if index else "/* ") + row for index, row in enumerate(rows)]
    return [*rows[:-1], rows[-1] + " */"]


def _wrap_code(line: str, indent: int) -> list[str]:
    """Break behind commas; a continued line starts behind the bracket that is still open.

    A compound literal starts a line of its own unless all of it fits what is left of the line, and
    ends its line when it takes several.
    """
    rows: list[str] = []
    row = " " * indent
    open_brackets: list[tuple[int, int]] = []  # row, and the column behind the bracket
    full = False
    pieces = re.split(r"(?<=,) ", line.lstrip(" "))
    for index, piece in enumerate(pieces):
        glue = " " if row.strip() else ""
        full = full or len(row) + 1 + _unit_length(pieces[index:]) > COLUMNS
        if glue and open_brackets and full:
            rows.append(row)
            row, glue = " " * open_brackets[-1][1], ""
        full = False
        start = len(row) + len(glue)
        row += glue + piece
        for column, character in enumerate(piece, start + 1):
            if character in "([{":
                open_brackets.append((len(rows), column))
            elif character in ")]}" and open_brackets:
                full = open_brackets.pop()[0] != len(rows) and character == "}"
    return [*rows, row]


def _unit_length(pieces: list[str]) -> int:
    """The length of the first piece, to the end of the braces that it opens."""
    depth = length = 0
    for piece in pieces:
        depth += piece.count("{") - piece.count("}")
        length += len(piece) + 1
        if depth <= 0:
            break
    return length - 1
