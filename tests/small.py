"""Small hand-made graphs for tests of single stages."""

from __future__ import annotations

import numpy as np

from kilograd.ir import Builder, Graph, Location, Origin, Permute, f32
from kilograd.ops.linear import Linear
from kilograd.ops.unary import Relu


def mlp(sizes: tuple[int, ...] = (6, 5, 4, 3), seed: int = 0) -> Graph:
    """Linear layers `fc0`, `fc1`, ... with ReLU between them."""
    rng = np.random.default_rng(seed)
    builder = Builder()
    value = builder.input("x", f32(1, sizes[0]))
    for index in range(len(sizes) - 1):
        name = f"fc{index}"
        weight = rng.standard_normal((sizes[index], sizes[index + 1])).astype(np.float32)
        bias = rng.standard_normal(sizes[index + 1]).astype(np.float32)
        with builder.at(Location(name, f"model.py:{index}")):
            value = builder.add(
                Linear(),
                value,
                builder.constant(
                    f"{name}.weight", weight, Origin(f"{name}.weight", (Permute((1, 0)),))
                ),
                builder.constant(f"{name}.bias", bias, Origin(f"{name}.bias")),
                name=name,
            )
            if index < len(sizes) - 2:
                value = builder.add(Relu(), value, name=f"relu{index}")
    return builder.finish([value])
