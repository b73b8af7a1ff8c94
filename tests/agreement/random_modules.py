"""Random small networks in PyTorch: a list of steps, each of which reads any earlier value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as f

Draw = Callable[[st.SearchStrategy[Any]], Any]
Shape = tuple[int, int, int]
MAX_ELEMENTS = 1500


@dataclass(frozen=True)
class Step:
    """One value: `layer` applied to earlier values by index."""

    layer: nn.Module
    sources: tuple[int, ...]
    shape: Shape


class Call(nn.Module):
    """A function of tensors as a module; its name is what a failing example shows."""

    def __init__(self, name: str, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def forward(self, *x: Tensor) -> Tensor:
        return self.function(*x)

    def extra_repr(self) -> str:
        return self.name


class RandomNet(nn.Module):
    """[1, C, H, W] -> [1, 3]: the steps, then a linear layer on the last value."""

    def __init__(self, shape: Shape, steps: list[Step]) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.ModuleList(step.layer for step in steps)
        self.sources = [step.sources for step in steps]
        c, h, w = steps[-1].shape
        self.fc = nn.Linear(c * h * w, 3)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for layer, sources in zip(self.layers, self.sources, strict=True):
            values.append(layer(*(values[i] for i in sources)))
        return self.fc(torch.flatten(values[-1], 1))

    def __repr__(self) -> str:
        steps = zip(self.layers, self.sources, strict=True)
        lines = [f"  {i + 1}: {layer} of {sources}" for i, (layer, sources) in enumerate(steps)]
        return "\n".join([f"RandomNet {self.shape}", *lines])


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": f.relu, "relu6": lambda x: f.relu6(4 * x), "sigmoid": torch.sigmoid,
    "hardswish": f.hardswish,
}  # fmt: skip


def unary(draw: Draw, shape: Shape) -> tuple[nn.Module, Shape]:
    """A step of one source, and the shape that it makes of `shape`."""
    c, h, w = shape
    kind = draw(st.sampled_from(
        ["conv", "conv", "depthwise", *ACTIVATIONS, "pool", "pool", "upsample", "flatten"]
    ))  # fmt: skip
    if kind == "conv":
        out, kernel, stride = draw(st.integers(1, 5)), draw(st.sampled_from([1, 3])), 1
        if min(h, w) > 2:
            stride = draw(st.sampled_from([1, 1, 2]))
        conv = nn.Conv2d(c, out, kernel, stride, kernel // 2, bias=draw(st.booleans()))
        layer = nn.Sequential(conv, nn.BatchNorm2d(out)) if draw(st.booleans()) else conv
        return layer, (out, (h - 1) // stride + 1, (w - 1) // stride + 1)
    if kind == "depthwise":
        kernel = draw(st.sampled_from([3, 5]))
        return nn.Conv2d(c, c, kernel, padding=kernel // 2, groups=c), shape
    if kind == "pool" and min(h, w) > 1:
        pool = draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))
        return pool(2), (c, h // 2, w // 2)
    if kind == "upsample":
        return nn.Upsample(scale_factor=2), (c, 2 * h, 2 * w)
    if kind == "flatten":
        out = draw(st.integers(1, 6))
        layers = nn.Sequential(
            nn.Flatten(1), nn.Linear(c * h * w, out), nn.Unflatten(1, (out, 1, 1))
        )
        return layers, (out, 1, 1)
    kind = kind if kind in ACTIVATIONS else "relu"
    return Call(kind, ACTIVATIONS[kind]), shape


def binary(draw: Draw, steps: list[tuple[int, Shape]]) -> tuple[Call, tuple[int, int], Shape]:
    """Two earlier values added, multiplied, gated or concatenated."""
    (i, a), (j, b) = draw(st.sampled_from(steps)), draw(st.sampled_from(steps))
    if a == b:
        kind = draw(st.sampled_from(["add", "mul", "concat", "relu_add"]))
        if kind == "concat":
            return Call("concat", lambda x, y: torch.cat([x, y], 1)), (i, j), (2 * a[0], *a[1:])
        # The sum reads x after the activation that could have run in place over it.
        functions = {
            "add": torch.add, "mul": lambda x, y: x * torch.sigmoid(y),
            "relu_add": lambda x, y: x + f.relu(y),
        }  # fmt: skip
        return Call(kind, functions[kind]), (i, j), a
    if a[1:] == b[1:]:
        return Call("concat", lambda x, y: torch.cat([x, y], 1)), (i, j), (a[0] + b[0], *a[1:])
    if a[0] == b[0]:
        gate = Call("gate", lambda x, y: x * torch.sigmoid(y.mean((2, 3), keepdim=True)))
        return gate, (i, j), a
    return Call("relu_add", lambda x, _: x + f.relu(x)), (i, i), a


@st.composite
def random_nets(draw: Draw) -> RandomNet:
    """A network whose parameters depend on a drawn seed."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(4, 7)), draw(st.integers(4, 7)))
    torch.manual_seed(draw(st.integers(0, 9)))
    values = [shape]
    steps = []
    for _ in range(draw(st.integers(2, 8))):
        recent = list(enumerate(values))[-4:]
        if len(values) > 1 and draw(st.integers(0, 2)) == 0:
            layer, sources, result = binary(draw, recent)
        else:
            index, source = draw(st.sampled_from(recent[-2:]))
            layer, result = unary(draw, source)
            sources = (index,)
        if result[0] * result[1] * result[2] <= MAX_ELEMENTS:
            steps.append(Step(layer, sources, result))
            values.append(result)
    steps = steps or [Step(Call("relu", f.relu), (0,), shape)]
    net = RandomNet(shape, steps)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net.eval()
