"""Sessions of the commands that run a program, and the options that these have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kilograd import Program
from kilograd.cli.app import busy
from kilograd.cli.run import Run, completion
from kilograd.data import Samples
from kilograd.errors import InputError
from kilograd.execution.session import Session

PLACES = ("host", "emulator")

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Samples: .npz, .csv, or a folder of pictures by class.",
        show_default=False,
    ),
]
Place = Annotated[
    str | None,
    typer.Option(
        "--on",
        help="host or emulator. Default: host.",
        show_default=False,
        autocompletion=completion(lambda: PLACES),
    ),
]


def place_of(run: Run, place: str | None) -> str:
    """Where a program runs: what `--on` says, else the run file. Raises InputError for a place that
    there is not, before anything is compiled.
    """
    place = place or run.settings.training.on
    if place not in PLACES:
        raise InputError(f"--on {place!r} is unknown; there are {', '.join(PLACES)}")
    return place


def start(program: Program, place: str) -> Session:
    """A session at a place of PLACES."""
    with busy(f"building for the {place}"):
        return program.on_emulator() if place == "emulator" else program.on_host()


def judge(session: Session, samples: Samples) -> dict[str, Any]:
    """Loss and, for classes, accuracy and confusion."""
    found = session.evaluate(samples.x, samples.y, progress=True)
    result: dict[str, Any] = {"loss": found.loss}
    if found.accuracy is not None:
        result["accuracy"] = found.accuracy
    if found.confusion is not None:
        result["confusion"] = found.confusion
    return result


def describe(figures: dict[str, Any]) -> str:
    """The figures of `judge` in words."""
    text = f"loss {figures['loss']:.4f}"
    if "accuracy" in figures:
        text += f", accuracy {figures['accuracy']:.1%}"
    return text


def load_state(session: Session, path: Path) -> None:
    """Set trained parameters from a safetensors file, by the user's names."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise InputError(f"there is no learned state {path}")
    try:
        parameters = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is no safetensors file: {error}") from error
    session.load_state_dict(parameters)
