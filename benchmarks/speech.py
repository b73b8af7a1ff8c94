"""A keyword spotter that gets to know a new speaker on the device, from five samples a digit.

    python benchmarks/speech.py [--seeds N] [--compare] [--search] [--quick]

Free Spoken Digit Dataset, six speakers. For each of them a DS-CNN on log-mel energies is trained in
PyTorch on the other five (cached under build/accuracy), quantised with their samples as calibration
data, and adapts to the sixth in int8 on single samples. Takes 0 to 4 of the sixth are the official
test split; a seed draws five of the other takes of every digit to learn from. For the first speaker
the first seed runs on the emulated STM32F746 from beginning to end; the other runs take 20 steps
there and on the host, which have to agree in every bit, and go on on the host.

--search compares what to train, rates and epochs. They are judged by the takes that were neither
drawn nor are for testing; for every speaker the setting is chosen that is best on average for the
other five. --compare does the same with float32, the three roundings of an integer step, and steps
without quantisation-aware scaling, for the epochs used here.

The recordings come from $KILOGRAD_DATA, or ../shared/data beside the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_data import (
    BUILD,
    Log,
    Split,
    data_file,
    learn,
    percent,
    table,
)
from safetensors.torch import load_file, save_file

import kilograd as kg
from kilograd.execution.session import Session
from kilograd.program import Program

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples" / "new_speaker"))
from spoken_digits import (
    BANDS,
    BATCH,
    EPOCHS,
    FRAMES,
    SPEEDS,
    WINDOW,
    Recordings,
    SpeechNet,
    features,
    pretrain,
    read_archive,
)

DATA = "speech/spoken_digits.npz"
CALIBRATION = 200
COMPARED_STEPS = 20
COMPARED_RATES = (0.003, 0.01, 0.03)


@dataclass(frozen=True)
class Setting:
    """How the device adapts."""

    update: str = "all"
    lr: float = 0.01
    epochs: int = 20
    rounding: str = "stochastic"
    gradients: str = "float32"
    precision: str = "int8"
    qas: bool = True

    @property
    def program(self) -> tuple[object, ...]:
        """What a program depends on."""
        return self.update, self.rounding, self.gradients, self.precision, self.qas

    def __str__(self) -> str:
        parts = [self.precision, self.update, f"rate {self.lr:g}", f"{self.epochs} epochs"]
        if self.precision == "int8":
            parts += [self.rounding]
        if self.gradients == "int8":
            parts += ["int8 gradients"]
        if not self.qas:
            parts += ["without QAS"]
        return ", ".join(parts)


CHOSEN = Setting()
UPDATES: dict[str, Any] = {
    "all": kg.update.all(),
    "biases and head": [kg.update.biases(), {"classifier": kg.update.full()}],
    "head": {"classifier": kg.update.full()},
}


def speaker_names() -> tuple[str, ...]:
    with np.load(data_file(DATA)) as file:
        return tuple(str(name) for name in file["speaker_names"])


def recordings(speeds: tuple[float, ...]) -> Recordings:
    return features(read_archive(data_file(DATA)), speeds)


# Pretraining ---------------------------------------------------------------------------------


def cache(names: tuple[str, ...], speaker: int, epochs: int) -> Path:
    """Where the network that has not heard `speaker` is kept."""
    model = [(name, list(value.shape)) for name, value in SpeechNet().state_dict().items()]
    settings = (names, epochs, BATCH, SPEEDS, FRAMES, BANDS, WINDOW, model, torch.__version__)
    digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:12]
    return BUILD / f"speech-without-{names[speaker]}-{digest}.safetensors"


def pretrained(sounds: Recordings, speaker: int, epochs: int, log: Log) -> SpeechNet:
    """The network for a speaker whom it has not heard, from the cache or trained."""
    path = cache(sounds.names, speaker, epochs)
    if path.is_file():
        model = SpeechNet()
        model.load_state_dict(load_file(path))
        return model.eval()
    log(f"pretraining without {sounds.names[speaker]}")
    model = pretrain(sounds, np.flatnonzero(sounds.speaker != speaker), epochs)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), path)
    return model


# Adapting ------------------------------------------------------------------------------------


def build(model: SpeechNet, sounds: Recordings, speaker: int, setting: Setting) -> Program:
    """The int8 program for the device, calibrated with the speakers of pretraining."""
    others = np.flatnonzero(sounds.speaker != speaker)
    chosen = np.random.default_rng(0).permutation(others)[:CALIBRATION]
    options: dict[str, Any] = {}
    if setting.precision == "int8":
        options["calibration"] = sounds.x[0, chosen]
    if setting.gradients != "float32":
        options["gradients"] = setting.gradients
    return kg.compile(
        model,
        sounds.x[0, :1],
        device="stm32f746",
        precision=setting.precision,
        update=UPDATES[setting.update],
        optimizer=kg.SGD(lr=setting.lr, rounding=setting.rounding, qas=setting.qas),
        name="speech",
        **options,
    )


def assert_same_bits(host: Session, board: Session, split: Split, lr: float) -> None:
    """The first steps give the same losses and the same state on both."""
    for session in (host, board):
        session.reset()
    for x, y in list(zip(*split, strict=True))[:COMPARED_STEPS]:
        losses = [session.train_step(x, int(y), lr=lr) for session in (host, board)]
        assert losses[0] == losses[1], f"losses differ: {losses}"
    ours, theirs = host.raw_state(), board.raw_state()
    for name in ours:
        assert np.array_equal(ours[name], theirs[name]), f"{name} differs"


@dataclass(frozen=True)
class Adapted:
    """Accuracies of a run on the test takes and on the takes left for choosing settings."""

    before: float
    after: float
    left: float


def adapt(
    session: Session, sounds: Recordings, speaker: int, setting: Setting, seed: int
) -> Adapted:
    """One speaker, one seed."""
    learned, left = sounds.draw(speaker, seed)
    test = sounds.test(speaker)
    session.reset()
    before = session.accuracy(*test)
    finite = learn(session, learned, setting.epochs, setting.lr, seed)
    if not finite:
        return Adapted(before, 0.1, 0.1)
    return Adapted(before, session.accuracy(*test), session.accuracy(*left))


def measure(
    sounds: Recordings, setting: Setting, seeds: int, epochs: int, log: Log, optimize: str
) -> None:
    """The table of six speakers."""
    rows, every = [], []
    for speaker, name in enumerate(sounds.names):
        model = pretrained(sounds, speaker, epochs, log)
        program = build(model, sounds, speaker, setting)
        host, board = program.on_host(optimize=optimize), program.on_emulator()
        assert_same_bits(host, board, sounds.draw(speaker, 0)[0], setting.lr)
        instructions = board.instructions
        runs = []
        for seed in range(seeds):
            on_board = speaker == 0 and seed == 0
            runs.append(adapt(board if on_board else host, sounds, speaker, setting, seed))
            log(f"{name}, seed {seed}: {runs[-1]}")
        every.append(runs)
        rows.append(
            (
                name,
                percent([runs[0].before]),
                percent(r.after for r in runs),
                percent(r.left for r in runs),
                f"{program.memory.sram_bytes:,}",
                f"{program.memory.flash_bytes:,}",
                f"{instructions:,}",
            )
        )
    by_seed = list(zip(*every, strict=True))
    rows.append(
        (
            "mean",
            percent([np.mean([runs[0].before for runs in every])]),
            percent(np.mean([r.after for r in runs]) for runs in by_seed),
            percent(np.mean([r.left for r in runs]) for runs in by_seed),
            "",
            "",
            "",
        )
    )
    header = ("speaker", "before, %", "after, %", "other takes, %", "SRAM, B", "flash, B",
              "instructions a step")  # fmt: skip
    print(f"\n{setting}; {seeds} seeds\n\n{table(header, rows)}", flush=True)


def search(
    sounds: Recordings, settings: list[Setting], seeds: int, epochs: int, log: Log, optimize: str
) -> dict[Setting, np.ndarray]:
    """Accuracy on the takes left, and on the test takes: [speakers, seeds, 2] a setting."""
    scores: dict[Setting, np.ndarray] = {
        setting: np.zeros((len(sounds.names), seeds, 2)) for setting in settings
    }
    for speaker, name in enumerate(sounds.names):
        model = pretrained(sounds, speaker, epochs, log)
        sessions: dict[tuple[object, ...], Session] = {}
        for setting in settings:
            if setting.program not in sessions:
                sessions[setting.program] = build(model, sounds, speaker, setting).on_host(
                    optimize=optimize
                )
            for seed in range(seeds):
                result = adapt(sessions[setting.program], sounds, speaker, setting, seed)
                scores[setting][speaker, seed] = result.left, result.after
            log(f"{name}: {setting}: {percent(scores[setting][speaker, :, 0])}")
    return scores


def print_scores(scores: dict[Setting, np.ndarray], *, by_program: bool) -> None:
    """A row a setting, and (of each program) the settings that the other five speakers choose."""
    rows = [
        (setting, percent(s[:, :, 0].mean(axis=0)), percent(s[:, :, 1].mean(axis=0)))
        for setting, s in scores.items()
    ]
    print("\n" + table(("setting", "other takes, %", "test takes, %"), rows))
    kinds = dict.fromkeys(setting.program if by_program else None for setting in scores)
    speakers = range(len(next(iter(scores.values()))))
    for kind in kinds:
        chosen = [leave_one_out(scores, kind, speaker) for speaker in speakers]
        picked = np.stack([scores[setting][i] for i, setting in enumerate(chosen)])
        distinct = " | ".join(dict.fromkeys(map(str, chosen)))
        print(
            f"chosen by the others: {distinct}: other takes {percent(picked[:, :, 0].mean(axis=0))}"
            f", test takes {percent(picked[:, :, 1].mean(axis=0))}"
        )


def leave_one_out(
    scores: dict[Setting, np.ndarray], kind: tuple[object, ...] | None, speaker: int
) -> Setting:
    """The best setting (of one kind of program) on the other takes of all other speakers."""
    settings = [s for s in scores if kind is None or s.program == kind]
    others = [i for i in range(len(scores[settings[0]])) if i != speaker]
    return max(settings, key=lambda s: float(scores[s][others, :, 0].mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description="spoken digits of a new speaker")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--compare", action="store_true", help="number formats, roundings")
    parser.add_argument(
        "--pretrain", nargs="*", metavar="SPEAKER", help="fill the cache for them, or all, and stop"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds")
    arguments = parser.parse_args()
    data_file(DATA)
    torch.set_num_threads(1)
    if not arguments.quick:  # it imports half of PyTorch
        torch.use_deterministic_algorithms(True)
    log, epochs, optimize, setting = Log(), EPOCHS, "-O3", CHOSEN
    if arguments.quick:
        sounds, epochs, optimize = quick_recordings(), 1, "-O1"
        setting = replace(CHOSEN, epochs=1)
    else:
        names = speaker_names()
        cached = all(cache(names, speaker, epochs).is_file() for speaker in range(len(names)))
        sounds = recordings(SPEEDS[:1] if cached else SPEEDS)
    if arguments.pretrain is not None:
        for name in arguments.pretrain or sounds.names:
            pretrained(sounds, sounds.names.index(name), epochs, log)
    elif arguments.search:
        grid = product(UPDATES, (0.003, 0.01, 0.03), (5, 20))
        settings = [replace(setting, update=u, lr=lr, epochs=e) for u, lr, e in grid]
        scores = search(sounds, settings, arguments.seeds, epochs, log, optimize)
        print_scores(scores, by_program=False)
    elif arguments.compare:
        settings = [setting for method in compared(setting) for setting in method]
        scores = search(sounds, settings, arguments.seeds, epochs, log, optimize)
        print_scores(scores, by_program=True)
    else:
        measure(sounds, setting, arguments.seeds, epochs, log, optimize)


def compared(setting: Setting) -> list[list[Setting]]:
    """For each number format and rounding the chosen setting at three rates."""
    methods = [
        replace(setting, precision="float32"),
        replace(setting, rounding="stochastic"),
        replace(setting, rounding="residual"),
        replace(setting, rounding="nearest"),
        replace(setting, qas=False),
        replace(setting, gradients="int8"),
    ]
    return [[replace(method, lr=rate) for rate in COMPARED_RATES] for method in methods]


def quick_recordings() -> Recordings:
    """Two speakers, twelve takes."""
    whole = recordings((1.0,))
    chosen = np.flatnonzero((whole.speaker < 2) & (whole.take < 12))
    return Recordings(
        whole.x[:, chosen],
        whole.digit[chosen],
        whole.speaker[chosen],
        whole.take[chosen],
        whole.names[:2],
    )


if __name__ == "__main__":
    main()
