"""Transfer learning of the ImageNet MCUNet-5FPS, by number format, what is trained and rounding.

    python benchmarks/transfer.py [--data faces digits spoken] [--methods PATTERN ...] [--quick]

At the resolution of --resolution (the network was trained at 128): `faces`, lfw_subset of scikit-
image (face or not, 25x25 grey), `digits`, load_digits of scikit-learn (8x8 grey), and on request
`spoken`, spoken digits as pictures of log-mel energies (32x24). The test split is fixed; a seed
draws training and validation samples from the others, the new head and the order of the samples.
Every program is compiled once and runs on the host, which computes the bits of the device: SGD on
single samples, the rate falling along half a cosine. At these resolutions the pooled features are
large (mean square 34 at 48x48), and a rate that the head bears moves nothing else; the last
convolution is scaled so that their mean square is 1 on the calibration samples.

All methods have the same grid of rates. Each rate runs with every seed; the one with the best mean
accuracy on validation samples (the lower loss among equals) is reported, with mean and standard
deviation of its test accuracy over the seeds. Rates beyond one that fell 10 points are left out.
Without quantisation-aware scaling weights move by rate * scale^2, some 10^4 times less, so that
method has a second row with a grid of its own.

The ImageNet weights come from $KILOGRAD_DATA, or ../shared/data beside the repository.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_data import (
    Log,
    Split,
    data_file,
    learn,
    percent,
    table,
)
from skimage import data as pictures
from skimage.transform import resize
from sklearn.datasets import load_digits

import kilograd as kg
from kilograd import zoo
from kilograd.execution.session import Session

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples" / "new_speaker"))
from spoken_digits import TEST_TAKES, features, read_archive

RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
UNSCALED_RATES = (1.0, 10.0, 100.0, 1000.0)
CALIBRATION = 64
HOPELESS = 0.1
"""Higher rates are left out once the mean accuracy has fallen so far below the best one's."""
WEIGHTS = "models/mcunet-5fps.safetensors"


