"""The demo: a face detector meets a camera hung upside down in the dark, and learns on the
microcontroller.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import kilograd
from kilograd import demo_data, devices, update
from kilograd.errors import InputError

EPOCHS = 3
LEARNING_RATE = 0.01
_BARS = "▁▂▃▄▅▆▇█"


def run(
    output: Path,
    device: str,
    console: Console | None = None,
    *,
    precision: str = "int8",
    busy: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> kilograd.Program:
    """Compile, judge, learn on the emulated device, judge again; write the C project to
    `output`, the report to `page_of(output)` where the libraries of `kilograd[report]` are there,
    what happens to `console`, and return the program.

    int8 is calibrated on the upright pictures that the network was trained on: when it is compiled,
    nobody knows how the camera will hang. `busy` is entered, with words for it, for what takes
    longer than a second.
    """
    console = console or Console()
    devices.load(device).memory_map()  # refuses a device that cannot be emulated, before the work
    data = demo_data.load()
    start = time.perf_counter()
    with busy("compiling"):
        program = kilograd.compile(
            demo_data.model_path(),
            device=device,
            update=update.all(),
            loss="cross_entropy",
            optimizer=kilograd.SGD(lr=LEARNING_RATE),
            precision=precision,
            calibration=(data.pretrain_x, data.pretrain_y) if precision == "int8" else None,
        )
        program.save(output, force=True)
    console.print(program.summary(), highlight=False)
    console.print(
        f"\ncompiled in {time.perf_counter() - start:.1f} s; the C project is in {output}\n"
    )

    with busy("building for the emulator"):
        board = program.on_emulator()
    upright = board.accuracy(data.upright_test_x, data.test_y)
    before = board.accuracy(data.test_x, data.test_y)
    predict_instructions = board.instructions
    history = board.fit(data.train_x, data.train_y, epochs=EPOCHS)
    step_instructions, stack_bytes = board.instructions, board.stack_bytes
    after = board.accuracy(data.test_x, data.test_y)

    table = Table("on 50 pictures it has never seen", "accuracy", title="face or no face?")
    table.add_row("upright and bright, as pretrained", f"{upright:.0%}")
    table.add_row("upside down in the dark, before learning", f"{before:.0%}")
    table.add_row("upside down in the dark, after learning", f"[bold]{after:.0%}[/bold]")
    console.print(table)
    console.print(f"loss of {len(history.losses)} steps  {sparkline(history.losses)}")
    device_facts = program.device
    for what, count in (("prediction", predict_instructions), ("training step", step_instructions)):
        seconds = device_facts.seconds(count) if count else None
        estimate = f", about {seconds * 1000:.0f} ms" if seconds else ""
        console.print(f"one {what}: {count:,} instructions{estimate}", highlight=False)
    console.print(
        f"stack measured {stack_bytes:,} of {program.memory.stack_bytes:,} bytes; "
        f"SRAM {program.memory.sram_bytes:,} of {device_facts.sram_bytes or 0:,} bytes",
        highlight=False,
    )
    page = page_of(output)
    if page.is_file():
        page.unlink()
    try:
        with busy("writing the report"):
            sample = data.train_x[0], data.train_y[0]
            program.report(page, runs={f"on {device}": history}, sample=sample)
        console.print(f"\nthe report, for a browser: {page}", highlight=False)
    except InputError as error:
        console.print(f"\nno report: {error}", highlight=False, markup=False)
    return program


def page_of(output: Path) -> Path:
    """Where the report of the demo goes: beside its C project."""
    return output.with_name(f"{output.name}-report.html")


def sparkline(losses: list[float], width: int = 40) -> str:
    """The curve of a loss in one line of text: means of equal stretches, scaled to the largest."""
    chunks = np.array_split(np.asarray(losses), min(width, max(1, len(losses))))
    means = np.array([chunk.mean() for chunk in chunks])
    top = means.max() or 1.0
    levels = np.minimum((means / top * len(_BARS)).astype(int), len(_BARS) - 1)
    return "".join(_BARS[level] for level in levels) + f"  {means[0]:.2f} to {means[-1]:.2f}"
