"""C identifiers from names of the user's model."""

from __future__ import annotations

import re
from collections.abc import Iterable

_KEYWORDS = frozenset(
    [
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "bool",
        "true",
        "false",
    ]
)


def identifier(name: str) -> str:
    """A valid C identifier close to `name`."""
    text = re.sub(r"[^0-9A-Za-z_]+", "_", name).strip("_") or "x"
    if text[0].isdigit() or text in _KEYWORDS:
        text = f"_{text}" if text[0].isdigit() else f"{text}_"
    return text


def unique_identifiers(names: Iterable[str]) -> dict[str, str]:
    """A C identifier for each name, all different; names that collide get a number."""
    taken: set[str] = set()
    result: dict[str, str] = {}
    for name in names:
        base = text = identifier(name)
        number = 1
        while text in taken:
            number += 1
            text = f"{base}_{number}"
        taken.add(text)
        result[name] = text
    return result
