"""A keyword spotter that gets to know a new speaker on the device, from five samples a digit.

    python examples/new_speaker/adapt.py [--speaker george] [--data PATH]

A network that has heard five speakers (trained here in PyTorch, and kept in `build/new_speaker`, or
`--output`) is compiled in int8 for an STM32F746, meets a sixth on the emulated device, and learns.
What it was worth is printed; the C project and a report with the curves are written beside it.

Needs `pip install 'kilograd[emulator,torch,report]'`, and the recordings: see `--help`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from spoken_digits import (
    EPOCHS,
    SPEEDS,
    TEST_TAKES,
    Bar,
    Recordings,
    SpeechNet,
    features,
    pretrain,
    read_archive,
    read_folder,
)

import kilograd as kg

HELP = """\
Where the recordings are: the folder `recordings` of
https://github.com/Jakobovski/free-spoken-digit-dataset, or an .npz file made of it. By default
$KILOGRAD_DATA/speech/spoken_digits.npz, or ../shared/data beside the repository.
"""
CALIBRATION = 200


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    sounds = read(arguments.data)
    if arguments.speaker not in sounds.names:
        sys.exit(f"there is no speaker {arguments.speaker}; there are {', '.join(sounds.names)}")
    speaker = sounds.names.index(arguments.speaker)
    model = trained_without(sounds, speaker, arguments.pretrain_epochs, arguments.output)

    # Calibrated with the speakers it knows: when it is compiled, nobody knows who will use it.
    others = np.flatnonzero(sounds.speaker != speaker)
    calibration, _ = sounds.split(np.random.default_rng(0).permutation(others)[:CALIBRATION])
    program = kg.compile(
        model,
        calibration[:1],
        device="stm32f746",
        precision="int8",
        calibration=calibration,
        optimizer=kg.SGD(lr=arguments.lr),
        name="speech",
    )
    memory = program.memory
    print(
        f"{program.name} for {program.device.title}: {memory.sram_bytes:,} bytes of SRAM in all, "
        f"{memory.flash_bytes:,} of flash"
    )

    board = program.on_emulator()
    (x, y), _ = sounds.draw(speaker, arguments.seed)
    own, known = sounds.test(speaker), known_speakers(sounds, speaker)
    before, known_before = board.accuracy(*own), board.accuracy(*known)
    start = time.perf_counter()
    history = board.fit(x, y, epochs=arguments.epochs, seed=arguments.seed, validation=own)
    seconds = time.perf_counter() - start
    board.train_step(x[0], y[0], lr=0.0)
    step, stack = board.instructions or 0, board.stack_bytes or 0
    after, known_after = board.accuracy(*own), board.accuracy(*known)

    takes = len(own[1])
    print(f"{len(history.losses):,} steps on the emulated board in {seconds:.0f} s")
    print(f"  {arguments.speaker}, {takes} other takes: {before:.1%} before, {after:.1%} after")
    print(f"  the other speakers: {known_before:.1%} before, {known_after:.1%} after")
    print(f"  a step: {step:,} instructions, {stack:,} bytes of stack")
    program.save(arguments.output / "firmware", force=True)
    report = program.report(arguments.output / "report.html", runs={arguments.speaker: history})
    print(f"wrote {arguments.output / 'firmware'} and {report}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Spoken digits of a new speaker.")
    parser.add_argument("--data", type=Path, help=HELP)
    parser.add_argument("--speaker", default="george", help="whom the network has not heard")
    parser.add_argument("--epochs", type=int, default=20, help="on the device")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0, help="which takes, and in which order")
    parser.add_argument("--pretrain-epochs", type=int, default=EPOCHS, help="in PyTorch")
    parser.add_argument("--output", type=Path, default=Path("build/new_speaker"))
    return parser.parse_args()


def read(path: Path | None) -> Recordings:
    """The recordings; ends the program with a message where there are none."""
    if path is None:
        shared = Path(__file__).resolve().parents[3] / "shared" / "data"
        folder = Path(os.environ.get("KILOGRAD_DATA", shared))
        path = folder / "speech" / "spoken_digits.npz"
    if path.is_dir() and any(path.glob("[0-9]_*_*.wav")):
        sounds = read_folder(path)
    elif path.is_file():
        sounds = read_archive(path)
    else:
        sys.exit(
            f"{path} holds no recordings, which are no part of the project.\n{HELP}"
            "Name them: --data PATH"
        )
    return features(sounds, SPEEDS, bar("listening"))


def trained_without(sounds: Recordings, speaker: int, epochs: int, folder: Path) -> SpeechNet:
    """The network that has not heard a speaker, from an earlier run or trained."""
    path = folder / f"without-{sounds.names[speaker]}-{epochs}-epochs.safetensors"
    if path.is_file():
        model = SpeechNet()
        model.load_state_dict(load_file(path))
        return model.eval()
    heard = np.flatnonzero(sounds.speaker != speaker)
    model = pretrain(sounds, heard, epochs, bar(f"training on {len(heard):,} recordings"))
    save_file(model.state_dict(), path)
    return model


def known_speakers(sounds: Recordings, speaker: int) -> tuple[np.ndarray, np.ndarray]:
    """Takes 0 to 4 of the speakers that the network was trained on."""
    return sounds.split(np.flatnonzero((sounds.speaker != speaker) & (sounds.take < TEST_TAKES)))


def bar(what: str) -> Bar:
    """A progress bar."""
    return lambda items: track(items, what, transient=True)


if __name__ == "__main__":
    main()
