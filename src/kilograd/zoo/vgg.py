"""VGG16 for CIFAR pictures."""

from torch import Tensor, nn

from kilograd.zoo.model import ZooModel, conv_bn_relu

_STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""Width of a stage in units of the first, and its number of convolutions (configuration D)."""


class VGG16(ZooModel):
    """VGG16 with batch norm on CIFAR: [N, 3, resolution, resolution] -> [N, num_classes].

    Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition",
    2015, table 1, column D, with the batch norm of Ioffe and Szegedy (2015). The five pools leave
    one pixel of a 32x32 picture, so the classifier is two linear layers of the last width in place
    of the 4096-wide ones that ImageNet has: 15.0 M parameters, 313 M MACs.
    """

    def __init__(self, num_classes: int = 10, width: int = 64, resolution: int = 32) -> None:
        """`width` channels in the first stage, up to eight times as many in the last two."""
        super().__init__()
        self.input_shape = (3, resolution, resolution)
        stages: list[nn.Module] = []
        channels = 3
        for factor, count in _STAGES:
            for _ in range(count):
                stages.append(conv_bn_relu(channels, factor * width, 3, padding=1))
                channels = factor * width
            stages.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*stages, nn.Flatten())
        self.classifier = nn.Sequential(
            nn.Linear(channels * (resolution // 32) ** 2, channels),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(channels, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 3, resolution, resolution] to logits [N, num_classes]."""
        y: Tensor = self.classifier(self.features(x))
        return y
