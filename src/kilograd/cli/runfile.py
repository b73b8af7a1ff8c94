"""`kilograd.toml`: a run as a file.

Paths in it are relative to it. Names of the keys are those of `kilograd.compile` and of the
command line; a flag overrides its key.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kilograd import SGD, Budget, Planning
from kilograd.errors import InputError

DEFAULT = Path("kilograd.toml")
FRESH = "new"
"""In `classes`: one that starts as none of the network's."""
T = TypeVar("T", SGD, Budget, Planning)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataSection(_Section):
    """`[data]`: samples, and how they are read."""

    train: str | None = None
    test: str | None = None
    mean: float | list[float] = 0.0
    std: float | list[float] = 1.0
    resize: bool = False
    target: str | None = None


class TrainingSection(_Section):
    """`[training]`: how `kilograd train` goes about it."""

    epochs: int = Field(default=1, ge=0)
    seed: int = Field(default=0, ge=0)
    on: Literal["host", "emulator"] = "host"


class RunFile(_Section):
    """The keys of `kilograd.toml`."""

    model: str | None = None
    input_shape: list[int] | None = None
    name: str | None = None
    device: str = "host"
    precision: str | None = None
    calibration: str | None = None
    head: str | None = None
    ranges: str | None = None
    headroom: float | None = None
    gradients: str | None = None
    classes: int | list[int | str] | None = None
    update: str | list[str] = "all"
    loss: str = "cross_entropy"
    output: str | None = None
    layout: str = "plain"
    optimizer: dict[str, Any] = Field(default_factory=dict)
    budget: dict[str, Any] = Field(default_factory=dict)
    storage: str | None = None
    planning: dict[str, Any] = Field(default_factory=dict)
    data: DataSection = Field(default_factory=DataSection)
    training: TrainingSection = Field(default_factory=TrainingSection)


def read(path: Path) -> dict[str, Any]:
    """The keys that a file sets, checked. Raises InputError with the file and every wrong key."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the run file {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    check(content, str(path))
    return content


def check(content: dict[str, Any], where: str) -> RunFile:
    """A run file from its keys. Raises InputError that names every wrong key."""
    try:
        return RunFile.model_validate(content)
    except ValidationError as error:
        lines = [f"{where} is no run file:"]
        for item in error.errors():
            place = ".".join(map(str, item["loc"]))
            known = ""
            if item["type"] == "extra_forbidden":
                known = f"; there are {', '.join(_keys(item['loc'][:-1]))}"
            lines.append(f"  {place}: {item['msg']}{known}")
        raise InputError("\n".join(lines)) from error


def classes(wanted: int | list[int | str]) -> int | list[int | None]:
    """What `kilograd.compile` takes. Raises InputError for a text other than FRESH."""
    if isinstance(wanted, int):
        return wanted
    for row in wanted:
        if isinstance(row, str) and row != FRESH:
            raise InputError(f"classes: {row!r} is neither a class nor {FRESH!r}")
    return [row if isinstance(row, int) else None for row in wanted]


def build(kind: type[T], section: str, values: dict[str, Any]) -> T:
    """An `SGD`, a `Budget` or a `Planning` from a section.

    Raises InputError for a key that it does not have.
    """
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputError(
            f"[{section}]: {', '.join(unknown)} is unknown; there are {', '.join(known)}"
        )
    return kind(**values)


def _keys(place: tuple[int | str, ...]) -> list[str]:
    sections: dict[int | str, type[BaseModel]] = {"data": DataSection, "training": TrainingSection}
    return list((sections[place[0]] if place else RunFile).model_fields)
