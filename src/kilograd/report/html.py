"""The frame of every page: style, charts, and the libraries that draw them, in one HTML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from kilograd.errors import InputError
from kilograd.report.drawing import Spec
from kilograd.report.palette import DARK_PAGE, KINDS, LIGHT_PAGE, PHASES
from kilograd.report.runtime import chart_runtime
from kilograd.saving import write_file

_FOLDER = Path(__file__).parent
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_TEMPLATES.filters["thousands"] = lambda number: f"{number:,}"
_TEMPLATES.filters["percent"] = lambda share: f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def html(template: str, charts: Mapping[str, Spec], context: Mapping[str, Any]) -> str:
    """The page of a template, with charts by the identities of their places."""
    frame = {
        "charts": {name: _script_json(spec) for name, spec in charts.items()},
        "style": _style(),
        "runtime": chart_runtime(),
    }
    return _TEMPLATES.get_template(template).render({**context, **frame})


def write_html(path: Path, text: str, what: str) -> None:
    """Write a page, whole or not at all, in a folder that is made where there is none; `what` is
    named where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {what} to {path}: {error}") from error
    write_file(path, text.encode(), what)


def _style() -> str:
    """The style sheet, with the colours of the charts as variables."""
    variables = {f"kind-{kind.name.lower()}": color for kind, color in KINDS.items()}
    variables |= {f"phase-{phase.value}": color for phase, color in PHASES.items()}
    lines = "".join(f"--{name}: {color};" for name, color in variables.items())
    pages = f"--page-light: {LIGHT_PAGE}; --page-dark: {DARK_PAGE};"
    return f":root {{{lines}{pages}}}\n" + (_FOLDER / "report.css").read_text(encoding="utf-8")


def _script_json(spec: Mapping[str, Any]) -> str:
    """JSON that is safe within a script element."""
    text = json.dumps(spec, separators=(",", ":"), sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
