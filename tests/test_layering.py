"""Imports point one way; a package may import those in its row and nothing else of kilograd."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/kilograd"
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "options": {"errors"},
    "update": {"errors"},
    "devices": {"errors"},
    "ir": {"errors"},
    "ops": {"ir"},
    "transforms": {"ops", "options", "update"},
    "planning": {"transforms", "devices"},
    "codegen": {"planning"},
    "execution": {"codegen", "planning", "devices"},
    "search": {"planning", "options", "update"},
    "frontend": {"transforms"},
    "zoo": {"errors", "update"},
    "summary": {"program", "figures", "planning"},
    "invocation": {"program", "devices"},
    "figures": {"program", "planning", "invocation"},
    "explaining": {"program", "planning"},
    "report": {"program", "figures", "planning", "search"},
    "program": {
        *("summary", "figures", "explaining", "report", "saving"),
        *("execution", "codegen"),
    },
    "saving": {"codegen", "execution"},
    "fitting": {"program"},
    "infeasible": {"fitting"},
    "stages": {"frontend", "planning"},
    "compiler": {"program", "frontend", "infeasible", "search", "stages"},
    "frontier": {"compiler"},
    "data": {"options"},
    "demo_data": {"errors"},
    "demo": {"__init__", "compiler", "program", "demo_data", "devices", "errors"},
    "calibrate": {"compiler", "zoo"},
    "cli": {
        *("__init__", "demo", "calibrate", "compiler", "stages", "searching", "data", "zoo"),
        "report",
    },
    "searching": {"compiler"},
    "__init__": {"frontier", "searching"},
}


def closure(layer: str) -> set[str]:
    result, pending = {layer}, [layer]
    while pending:
        for other in ALLOWED[pending.pop()] - result:
            result.add(other)
            pending.append(other)
    return result


def layer_of(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE))
)
def test_imports_point_one_way(path: Path):
    layer = layer_of(path.relative_to(SOURCE).parts)
    allowed = closure(layer)
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kilograd"):
            names = (
                [node.module]
                if node.module != "kilograd"
                else [f"kilograd.{alias.name}" for alias in node.names]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("kilograd")]
        for name in names:
            target = [*name.split("."), "__init__"][1]
            if target in ALLOWED:
                assert target in allowed, f"{path.name} ({layer}) imports {name}"


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("torch", {"frontend", "zoo", "search"}),
        ("onnx", {"frontend"}),
        ("unicorn", {"execution"}),
        ("ortools", {"planning"}),
        ("altair", {"report"}),
        ("vl_convert", {"report"}),
        ("rich", {"cli", "execution", "demo", "search"}),
    ],
)
def test_heavy_libraries_stay_in_their_place(library: str, home: set[str]):
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                continue
            if any(module.split(".")[0] == library for module in modules):
                assert layer_of(path.relative_to(SOURCE).parts) in home, path
