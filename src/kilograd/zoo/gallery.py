"""Networks that learn nothing worth learning: they hold the operators that the others lack, for
measurements of single operators.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from kilograd.zoo.model import ZooModel


class Functions(ZooModel):
    """Every elementwise function, on images [N, channels, resolution, resolution]."""

    def __init__(self, channels: int = 8, resolution: int = 8, num_classes: int = 4) -> None:
        """`channels` everywhere, the same resolution throughout."""
        super().__init__()
        self.input_shape = (3, resolution, resolution)
        self.first_conv = nn.Conv2d(3, channels, 3, padding=1)
        self.second_conv = nn.Conv2d(channels, channels, 1)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 3, H, W] to logits [N, num_classes]."""
        x = self.first_conv(x)
        positive = 1 + x * x
        y = functional.elu(x) + functional.leaky_relu(x) + functional.silu(x)
        y = y + torch.sigmoid(x) * torch.tanh(x) - functional.gelu(x)
        y = y + functional.hardswish(x) * functional.hardsigmoid(x) + torch.clamp(x, -1, 1)
        y = y + torch.abs(x) + torch.exp(-positive) + torch.log(positive) + torch.sqrt(positive)
        y = y + torch.rsqrt(positive) + x / positive + 1 / positive + torch.erf(x) + (-x) + x**3
        y = functional.relu6(self.second_conv(y))
        logits: Tensor = self.classifier(y.mean((2, 3)))
        return logits


class Shapes(ZooModel):
    """Norms, poolings, transposed convolutions and what moves bytes, on images."""

    def __init__(self, channels: int = 8, resolution: int = 8, num_classes: int = 4) -> None:
        """`channels` is a multiple of four, `resolution` of two."""
        super().__init__()
        self.input_shape = (3, resolution, resolution)
        self.enter_norm = nn.BatchNorm2d(3)
        self.first_conv = nn.Conv2d(3, channels, 3, padding=1)
        self.group_norm = nn.GroupNorm(4, channels)
        self.grouped = nn.Conv2d(channels, channels, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.up = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.layer_norm = nn.LayerNorm(channels)
        self.mix = nn.Linear(channels, channels)
        self.classifier = nn.Linear(7 * channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 3, H, W] to logits [N, num_classes]."""
        x = functional.relu(self.group_norm(self.first_conv(self.enter_norm(x))))
        x = self.up(functional.avg_pool2d(functional.relu(self.grouped(x)), 2))
        x = torch.sigmoid(self.depthwise(functional.max_pool2d(x, 3, stride=1, padding=1)))
        x = functional.interpolate(functional.max_pool2d(x, 2), scale_factor=2.0, mode="nearest")
        x = functional.pad(x, (1, 1, 1, 1))
        tokens = self.layer_norm(x.flatten(2).transpose(1, 2))
        weights = functional.softmax(tokens @ tokens.transpose(1, 2), dim=-1)
        mixed = functional.log_softmax(self.mix(weights @ tokens), dim=-1).mean(1)
        parts = [
            functional.adaptive_avg_pool2d(x, 1).flatten(1),
            functional.adaptive_max_pool2d(x, 1).flatten(1),
            functional.adaptive_avg_pool2d(x, (1, 3)).flatten(1),
            x.mean((2, 3)),
            mixed,
        ]
        logits: Tensor = self.classifier(torch.cat(parts, dim=1))
        return logits
