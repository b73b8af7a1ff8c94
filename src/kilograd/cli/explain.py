"""`kilograd explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from kilograd.cli.app import Json, app, print_json
from kilograd.cli.run import Run, on_network
from kilograd.errors import InputError
from kilograd.planning.explain import describe_peak, peak

explain = typer.Typer(no_args_is_help=True, help="Say why a program is as it is.")
app.add_typer(explain, name="explain")


@explain.command("peak")
@on_network
def explain_peak(
    run: Run,
    of: Annotated[str, typer.Option(help="train or predict.")] = "train",
    limit: Annotated[int, typer.Option(help="How many tensors to name.", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """Name the tensors that are alive where the arena is fullest.

    Example: kilograd explain peak model.onnx --device stm32f746 --update last:2
    """
    if of not in ("train", "predict"):
        raise InputError(f"--of {of!r} is unknown; there are train and predict")
    program = run.compile()
    schedule = program.train if of == "train" else program.predict
    time, members = peak(schedule)
    if not as_json:
        print(f"{program.name}: {schedule.lifetimes.peak_bytes:,} bytes are alive at the peak:")
        print(describe_peak(schedule, limit))
        return
    nodes = schedule.graph.nodes
    running = nodes[min(time, len(nodes) - 1)] if nodes else None
    print_json(
        {
            "network": program.name,
            "function": of,
            "peak_bytes": schedule.lifetimes.peak_bytes,
            "arena_bytes": program.arena_bytes,
            "running": None if running is None else f"{running.op.name} of {running.location}",
            "tensors": [
                {
                    "name": member.name,
                    "bytes": member.size_bytes,
                    "type": None if member.value is None else str(member.value.type),
                    "layer": None if member.node is None else str(member.node.location),
                }
                for member in members
            ],
        }
    )
