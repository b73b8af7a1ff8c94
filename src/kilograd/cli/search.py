"""`kilograd search`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from kilograd.cli.app import Json, app, notes, print_json
from kilograd.cli.run import Run, on_network
from kilograd.compiler import default_store
from kilograd.errors import InputError
from kilograd.report.contributions import write_charts
from kilograd.search.found import Found

ROWS = 20
"""Layers that the terminal shows."""


@app.command()
@on_network
def search(
    run: Run,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Labelled samples: .npz, .csv, or a folder of pictures by class.",
            show_default=False,
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            help="Samples to judge by; left out, a third of --data, drawn with each seed.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="The same as --sram.", show_default=False)
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="measured, quick or fast. Default: measured.", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The same as --method quick.")] = False,
    contributions: Annotated[
        Path | None,
        typer.Option(
            help="Take an earlier contributions.json instead of measuring; --data may be left out.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="Runs of a measurement. Default: 3, quick 2.", show_default=False),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Rounds of a run. Default: 5.", show_default=False)
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            help="Samples that a run learns from at most. Default: all, quick 200.",
            show_default=False,
        ),
    ] = None,
    test_samples: Annotated[
        int | None,
        typer.Option(
            help="Samples that a run is judged by at most. Default: all, quick 200.",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            help="Rounds that train what is best by what was trained. Default: 6, quick 3, "
            "fast none.",
            show_default=False,
        ),
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(
            help="Learning rates to try, as in 0.003,0.01,0.03. Default: --lr.",
            show_default=False,
        ),
    ] = None,
    channels: Annotated[
        str, typer.Option(help="Which input channels to train: first or best.")
    ] = "first",
    judge: Annotated[str, typer.Option(help="What judges: c, numpy, torch or torch:cuda.")] = "c",
    front: Annotated[
        str,
        typer.Option(help="SRAM limits of the front: how many, or which, as in 64KB,96KB."),
    ] = "6",
    time_limit: Annotated[float, typer.Option(help="Seconds for each selection.")] = 60.0,
    jobs: Annotated[
        int | None,
        typer.Option(help="Processes at a time. Default: one a core.", show_default=False),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Directory of measurements. Default: in the cache.", show_default=False),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Directory of scheme, tables and plots.")
    ] = Path("search"),
    force: Annotated[bool, typer.Option(help="Replace files of an earlier search.")] = False,
    as_json: Json = False,
) -> None:
    """Search what to train: the biases and parts of weights that gain most within the memory,
    and within the time and energy of a step where they are limited.

    Writes scheme.toml, which --update takes, contributions.json, front.json and, with
    kilograd[report], plots. What was measured is kept and used again; Ctrl-C loses one run.

    Example: kilograd search model.onnx --data train.npz --device stm32f746 --budget 128KB --quick
    """
    # Brings solvers and joblib.
    from kilograd.search.search import find

    if quick and method not in (None, "quick"):
        raise InputError(f"--quick and --method {method} contradict each other")
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; name a directory (--output)")
    if output.is_dir() and any(output.iterdir()) and not force:
        raise InputError(f"{output} is not empty; name another directory, or force it (--force)")
    network = run.prepare()
    if budget is not None:
        network = network.within(replace(network.budget, sram=budget))
    learned = judged = None
    if contributions is None or data is not None or run.settings.data.train is not None:
        learned = run.samples(data, network, "train")
    if test is not None or run.settings.data.test is not None:
        judged = run.samples(test, network, "test")
    found = find(
        network,
        None if learned is None else (learned.x, learned.y),
        None if judged is None else (judged.x, judged.y),
        method="quick" if quick else method or "measured",
        contributions=contributions,
        seeds=seeds,
        epochs=epochs,
        samples=samples,
        test_samples=test_samples,
        rounds=rounds,
        lr=None if rates is None else _rates(rates),
        channels=channels,
        judge=judge,
        front=_front(front),
        time_limit=time_limit,
        jobs=jobs,
        store=store or default_store(),
    )
    scheme = found.save(output)
    plots = write_charts(found, output)
    if as_json:
        print_json({**found.to_json(), "scheme_file": str(scheme), "plots": list(map(str, plots))})
        return
    _tell(found, scheme)
    if not plots:
        notes.print("no plots: they need pip install 'kilograd[report]'")


def _rates(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--rates {text!r}: write numbers, as in 0.003,0.01,0.03") from None


def _front(text: str) -> int | list[str]:
    return int(text) if text.isdecimal() else text.split(",")


def _tell(found: Found, scheme: Path) -> None:
    print(found.table(ROWS))
    points = found.ahead
    wide = max(len("a step"), *(len(point.step()) for point in points)) + 2
    step = f"{'a step':<{wide}}" if any(point.step() for point in points) else ""
    print(f"\nSRAM       flash      {step}sum     trained                what it trains")
    for point in points:
        real = ""
        if point.realised is not None:
            real = f"{100 * point.realised.mean:+.1f} ± {100 * point.realised.spread:.1f}"
            real += f" lr {point.lr:.2g}"
        mark = "" if point.proven else f"  ({point.told()})"
        chosen = "  <- the scheme" if point.scheme == found.best.scheme else ""
        smaller = [f"{limit:,}" for limit in found.limits_of(point)]
        if len(found.answers) > 1 and smaller:
            chosen += f"  <- best within {', '.join(smaller)} B"
        print(
            f"{point.sram_bytes:<10,} {point.flash_bytes:<10,} "
            f"{f'{point.step():<{wide}}' if step else ''}{100 * point.gain:<+7.1f} "
            f"{real:<22} head, {point.biases} biases, {len(point.weights)} weights{mark}{chosen}"
        )
    measured, selected, tried = found.seconds
    print(
        f"\ncontributions took {measured:.0f} s, selection {selected:.0f} s, "
        f"trial and refinement {tried:.0f} s"
    )
    print(f"wrote {scheme}; use it with --update {scheme}")
