"""Deterministic samples for a network and a loss, and the loss as PyTorch computes it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from kilograd.ir import Origin

Sample = tuple[np.ndarray, Any]
CANDIDATES = 8
"""Samples among which `smooth_sample` chooses."""


def draw_input(model: Any, example: Any, rng: np.random.Generator) -> np.ndarray:
    """An input like the example: real numbers, or ids of the model's vocabulary."""
    if example.dtype == torch.int64:
        return rng.integers(0, model.vocabulary, tuple(example.shape))
    return rng.standard_normal(example.shape).astype(np.float32)


def draw_sample(loss: str, model: Any, example: Any, index: int) -> Sample:
    """The `index`-th sample in the user's layout, and what `Session.train_step` takes as target."""
    rng = np.random.default_rng(index)
    x = draw_input(model, example, rng)
    if loss == "autoencoder":
        return x, None
    if loss == "cross_entropy":
        return x, int(rng.integers(0, 2))
    with torch.no_grad():
        shape = model(torch.from_numpy(x)).shape
    return x, rng.random(shape).astype(np.float32)


def smooth_sample(loss: str, model: Any, example: Any) -> Sample:
    """The sample, of a few, that keeps furthest from the kinks of the network's activations.

    A gradient jumps where a ReLU's input crosses zero. Two correct programs whose sums round
    differently may stand on two sides of a kink if a number falls within rounding of one, so
    gradients are compared where none does.
    """

    def distance(index: int) -> float:
        x, _ = draw_sample(loss, model, example, index)
        with torch.no_grad(), _Kinks() as kinks:
            model(torch.from_numpy(x))
        return kinks.distance

    return draw_sample(loss, model, example, max(range(CANDIDATES), key=distance))


class _Kinks(TorchDispatchMode):
    """Measures how near the inputs of piecewise activations come to a kink, relative to the largest
    of them. Exact zeros are the same in every program and do not count.
    """

    PLACES: ClassVar[dict[str, tuple[float, ...]]] = {
        "relu": (0,), "leaky_relu": (0,), "elu": (0,), "hardtanh": (0, 6), "clamp": (0, 6),
        "hardswish": (-3, 3), "hardsigmoid": (-3, 3),
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.distance = math.inf

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::").removesuffix("_")
        if name in self.PLACES:
            x = args[0].double()
            for place in self.PLACES[name]:
                gaps = (x[x != 0] - place).abs() / x.abs().max()
                if gaps.numel():
                    self.distance = min(self.distance, gaps.min().item())
        return func(*args, **(kwargs or {}))


def torch_loss(loss: str, output: torch.Tensor, y: Any, x: np.ndarray) -> torch.Tensor:
    """The loss of one sample."""
    if loss == "cross_entropy":
        return functional.cross_entropy(output, torch.tensor([y]))
    target = torch.from_numpy(x if loss == "autoencoder" else y).to(output.dtype)
    if loss == "bce_with_logits":
        return functional.binary_cross_entropy_with_logits(output, target)
    return functional.mse_loss(output, target)


def folded_gradient(origin: Origin, gradient: np.ndarray) -> np.ndarray:
    """dL/d(the folded tensor) from dL/d(the user's parameter): divided by the scale of each affine
    step.
    """
    zero = np.zeros_like(gradient)
    offset = origin.to_program(zero)
    scale = origin.to_program(np.ones_like(gradient)) - offset
    layout = Origin(
        origin.name, tuple(s for s in origin.steps if not hasattr(s, "scale")), origin.part
    )
    return layout.to_program(gradient) / scale
