"""`kilograd plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import kilograd
from kilograd import Frontier, Planning, Program
from kilograd.cli.app import Json, app, busy, print_json
from kilograd.cli.run import Run, on_network
from kilograd.compiler import draft
from kilograd.errors import InputError
from kilograd.figures import plan_facts
from kilograd.fitting import plain_sram_bytes
from kilograd.saving import write_file

_KINDS = (".json", ".html")


@app.command()
@on_network
def plan(
    run: Run,
    frontier: Annotated[
        bool, typer.Option("--frontier", help="Energy and time against SRAM, by several plans.")
    ] = False,
    points: Annotated[
        int | None,
        typer.Option(help="Limits of SRAM to try for it. Default: 8.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A .json file; of a frontier also .html.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how a training step is made to fit: what is paged, what runs again, at what price.

    Example: kilograd plan model.onnx --device nrf52840 --sram 64KB --step-time 2s
    """
    _check(output, frontier, points)
    if frontier:
        found = _frontier(run, 8 if points is None else points)
        content, text = found.to_json(), str(found)
    else:
        program, before = _planned(run)
        content, text = _facts(program, before), _text(program, before)
    if output is not None:
        _write(output, found if frontier else None, content)
    if as_json:
        print_json(content)
    else:
        print(text)
        if output is not None:
            print(f"\nwrote {output}")


def _check(output: Path | None, frontier: bool, points: int | None) -> None:
    kinds = _KINDS if frontier else _KINDS[:1]
    if output is not None and output.suffix not in kinds:
        more = "" if frontier or output.suffix != ".html" else "; --frontier writes .html, too"
        raise InputError(f"--output {output} has to end in {' or '.join(kinds)}{more}")
    if points is not None and not frontier:
        raise InputError("--points is for --frontier; a single plan has no points")


def _frontier(run: Run, points: int) -> Frontier:
    settings = run.settings
    if "sram" in settings.budget:
        raise InputError(
            f"--frontier varies the SRAM, so sram={settings.budget['sram']!r} has no meaning; "
            "leave it out"
        )

    def compiler(*arguments: Any, **keywords: Any) -> Frontier:
        if "time_limit" not in settings.planning:
            planning: Planning = keywords.pop("planning")
            if planning != Planning():
                keywords["planning"] = planning
        return kilograd.plan_frontier(*arguments, points=points, **keywords)

    return run.compile_by(compiler)


def _planned(run: Run) -> tuple[Program, int]:
    """The program, and the SRAM that it needs as it stands."""
    drafted = run.compile_by(draft)
    with busy("planning"):
        return drafted.fitted(), plain_sram_bytes(drafted.program)


def _facts(program: Program, before: int) -> dict[str, Any]:
    memory, cost = program.memory, program.step_cost
    return {
        "network": program.name,
        "device": program.device.name,
        "storage": program.storage_device and program.storage_device.name,
        "plain_sram_bytes": before,
        "sram_bytes": memory.sram_bytes,
        "seconds": cost and cost.seconds,
        "joules": cost and cost.joules,
        "plan": plan_facts(program),
    }


def _text(program: Program, before: int) -> str:
    after = program.memory.sram_bytes
    head = f"{program.name} on {program.device.name}: {before:,} B of SRAM as it stands"
    head += f", {after:,} B as planned" if program.plans else ""
    return f"{head}\n\n{program.explain('plan')}"


def _write(path: Path, frontier: Frontier | None, content: dict[str, Any]) -> None:
    if path.suffix == ".html" and frontier is not None:
        # Charts are an extra: only pages need them.
        from kilograd.report import write_frontier

        write_frontier(frontier, path)
        return
    write_file(path, (json.dumps(content, indent=2) + "\n").encode(), "the plan")
