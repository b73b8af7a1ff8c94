"""How close int8 networks come to their float32 originals, for every way to choose ranges.

    python benchmarks/quantization.py [--head int8] [NETWORK ...]

Signal to quantisation noise of the output in decibels, and how often the largest output agrees, on
data that neither training nor calibration saw; then the noise on the same data shifted, as a device
in the field may see them: half as much contrast again for pictures, a gain of 1.3 for the others.
Accuracies are in percent; `kept` counts operators that stay float32. Calibration takes 64 samples.

Data: crops of scikit-image's pictures, left halves to train and calibrate and right halves to test,
and its faces and other crops of lfw_subset (10 classes in all); spoken digits as 49 frames of 10
band energies and smart watch gestures from $KILOGRAD_DATA, or ../shared/data beside the repository,
which also has the ImageNet weights of the last three networks. The others are trained here for a
few epochs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from skimage import data as samples
from skimage.transform import resize

from kilograd import frontend, zoo
from kilograd.ir import Graph, evaluate, verify
from kilograd.transforms.fold import fold
from kilograd.transforms.layout import arrange
from kilograd.transforms.ports import Ports
from kilograd.transforms.quantize import RANGES, quantize

PICTURES = (
    "astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "immunohistochemistry",
    "camera", "coins",
)  # fmt: skip
CALIBRATION = 64
EPOCHS = 8

Split = tuple[np.ndarray, np.ndarray]
"""Inputs and labels."""


def data_directory() -> Path:
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("KILOGRAD_DATA", default))


def crops(right: bool, size: int, count: int) -> Split:
    """`count` random crops of one half of every picture, and as many of lfw_subset's two kinds."""
    rng = np.random.default_rng(1 + right)
    images, labels = [], []
    for label, name in enumerate(PICTURES):
        picture = np.asarray(getattr(samples, name)(), np.float32) / 255
        if picture.ndim == 2:
            picture = np.repeat(picture[..., None], 3, axis=2)
        middle = picture.shape[1] // 2
        half = picture[:, middle:] if right else picture[:, :middle]
        for _ in range(count):
            side = int(rng.integers(96, min(half.shape[:2])))
            top, left = (int(rng.integers(0, n - side + 1)) for n in half.shape[:2])
            crop = half[top : top + side, left : left + side]
            images.append(resize(crop, (size, size), anti_aliasing=True))
            labels.append(label)
    faces = np.asarray(samples.lfw_subset(), np.float32)
    for kind in range(2):
        for index in range(count):
            picture = faces[100 * kind + 50 * right + index % 50]
            grey = resize(picture, (size, size), anti_aliasing=True)
            images.append(np.repeat(grey[..., None], 3, axis=2))
            labels.append(len(PICTURES) + kind)
    order = rng.permutation(len(images))
    pixels = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)[order]
    return (np.rint(255 * pixels) - 127.5).astype(np.float32) / np.float32(127.5), np.array(labels)[
        order
    ]


def pictures(size: int) -> tuple[Split, Split]:
    return crops(False, size, 24), crops(True, size, 16)


def outlines() -> tuple[Split, Split]:
    """Pictures, and for every pixel whether it is brighter than its surroundings."""

    def label(split: Split) -> Split:
        grey = torch.tensor(split[0].mean(axis=1, keepdims=True))
        around = torch.nn.functional.avg_pool2d(grey, 9, 1, 4, count_include_pad=False)
        return split[0], (grey > around)[:, 0].numpy().astype(np.int64)

    train, test = pictures(32)
    return label(train), label(test)


def speech() -> tuple[Split, Split]:
    """Spoken digits as [1, 49, 10] logarithms of band energies; takes 0 to 4 are for testing."""
    file = np.load(data_directory() / "speech" / "spoken_digits.npz")
    pcm, offset = file["pcm"].astype(np.float32), file["offset"]
    edges = np.unique(np.geomspace(3, 128, 11).astype(int))
    rows = []
    for start, stop in pairwise(offset):
        sound = np.pad(pcm[start:stop], (0, max(0, 512 - (stop - start))))
        starts = np.linspace(0, len(sound) - 256, 49).astype(int)
        frames = sound[starts[:, None] + np.arange(256)] * np.hanning(256)
        power = np.abs(np.fft.rfft(frames)) ** 2
        bands = [power[:, a:b].mean(axis=1) for a, b in pairwise(edges)]
        rows.append(np.log(np.stack(bands, axis=1) + 1))
    x = np.stack(rows).astype(np.float32)[:, None]
    x = (x - x.mean()) / x.std()
    test = np.flatnonzero(file["take"] < 5)
    train = np.random.default_rng(0).permutation(np.flatnonzero(file["take"] >= 5))[:1000]
    return (x[train], file["digit"][train]), (x[test], file["digit"][test])


