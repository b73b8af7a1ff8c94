"""C identifiers from names of the user's model."""

from __future__ import annotations

import re
from collections.abc import Iterable


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_RESERVED = _words(
    """
    auto break case char const continue default do double else enum extern float for goto if inline
    int long register restrict return short signed sizeof static struct switch typedef union
    unsigned void volatile while bool true false NULL asm typeof
    alignas alignof and and_eq bitand bitor catch class compl concept consteval constexpr constinit
    const_cast co_await co_return co_yield decltype delete dynamic_cast explicit export friend
    mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public
    reinterpret_cast requires static_assert static_cast template this thread_local throw try typeid
    typename using virtual wchar_t xor xor_eq
    NET
    """
)
"""Keywords of C and of C++, which may include the header, and macros of the generated source."""

_MACROS = re.compile(r"(KG|KILOGRAD)_.*|U?INT\w*_(C|MAX|MIN)|(SIZE|PTRDIFF|WCHAR|WINT)_(MAX|MIN)")
"""Macros of the runtime and of the headers that it includes."""

_FILES = _words(
    """
    main harness kg kilograd assert complex ctype errno fenv float inttypes iso646 limits locale
    math setjmp signal stdarg stdbool stddef stdint stdio stdlib string tgmath time wchar wctype
    """
)
"""What `<name>.c` and `<name>.h` must not be called: files of the project, headers of C."""

_MEMBERS = (
    "init", "input", "predict", "output", "target", "train_step", "save", "load", "t", "state",
    "state_t",
)  # fmt: skip
"""What the project declares as `<network>_<member>`."""


def network_name(name: str) -> str:
    """The prefix of a network's functions and files: a C identifier close to `name`."""
    text = identifier(name)
    lower = text.lower()
    if lower in _FILES or lower.startswith(("kg_", "kilograd_")):
        return f"{text}_net"
    return text


def identifier(name: str) -> str:
    """A valid C identifier close to `name`."""
    text = re.sub(r"[^0-9A-Za-z_]+", "_", name).strip("_") or "x"
    if text[0].isdigit():
        return f"_{text}"
    return f"{text}_" if text in _RESERVED or _MACROS.fullmatch(text) else text


def tensor_names(names: Iterable[str], reserved: Iterable[str] = ()) -> dict[str, str]:
    """A C identifier for each constant or state, all different; those that collide get a number.

    `<network>_<identifier>` and `<network>_<identifier>_init` are free for tables. `reserved` are
    further identifiers that the project uses itself.
    """
    taken = {*_MEMBERS, *reserved}
    result: dict[str, str] = {}
    for name in names:
        base = text = identifier(name)
        number = 1
        while text in taken or f"{text}_init" in taken:
            number += 1
            text = f"{base}_{number}"
        taken |= {text, f"{text}_init"}
        result[name] = text
    return result
