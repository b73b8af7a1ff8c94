"""The networks that every promise is tested on, their losses and what to train of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kilograd import Device
from kilograd.update import SpecLike, channels, full


def data_folder() -> Path:
    return Path(os.environ.get("KILOGRAD_DATA", Path(__file__).parents[3] / "shared/data"))


@dataclass(frozen=True, eq=False)
class Network:
    """A zoo network as the tests use it; `options` go to its constructor."""

    name: str
    loss: str = "cross_entropy"
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        marks = [self.options[key] for key in ("resolution", "attention") if key in self.options]
        return "-".join([self.name, *map(str, marks)])

    def build(self) -> tuple[Any, Any]:
        from kilograd import zoo

        options = dict(self.options)
        if "weights" in options:
            options["weights"] = data_folder() / options["weights"]
        return zoo.create(self.name, **options)


NARROW = [
    Network("vgg16", options={"width": 4}),
    Network("resnet18", options={"width": 4}),
    Network(
        "bert", options={"width": 16, "heads": 4, "vocabulary": 50, "sequence": 9, "hidden": 24}
    ),
]
"""Networks that are too large for the tests as they are; `make bench` runs them in full."""

NETWORKS = [
    Network("mlp"),
    Network("lenet"),
    Network("resnet8"),
    Network("mobilenetv1_025", options={"resolution": 64}),
    Network("mbv2_w035", options={"resolution": 64}),
    Network("dscnn"),
    Network("autoencoder", "autoencoder"),
    Network("unet", "bce_with_logits"),
    Network("tcn"),
    Network("se_net"),
    Network(
        "mcunet_5fps",
        options={"resolution": 64, "weights": "models/mcunet-5fps.safetensors", "num_classes": 10},
    ),
    *NARROW,
]

BIG_M7 = Device(
    name="big-m7",
    title="a Cortex-M7 with memory enough for every network in full",
    cpu="cortex-m7",
    fpu="single",
    clock_hz=216_000_000,
    sram_base=0x20000000,
    sram_bytes=16 * 1024 * 1024,
    flash_base=0x08000000,
    flash_bytes=16 * 1024 * 1024,
)


def random_spec(names: list[tuple[str, bool, bool]], seed: int) -> SpecLike:
    """A random mixture over (parameter name, is bias, can be split)."""
    rng = np.random.default_rng(seed)
    spec: dict[str, Any] = {}
    for name, is_bias, splits in names:
        draw = rng.random()
        if draw < (0.5 if is_bias else 0.2):
            spec[name] = full()
        elif draw < 0.4 and splits:
            spec[name] = channels(float(rng.choice([0.125, 0.25, 0.5])))
    return spec or {names[-1][0]: full()}
