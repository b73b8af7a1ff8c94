"""A small U-Net: concatenation of skips and nearest-neighbour up-sampling."""

import torch
from torch import Tensor, nn

from kilograd.zoo.model import ZooModel, conv_bn_relu


class UNet(ZooModel):
    """Values for every pixel, for a squared or logistic loss: [N, 3, 32, 32] -> [N, 2, 32, 32].

    Ronneberger et al., "U-Net", 2015, with two levels, one padded convolution where the paper
    has two, batch norm, and nearest up-sampling in place of transposed convolution::

        enter ------------------------ concat - leave0 - classifier
          pool - down0 ------ concat - leave1 - up
                   pool - down1 - up
    """

    def __init__(self, num_classes: int = 2, width: int = 8, resolution: int = 32) -> None:
        """`width` channels at full resolution, doubled at each halving."""
        super().__init__()
        self.input_shape = (3, resolution, resolution)
        self.enter = conv_bn_relu(3, width, 3, padding=1)
        self.down0 = conv_bn_relu(width, 2 * width, 3, padding=1)
        self.down1 = conv_bn_relu(2 * width, 4 * width, 3, padding=1)
        self.leave1 = conv_bn_relu(6 * width, 2 * width, 3, padding=1)
        self.leave0 = conv_bn_relu(3 * width, width, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 3, H, W], H and W multiples of four, to logits [N, num_classes, H, W]."""
        full = self.enter(x)
        half = self.down0(self.pool(full))
        quarter = self.down1(self.pool(half))
        half = self.leave1(torch.cat([half, self.up(quarter)], dim=1))
        full = self.leave0(torch.cat([full, self.up(half)], dim=1))
        y: Tensor = self.classifier(full)
        return y
