"""`kilograd train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from kilograd.cli import sessions
from kilograd.cli.app import Json, app, print_json
from kilograd.cli.run import Run, on_network
from kilograd.errors import InputError
from kilograd.execution.session import Session
from kilograd.saving import write_file


@app.command()
@on_network
def train(
    run: Run,
    data: sessions.Data = None,
    test: Annotated[
        Path | None,
        typer.Option(help="Samples to judge by; left out, those of --data.", show_default=False),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Rounds. Default: 1.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the order of samples. Default: 0.", show_default=False)
    ] = None,
    on: sessions.Place = None,
    state: Annotated[Path, typer.Option(help="Where what was learned goes.")] = Path(
        "learned.safetensors"
    ),
    curve: Annotated[Path, typer.Option(help="Where the losses go.")] = Path("curve.json"),
    force: Annotated[bool, typer.Option(help="Replace files that exist.")] = False,
    as_json: Json = False,
) -> None:
    """Train the compiled program on this computer or on the emulated device.

    Writes the learned parameters under the model's own names, and the curve of the losses.

    Example: kilograd train model.onnx --data train.npz --test test.npz --epochs 3 --lr 0.01
    """
    settings = run.settings.training
    epochs = settings.epochs if epochs is None else epochs
    seed = settings.seed if seed is None else seed
    if epochs < 0 or seed < 0:
        raise InputError(f"--epochs {epochs} and --seed {seed} must not be negative")
    place = sessions.place_of(run, on)
    _check_free((state, curve), force)
    program = run.compile()
    samples = run.samples(data, program, "train")
    judged = samples
    if test is not None or run.settings.data.test is not None:
        judged = run.samples(test, program, "test")
    session = sessions.start(program, place)
    before = sessions.judge(session, judged)
    history = session.fit(
        samples.x, samples.y, epochs=epochs, seed=seed, validation=(judged.x, judged.y)
    )
    instructions = None
    if place == "emulator" and history.losses:
        instructions = sum(session.profile().values())
    after = sessions.judge(session, judged)
    report: dict[str, Any] = {
        "network": program.name,
        "device": program.device.name,
        "on": place,
        "lr": program.optimizer.lr,
        "epochs": epochs,
        "seed": seed,
        "samples": {"train": len(samples.x), "test": len(judged.x)},
        "before": before,
        "after": after,
        "losses": history.losses,
        "validation_losses": history.validation_losses,
        "validation_accuracies": history.validation_accuracies,
        "confusion": history.confusion,
        "instructions_per_step": instructions,
    }
    _write(session, state, curve, report)
    if as_json:
        print_json({**report, "state": str(state), "curve": str(curve)})
        return
    print(f"{program.name} on {len(judged.x)} samples")
    print(f"  before learning: {sessions.describe(before)}")
    print(f"  after learning:  {sessions.describe(after)}")
    if instructions is not None:
        print(f"  a training step: {instructions:,} instructions")
    print(f"wrote {state} and {curve}")


def _check_free(paths: tuple[Path, ...], force: bool) -> None:
    for path in paths:
        if path.is_dir():
            raise InputError(f"{path} is a directory; name a file")
        if path.exists() and not force:
            raise InputError(f"{path} exists; name another file, or force it (--force)")
        if not path.absolute().parent.is_dir():
            raise InputError(f"cannot write {path}: there is no directory {path.parent}")


def _write(session: Session, state: Path, curve: Path, report: dict[str, Any]) -> None:
    """Both files, each whole or not at all."""
    from safetensors.numpy import save

    write_file(state, save(session.state_dict()), "what was learned")
    write_file(curve, (json.dumps(report, indent=2) + "\n").encode(), "the curve")
