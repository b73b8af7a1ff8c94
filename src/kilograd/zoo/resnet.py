"""ResNet-8, the image classification network of MLPerf Tiny, and ResNet-18 for CIFAR."""

from torch import Tensor, nn

from kilograd.zoo.model import ZooModel, conv_bn_relu


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and a residual sum; a 1x1 convolution on the skip where shapes differ.

    He et al., "Deep residual learning for image recognition", 2016, figure 2; as in the MLPerf Tiny
    code, the skip convolution has no batch norm.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(in_channels, out_channels, 3, stride=stride, padding=1, bias=True)
        self.conv2 = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels)
        )
        same_shape = stride == 1 and in_channels == out_channels
        self.skip = (
            nn.Identity() if same_shape else nn.Conv2d(in_channels, out_channels, 1, stride=stride)
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        y: Tensor = self.activation(self.skip(x) + self.conv2(self.conv1(x)))
        return y


class ResNet8(ZooModel):
    """MLPerf Tiny image classification on CIFAR-10: [N, 3, 32, 32] -> [N, num_classes].

    Source: mlcommons/tiny, benchmark/training/image_classification/keras_model.py with 16 filters:
    78,186 trained parameters, 12.5 M MACs. Padding of the strided convolutions is symmetric here,
    where Keras pads only at the end.
    """

    def __init__(self, num_classes: int = 10, width: int = 16) -> None:
        """`width` channels in the first block, doubled in each of the next two."""
        super().__init__()
        self.input_shape = (3, 32, 32)
        self.first_conv = conv_bn_relu(3, width, 3, padding=1, bias=True)
        self.blocks = nn.Sequential(
            _BasicBlock(width, width, 1),
            _BasicBlock(width, 2 * width, 2),
            _BasicBlock(2 * width, 4 * width, 2),
        )
        self.pool = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())
        self.classifier = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 3, 32, 32] to logits [N, num_classes]."""
        y: Tensor = self.classifier(self.pool(self.blocks(self.first_conv(x))))
        return y


class _NormedBlock(nn.Module):
    """A basic block as in He et al.: no biases, and a batch norm on the skip, too."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(in_channels, out_channels, 3, stride=stride, padding=1)
        self.conv2 = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.skip = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        y: Tensor = self.activation(self.skip(x) + self.conv2(self.conv1(x)))
        return y


class ResNet18(ZooModel):
    """ResNet-18 on CIFAR: [N, 3, resolution, resolution] -> [N, num_classes].

    He et al., "Deep residual learning for image recognition", 2016, table 1, with the first layer
    that small pictures take: a 3x3 convolution of stride 1 and no pool. 11.2 M parameters, 556 M
    MACs.
    """

    def __init__(self, num_classes: int = 10, width: int = 64, resolution: int = 32) -> None:
        """`width` channels in the first stage, doubled in each of the next three."""
        super().__init__()
        self.input_shape = (3, resolution, resolution)
        self.first_conv = conv_bn_relu(3, width, 3, padding=1)
        blocks: list[nn.Module] = []
        channels = width
        for stage in range(4):
            for index in range(2):
                wanted = width << stage
                blocks.append(_NormedBlock(channels, wanted, 2 if stage and not index else 1))
                channels = wanted
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 3, resolution, resolution] to logits [N, num_classes]."""
        y: Tensor = self.classifier(self.pool(self.blocks(self.first_conv(x))))
        return y
