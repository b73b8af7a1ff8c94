"""Networks of linear layers: a multilayer perceptron and the MLPerf Tiny autoencoder."""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from kilograd.zoo.model import ZooModel


class MLP(ZooModel):
    """Multilayer perceptron with ReLU for scikit-learn's 8x8 digits: [N, 64] -> [N, 10]."""

    def __init__(
        self, num_inputs: int = 64, hidden: Sequence[int] = (32, 16), num_classes: int = 10
    ) -> None:
        """`num_inputs` features, a hidden layer for each of `hidden`, `num_classes` logits."""
        super().__init__()
        self.input_shape = (num_inputs,)
        widths = [num_inputs, *hidden]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, num_inputs] to logits [N, num_classes]."""
        y: Tensor = self.classifier(self.hidden(x))
        return y


class Autoencoder(ZooModel):
    """MLPerf Tiny anomaly detection: 640 - 4 x 128 - 8 - 4 x 128 - 640, for a squared error.

    Batch norm and ReLU after every layer but the last, the bottleneck included. Source:
    mlcommons/tiny, benchmark/training/anomaly_detection/keras_model.py: 267,928 trained parameters,
    264,192 MACs.
    """

    def __init__(self, num_inputs: int = 640, width: int = 128, bottleneck: int = 8) -> None:
        """`num_inputs` features in and out, hidden layers of `width`, a code of `bottleneck`."""
        super().__init__()
        self.input_shape = (num_inputs,)
        self.encoder = nn.Sequential(
            _linear_bn_relu(num_inputs, width),
            *(_linear_bn_relu(width, width) for _ in range(3)),
            _linear_bn_relu(width, bottleneck),
        )
        self.decoder = nn.Sequential(
            _linear_bn_relu(bottleneck, width),
            *(_linear_bn_relu(width, width) for _ in range(3)),
            nn.Linear(width, num_inputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, num_inputs] to its reconstruction, of the same shape."""
        y: Tensor = self.decoder(self.encoder(x))
        return y


def _linear_bn_relu(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU())
