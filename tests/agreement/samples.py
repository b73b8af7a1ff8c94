"""Deterministic samples for a network and a loss, and the loss as PyTorch computes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from kilograd.ir import Origin

Sample = tuple[np.ndarray, Any]


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
