"""The network of the demo: is there a face in these 25x25 grey pixels?"""

from torch import Tensor, nn

from kilograd.zoo.model import DepthwiseSeparable, ZooModel, conv_bn_relu


class FaceDetector(ZooModel):
    """Depthwise-separable CNN, not a face (0) or a face (1): [N, 1, 25, 25] -> [N, 2].

    Input `(brightness - 0.5) / 0.25` with brightness from 0 to 1. The trained network ships as
    `face_detector.onnx`, written by examples/face_detector/train.py.
    """

    def __init__(self) -> None:
        """The architecture is fixed: 6,210 parameters, 186,584 MACs."""
        super().__init__()
        self.input_shape = (1, 25, 25)
        self.first_conv = conv_bn_relu(1, 8, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(
            DepthwiseSeparable(8, 16),
            DepthwiseSeparable(16, 24, stride=2),
            DepthwiseSeparable(24, 40),
            DepthwiseSeparable(40, 80, stride=2),
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(80, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 1, 25, 25] to logits [N, 2]."""
        y: Tensor = self.classifier(self.pool(self.blocks(self.first_conv(x))))
        return y