@dataclass(frozen=True)
class Task:
    """Samples [N, 3, S, S] in [-1, 1] that a seed may draw from, and the fixed test split."""

    name: str
    classes: int
    pool: Split
    test: Split
    train_count: int
    epochs: int

    def draw(self, seed: int, validation: int | None = None) -> tuple[Split, Split]:
        """Training and validation samples, equally many of every class for training; at most so
        many for validation, by default half as many as for training, but 30.
        """
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(self.pool[0]))
        labels = self.pool[1][order]
        share = self.train_count // self.classes
        chosen = np.concatenate([order[labels == c][:share] for c in range(self.classes)])
        rest = np.setdiff1d(order, chosen)
        count = max(self.train_count // 2, 30) if validation is None else validation
        rest = rng.permutation(rest)[:count]
        x, y = self.pool
        return (x[chosen], y[chosen]), (x[rest], y[rest])


@dataclass(frozen=True)
class Method:
    """One row: what to compile, and the rates to try."""

    name: str
    update: str
    precision: str = "int8"
    optimizer: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    rates: tuple[float, ...] = RATES


def methods() -> list[Method]:
    rows = [
        Method("float32, all", "all", "float32"),
        Method("float32, 49 KB scheme", "49kb", "float32"),
        Method("float32, head", "head", "float32"),
        Method("int8, head", "head"),
        Method("int8 without QAS, all", "all", optimizer={"qas": False}),
        Method(
            "int8 without QAS, all, own grid",
            "all",
            optimizer={"qas": False},
            rates=UNSCALED_RATES,
        ),
    ]
    for headroom in (1.5, 2.0):
        rows.append(
            Method(f"int8, all, headroom {headroom:g}", "all", options={"headroom": headroom})
        )
    for update, name in (("all", "all"), ("49kb", "49 KB scheme")):
        for rounding in ("stochastic", "residual", "nearest"):
            rows.append(
                Method(f"int8, {name}, {rounding}", update, optimizer={"rounding": rounding})
            )
        rows.append(Method(f"int8, {name}, int8 gradients", update, options={"gradients": "int8"}))
    return rows


def as_input(grey: np.ndarray, size: int) -> np.ndarray:
    """Grey pictures [N, H, W] in [0, 1] as the network takes them: [N, 3, size, size]."""
    large = np.stack([resize(picture, (size, size), order=1) for picture in grey])
    scaled = ((np.rint(255 * large) - 127.5) / 127.5).astype(np.float32)
    return np.repeat(scaled[:, None], 3, axis=1)


def faces(size: int) -> Task:
    x = as_input(np.asarray(pictures.lfw_subset(), np.float32), size)
    y = np.repeat([1, 0], 100)
    held_out = np.arange(200) % 100 >= 50
    return Task("faces", 2, (x[~held_out], y[~held_out]), (x[held_out], y[held_out]), 20, 12)


def digits(size: int, tested: int = 200) -> Task:
    source = load_digits()
    x = as_input(source.images.astype(np.float32) / 16, size)
    y = source.target
    test = slice(1297, 1297 + tested)
    return Task("digits", 10, (x[:1297], y[:1297]), (x[test], y[test]), 100, 8)


def spoken(size: int) -> Task:
    """Log-mel pictures of spoken digits; takes 0 to 4 of each speaker are for testing."""
    sounds = features(read_archive(data_file("speech/spoken_digits.npz")), (1.0,))
    held_out = sounds.take < TEST_TAKES
    x = sounds.x[0, :, 0]
    low, high = np.percentile(x[~held_out], (0.5, 99.5))
    x = as_input(np.clip((x - low) / (high - low), 0, 1), size)
    pool, test = ((x[chosen], sounds.digit[chosen]) for chosen in (~held_out, held_out))
    return Task("spoken", 10, pool, test, 100, 8)


TASKS = {"faces": faces, "digits": digits, "spoken": spoken}


def scale_features(model: zoo.TinyNet, samples: np.ndarray) -> None:
    """Scale the last convolution, so that the mean square of what the head sees is 1."""
    seen: list[torch.Tensor] = []
    hook = model.pool.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model(torch.tensor(samples))
        hook.remove()
        factor = seen[0].square().mean().rsqrt()
        last = model.get_submodule("blocks.13.pointwise2")
        for parameter in last.parameters():
            parameter.mul_(factor)


def build(method: Method, task: Task, optimize: str) -> Session:
    """The compiled program on the host."""
    model, example = zoo.create(
        "mcunet_5fps",
        num_classes=task.classes,
        weights=data_file(WEIGHTS),
        resolution=task.pool[0].shape[-1],
    )
    updates = {
        "all": kg.update.all(),
        "head": {"classifier": kg.update.full()},
        "49kb": zoo.scheme("mcunet-5fps", "49kb"),
    }
    options = dict(method.options)
    chosen = np.random.default_rng(0).permutation(len(task.pool[0]))[:CALIBRATION]
    scale_features(model, task.pool[0][chosen])
    if method.precision == "int8":
        options["calibration"] = task.pool[0][chosen]
    program = kg.compile(
        model,
        example,
        precision=method.precision,
        update=updates[method.update],
        optimizer=kg.SGD(**method.optimizer),
        **options,
    )
    return program.on_host(optimize=optimize)


def fresh_head(task: Task, seed: int) -> dict[str, np.ndarray]:
    """A classifier as PyTorch initialises it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(160, task.classes)
    return {f"classifier.{n}": p.detach().numpy() for n, p in layer.named_parameters()}


@dataclass(frozen=True)
class Run:
    """Shares of right answers on both splits, and the validation loss."""

    validation: float
    loss: float
    test: float


def run(session: Session, task: Task, lr: float, seed: int) -> Run:
    """Train from the pretrained network with one rate and one seed."""
    train, validation = task.draw(seed)
    session.reset()
    session.load_state_dict(fresh_head(task, seed))
    if not learn(session, train, task.epochs, lr, seed):
        return Run(0.0, float("inf"), 1 / task.classes)
    return Run(
        session.accuracy(*validation), session.loss(*validation), session.accuracy(*task.test)
    )


def reached(results: dict[float, list[Run]]) -> float:
    """The best mean validation accuracy so far."""
    return max(float(np.mean([r.validation for r in runs])) for runs in results.values())


def measure(method: Method, task: Task, seeds: int, optimize: str, log: Log) -> list[object]:
    """One row of the table."""
    session, results = build(method, task, optimize), {}
    for lr in method.rates:
        results[lr] = [run(session, task, lr, seed) for seed in range(seeds)]
        log(
            f"{task.name:7} {method.name:34} lr {lr:<6g} "
            f"validation {percent(r.validation for r in results[lr])}, "
            f"test {percent(r.test for r in results[lr])}"
        )

        if np.mean([r.validation for r in results[lr]]) < reached(results) - HOPELESS:
            break

    def merit(lr: float) -> tuple[float, float]:
        runs = results[lr]
        return (
            float(np.mean([r.validation for r in runs])),
            -float(np.mean([r.loss for r in runs])),
        )

    best = max(results, key=merit)
    validation = percent(r.validation for r in results[best])
    test = percent(r.test for r in results[best])
    return [method.name, f"{best:g}", validation, test]


def main() -> None:
    parser = argparse.ArgumentParser(description="transfer learning of MCUNet-5FPS")
    parser.add_argument("--data", nargs="+", default=["faces", "digits"], choices=TASKS)
    parser.add_argument("--methods", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--resolution", type=int, default=48)
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds")
    arguments = parser.parse_args()
    data_file(WEIGHTS)
    torch.set_num_threads(1)
    log, optimize = Log(), "-O3"
    chosen = [
        method
        for method in methods()
        if any(fnmatch.fnmatch(method.name, pattern) for pattern in arguments.methods)
    ]
    if arguments.quick:
        chosen = [m for m in chosen if m.update == "head" and m.precision == "int8"]
        arguments.data, arguments.resolution, arguments.seeds, optimize = ["faces"], 32, 2, "-O1"
    for name in arguments.data:
        task = TASKS[name](arguments.resolution)
        if arguments.quick:
            task = Task(
                name, task.classes, task.pool, (task.test[0][:20], task.test[1][:20]), 20, 1
            )
        rows = [measure(method, task, arguments.seeds, optimize, log) for method in chosen]
        train, validation = task.draw(0)
        print(
            f"\n{name}: {arguments.resolution}x{arguments.resolution}, {len(train[0])} training, "
            f"{len(validation[0])} validation and {len(task.test[0])} test samples, "
            f"{task.epochs} epochs, {arguments.seeds} seeds\n"
        )
        print(table(("method", "rate", "validation, %", "test, %"), rows), flush=True)


if __name__ == "__main__":
    main()
