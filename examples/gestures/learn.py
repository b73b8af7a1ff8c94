"""Four activities that a smart watch learns from scratch, on a Cortex-M0+ without an FPU.

    python examples/gestures/learn.py [--data PATH] [--output build/gestures]

A 1-D network with random weights is compiled in int8, gradients included, for an RP2040, and learns
from 40 recordings on the emulated device. Accuracy before learning and after every epoch is
printed; an Arduino library and a report with the curve are written to `--output`.

Needs `pip install 'kilograd[emulator,torch,report]'`, and the recordings: see `--help`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch
from motions import Split, fresh, read_archive, read_folder

import kilograd as kg

HELP = """\
Where the recordings are: a folder with BasicMotions_TRAIN.ts and BasicMotions_TEST.ts
from https://timeseriesclassification.com, or an .npz file made of them. By default
$KILOGRAD_DATA/gestures/basic_motions.npz, or ../shared/data beside the repository.
"""


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (x, y), test = read(arguments.data)
    program = kg.compile(
        fresh(arguments.seed),
        x[:1],
        device="rp2040",
        budget=kg.Budget(sram="32KB"),
        precision="int8",
        gradients="int8",
        calibration=x,
        optimizer=kg.SGD(lr=arguments.lr),
        name="motions",
    )
    memory = program.memory
    print(
        f"{program.name} for {program.device.title}: {memory.sram_bytes:,} bytes of SRAM in all, "
        f"{memory.flash_bytes:,} of flash"
    )

    board = program.on_emulator()
    before = board.accuracy(*test)
    start = time.perf_counter()
    history = board.fit(x, y, epochs=arguments.epochs, seed=arguments.seed, validation=test)
    seconds = time.perf_counter() - start
    board.train_step(x[0], y[0], lr=0.0)
    step, stack = board.instructions or 0, board.stack_bytes or 0

    curve = " ".join(f"{100 * accuracy:.0f}" for accuracy in history.validation_accuracies)
    print(f"{len(history.losses):,} steps on the emulated board in {seconds:.0f} s")
    print(f"  {len(test[1])} other recordings: {before:.0%} before learning")
    print(f"  after each epoch, %: {curve}")
    print(f"  a step: {step:,} instructions, {stack:,} bytes of stack")
    library = program.save(arguments.output / "motions.zip", layout="arduino", force=True)
    report = program.report(arguments.output / "report.html", runs={"from scratch": history})
    print(f"wrote {library} and {report}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Activities of a smart watch, from scratch.")
    parser.add_argument("--data", type=Path, help=HELP)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0, help="first weights, and order of samples")
    parser.add_argument("--output", type=Path, default=Path("build/gestures"))
    return parser.parse_args()


def read(path: Path | None) -> tuple[Split, Split]:
    """The recordings; ends the program with a message where there are none."""
    if path is None:
        shared = Path(__file__).resolve().parents[3] / "shared" / "data"
        folder = Path(os.environ.get("KILOGRAD_DATA", shared))
        path = folder / "gestures" / "basic_motions.npz"
    if (path / "BasicMotions_TRAIN.ts").is_file() and (path / "BasicMotions_TEST.ts").is_file():
        return read_folder(path)
    if path.is_file():
        return read_archive(path)
    sys.exit(
        f"{path} holds no recordings, which are no part of the project.\n{HELP}"
        "Name them: --data PATH"
    )


if __name__ == "__main__":
    main()
