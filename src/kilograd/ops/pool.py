"""The pooling operators under one name; global average pooling is `Reduce((1, 2), mean=True)`."""

from kilograd.ops.avg_pool import (
    AdaptiveAvgPool2d,
    AdaptiveAvgPool2dGrad,
    AvgPool2d,
    AvgPool2dGrad,
)
from kilograd.ops.max_pool import (
    AdaptiveMaxPool2d,
    AdaptiveMaxPool2dGrad,
    MaxPool2d,
    MaxPool2dGrad,
)

__all__ = [
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool2dGrad",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool2dGrad",
    "AvgPool2d",
    "AvgPool2dGrad",
    "MaxPool2d",
    "MaxPool2dGrad",
]