def gestures() -> tuple[Split, Split]:
    file = np.load(data_directory() / "gestures" / "basic_motions.npz")
    sides = []
    for side in ("train", "test"):
        x = file[f"x_{side}"].transpose(0, 2, 1) / file["x_train"].std()
        sides.append((x.astype(np.float32), file[f"y_{side}"]))
    return sides[0], sides[1]


NETWORKS: dict[str, Callable[[], tuple[Split, Split]]] = {
    "resnet8": lambda: pictures(32),
    "mobilenetv1_025": lambda: pictures(96),
    "se_net": lambda: pictures(32),
    "unet": outlines,
    "dscnn": speech,
    "tcn": gestures,
    "mcunet_5fps": lambda: pictures(128),
    "mbv2_w035": lambda: pictures(128),
    "proxyless_w03": lambda: pictures(128),
}
WEIGHTS = {
    "mcunet_5fps": "mcunet-5fps",
    "mbv2_w035": "mbv2-w0.35",
    "proxyless_w03": "proxyless-w0.3",
}


def train(model: torch.nn.Module, split: Split) -> None:
    """A few epochs of Adam, seeded."""
    torch.manual_seed(0)
    x, y = torch.tensor(split[0]), torch.tensor(split[1], dtype=torch.long)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    steps = max(EPOCHS, -(-240 // -(-len(x) // 16)))
    model.train()
    for _ in range(steps):
        for part in torch.randperm(len(x)).split(16):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
    model.eval()


def build(name: str, split: Split) -> tuple[Graph, Ports]:
    """The network, trained, after layout and folding."""
    if name in WEIGHTS:
        path = data_directory() / "models" / f"{WEIGHTS[name]}.safetensors"
        model, example = zoo.create(name, weights=path)
    else:
        options = {"num_classes": 10} if name == "mobilenetv1_025" else {}
        model, example = zoo.create(name, **options)
        train(model, split)
    graph, ports = arrange(frontend.load(model, example).graph)
    return fold(graph), ports


def outputs(graph: Graph, ports: Ports, x: np.ndarray) -> np.ndarray:
    (source,), (port,) = graph.inputs, ports.inputs
    results = [
        evaluate(graph, {source.name: port.to_program(x[i : i + 16])}).outputs[0]
        for i in range(0, len(x), 16)
    ]
    return ports.outputs[0].to_user(np.concatenate(results))


def shifted(x: np.ndarray) -> np.ndarray:
    """More contrast for pictures, more gain for other signals."""
    return np.clip(1.5 * x, -1, 1) if x.shape[1] == 3 else 1.3 * x


def noise(graph: Graph, ports: Ports, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Signal to noise in decibels against the outputs y, and the largest outputs."""
    z = outputs(graph, ports, x)
    return 10 * float(np.log10(np.sum(y**2) / np.sum((y - z) ** 2))), np.argmax(z, axis=1)


def measure(name: str, head: str) -> None:
    """Print one line a method."""
    learned, unseen = NETWORKS[name]()
    graph, ports = build(name, learned)
    calibration, x = learned[0][:CALIBRATION], unseen[0]
    strange = shifted(x[:64])
    y, y_strange = outputs(graph, ports, x), outputs(graph, ports, strange)
    best = np.argmax(y, axis=1)
    for method in RANGES:
        quantized, report = quantize(graph, ports, calibration, ranges=method, head=head)
        decibels, chosen = noise(verify(quantized), ports, x, y)
        decibels_strange, _ = noise(quantized, ports, strange, y_strange)
        right = (f"{100 * np.mean(c == unseen[1]):.1f}" for c in (best, chosen))
        accuracies = ["", ""] if name in WEIGHTS else right
        print(
            f"{name:16} {method:10} {decibels:6.1f} {100 * np.mean(best == chosen):10.1f} "
            f"{decibels_strange:8.1f} " + " ".join(f"{a:>8}" for a in accuracies)
            + f" {len(report.kept):6}",
            flush=True,
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="int8 against float32")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--head", default="float32", choices=("float32", "int8"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'network':16} {'ranges':10} {'SQNR':>6} {'agreement':>10} {'shifted':>8} {'float':>8} "
        f"{'int8':>8} {'kept':>6}"
    )
    for name in arguments.networks or NETWORKS:
        measure(name, arguments.head)


if __name__ == "__main__":
    main()
