"""LeNet-5, the first convolutional network that many people meet."""

from typing import Literal

from torch import Tensor, nn

from kilograd.errors import InputError
from kilograd.zoo.model import ZooModel


class LeNet5(ZooModel):
    """LeNet-5 on grey images: [N, 1, 28, 28] -> [N, 10].

    LeCun et al., "Gradient-based learning applied to document recognition", 1998, in its usual
    form: 61,706 parameters, 28x28 padded to the 32x32 of the paper, no partial connection table and
    no radial basis output. The default has ReLU and max pooling; `activation="tanh",
    pooling="average"` is closest to the paper.
    """

    def __init__(
        self,
        num_classes: int = 10,
        activation: Literal["relu", "tanh"] = "relu",
        pooling: Literal["max", "average"] = "max",
    ) -> None:
        """`activation` and `pooling` hold for the whole network."""
        super().__init__()
        self.input_shape = (1, 28, 28)
        if activation not in ("relu", "tanh") or pooling not in ("max", "average"):
            raise InputError(
                f"LeNet5(activation={activation!r}, pooling={pooling!r}): activation is 'relu' or "
                "'tanh', pooling is 'max' or 'average'"
            )
        function = nn.ReLU if activation == "relu" else nn.Tanh
        pool: nn.Module = nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2)
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            function(),
            pool,
            nn.Conv2d(6, 16, 5),
            function(),
            pool,
        )
        self.hidden = nn.Sequential(
            nn.Flatten(), nn.Linear(400, 120), function(), nn.Linear(120, 84), function()
        )
        self.classifier = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 1, 28, 28] to logits [N, num_classes]."""
        y: Tensor = self.classifier(self.hidden(self.features(x)))
        return y
