"""MobileNetV1 at a quarter of its width, the visual wake words network of MLPerf Tiny."""

from torch import Tensor, nn

from kilograd.zoo.model import DepthwiseSeparable, ZooModel, conv_bn_relu

# Output channels at width 1, stride: Howard et al., "MobileNets", 2017, table 1.
_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)


class MobileNetV1(ZooModel):
    """MLPerf Tiny visual wake words: [N, 3, 96, 96] -> [N, 2], person or not.

    Source: mlcommons/tiny, benchmark/training/visual_wake_words/vww_model.py. ReLU, not ReLU6. At
    width 0.25: 7.49 M MACs. Padding of the strided convolutions is symmetric here, where Keras pads
    only at the end.
    """

    def __init__(self, num_classes: int = 2, width: float = 0.25, resolution: int = 96) -> None:
        """`width` scales every number of channels; `resolution` is a multiple of 32."""
        super().__init__()
        self.input_shape = (3, resolution, resolution)
        channels = int(32 * width)
        self.first_conv = conv_bn_relu(3, channels, 3, stride=2, padding=1, bias=True)
        blocks: list[nn.Module] = []
        for full_width, stride in _BLOCKS:
            out_channels = int(full_width * width)
            blocks.append(DepthwiseSeparable(channels, out_channels, stride, bias=True))
            channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 3, resolution, resolution] to logits [N, num_classes]."""
        y: Tensor = self.classifier(self.pool(self.blocks(self.first_conv(x))))
        return y
