"""Every public name says what it is, in what shape and unit, and what goes wrong."""

from __future__ import annotations

import enum
import inspect
import types
from collections.abc import Iterator

import pytest

import kilograd
from kilograd.execution import session


def functions_of_update() -> Iterator[tuple[str, object]]:
    for name, member in vars(kilograd.update).items():
        if inspect.isfunction(member) and not name.startswith("_"):
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
