"""Every public name says what it is, in what shape and unit, and what goes wrong."""

from __future__ import annotations

import ast
import enum
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import kilograd
from kilograd.execution import session

COMPILERS_OWN = {"entries", "normalise", "unparse"}
"""Functions of `kilograd.update` that the compiler calls, and users need not."""


def functions_of_update() -> Iterator[tuple[str, object]]:
    for name, member in vars(kilograd.update).items():
        own = inspect.isfunction(member) and member.__module__ == kilograd.update.__name__
        if own and not name.startswith("_"):
            yield f"update.{name}", member


def of_zoo() -> Iterator[tuple[str, object]]:
    pytest.importorskip("torch")
    from kilograd import zoo

    for name in zoo.__all__:
        yield f"zoo.{name}", getattr(zoo, name)


def public() -> Iterator[tuple[str, object]]:
    for name in kilograd.__all__:
        yield name, getattr(kilograd, name)
    yield from functions_of_update()
    for kind in (session.Session, session.History, session.Evaluation):
        yield kind.__name__, kind


def members(owner: type) -> Iterator[tuple[str, object]]:
    """Methods and properties that a class defines itself, without those of dataclasses."""
    for name, member in vars(owner).items():
        if name.startswith("_") or isinstance(member, enum.Enum):
            continue
        if isinstance(member, staticmethod | classmethod):
            yield name, member.__func__
        elif isinstance(member, types.FunctionType | property) or hasattr(member, "func"):
            yield name, member


def test_names_have_docstrings():
    for name, member in (*public(), *of_zoo()):
        text = vars(member).get("__doc__") if inspect.isclass(member) else inspect.getdoc(member)
        assert text and len(text.split()) >= 3, f"{name} has no docstring"


def test_members_have_docstrings():
    checked = 0
    for name, owner in public():
        if not inspect.isclass(owner):
            continue
        for member, value in members(owner):
            if name == "Device" and member == "model_config":
                continue
            assert inspect.getdoc(value), f"{name}.{member} has no docstring"
            checked += 1
    assert checked > 30


def test_arguments_of_compile_are_described():
    text = inspect.getdoc(kilograd.compile) or ""
    for argument in inspect.signature(kilograd.compile).parameters:
        assert f"\n    {argument}: " in text, f"compile does not describe {argument}"
    for error in ("UnsupportedError", "InfeasibleError", "InputError"):
        assert error in text


@pytest.mark.parametrize("function", ["last", "biases", "channels", "normalise", "parse"])
def test_specs_say_what_they_refuse(function: str):
    assert "InputError" in (inspect.getdoc(getattr(kilograd.update, function)) or "")


def test_fields_of_options_are_described():
    for options in (kilograd.SGD, kilograd.Budget):
        text = options.__doc__ or ""
        for field in options.__dataclass_fields__:
            assert f"`{field}" in text or f"{field}=" in text, f"{options.__name__}.{field}"


@pytest.mark.parametrize(
    "method", ["predict", "train_step", "fit", "load", "load_state_dict", "save", "accuracy"]
)
def test_methods_of_a_session_say_what_they_refuse(method: str):
    text = inspect.getdoc(getattr(session.Session, method)) or ""
    assert "Error" in text, f"Session.{method} names no error"


# What is in them ---------------------------------------------------------------------------------


def functions() -> Iterator[tuple[str, object, str]]:
    """Name, function and docstring of every public function, method and property; those of a class
    may be told by the class.
    """
    for name, owner in (*public(), *of_planning(), *of_devices()):
        if inspect.isclass(owner):
            for member, value in members(owner):
                code = _code(value)
                if code is not None:
                    text = f"{inspect.getdoc(value) or ''}\n{owner.__doc__ or ''}"
                    yield f"{name}.{member}", code, text
        elif inspect.isfunction(owner):
            yield name, owner, inspect.getdoc(owner) or ""


def of_planning() -> Iterator[tuple[str, object]]:
    from kilograd.planning import front

    yield "FrontPoint", front.FrontPoint
    yield "efficient", front.efficient
    yield "measure_of", front.measure_of


def of_devices() -> Iterator[tuple[str, object]]:
    from kilograd import devices

    for name in ("names", "load"):
        yield f"devices.{name}", getattr(devices, name)


def _code(member: object) -> types.FunctionType | None:
    """The function behind a method, a property or a cached property."""
    code = getattr(member, "fget", None) or getattr(member, "func", None) or member
    return code if isinstance(code, types.FunctionType) else None


def raised(function: object) -> set[str]:
    """The errors of users that the body of a function raises itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))  # type: ignore[arg-type]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = node.exc.func.id if isinstance(node.exc.func, ast.Name) else ""
            if issubclass(getattr(kilograd, name, Exception), kilograd.UserError):
                names.add(name)
    return names


def test_errors_are_named():
    checked = 0
    for name, function, text in functions():
        for error in raised(function):
            assert error in text, f"{name} raises {error} and does not say so"
            checked += 1
    assert checked >= 10


def test_shapes_are_told():
    """Whoever takes or gives arrays says of what shape, or refers to what does."""
    shape = re.compile(r"\[(?:N|\d)|shape|layout|[Oo]ne sample|as of `|As of `")
    checked = 0
    for name, function, text in functions():
        hints = {key: str(hint) for key, hint in function.__annotations__.items()}  # type: ignore[attr-defined]
        if any("ArrayLike" in hint or "ndarray" in hint for hint in hints.values()):
            assert shape.search(text), f"{name} takes or gives arrays and tells no shape"
            checked += 1
    assert checked >= 8


def test_units_are_told():
    """A number that is given back is a count, or has its unit in its name or in the docstring."""
    units = re.compile(
        r"[Bb]ytes|[Ss]econds|[Jj]oules|Hz|instructions|\[0, 1\]|[Ll]oss|[Ii]ndex|KB|cycles"
        r"|[Mm]ultiply-accumulates"
    )
    checked = 0
    for name, function, text in functions():
        result = str(function.__annotations__.get("return", ""))  # type: ignore[attr-defined]
        if result in ("float", "int", "int | None", "float | None"):
            last = name.rpartition(".")[2]
            assert units.search(text) or units.search(last), f"{name} tells no unit"
            checked += 1
    assert checked >= 8


def test_fields_of_what_is_returned_are_described():
    from kilograd.planning.front import FrontPoint
    from kilograd.program import Memory

    for owner in (Memory, FrontPoint):
        for field in owner.__dataclass_fields__:
            measured = owner is not Memory or field not in ("data_bytes", "flash_bytes")
            assert not measured or f"`{field}" in (owner.__doc__ or "") or field == "label", field


def test_the_reference_has_every_public_name():
    pages = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^::: ([\w.]+)$", pages, re.MULTILINE))
    for name in kilograd.__all__:
        if name not in ("update", "__version__"):
            # A package of the same name may hide a function from the generator of the reference.
            home = getattr(getattr(kilograd, name), "__module__", "kilograd")
            assert told & {f"kilograd.{name}", f"{home}.{name}"}, f"docs/api.md has no {name}"
    listed = re.findall(r"members: \[([^\]]+)\]", pages)
    functions = {member.strip() for group in listed for member in group.split(",")}
    for name, _ in functions_of_update():
        assert name.removeprefix("update.") in functions | COMPILERS_OWN, name
