"""A temporal convolutional network for motion sensors: 1-D convolutions with growing dilation."""

from torch import Tensor, nn

from kilograd.zoo.model import ZooModel


class _DilatedBlock(nn.Module):
    """Dilated 1-D convolution, batch norm, ReLU, and a residual sum where the widths agree."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, dilation: int
    ) -> None:
        super().__init__()
        padding = dilation * (kernel_size - 1) // 2
        self.conv = nn.Conv1d(
            in_channels,
            out_channels,
            kernel_size,
            padding=padding,
            dilation=dilation,
            bias=False,
        )
        self.norm = nn.BatchNorm1d(out_channels)
        self.activation = nn.ReLU()
        self.residual = in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, steps] to [N, out_channels, steps]."""
        y: Tensor = self.activation(self.norm(self.conv(x)))
        return x + y if self.residual else y


class TCN(ZooModel):
    """Activity from six motion axes over 100 time steps: [N, 6, 100] -> [N, 4].

    Bai et al., "An empirical evaluation of generic convolutional and recurrent networks for
    sequence modeling", 2018, with one convolution a block and centred, not causal, padding: the
    whole window is there when it is classified. Dilations 1, 2, 4, 8 see 61 steps.
    """

    def __init__(self, num_axes: int = 6, num_steps: int = 100, num_classes: int = 4) -> None:
        """`num_steps` only shapes the example input: the mean over time takes any length."""
        super().__init__()
        self.input_shape = (num_axes, num_steps)
        widths = (num_axes, 16, 16, 32, 32)
        self.blocks = nn.Sequential(
            *(
                _DilatedBlock(widths[i], widths[i + 1], kernel_size=5, dilation=2**i)
                for i in range(4)
            )
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, num_axes, num_steps] to logits [N, num_classes]."""
        y: Tensor = self.classifier(self.pool(self.blocks(x)))
        return y
