"""DS-CNN, the keyword spotting network of MLPerf Tiny."""

from torch import Tensor, nn

from kilograd.zoo.model import DepthwiseSeparable, ZooModel, conv_bn_relu


class DSCNN(ZooModel):
    """MLPerf Tiny keyword spotting, 49 frames of 10 coefficients: [N, 1, 49, 10] -> [N, 12].

    Zhang et al., "Hello Edge: keyword spotting on microcontrollers", 2017, small variant, in the
    form of mlcommons/tiny, benchmark/training/keyword_spotting/keras_model.py: 2.66 M MACs, dropout
    of 0.2 and 0.4. The first convolution pads five frames on both sides, where Keras pads 4 and 5.
    """

    def __init__(self, num_classes: int = 12, width: int = 64) -> None:
        """`width` channels everywhere."""
        super().__init__()
        self.input_shape = (1, 49, 10)
        self.first_conv = conv_bn_relu(1, width, (10, 4), stride=2, padding=(5, 1), bias=True)
        self.first_dropout = nn.Dropout(0.2)
        self.blocks = nn.Sequential(
            *(DepthwiseSeparable(width, width, bias=True) for _ in range(4))
        )
        self.last_dropout = nn.Dropout(0.4)
        self.pool = nn.Sequential(nn.AvgPool2d((25, 5)), nn.Flatten())
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 1, 49, 10] to logits [N, num_classes]."""
        features = self.blocks(self.first_dropout(self.first_conv(x)))
        y: Tensor = self.classifier(self.pool(self.last_dropout(features)))
        return y
