"""What every network of the zoo has in common: it knows the shape of its input."""

from torch import Tensor, nn


class ZooModel(nn.Module):
    """A network that states the shape of one sample it takes, without the batch dimension, and, if
    it takes token ids, how many there are.
    """

    input_shape: tuple[int, ...]
    vocabulary: int | None = None


def conv_bn_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    groups: int = 1,
    bias: bool = False,
) -> nn.Sequential:
    """Convolution, batch norm and ReLU, the unit most networks here are made of."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            groups=groups,
            bias=bias,
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class DepthwiseSeparable(nn.Module):
    """3x3 depthwise then 1x1 pointwise convolution, each with batch norm and ReLU.

    Howard et al., "MobileNets", 2017, figure 3. With `bias`, convolutions carry one beside the
    batch norm, as in the MLPerf Tiny reference code.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, bias: bool = False
    ) -> None:
        """`stride` is the depthwise convolution's."""
        super().__init__()
        self.depthwise = conv_bn_relu(
            in_channels, in_channels, 3, stride=stride, padding=1, groups=in_channels, bias=bias
        )
        self.pointwise = conv_bn_relu(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        y: Tensor = self.pointwise(self.depthwise(x))
        return y
