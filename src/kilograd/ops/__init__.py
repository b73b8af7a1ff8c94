"""The operators: one file a family, with everything the compiler knows about each."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from kilograd.ir.operator import Operator


def all_operators() -> list[type[Operator]]:
    """Every concrete operator class of this package, sorted by name."""
    found: dict[str, type[Operator]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for _, item in inspect.getmembers(module, inspect.isclass):
            if inspect.isabstract(item) or item.__module__ != module.__name__:
                continue
            if issubclass(item, Operator):
                found[item.name] = item
    return [found[name] for name in sorted(found)]
