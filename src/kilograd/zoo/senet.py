"""Squeeze-and-excite with hard-swish and hard-sigmoid: two MobileNetV3 blocks."""

from torch import Tensor, nn

from kilograd.zoo.model import ZooModel


class _SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the mean of every channel.

    Hu et al., "Squeeze-and-excitation networks", 2018, with the hard sigmoid of MobileNetV3.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, channels // reduction, 1)
        self.activation = nn.ReLU()
        self.expand = nn.Conv2d(channels // reduction, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape."""
        scale = self.gate(self.expand(self.activation(self.reduce(self.squeeze(x)))))
        y: Tensor = x * scale
        return y


class _MobileNetV3Block(nn.Module):
    """Expand, depthwise, squeeze-and-excite, project, with a residual sum where shapes agree.

    Howard et al., "Searching for MobileNetV3", 2019, figure 4.
    """

    def __init__(
        self, in_channels: int, expanded: int, out_channels: int, kernel_size: int, stride: int
    ) -> None:
        super().__init__()
        self.expand = nn.Sequential(
            nn.Conv2d(in_channels, expanded, 1, bias=False),
            nn.BatchNorm2d(expanded),
            nn.Hardswish(),
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(
                expanded,
                expanded,
                kernel_size,
                stride=stride,
                padding=kernel_size // 2,
                groups=expanded,
                bias=False,
            ),
            nn.BatchNorm2d(expanded),
            nn.Hardswish(),
        )
        self.excite = _SqueezeExcite(expanded)
        self.project = nn.Sequential(
            nn.Conv2d(expanded, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        y: Tensor = self.project(self.excite(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class SENet(ZooModel):
    """Two MobileNetV3 blocks, one strided and one residual: [N, 3, 32, 32] -> [N, num_classes]."""

    def __init__(self, num_classes: int = 10, width: int = 8, resolution: int = 32) -> None:
        """`width` channels after the first convolution, twice as many in the blocks."""
        super().__init__()
        self.input_shape = (3, resolution, resolution)
        self.first_conv = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.Hardswish(),
        )
        self.blocks = nn.Sequential(
            _MobileNetV3Block(width, 3 * width, 2 * width, kernel_size=3, stride=2),
            _MobileNetV3Block(2 * width, 6 * width, 2 * width, kernel_size=5, stride=1),
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(2 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 3, resolution, resolution] to logits [N, num_classes]."""
        y: Tensor = self.classifier(self.pool(self.blocks(self.first_conv(x))))
        return y
