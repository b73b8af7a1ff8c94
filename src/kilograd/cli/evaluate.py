"""`kilograd evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kilograd.cli import sessions
from kilograd.cli.app import Json, app, print_json
from kilograd.cli.run import Run, on_network


@app.command()
@on_network
def evaluate(
    run: Run,
    data: sessions.Data = None,
    state: Annotated[
        Path | None,
        typer.Option(help="What kilograd train learned (.safetensors).", show_default=False),
    ] = None,
    on: sessions.Place = None,
    as_json: Json = False,
) -> None:
    """Measure loss and accuracy of the compiled program on samples.

    Example: kilograd evaluate model.onnx --data test.npz --device stm32f746 --on emulator
    """
    place = sessions.place_of(run, on)
    program = run.compile()
    samples = run.samples(data, program, "test")
    session = sessions.start(program, place)
    if state is not None:
        sessions.load_state(session, state)
    figures = {
        "network": program.name,
        "device": program.device.name,
        "samples": len(samples.x),
        **sessions.judge(session, samples),
        "instructions": session.instructions,
        "stack_bytes": session.stack_bytes,
    }
    if as_json:
        print_json(figures)
        return
    print(f"{program.name} on {len(samples.x)} samples: {sessions.describe(figures)}")
    if session.instructions is not None:
        seconds = program.device.seconds(session.instructions)
        estimate = f", about {seconds * 1000:.1f} ms" if seconds else ""
        print(f"a prediction: {session.instructions:,} instructions{estimate}")
