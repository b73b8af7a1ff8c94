"""`kilograd explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from kilograd.cli.app import Json, app, print_json
from kilograd.cli.run import Run, on_network
from kilograd.errors import InputError
from kilograd.explaining import to_json
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


@explain.command("value")
@on_network
def explain_value(
    run: Run,
    of: Annotated[str, typer.Option(help="A tensor of the training step, such as relu_2.")],
    as_json: Json = False,
) -> None:
    """Say how long a tensor lives, where it lies and who keeps it alive.

    Example: kilograd explain value model.onnx --of relu --device stm32f746
    """
    _explain(run, "value", of, as_json)


@explain.command("weight")
@on_network
def explain_weight(
    run: Run,
    of: Annotated[str, typer.Option(help="A parameter of the model, or a pattern.")],
    as_json: Json = False,
) -> None:
    """Say why a parameter is trained or not, where it is stored and what it costs.

    Example: kilograd explain weight model.onnx --of 'fc.*' --update last:1
    """
    _explain(run, "weight", of, as_json)


@explain.command("layer")
@on_network
def explain_layer(
    run: Run,
    of: Annotated[str, typer.Option(help="A layer of the model, or a pattern.")],
    as_json: Json = False,
) -> None:
    """Say what a layer computes, keeps and costs.

    Example: kilograd explain layer model.onnx --of 'blocks.0*' --device stm32f746
    """
    _explain(run, "layer", of, as_json)


@explain.command("plan")
@on_network
def explain_plan(run: Run, as_json: Json = False) -> None:
    """Say what is paged and what runs again, why, at what price, and what else could be done.

    Example: kilograd explain plan model.onnx --device stm32f746 --sram 64KB
    """
    _explain(run, "plan", "", as_json)


def _explain(run: Run, subject: str, name: str, as_json: bool) -> None:
    explanation = run.compile().explain(subject, name)
    print(to_json(explanation) if as_json else explanation, end="" if as_json else "\n")
